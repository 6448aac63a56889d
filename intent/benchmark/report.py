"""Render a benchmark's results as aligned text, Markdown and JSON, with the machine that they were measured on."""

import json
from collections.abc import Iterator, Mapping, Sequence

from intent.benchmark.config import RowKind
from intent.benchmark.engines import Result, Row

COLUMNS = (
    *("messages/s", "tokens/s", "tokens/msg", "p50", "p95", "load", "peak RSS", "VRAM", "on disk"),
    *("of limit", "x loop", "measured"),
)
NONE = "-"
NOTES = (
    "each row ran in its own actor process; peak RSS is that process's VmHWM, including Ray's worker and the mapped weights; "
    "with several actors, it is the largest of them; load includes the check of the SHA-256 and the prompt's prefix",
    "our engines walk to the gold answers: they compute and read the logits of every decision, then take the gold choice",
    "baselines generate 20 tokens (create_completion fewer if the model ends by itself); a row's rate is that of the messages "
    "that it measured",
    "a server is llama-server if it is on the PATH, else llama_cpp.server, which answers one request at a time; peak RSS is "
    "the server's; vLLM and Ray Data generate at most 20 tokens; an encoder row measures speed, not accuracy",
    "latency: from the start of a message's first forward pass to its answer; of a limit: of one pass",
    "limit: the best tokens/s of a plain forward pass of the weights / tokens to be computed per message in the format compact",
)


def levers(results: Sequence[Result]) -> Iterator[tuple[str, float]]:
    """Yield (change, factor) for each row that differs in one setting from the first GGUF engine row.

    The factor is the row's messages/s relative to those of the first row.
    """
    engines = (r for r in results if r.row.kind is RowKind.engine and r.row.variant.startswith("gguf"))
    rates = [(r.row, r.messages_per_second) for r in engines if r.messages_per_second]
    for row, rate in rates[1:]:
        first, first_rate = rates[0]
        if change := _only_change(first, row):
            yield change, rate / first_rate


def _only_change(base: Row, row: Row) -> str:
    ours, theirs = _levers_of(row), _levers_of(base)
    changed = [f"{a} instead of {b}" for a, b in zip(ours, theirs, strict=True) if a != b]
    return changed[0] if len(changed) == 1 else ""


def _levers_of(row: Row) -> tuple[str, ...]:
    return row.variant, f"format {row.output_format}", f"{row.batch} sequences", f"{row.actors} actors of {row.threads} threads"


def render_text(head: Mapping[str, object], results: Sequence[Result]) -> str:
    """Return the results as aligned text. `head`: facts about the benchmark by name, such as the machine."""
    return "\n".join([*_heading(head), "", align([["", *COLUMNS], *_lines(results)]), "", *_closing(results)])


def render_markdown(head: Mapping[str, object], results: Sequence[Result]) -> str:
    """Return the results as a Markdown document. `head`: as of `render_text`."""
    lines = [["row", *COLUMNS], ["---"] * (len(COLUMNS) + 1), *_lines(results)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    listed = "\n".join(f"- {line}" for line in _heading(head))
    return f"# Benchmark\n\n{listed}\n\n{table}\n\n" + "\n".join(f"- {line}" for line in _closing(results)) + "\n"


def render_json(head: Mapping[str, object], results: Sequence[Result]) -> str:
    """Return the results as JSON. `head`: as of `render_text`."""
    gains = [{"change": change, "times": times} for change, times in levers(results)]
    return json.dumps({**head, "rows": [r.as_dict() for r in results], "levers": gains}, indent=1, ensure_ascii=False)


def align(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text, the first column aligned left, the others right.

    The second cell of a line with two cells is a sentence and not aligned.
    """
    full = [line for line in lines if len(line) > 2]
    widths = [
        max(len(line[0]) for line in lines),
        *(max(map(len, cells)) for cells in zip(*(line[1:] for line in full), strict=True)),
    ]
    padded = [
        [line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]) if len(line) > 2 else line[1:])] for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _heading(head: Mapping[str, object]) -> list[str]:
    return [f"{name}: {_text(value)}" for name, value in head.items()]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lines(results: Sequence[Result]) -> list[list[str]]:
    return [[r.row.name, f"not measured: {r.reason}"] if r.reason else _line(r) for r in results]


def _line(r: Result) -> list[str]:
    seconds = [f"{value * 1000:,.0f} ms" for value in (r.p50, r.p95)]
    sizes = [NONE if size is None else f"{size / 1e6:,.0f} MB" for size in (r.rss_bytes, r.vram_bytes, r.disk_bytes)]
    return [
        r.row.name,
        f"{r.messages_per_second:,.2f}",
        f"{r.tokens_per_second:,.1f}",
        f"{r.tokens_per_message:,.1f}",
        *seconds,
        f"{r.load_seconds:.1f} s",
        *sizes,
        NONE if r.share_of_limit is None else f"{r.share_of_limit:.0%}",
        NONE if r.times_loop is None else f"{r.times_loop:,.1f}",
        f"{r.messages:,} in {r.seconds:.0f} s" if r.row.kind is not RowKind.limit else f"{r.messages:,} passes",
    ]


def _closing(results: Sequence[Result]) -> list[str]:
    return [*NOTES, *(f"lever: {change}: {times:.2f} times the messages/s" for change, times in levers(results))]
