"""The measure of a night's fan-out measures what it says."""

import pytest

from intent.night import benchmark
from intent.night.stub import CART, stub_engines

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]


def test_a_model_sees_hardly_a_message_twice(tmp_path):
    zipf = benchmark.measure_fan_out(tmp_path, 60_000, 5_000, actors=2)
    assert 10_000 < zipf.distinct <= zipf.seen <= 1.15 * zipf.distinct
    once = benchmark.measure_fan_out(tmp_path, 10_000, 5_000, actors=2, repeated=False)
    assert once.distinct == once.seen == 10_000


def test_objects_are_planned(tmp_path):
    assert benchmark.measure_planning(tmp_path, 2_500).objects == 2_500


def test_a_night_is_set_against_its_engine_alone(tmp_path):
    [spec] = stub_engines(actors=2, seconds=0.002)
    made = benchmark.measure_overhead(tmp_path, spec, CART, benchmark.IDENTITY, lambda n: [f"m{i}" for i in range(n)], 1.0)
    # Two actors that take 2 ms a message; a shared machine may be slower, never quicker.
    assert 400 < made.bare[0] <= 1000 and 2_000 < made.messages <= 3_000
    assert 0.5 < made.share < 1.05
    assert "stub, 2 actors" in benchmark.render([], benchmark.Planning(1, 1.0), [made])
