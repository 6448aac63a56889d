"""What the operator reads while a night runs and at its end."""

import io

import pytest

from intent.night import progress
from intent.night.part import Committed, Receipt
from intent.night.progress import Progress, Stage, Tally


def part(variant: str, rows: int, rejected: int = 0, classified: int = 0, refused: int = 0) -> Committed:
    done = {"rows": rows, "labelled": rows - rejected, "abstained": 0, "rejected": rejected, "classified": classified}
    done |= {"refused": refused}
    return Committed(Receipt("s", "f", **done, variants={variant: rows - rejected}), 1, "0")


@pytest.fixture
def tally():
    tally = Tally()
    tally.add(part("old", 100), fresh=False)
    return tally


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_says_rows_rates_duplicates_rejections_retries_and_time_left(tally, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with Progress(1_000, tally, stream) as shown:
        tally.started -= 10
        tally.add(part("gguf", 450, rejected=50, classified=100, refused=50))
        shown.update(3, "2 of 2 actors")
    line = stream.getvalue()
    for text in ("550 of 1,000 rows", "gguf 40 rows/s", "400 duplicates saved", "50 rejected", "3 retries", "0:00:10 left"):
        assert text in line, (text, line)


def test_what_a_model_rejected_takes_nothing_from_the_duplicates_saved():
    """Of 10 rows 2 are null; the other 8 hold 3 messages, one of which, in 2 rows, the model rejected."""
    tally = Tally()
    tally.add(part("gguf", 10, rejected=4, classified=3, refused=2))
    assert tally.saved == 5


def test_a_stage_says_at_once_what_is_to_do_and_then_its_rate_retries_and_time_left(monkeypatch):
    stream, seen = io.StringIO(), []
    with Stage("footers", "plans", "objects", 1_000, stream, lambda stage: seen.append((stage.done, stage.retries))) as stage:
        assert "plans: 0 of 1,000" in stream.getvalue() and seen == [(0, 0)]
        stage.update(50)
        assert stream.getvalue().count("plans") == 1, "lines are not too many"
        stage._started -= 10
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        stage.update(200, 3, "the cluster has no CPU yet")
    line = stream.getvalue().splitlines()[1]
    assert line.startswith("plans: 200 of 1,000, 20 objects/s, 3 retries, the cluster has no CPU yet, 0:00:4"), line
    assert seen == [(0, 0), (50, 0), (200, 3)]


def test_a_stage_is_a_bar_on_a_terminal_and_its_end_is_shown():
    stream = Terminal()
    with Stage("footers", "plans", "objects", 300, stream) as stage:
        stage.update(300)
    assert "300/300" in stream.getvalue() and "objects" in stream.getvalue()


def test_lines_are_not_too_many(tally):
    stream = io.StringIO()
    with Progress(1_000, tally, stream) as shown:
        for _ in range(100):
            shown.update(0, "")
    assert stream.getvalue() == ""


def test_on_a_terminal_a_night_that_goes_on_begins_where_it_was(tally):
    stream = Terminal()
    with Progress(1_000, tally, stream) as shown:
        shown.say("a line")
        assert "100/1000" in stream.getvalue().replace(" ", "")


def test_a_terminal_gets_a_bar_and_untrusted_text_stays_text(tally):
    stream = Terminal()
    with Progress(1_000, tally, stream) as shown:
        tally.add(part("gguf", 900))
        shown.update(0, "1 of 1 actors")
        shown.say("[red]a key[/red]")
    assert "1000/1000" in stream.getvalue() and "[red]a key[/red]" in stream.getvalue()


def test_the_summary_counts_the_whole_night_and_the_rate_of_this_run(tally):
    tally.started -= 10
    tally.add(part("gguf", 450, rejected=50, classified=100))
    summary = tally.summary(retries=2, output="here").as_dict()
    assert (summary["rows"], summary["labelled"], summary["rejected"]) == (550, 500, 50)
    assert summary["variants"]["old"] == {"rows": 100, "rows_per_second": 0.0}
    assert summary["variants"]["gguf"]["rows"] == 400
    assert summary["variants"]["gguf"]["rows_per_second"] == pytest.approx(40, abs=0.1)
    assert not summary["already_done"]
