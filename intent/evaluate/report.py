"""Render the results of a sweep as one HTML page, as Markdown and as Parquet.

The page has no scripts and loads nothing. All data in it is escaped. This module knows results (one plain mapping per row, see
`results.py`) and their sources. It does not know how they were measured.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from intent.evaluate import paper
from intent.evaluate.mistakes import mistakes_of
from intent.evaluate.plots import Point, tradeoff
from intent.evaluate.results import HOSTED, Sources
from intent.evaluate.tables import Cell, Share, Table, escape_markdown
from intent.html import render

REPORT, MARKDOWN, PARQUET, CONFUSION = "report.html", "report.md", "results.parquet", "confusion.parquet"
COLUMNS = (
    *("variant", "exact", "95 %", "loses", "agrees", "KL", "same choice", "messages/s", "tokens/s", "p50", "p95", "load"),
    *("peak memory", "VRAM", "on disk", "$ per million", "J a message", "ECE", "kept at 99 %"),
)
SUMMARY = (
    *("variant", "exact", "agrees", "KL", "same choice", "messages/s", "peak memory", "on disk", "ECE", "kept at 99 %"),
    "$ per million",
)
EXPLAINED = (
    "Exact match: the share with every slot right; 95 %: its bootstrap interval. Loses: exact match lost against the "
    "unquantized reference on the same messages. Agrees: the share labeled as the reference labels it. KL: the KL divergence "
    "from the unquantized model, in nats per decision, over the tokens that are allowed there. Same choice: the share of "
    "decisions at which both models prefer the same token. Both models walk the right answers of at most 500 messages. ECE: "
    "expected calibration error of the whole answer's confidence. Kept at 99 %: the largest share of answers, most confident "
    "first, of which 99 % are right. p50 and p95: latency of a message alone. Peak memory: of the process, including the "
    "Python runtime and mapped weights."
)
NONE_EXPLAINED = (
    "Precision: of the messages answered none, the share that mean it. Recall: of the messages that mean none, the share "
    "answered none, over all and by phenomenon. Wrong: of the messages with the phenomenon that mean something, the share "
    "answered none."
)
SCOPE_EXPLAINED = (
    "In scope: of the messages that mean one of the labels, the share answered right; macro F1: the mean F1 of these labels. "
    "Out-of-scope recall: of the messages that mean none, the share answered none; precision: of the messages answered none, "
    "the share that mean none. Below: answers with a lower confidence count as none. It is the highest confidence at which the "
    "requested share of the in-scope validation messages is still answered right; engine.abstain_below= leaves such answers "
    "empty."
)
KINDS = {"base": "before fine-tuning", "reference": "unquantized", "gptq": "GPTQ", "gguf": "GGUF", HOSTED: "hosted model"}
KINDS |= {
    "svm": "linear SVM, no language model",
    "embedding": "logistic regression on embeddings",
    "cascade": "the SVM if it is confident, else a language model",
}
# A machine's own services use at most this share of its CPUs.
ALONE = 0.05

Results = Mapping[str, Mapping]


def write_report(folder: Path, results: Results, selected: Results, sources: Sources) -> None:
    """Write REPORT, MARKDOWN, PARQUET and CONFUSION to `folder`.

    `results`: by row name, see `results_of`. `selected`: by model of processor, each the fields of a `Selected`.
    """
    (folder / REPORT).write_text(render_html(results, selected, sources), encoding="utf-8")
    (folder / MARKDOWN).write_text(render_markdown(results, selected, sources), encoding="utf-8")
    pq.write_table(numbers(results), folder / PARQUET, compression="zstd")
    pq.write_table(confusions(results), folder / CONFUSION, compression="zstd")


def crowded(results: Results) -> str:
    """Return a sentence with the rows that other processes slowed down; "" if there are none."""
    shares = [(name, r.get("others") or 0.0) for name, r in _measured(results).items()]
    names = ", ".join(f"{name} ({share:.0%})" for name, share in shares if share > ALONE)
    return f"Slower than they can be, because other processes used the CPUs too (their share): {names}." if names else ""


def render_text(results: Results) -> str:
    """Return the most important figures as a table for a terminal."""
    indices = [COLUMNS.index(name) for name in SUMMARY]
    rows = [row if len(row) == 2 else [row[i] for i in indices] for row in trade_off(results).rows]
    labels = "\n" + _scope(measured).text() if (measured := _of_labels(results)) else ""
    return "\n".join(part for part in (Table(SUMMARY, rows).text(), labels, crowded(results)) if part)


def render_markdown(results: Results, selected: Results, sources: Sources) -> str:
    """Return the report's tables as Markdown. Arguments as of `write_report`."""
    title, parts = _title(results, sources), [escape_markdown(_how(results, sources))]
    for heading, note, table in _tables(results, selected, sources):
        parts.append(f"## {heading}\n\n{escape_markdown(note)}\n\n{table.markdown()}")
    return f"# {title}\n\n" + "\n\n".join(parts) + "\n"


