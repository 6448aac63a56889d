"""The operator's output during a run and at its end."""

import io
from types import SimpleNamespace

import pytest

from intent import progress
from intent.run.part import Committed, Receipt
from intent.run.progress import Progress, Stage, Tally


def part(variant: str, rows: int, rejected: int = 0, classified: int = 0, refused: int = 0) -> Committed:
    done = {"rows": rows, "labelled": rows - rejected, "abstained": 0, "rejected": rejected, "classified": classified}
    done |= {"refused": refused}
    return Committed(Receipt("s", "f", **done, variants={variant: rows - rejected}), 1, "0")


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """Stop the clock. Only the test advances it, however busy the machine is."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 1_000.0))


@pytest.fixture
def tally():
    tally = Tally()
    tally.add(part("old", 100), fresh=False)
    return tally


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    # Only the test advances the clock, so a second thread prints nothing by itself.
    monkeypatch.setattr(progress, "TICK_SECONDS", 3_600.0)
    return Clock()


def test_a_line_says_rows_rates_duplicates_rejections_retries_and_time_left(tally, clock):
    stream = io.StringIO()
    with Progress(1_000, tally, stream, clock) as shown:
        shown.update(0, "2 of 2 actors")
        clock.now += 10
        tally.add(part("gguf", 450, rejected=50, classified=100, refused=50))
        shown.update(3, "2 of 2 actors")
    first, line = stream.getvalue().splitlines()[:2]
    assert first.startswith("labels rows: 100 of 1,000 rows; 100 duplicates saved") and "left" not in first
    assert line == (
        "labels rows: 550 of 1,000 rows, 45 rows/s, 0:00:10 left; "
        "gguf 40 rows/s; 400 duplicates saved, 50 rejected, 3 retries; 2 of 2 actors"
    )


def test_while_frequent_messages_are_labelled_their_count_rate_and_time_left_are_told(clock):
    tally, stream = Tally(), io.StringIO()
    with Progress(20_000, tally, stream, clock) as shown:
        shown.frequent(2_310)
        shown.update(0, "0 of 2 actors", "waits for the first of 2 actors; gguf loads")
        clock.now += 20
        shown.update(0, "1 of 2 actors, 36 pieces left")
        clock.now += 10
        tally.answer(64)
        clock.now += 10
        tally.answer(64)
        shown.update(0, "2 of 2 actors, 34 pieces left")
        clock.now += 100
        tally.answer(2_182)
        shown.update(0, "2 of 2 actors")
        shown.rows()
        shown.update(0, "2 of 2 actors, 78 shards left")
        clock.now += 10
        tally.add(part("gguf", 10_000))
        shown.update(0, "2 of 2 actors, 39 shards left")
    output = stream.getvalue()
    assert "no rows yet" not in output
    assert output.splitlines()[:6] == [
        "labels the most frequent messages: waits for the first of 2 actors; gguf loads",
        "labels the most frequent messages: 0 of 2,310 messages; 0 retries; 1 of 2 actors, 36 pieces left; then 20,000 rows",
        "labels the most frequent messages: 128 of 2,310 messages, 6.4 messages/s, 0:05:40 left; "
        "0 retries; 2 of 2 actors, 34 pieces left; then 20,000 rows",
        "labels the most frequent messages: 2,310 of 2,310 messages in 0:02:00, 19 messages/s; "
        "0 retries; 2 of 2 actors; then 20,000 rows",
        "labels rows: 0 of 20,000 rows; 0 duplicates saved, 0 rejected, 0 retries; 2 of 2 actors, 78 shards left",
        "labels rows: 10,000 of 20,000 rows, 1,000 rows/s, 0:00:10 left; "
        "gguf 1,000 rows/s; 7,690 duplicates saved, 0 rejected, 0 retries; 2 of 2 actors, 39 shards left",
    ]


def test_what_a_model_rejected_takes_nothing_from_the_duplicates_saved():
    """Of 10 rows, 2 are null. The other 8 hold 3 messages. The model rejected one of them, which is in 2 rows."""
    tally = Tally()
    tally.add(part("gguf", 10, rejected=4, classified=3, refused=2))
    assert tally.saved == 5


def test_a_stage_shows_its_total_at_once_and_then_its_rate_retries_and_time_left(clock):
    stream, seen = io.StringIO(), []
    watch = lambda stage: seen.append((stage.done, stage.retries))  # noqa: E731
    with Stage("footers", "plans", "object", 1_000, stream, watch, clock) as stage:
        assert stream.getvalue() == "plans: 0 of 1,000 objects\n" and seen == [(0, 0)]
        clock.now += 5
        stage.update(50)
        assert stream.getvalue().count("plans") == 1, "lines are not too many"
        clock.now += 5
        stage.update(200, 3, "the cluster has no CPU yet")
    line = stream.getvalue().splitlines()[1]
    assert line == "plans: 200 of 1,000 objects, 20 objects/s, 0:00:40 left; 3 retries, the cluster has no CPU yet"
    assert seen == [(0, 0), (50, 0), (200, 3)]


def test_on_a_terminal_a_resumed_run_starts_at_its_previous_progress(tally, clock):
    stream = Terminal()
    with Progress(1_000, tally, stream, clock) as shown:
        shown.update(0, "1 of 1 actors")
        shown.say("[red]a key[/red]")
        clock.now += 10
        tally.add(part("gguf", 450))
        shown.update(0, "1 of 1 actors")
    output = " ".join(stream.getvalue().split())
    assert "550 of 1,000 rows, 45 rows/s, 0:00:10 left" in output and "[red]a key[/red]" in output


def test_the_summary_counts_all_rows_and_the_rate_of_this_submission(tally):
    tally.started -= 10
    tally.add(part("gguf", 450, rejected=50, classified=100))
    summary = tally.summary(retries=2, output="here").as_dict()
    assert (summary["rows"], summary["labelled"], summary["rejected"]) == (550, 500, 50)
    assert summary["variants"]["old"] == {"rows": 100, "rows_per_second": 0.0}
    assert summary["variants"]["gguf"]["rows"] == 400
    assert summary["variants"]["gguf"]["rows_per_second"] == 40.0
    assert not summary["already_done"]


def test_rows_from_the_cache_from_duplicates_and_from_engines_are_distinguished(clock):
    tally, stream = Tally(), io.StringIO()
    done = {"rows": 100, "labelled": 90, "abstained": 0, "rejected": 10, "classified": 20, "refused": 10}
    tally.add(Committed(Receipt("s", "f", **done, cached=60, found=25, asked=5, agreed=4), 1, "0"))
    with Progress(100, tally, stream, clock) as shown:
        shown.update(0, "1 of 1 actors")
    assert "; 60 from the cache, 10 duplicates saved, 10 rejected, 0 retries" in stream.getvalue()
    summary = tally.summary(0, "here")
    assert (summary.cached, summary.duplicates_saved, summary.classified) == (60, 10, 20)
    assert (summary.asked_again, summary.agreed, summary.agreement) == (5, 4, 0.8)


def test_frequent_messages_that_the_cache_answered_were_seen_by_no_model():
    tally = Tally()
    tally.answer(64, Receipt("s", "f", 0, 0, 0, 0, classified=10, found=50, asked=4, agreed=4))
    assert (tally.frequent, tally.counts["classified"], tally.counts["asked"]) == (64, 10, 4)
