import signal
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from intent import hardware
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.errors import IntentError
from intent.evaluate import speed as speed_of
from intent.evaluate.measurement import time_limit
from intent.evaluate.speed import measure


@dataclass
class Sleeper:
    """Takes 2 ms and computes 5 tokens per message, on its own clock."""

    names: tuple[str, ...]
    closed: list
    clock: SimpleNamespace
    tokens_computed: int = 0
    answered: int = 0

    def classify(self, messages):
        self.clock.now += 0.002 * len(messages)
        self.tokens_computed += 5 * len(messages)
        return [Prediction({"product": self.names[0], "message": message}, 0.5) for message in messages]

    def close(self):
        self.closed.append(True)


def test_rates_are_of_the_measured_messages_and_answers_keep_their_order(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(speed_of, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    examples = [Example(str(i), f"m{i}", {}, "en", catalog="ab"[i % 2]) for i in range(60)]
    made, closed = [], []

    def load(names):
        assert all(other() is None for other in made), "the one before is gone: a peak is of one alone"
        sleeper = Sleeper(names, closed, clock)
        made.append(weakref.ref(sleeper))
        return sleeper

    predictions, speed = measure(load, examples, {"a": ("milk",), "b": ("eggs",)})
    assert [p.intent["message"] for p in predictions] == [e.message for e in examples]
    assert [p.intent["product"] for p in predictions[:2]] == ["milk", "eggs"]
    assert speed.messages_per_second == pytest.approx(500)
    assert speed.tokens_per_second == pytest.approx(2_500)
    assert speed.latency_p50 == pytest.approx(0.002) and speed.latency_p95 == pytest.approx(0.002)
    assert speed.peak_bytes > 10e6
    assert speed.gpu_peak_bytes is None
    assert closed == [True, True]


def test_the_cpu_share_of_others_excludes_idle_time_and_this_process(monkeypatch):
    readings = iter([(100.0, 50.0, 10.0), (110.0, 54.0, 13.0)])
    monkeypatch.setattr(hardware, "_cpu_seconds", lambda: next(readings))
    with hardware.CrowdMeter() as crowd:
        pass
    assert crowd.share == pytest.approx(0.3)


def test_work_of_another_process_is_seen():
    total, idle, own = hardware._cpu_seconds()
    # The amount of work, however long it takes.
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.6: pass"], check=True)
    after = hardware._cpu_seconds()
    assert (after[0] - total) - (after[1] - idle) - (after[2] - own) > 0.4


def zone(folder, name, spent, of=None):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "name").write_text(f"{of or 'package-' + name[-1]}\n")
    (folder / name / "energy_uj").write_text(f"{spent}\n")
    (folder / name / "max_energy_range_uj").write_text("999999999\n")


def test_energy_is_that_of_all_packages_over_a_counter_that_starts_again(tmp_path):
    zone(tmp_path, "intel-rapl:0", 999_000_000)
    zone(tmp_path, "intel-rapl:1", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", 1, "core")
    zone(tmp_path, "intel-rapl:2", 7, "psys")
    zone(tmp_path, "intel-rapl-mmio:0", 999_000_000)
    with hardware.EnergyMeter(on_gpu=False, powercap=tmp_path) as meter:
        zone(tmp_path, "intel-rapl:0", 1_000_000)
        zone(tmp_path, "intel-rapl:1", 8_000_000)
        zone(tmp_path, "intel-rapl:0:0", 500_000, "core")
        zone(tmp_path, "intel-rapl:2", 9_000_000, "psys")
        zone(tmp_path, "intel-rapl-mmio:0", 1_000_000)
    assert meter.joules == pytest.approx(2 + 3)


def test_energy_is_absent_where_nothing_counts_it(tmp_path):
    with hardware.EnergyMeter(on_gpu=False, powercap=tmp_path) as meter:
        pass
    assert meter.joules is None


def test_this_machine_has_a_name():
    processor = hardware.cpu(3)
    assert processor.kind == "cpu" and processor.model.strip() and processor.count == 3


def test_what_takes_too_long_ends_with_its_reason():
    with pytest.raises(IntentError, match="not measured in 2e-05 hours"), time_limit(0.072):
        time.sleep(5)
    with time_limit(600):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
