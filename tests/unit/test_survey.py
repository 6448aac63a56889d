"""The tasks before labelling, without a cluster."""

from intent.run import survey
from intent.run.shard import Shard
from intent.storage import Blob


def shards(count: int, rows: int) -> list[Shard]:
    return [Shard(Blob(f"{number}.parquet", 1, "e"), 0, rows) for number in range(count)]


def test_many_small_shards_are_many_tasks_whatever_the_cluster_has():
    """Formerly, a cluster without a CPU got only one task for 100,000 shards, so it did not grow."""
    small = shards(100_000, 256)
    pieces = survey.cut(small)
    assert [shard for piece in pieces for shard in piece] == small
    assert 300 <= len(pieces) <= 2_000 and max(map(len, pieces)) <= 300


def test_tasks_are_of_about_the_same_work():
    mixed = shards(500, 20_000) + shards(2_000, 10)
    work = [sum(shard.rows + survey.ROWS_PER_SHARD for shard in piece) for piece in survey.cut(mixed)]
    assert max(work) <= 1.05 * survey.ROWS_PER_TASK and min(work[:-1]) >= survey.ROWS_PER_TASK
    assert len(survey.cut(shards(3, 5))) == 1 and survey.cut([]) == []
    assert survey.is_short(shards(3, 5)) and survey.is_short([]) and not survey.is_short(mixed)
