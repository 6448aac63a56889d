"""T1 and T3 with a catalog on shelves: dying actors and drivers change no label, and every row is labelled once."""

import functools
from pathlib import Path

import pytest
import ray
import runs
import shelves

from intent.run import driver
from intent.run.ledger import Ledger
from intent.run.progress import Tally
from intent.storage import open_store

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]

CORE = 20
MESSAGES = [
    *(f"please add one {name}" for name in shelves.NAMES),
    "not the red shoe small rather the blue hammer large",
    "?!",
    "give me a now",
    None,
]
TABLE, NO_TABLE = None, 0
# How often an actor dies when it gets the prompt of another shelf.
ACTOR_DEATHS = 2


def run(root: str, actors: int, actor_before=None, log: str | None = None, frequent_messages=TABLE) -> None:
    engine = shelves.engine(shelves.NAMES, CORE, actors, cpus=0.1, before=actor_before, log=log)
    router = functools.partial(shelves.router, shelves.NAMES, CORE)
    runs.run(root, [engine], router=router, frequent_messages=frequent_messages)


def drive(root: str, actors: int, before=lambda: None, **kwargs):
    """Start a run whose driver is a process of its own."""

    # A process of another task must not do what `before` made this one do.
    @ray.remote(num_cpus=0, max_retries=0, max_calls=1)
    def driver():
        before()
        run(root, actors, **kwargs)

    return driver.remote()


def write_log(root: str) -> None:
    runs.write_log(open_store(f"{root}/in"), files=2, rows=len(MESSAGES), messages=MESSAGES)


def rows(root: str) -> list[dict]:
    """Return every row of the output, sorted by id."""
    output = open_store(f"{root}/out")
    labels = [row for prefix in ("labelled/", "rejected/") for row in runs.read(output, prefix).to_pylist()]
    return sorted(labels, key=lambda row: row["id"])


def lines(log: str) -> list[str]:
    return Path(log).read_text().splitlines() if Path(log).exists() else []


@pytest.fixture(scope="module")
def undisturbed(ray_cluster, tmp_path_factory) -> list[dict]:
    """Return the rows of a run without faults, with one actor and the table."""
    root, log = str(tmp_path_factory.mktemp("undisturbed")), str(tmp_path_factory.mktemp("log") / "prompts")
    write_log(root)
    run(root, actors=1, log=log)
    runs.check_run(root)
    assert len(set(lines(log))) >= 8, "the catalog has several shelves"
    labels = rows(root)
    assert {row["variant"] for row in labels if "variant" in row} == {"naming", "retriever"}
    return labels


# With the table of all messages: when it is written, between its answers, before it is loaded, between parts. Then without it.
DRIVER_STEPS = {
    "table-written": (driver, "find_frequent", True, TABLE),
    "table-answer": (Tally, "answer", True, TABLE),
    "table-answered": (driver, "load_frequent_answers", False, TABLE),
    "table-part": (Tally, "add", True, TABLE),
    "part": (Tally, "add", True, NO_TABLE),
    "manifest": (Ledger, "commit", False, NO_TABLE),
}
# From here on every message has its answer in the store.
ANSWERED = ("table-answered", "table-part", "manifest")


@pytest.mark.parametrize("step", DRIVER_STEPS)
def test_a_killed_driver_and_killed_actors_change_no_label(tmp_path, harm, undisturbed, step):
    owner, name, after, table = DRIVER_STEPS[step]
    root, log = str(tmp_path), str(tmp_path / "prompts")
    write_log(root)
    harm.add(f"{name}_{'after' if after else 'before'}")
    harm.add("ask_before", ACTOR_DEATHS)
    mortal = functools.partial(runs.dying, harm, shelves.NamingClassifier, "ask")
    dying = functools.partial(runs.dying, harm, owner, name, after)
    start = functools.partial(drive, root, actor_before=mortal, log=log, frequent_messages=table)
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(start(2, dying))
    committed = {key: etag for key, etag in runs.snapshot(root).items() if key.startswith("labelled/")}
    asked = len(lines(log))
    ray.get(start(3))
    runs.check_run(root)
    assert harm.left == []
    assert rows(root) == undisturbed
    assert committed.items() <= runs.snapshot(root).items()
    if step in ANSWERED:
        assert len(lines(log)) == asked, "what has an answer is not asked again"
