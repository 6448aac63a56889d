"""The progress of a job: the work done, its rate, and the time left."""

import io

import pytest

from intent import progress
from intent.progress import Count, Steps, polled


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch) -> Clock:
    # Only the test advances the clock, so a second thread prints nothing by itself.
    monkeypatch.setattr(progress, "TICK_SECONDS", 3_600.0)
    return Clock()


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_shows_progress_rate_and_time_left(clock):
    stream = io.StringIO()
    with Steps("measure", "message", stream, clock) as steps:
        steps.update(0, 500, "loads the model")
        clock.now += 10
        steps.update(120, 500, "gguf")
        clock.now += 30
        steps.update(500, 500)
    assert lines(stream) == [
        "measure: 0 of 500 messages; loads the model",
        "measure: 120 of 500 messages, 12 messages/s, 0:00:31 left; gguf",
        "measure: 500 of 500 messages in 0:00:40, 12 messages/s",
    ]


def test_before_anything_is_measured_no_time_left_is_made_up(clock):
    stream = io.StringIO()
    with Steps("train", "step", stream, clock, warms_up=True) as steps:
        steps.update(0, 94, "compiles")
        clock.now += 100
        steps.update(1, 94, "loss 2.1")
        clock.now += 10
        steps.update(6, 94, "loss 1.9")
    assert lines(stream) == [
        "train: 0 of 94 steps; compiles",
        "train: 1 of 94 steps, 0:01:40 so far; loss 2.1",
        "train: 6 of 94 steps, 2.0 s a step, 0:02:56 left; loss 1.9",
        "train: 6 of 94 steps, 2.0 s a step, 0:02:56 left; loss 1.9",
    ]


def test_work_that_says_nothing_for_long_is_still_reported(clock):
    stream = io.StringIO()
    with Steps("quantize", stream=stream, clock=clock) as steps:
        steps.update(0, 0, "loads the checkpoint", part="gptq", unit="layer")
        clock.now += 12
        steps.show_due()
        steps.update(0, 30, "", part="gptq", unit="layer")
        for done in (2, 4):
            clock.now += 10
            steps.update(done, 30, part="gptq", unit="layer")
        clock.now += 10
        steps.show_due()
        # One late task delays the others.
        clock.now += 40
        steps.show_due()
        steps.update(30, 30, part="gptq", unit="layer")
    assert lines(stream) == [
        "quantize gptq: loads the checkpoint",
        "quantize gptq: 0:00:12 so far; loads the checkpoint",
        "quantize gptq: 2 of 30 layers, 5.0 s a layer, 0:02:20 left",
        "quantize gptq: 4 of 30 layers, 5.0 s a layer, 0:02:10 left",
        "quantize gptq: 4 of 30 layers, 5.0 s a layer, 0:02:00 left",
        "quantize gptq: 4 of 30 layers, 17.5 s a layer, 0:07:35 left",
        "quantize gptq: 30 of 30 layers in 0:01:22, 2.3 s a layer",
    ]


def test_the_thread_behind_it_prints_by_itself(monkeypatch):
    import threading

    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LEAST_SECONDS", 0.02)
    twice = threading.Event()

    class Stream(io.StringIO):
        def write(self, text):
            if self.getvalue().count("works") >= 2:
                twice.set()
            return super().write(text)

    with Steps("job", stream=Stream()) as steps:
        steps.update(0, 0, "works")
        assert twice.wait(20)


def test_parts_side_by_side_have_lines_of_their_own_and_a_new_unit_is_a_new_count(clock):
    stream = io.StringIO()
    with Steps("quantize", stream=stream, clock=clock) as steps:
        steps.update(3, 30, part="gptq", unit="layer")
        steps.update(0, 100, "importance matrix", part="gguf", unit="sequence")
        clock.now += 5
        steps.update(100, 100, part="gguf", unit="sequence")
        steps.update(0, 272, part="gguf", unit="tensor")
        steps.update(30, 30, part="gptq", unit="layer")
        steps.update(272, 272, part="gguf", unit="tensor")
    assert [line.split(" in ")[0] for line in lines(stream)] == [
        "quantize gptq: 3 of 30 layers",
        "quantize gguf: 0 of 100 sequences; importance matrix",
        "quantize gguf: 100 of 100 sequences",
        "quantize gguf: 0 of 272 tensors",
        "quantize gptq: 30 of 30 layers",
        "quantize gguf: 272 of 272 tensors",
    ]


def test_a_part_that_has_ended_says_how_long_it_took(clock):
    stream = io.StringIO()
    with Steps("quantize", stream=stream, clock=clock) as steps:
        steps.update(0, 30, part="gptq", unit="layer")
        clock.now += 60
        steps.update(30, 30, part="gptq", unit="layer")
        steps.update(0, 0, "saves", part="gptq", unit="")
        clock.now += 30
        steps.end("gptq")
        clock.now += 60
        steps.show_due()
    assert lines(stream)[-2:] == ["quantize gptq: saves", "quantize gptq: done in 0:01:30"]


def test_hours_of_work_have_a_line_a_minute_not_thousands(clock):
    stream = io.StringIO()
    with Steps("train", "step", stream, clock) as steps:
        for second in range(8 * 3_600):
            clock.now += 1
            steps.update(second, 100_000)
    assert 400 < len(lines(stream)) < 700


def test_a_resumed_run_does_not_count_the_work_of_an_earlier_one(clock):
    count = Count("step", clock)
    count.update(90, 100)
    clock.now += 10
    assert count.rate() is None and "left" not in str(count)
    count.update(95, 100)
    assert str(count) == "95 of 100 steps, 2.0 s a step, 0:00:10 left"


def test_a_speed_is_that_of_the_last_minutes(clock):
    count = Count("row", clock)
    count.update(0, 100_000)
    for _ in range(600):
        clock.now += 1
        count.update(count.done + 10, 100_000)
    for _ in range(600):
        clock.now += 1
        count.update(count.done + 50, 100_000)
    assert count.rate() == pytest.approx(50, rel=0.02)


def test_a_terminal_has_a_bar_for_each_part_and_text_stays_text(clock):
    stream = Terminal()
    with Steps("quantize", "layer", stream, clock) as steps:
        steps.update(1, 30, "[red]a name[/red]", part="gptq")
        steps.update(2, 60, part="gguf")
        clock.now += 10
        steps.update(3, 30, "[red]a name[/red]", part="gptq")
        steps.say("[blue]a line[/blue]")
    shown = stream.getvalue()
    assert "3 of 30 layers, 5.0 s a layer, 0:02:15 left" in " ".join(shown.split())
    assert "2 of 60 layers" in shown and "[red]a name[/red]" in shown and "[blue]a line[/blue]" in shown


def test_that_nobody_reads_fails_no_job(clock):
    class Closed(io.StringIO):
        tries = 0

        def write(self, text):
            self.tries += 1
            raise BrokenPipeError

    stream = Closed()
    with Steps("train", "step", stream, clock) as steps:
        steps.update(0, 10)
        steps.update(10, 10)
    assert stream.tries > 0 and stream.getvalue() == ""


def test_work_that_reports_nothing_itself_is_looked_at(monkeypatch):
    import threading

    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    seen, halfway, done = [], threading.Event(), [0]

    def report(*update):
        seen.append(update)
        if update[0] == 4:
            halfway.set()

    with polled(lambda: done[0], 8, report, "message", "labels"):
        done[0] = 4
        assert halfway.wait(20)
        done[0] = 8
    assert seen[0] == (0, 8, "message", "labels") and seen[-1] == (8, 8, "message", "labels")