def render_html(results: Results, selected: Results, sources: Sources) -> str:
    """Return the whole report as an HTML page. Arguments as of `write_report`."""
    measured = _measured(results)
    return render(
        "evaluate/report.html.j2",
        heading=_title(results, sources),
        how=_how(results, sources),
        tables=list(_tables(results, selected, sources)),
        kinds={kind: KINDS[kind] for kind in (result["engine"] for result in measured.values())},
        plots=list(_plots(measured)),
        mistakes=[table for name in _telling(measured, selected) for table in mistakes_of(name, measured[name])],
        messages=len(sources.examples),
        card=sources.card,
    )


def numbers(results: Results) -> pa.Table:
    """Return one row per result. Nested figures become columns with dotted names ("score.languages.en"); lists are left out."""
    rows = [{"row": name} | dict(_flat(result)) for name, result in results.items()]
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in names})


def confusions(results: Results) -> pa.Table:
    """Return how often each result says a value, by the meant one: row, slot, meant, said, times. null is an empty slot."""
    rows = [
        (name, slot, *(None if value is None else str(value) for value in pair), times)
        for name, result in _measured(results).items()
        for slot, pairs in result["confusion"].items()
        for *pair, times in pairs
    ]
    kinds = {name: pa.string() for name in ("row", "slot", "meant", "said")} | {"times": pa.int64()}
    return pa.Table.from_pylist([dict(zip(kinds, row, strict=True)) for row in rows], schema=pa.schema(kinds))


