"""The measure of a night's fan-out measures what it says."""

import pytest

from intent.night import benchmark, survey
from intent.night.stub import CART, stub_engines

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]


def test_a_model_sees_hardly_a_message_twice(tmp_path):
    zipf = benchmark.measure_fan_out(tmp_path, 60_000, 5_000, actors=2)
    assert 10_000 < zipf.distinct <= zipf.seen <= 1.15 * zipf.distinct
    once = benchmark.measure_fan_out(tmp_path, 10_000, 5_000, actors=2, repeated=False)
    assert once.distinct == once.seen == 10_000


def test_objects_are_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "FOOTERS_PER_TASK", 100)
    assert benchmark.measure_planning(tmp_path, 250).objects == 250


def test_a_night_is_set_against_its_engine_alone(tmp_path):
    [spec] = stub_engines(actors=2, seconds=0.002)
    made = benchmark.measure_overhead(tmp_path, spec, CART, benchmark.IDENTITY, lambda n: [f"m{i}" for i in range(n)], 0.3)
    # Two actors that take 2 ms a message; a shared machine may be slower, never quicker.
    assert all(0 < rate <= 1000 for rate in made.bare) and 0 < made.messages <= 900
    assert 0 < made.night <= 1000 and made.share == made.night / (sum(made.bare) / 2)
    assert "stub, 2 actors" in benchmark.render([], benchmark.Planning(1, 1.0), [made])
