"""Show a run's results from its output alone, and check every part against the manifest."""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

from intent.config import InspectConfig
from intent.errors import CorruptData, ShardsFailed
from intent.nightly.pages import run_page
from intent.run.inspection import EDGES, Inspection, inspect_run
from intent.run.ledger import MANIFEST
from intent.storage import open_store, split_uri
from jobs.app import complain, job, say

WIDTH, MOST_LINES = 40, 20


def run(config: InspectConfig) -> int:
    """Inspect the run, print the findings, and write the page. Returns the exit code."""
    options = config.storage.options()
    inspection = inspect_run(open_store(config.output, options))
    say("\n".join(describe(inspection)))
    if config.html:
        folder, name = split_uri(config.html)
        open_store(folder, options).put(name, run_page(inspection).encode())
        say(f"page: {config.html}")
    for fault in _first(inspection.faults):
        complain(fault)
    if inspection.faults:
        return CorruptData.exit_code
    return 0 if inspection.finished else ShardsFailed.exit_code


def describe(inspection: Inspection) -> Iterator[str]:
    """Yield the lines for the operator."""
    counts, summary = inspection.counts, inspection.summary
    yield f"run {inspection.uri}: " + ("finished" if inspection.finished else "not finished; run its command again")
    yield from (f"  model {name}: {print_}" for name, print_ in inspection.run["models"].items())
    yield f"shards: {inspection.done:,} of {inspection.shards:,} are done and intact"
    labelled = f"{counts['labelled']:,} labelled + {counts['abstained']:,} abstained + {counts['rejected']:,} rejected"
    yield f"rows: {counts['rows']:,} = {labelled}"
    yield from (f"  {name}: {rows:,} rows" for name, rows in inspection.variants.items())
    if summary:
        yield f"the last run of it took {summary['seconds']:,.1f} s, with {summary['retries']:,} retries"
        yield f"models saw {summary['classified']:,} messages; {summary['duplicates_saved']:,} rows were duplicates"
    for status, bins in inspection.confidence.items():
        if any(bins):
            yield from _histogram(f"confidence of rows with status {status}:", bins)
    if inspection.slowest:
        yield "slowest shards:"
        yield from (f"  {s.seconds:9,.1f} s  {s.rows:,} rows from row {s.start:,} of {s.object!r}" for s in inspection.slowest)
    if inspection.reasons:
        yield "rejected:"
        lines = [f"  {r.rows:,}: {r.text}; ids such as {', '.join(r.ids)}" for r in inspection.reasons]
        yield from _first(lines)
    if inspection.failed:
        yield "shards that were given up:"
        yield from _first([f"  {f['object']!r} rows {f['start']}+{f['rows']}: {f['reason']}" for f in inspection.failed])
    if inspection.left_out:
        yield f"objects of the input that were left out, all named in {MANIFEST}:"
        yield from _first([f"  {key!r}: {why}" for key, why in inspection.left_out.items()])


def _histogram(title: str, bins: Sequence[int]) -> Iterator[str]:
    yield title
    most, rows = max(bins), sum(bins)
    for (low, high), count in zip(pairwise(EDGES), bins, strict=True):
        yield f"  {low:4g} to {high:<4g} {count:>12,} {count / rows:6.1%} {'#' * round(WIDTH * count / most)}".rstrip()


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"  and {more:,} more"] if more > 0 else [])]


@job("inspect", InspectConfig)
def main(config: InspectConfig) -> None:
    sys.exit(run(config))


if __name__ == "__main__":
    main()