def _flat(values: Mapping, above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if key in ("confusion", "worst", "reliability"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif isinstance(value, list | tuple):
            # An interval (low, high), or a loss with its interval.
            yield from zip((f"{above}{key}{end}" for end in ("", ".low", ".high")[-len(value) :]), value, strict=False)
        else:
            yield f"{above}{key}", value


def trade_off(results: Results) -> Table:
    """Return a table of every row's figures. A row that failed has its reason instead."""
    return Table(COLUMNS, [[n, r["reason"]] if "reason" in r else _row(n, r) for n, r in results.items()])


def _row(name: str, result: Mapping) -> list[Cell]:
    score = result["score"]
    low, high = score["intervals"]["exact"]
    return [
        name,
        f"{score['exact']:.3f}",
        f"{low:.3f}-{high:.3f}",
        _or_none("{:+.3f}", result["loss"] and result["loss"][0]),
        _or_none("{:.3f}", result["agreement"]),
        _or_none("{:.3g}", result["kl"]),
        _or_none("{:.4f}", result["same_choice"]),
        f"{result['messages_per_second']:,.1f}",
        _or_none("{:,.0f}", result["tokens_per_second"]),
        *(f"{1000 * result[name]:,.0f} ms" for name in ("latency_p50", "latency_p95")),
        _or_none("{:.1f} s", result["load_seconds"]),
        *(_megabytes(result[name]) for name in ("peak_bytes", "gpu_peak_bytes", "file_bytes")),
        _or_none("{:,.2f}", result["price_per_million"]),
        _or_none("{:.3g}", result["joules_per_message"]),
        f"{score['ece']:.3f}",
        f"{score['kept_at_99']:.2f}",
    ]


def _megabytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1e6:,.0f} MB"


def _or_none(form: str, value: float | None) -> str | None:
    return None if value is None else form.format(value)


def _measured(results: Results) -> dict[str, Mapping]:
    return {name: result for name, result in results.items() if "reason" not in result}


def _title(results: Results, sources: Sources) -> str:
    return f"{len(_measured(results))} variants on {len(sources.examples):,} held-out messages, {sources.date}"


def _how(results: Results, sources: Sources) -> str:
    """Return a sentence with everything that figures are quoted with: hardware, date, command and code."""
    machines = ", ".join(dict.fromkeys(_machine(result) for result in _measured(results).values()))
    return f"Measured on {machines or 'nothing'}, {sources.date}, by {sources.command}, intent {sources.code}."


def _tables(results: Results, selected: Results, sources: Sources) -> Iterator[tuple[str, str, Table]]:
    """Yield (heading, note, table) of the tables that the page and Markdown share."""
    chosen = [[model, choice["variant"], choice["reason"]] for model, choice in selected.items()]
    yield (
        "Selected",
        "By model of processor. jobs.classify and jobs.nightly use these variants.",
        Table(("hardware", "variant", "because"), chosen, prose=True),
    )
    yield "All variants", f"{EXPLAINED} {crowded(results)}", trade_off(results)
    measured = _measured(results)
    if types := _file_types(measured):
        note = "The weights of each GGUF by tensor type. llama.cpp replaces a requested type that a tensor's rows do not fit."
        yield "Types in the files", note, Table(("variant", "tensor types", "in a type not asked for"), types)
    if labels := _of_labels(results):
        yield "In scope and out of scope", SCOPE_EXPLAINED, _scope(labels)
    yield "Compared with the paper", paper.ABOUT, paper.side_by_side(results)
    lists = {name: result for name, result in measured.items() if result["score"].get("items")}
    if lists:
        note = "An item is right if all its slots are right. The order of a list does not matter. Exact match: whole lists."
        yield "Items of the lists", note, _items(lists)
    groups = [("slots", "slot", "items that match a meant item" if lists else "messages")]
    groups += [("languages", "language", "messages"), ("phenomena", "phenomenon", "messages")]
    groups += [("lengths", "number of items", "messages")] if lists else []
    for group, name, counted in groups:
        note = f"The share right, with its 95 % bootstrap interval, by {name} (with the number of {counted})."
        yield f"By {name}", note, _shares(measured, group)
    if any(result["score"]["none"] for result in measured.values()):
        yield "The answer none", NONE_EXPLAINED, _shares(measured, "none")
    yield "Lineage", "Artifacts with their fingerprints, code and libraries.", _lineage(measured, sources)


def _file_types(measured: Results) -> list[list[Cell]]:
    """Return one row per GGUF: its tensor types with their bytes, and the bytes in a type that its name does not request."""
    files = {result["variant"]: result for result in measured.values() if "types" in result}
    return [
        [
            name,
            ", ".join(f"{kind} {_megabytes(size)}" for kind, size in result["types"].items()),
            _megabytes(result["fell_back"]),
        ]
        for name, result in files.items()
    ]


def _of_labels(results: Results) -> Results:
    return {name: result for name, result in _measured(results).items() if "scope" in result}


def _scope(labels: Results) -> Table:
    """Return a table with two rows per variant: its answers as they are, and with the threshold."""
    columns = ("variant", "below", "in scope", "macro F1", "out-of-scope recall", "precision", "messages/s", "$ per million")
    rows: list[list[Cell]] = []
    for name, result in labels.items():
        scope = result["scope"]
        cost: list[Cell] = [f"{result['messages_per_second']:,.1f}"]
        cost.append(_or_none("{:,.2f}", result["price_per_million"]))
        rows.append([name, None, *_scope_cells(scope["answered"]), *cost])
        if "thresholded" in scope:
            figures = scope["thresholded"]
            rows.append([name, f"{figures['threshold']:.3f}", *_scope_cells(figures), *cost])
        elif "asked" in scope:
            right, target = f"{scope['most']:.3f}", f"{scope['asked']:g}"
            rows.append(
                [name, f"no threshold: {right} of the validation messages in scope are right, too few for {target} of others"]
            )
    return Table(columns, rows)


def _scope_cells(figures: Mapping) -> list[Cell]:
    shares = [
        None if figures[name] is None else Share(figures[name], *figures["intervals"][name])
        for name in ("accuracy", "recall", "precision")
    ]
    return [shares[0], figures["macro_f1"], *shares[1:]]


def _items(lists: Results) -> Table:
    rows: list[list[Cell]] = []
    for name, result in lists.items():
        items, interval = result["score"]["items"], result["score"]["intervals"]["items.f1"]
        rows.append(
            [name, f"{items['precision']:.3f}", f"{items['recall']:.3f}", Share(items["f1"], *interval), f"{items['ece']:.3f}"]
        )
    return Table(("variant", "precision", "recall", "F1", "ECE of items"), rows)


def _shares(measured: Results, group: str) -> Table:
    """Return a table with one row per name in a group of the score, and one column per variant."""
    names = sorted({name for result in measured.values() for name in result["score"][group]})
    rows = [[_sized(measured, group, name), *(_share(r["score"], group, name) for r in measured.values())] for name in names]
    return Table((group, *measured), rows)


def _sized(measured: Results, group: str, name: str) -> str:
    return f"{name} ({max(r['score']['sizes'].get(f'{group}.{name}', 0) for r in measured.values()):,})"


def _share(score: Mapping, group: str, name: str) -> Share | None:
    share = score[group].get(name)
    return None if share is None else Share(share, *score["intervals"][f"{group}.{name}"])


def _lineage(measured: Results, sources: Sources) -> Table:
    rows = []
    for role, (uri, record) in sources.records.items():
        facts = {**record.config, **{f"input {name}": value for name, value in record.inputs.items()}, **record.metrics}
        libraries = ", ".join(f"{name} {version}" for name, version in record.libraries.items())
        settings = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        rows.append([role, record.fingerprint, f"{uri}; intent {record.code}; {settings}; {libraries}".rstrip("; ")])
    rows += [
        [name, r["fingerprint"], f"{r['uri']}; output format {r['output_format']}, batch {r['batch'] or 'by memory'}"]
        for name, r in measured.items()
    ]
    return Table(("what", "fingerprint", "made of"), rows, prose=True)


def _machine(result: Mapping) -> str:
    hardware = result["hardware"]
    return f"{hardware['model']} ({hardware['count']} CPUs)" if hardware["kind"] == "cpu" else hardware["model"]


def _plots(measured: Results) -> Iterator[dict]:
    """Yield plots of speed and memory for each model of hardware, since only these compare, and of the price for all."""
    own = [result["hardware"] for result in measured.values() if result["engine"] != HOSTED]
    classes = dict.fromkeys((hardware["kind"], hardware["model"]) for hardware in own)
    for kind, model in classes:
        here = {n.removesuffix(f" on {model}"): r for n, r in measured.items() if r["hardware"]["model"] == model}
        yield _plot(f"Exact match and speed, {model}", "messages a second", here, "messages_per_second", more=True)
        memory = "gpu_peak_bytes" if kind == "gpu" else "peak_bytes"
        yield _plot(f"Exact match and peak memory, {model}", "MB", here, memory, unit=1e6)
    yield _plot("Exact match and price, all hardware", "USD per million messages", measured, "price_per_million")


def _plot(title: str, axis: str, measured: Results, field: str, more: bool = False, unit: float = 1.0) -> dict:
    """Return a plot with its title. `drawn` is None if no result has the field; then `missing` is the reason."""
    points = [
        Point(name, r[field] / unit, r["score"]["exact"], tuple(r["score"]["intervals"]["exact"]), r["engine"])
        for name, r in measured.items()
        if r[field] is not None
    ]
    unknown = "no prices: set cluster.prices.cpu=, cluster.prices.gpu= (USD an hour)" if "price" in field else "not measured"
    return {"title": title, "axis": axis, "drawn": tradeoff(points, more) if points else None, "missing": unknown}


def _telling(measured: Results, selected: Results) -> list[str]:
    """Return the names of the rows whose mistakes are shown: the first row and the selected ones."""
    chosen = {(choice["variant"], choice["batch"], model) for model, choice in selected.items()}
    names = [n for n, r in measured.items() if (r["variant"], r["batch"], r["hardware"]["model"]) in chosen]
    return list(dict.fromkeys([*list(measured)[:1], *names]))
