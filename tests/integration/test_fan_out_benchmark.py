"""The benchmarks of a run's fan-out and of the label cache count what they report."""

import pytest

from intent.benchmark import fan_out, label_cache
from intent.benchmark.stub import CART, stub_engines
from intent.run import survey

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]


def test_a_model_sees_hardly_a_message_twice(tmp_path):
    zipf = fan_out.measure_fan_out(tmp_path, 60_000, 5_000, actors=2)
    assert 10_000 < zipf.distinct <= zipf.seen <= 1.15 * zipf.distinct
    once = fan_out.measure_fan_out(tmp_path, 10_000, 5_000, actors=2, repeated=False)
    assert once.distinct == once.seen == 10_000


def test_objects_are_planned(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "FOOTERS_PER_TASK", 100)
    assert fan_out.measure_planning(tmp_path, 250).objects == 250


def test_the_overhead_of_a_run_is_measured_against_its_engine_alone(tmp_path):
    [spec] = stub_engines(actors=2, seconds=0.002)
    made = fan_out.measure_overhead(tmp_path, spec, CART, fan_out.IDENTITY, lambda n: [f"m{i}" for i in range(n)], 0.3)
    # Two actors that take 2 ms a message; a shared machine may be slower, never quicker.
    assert all(0 < rate <= 1000 for rate in made.bare) and 0 < made.messages <= 900
    assert 0 < made.night <= 1000 and made.share == made.night / (sum(made.bare) / 2)
    assert "stub, 2 actors" in fan_out.render([], fan_out.Planning(1, 1.0), [made])


def test_consecutive_runs_reuse_the_labels_of_repeated_messages(tmp_path):
    [spec] = stub_engines(actors=1)
    pool = [f"message {n}" for n in range(label_cache.different(3, 200))]
    made = label_cache.measure_daily_runs(tmp_path, spec, CART, fan_out.IDENTITY, pool, 3, 200)
    assert [run.rows for run in made] == [1_000] * 3 and [run.distinct for run in made] == [200] * 3
    assert made[0].seen == 200 and made[0].cached == 0
    # 30 % are new, and few of the others are classified again.
    for run in made[1:]:
        assert 60 <= run.seen < 80 and run.cached > 500
        assert run.seen + run.cached + run.duplicates == run.rows
    lookups = label_cache.Lookups(1, 1, 2, 1.0, 1, 1.0)
    report = label_cache.render(lookups, [], made)
    assert f"stub, night 3 against the first: {made[0].seen / made[2].seen:.2f} times fewer messages" in report


def test_lookups_are_measured_beside_made_up_entries(tmp_path):
    made = label_cache.measure_lookups(tmp_path, 50_000, workers=1)
    assert made.rate > 0 and made.file_bytes > 1_000_000
    assert 1_000_000 < made.memory < 200_000_000
    assert label_cache.label_cache(tmp_path, "lookups").read().rows == 50_000 + 280_000


def test_a_fan_out_with_all_labels_cached_classifies_only_its_sample(tmp_path):
    none, learns, has = label_cache.measure_fan_out(tmp_path, 5_000, actors=1)
    assert (none.seen, learns.seen, none.cached, learns.cached) == (5_000, 5_000, 0, 0)
    assert has.seen + has.cached == 5_000 and has.seen < 100
