"""Promote a daily run from staging to its readers, on disk and on S3. A rule labels it, without a cluster."""

import io
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs
import tables

from intent.engine import Status
from intent.errors import ConfigError, CorruptData, ManifestLost, Quarantined, RunMismatch, StoreUnfit
from intent.lake import open_target
from intent.nightly import promotion
from intent.nightly.config import GateConfig
from intent.nightly.journal import Journal
from intent.nightly.promotion import Examination, promote
from intent.run import staged
from intent.run.columns import Columns
from intent.run.driver import identify
from intent.run.ledger import Ledger
from intent.run.progress import Tally
from intent.run.publish import Publication
from intent.run.shard import plan_shards
from intent.run.worker import Worker
from intent.storage import StorageOptions, open_store

MON, TUE, WED = "2026-11-23", "2026-11-24", "2026-11-25"
USUAL, ODD = ["two milks", "milk please", "hello"], ["hello", "hello there", "hello you"]
COLUMNS = Columns(keep=("language",))
HELLO = runs.rule("hello")


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Shop:
    """A query log below `root`, and every message that the model was shown."""

    root: str
    limits: GateConfig = field(default_factory=lambda: GateConfig(language="language"))
    identity: object = runs.IDENTITY
    seen: list[str] = field(default_factory=list)
    gold: dict[str, float] = field(default_factory=dict)

    def log(self, day: str, messages=USUAL, rows: int = 300) -> None:
        column = [messages[row % len(messages)] for row in range(rows)]
        table = pa.table(
            {"id": [f"{day}-{row}" for row in range(rows)], "message": column, "language": ["en", "de"] * (rows // 2)}
        )
        runs.put_table(open_store(f"{self.root}/in/{day}"), "log.parquet", table, row_group_size=100)

    @property
    def journal(self) -> Journal:
        base = f"{self.root}/workspace"
        return Journal(open_store(base), lambda path: open_store(f"{base}/{path}"), self.labels)

    def labels(self, day: str):
        return open_store(f"{self.root}/labels/dt={day}")

    def staged(self) -> list[str]:
        return [blob.key for blob in open_store(f"{self.root}/workspace").list("staged/")]

    def run(self, day: str, between=lambda: None, publication=None, **limits):
        listing, run = identify(f"{self.root}/in/{day}", StorageOptions(), self.identity, COLUMNS)

        def label(uri: str) -> None:
            ledger = Ledger(open_store(uri), run)
            if ledger.manifest() is None:
                plan = ledger.plan(lambda: plan_shards(listing, COLUMNS, 100))
                worker, tally = Worker(self, runs.CART, COLUMNS, run.fingerprint), Tally()
                rows = pq.read_table(io.BytesIO(listing.store.read(listing.blobs[0].key)))
                parts = {s.id: ledger.publish(worker.label(s, rows.slice(s.start, s.rows))) for s in plan.shards}
                for part in parts.values():
                    tally.add(part)
                ledger.commit(plan, parts, tally.summary(0, uri).as_dict())
            between()

        exam = Examination(runs.CART, replace(self.limits, **limits), lambda: dict(self.gold))
        return promote(self.journal, day, run, label, exam, publication=publication)

    variant = "rule"

    def classify(self, messages):
        self.seen += messages
        return [runs.rule(message) for message in messages]

    def check(self, day: str) -> None:
        """Check that readers have every row of the log once, and that the store matches the manifest."""
        given = runs.read(open_store(f"{self.root}/in/{day}"), "")["id"].to_pylist()
        assert Counter(runs.read(self.labels(day), "labelled/")["id"].to_pylist()) == Counter(given)
        assert Ledger(self.labels(day), self.identity).verify()["summary"]["output"] == self.labels(day).uri


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Skip the probe of the store."""
    monkeypatch.setattr(promotion, "probe", lambda store: None)


@pytest.fixture
def shop(root) -> Shop:
    shop = Shop(root)
    for day in (MON, TUE):
        shop.log(day)
    shop.run(MON)
    return shop


def test_a_run_within_its_limits_is_published_whole_and_leaves_nothing_staged(shop):
    assert shop.run(TUE).rows == 300
    shop.check(TUE)
    assert shop.staged() == []
    kinds = Counter(key.split("/")[0] for key in published_keys(shop, TUE))
    assert kinds == {"labelled": 3, "plan.json": 1, "manifest.json": 1, "summary.json": 1}


def published_keys(shop: Shop, day: str) -> dict[str, str]:
    return {blob.key: blob.etag for blob in shop.labels(day).list()}


def test_a_finished_run_changes_nothing_for_its_readers_and_says_so(shop):
    before, seen = published_keys(shop, MON), len(shop.seen)
    again = shop.run(MON)
    assert again.already_done and again.rows == 300
    assert published_keys(shop, MON) == before and len(shop.seen) == seen


def test_a_run_outside_its_limits_never_reaches_the_prefix_that_readers_trust(shop):
    shop.log(WED, ODD)
    everything = {blob.key for blob in open_store(f"{shop.root}/labels").list()}
    for _ in range(2):
        with pytest.raises(Quarantined) as end:
            shop.run(WED)
        assert end.value.exit_code == 7
        for expected in ("the mix of action in de is", "none from 33.3% to 100.0%", f"with date={WED} gate.accept=true"):
            assert expected in str(end.value)
        assert {blob.key for blob in open_store(f"{shop.root}/labels").list()} == everything
    assert shop.seen.count("hello there") == 3, "the second submit labelled again"
    assert "quarantined" in shop.journal.store.read(f"{WED}.html").decode()
    assert [profile.night for profile in shop.journal.last("2026-11-26", 7)] == [MON]


def test_a_quarantined_run_can_be_accepted_and_then_counts_among_the_previous_days(shop):
    shop.log(WED, ODD)
    with pytest.raises(Quarantined):
        shop.run(WED)
    seen, other = len(shop.seen), replace(shop, identity=replace(runs.IDENTITY, models={"rule": "2"}))
    with pytest.raises(ConfigError, match=r"gate\.accept=True: no nightly run of these models"):
        other.run(WED, accept=True)
    shop.run(WED, accept=True)
    assert len(shop.seen) == seen
    shop.check(WED)
    assert "accepted by hand" in shop.journal.store.read(f"{WED}.html").decode()
    assert shop.staged() == [] and shop.run(WED).already_done
    assert [profile.night for profile in shop.journal.last("2026-11-26", 7)] == [MON, WED]


def test_a_quarantined_run_passes_once_its_limits_are_wider(shop):
    shop.log(WED, ODD)
    with pytest.raises(Quarantined):
        shop.run(WED)
    shop.run(WED, change=1, distance=1)
    shop.check(WED)
    assert "accepted by hand" not in shop.journal.store.read(f"{WED}.html").decode()


def test_another_model_labels_a_quarantined_day_again_but_not_an_accepted_one(shop):
    shop.gold = {"rule": 0.2}
    with pytest.raises(Quarantined, match="rule gets 20.0% of the gold set right, under gate.agreement=0.9"):
        shop.run(TUE)
    shop.identity, shop.gold, seen = replace(runs.IDENTITY, models={"rule": "2"}), {"rule": 1.0}, len(shop.seen)
    shop.run(TUE)
    assert len(shop.seen) > seen and shop.staged() == []
    shop.check(TUE)
    with pytest.raises(RunMismatch, match="other models"):
        shop.run(MON)


def test_a_day_that_is_labelled_again_is_judged_by_its_new_labels(shop, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(Quarantined):
        patched.setattr(runs, "rule", lambda message: replace(HELLO, message=message))
        shop.run(TUE)
    shop.journal.clear(TUE)
    assert shop.run(TUE).rows == 300
    shop.check(TUE)


def test_parts_of_a_run_are_profiled_as_they_arrive_with_bounded_prefetch(shop, monkeypatch):
    def look() -> None:
        [run] = {key.split("/")[2] for key in shop.staged()}
        monkeypatch.setattr(staged, "AHEAD", 2)
        parts, read = staged.Staged(shop.journal.staged(TUE, run)), []
        uris = parts.map(lambda data, uri: read.append(uri) or uri)
        assert next(uris) in read and len(read) <= 2 and len([*uris]) == len(read) - 1 == 2

    shop.run(TUE, between=look)


def test_what_is_published_is_counted_in_the_parts_that_are_there(shop, monkeypatch):
    """A part of an earlier attempt stays in place, even after its staged run has changed."""
    publish, attempts = Ledger.publish, count()

    def die(ledger, part):
        if next(attempts):
            raise Crash
        return publish(ledger, part)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        shop.run(TUE, between=lambda: patched.setattr(Ledger, "publish", die))
    shop.journal.clear(TUE)
    monkeypatch.setattr(runs, "rule", lambda message: replace(HELLO, status=Status.ABSTAINED, message=message))
    summary = shop.run(TUE, abstained=1, change=1, distance=1)
    shop.check(TUE)
    manifest = Ledger(shop.labels(TUE), shop.identity).manifest()
    assert (summary.labelled, summary.abstained) == (100, 200) and summary.as_dict() == manifest["summary"]
    assert [manifest[name] for name in ("rows", "labelled", "abstained")] == [300, 100, 200]
    assert summary.classified == summary.rows - summary.duplicates_saved and summary.seconds > 0


def test_a_quarantined_run_fixes_the_variants_only_of_a_run_that_accepts_it(shop):
    def begun(**how) -> list[str]:
        return [store.uri for store in shop.journal.begun(WED, **how)]

    shop.log(WED, ODD)
    seen = []
    with pytest.raises(Quarantined):
        shop.run(WED, between=lambda: seen.extend(begun()))
    assert len(seen) == 1, "finished and not judged yet, it goes on"
    assert begun() == [] and begun(accept=True) == seen
    shop.journal.below(f"staged/{WED}/other").put("plan.json", b"{}")
    assert begun() == [f"{shop.root}/workspace/staged/{WED}/other"], "one that is not finished goes on"


@pytest.mark.parametrize(
    ("owner", "method", "calls"),
    [
        (Journal, "keep", 0),
        (Ledger, "plan", 1),
        (Ledger, "publish", 1),
        (Ledger, "commit", 0),
        (Ledger, "close", 0),
        (Journal, "clear", 0),
        (Journal, "draw", 0),
    ],
)
def test_a_run_that_dies_between_any_two_steps_is_finished_by_the_next_submit(shop, monkeypatch, owner, method, calls):
    """After labelling, `calls` calls of `method` succeed. The next one dies."""
    left, original = [calls], getattr(owner, method)

    def die(*args):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return original(*args)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        shop.run(TUE, between=lambda: patched.setattr(owner, method, die))
    done, seen = published_keys(shop, TUE), len(shop.seen)
    shop.run(TUE)
    shop.check(TUE)
    assert done.items() <= published_keys(shop, TUE).items() and len(shop.seen) == seen
    assert shop.staged() == []
    assert "accepted" in shop.journal.store.read(f"{TUE}.html").decode()
    assert shop.run(TUE).already_done


def test_a_crash_while_clearing_leaves_nothing_that_looks_finished(shop, monkeypatch):
    store = type(shop.journal.store)
    delete, left = store.delete, [2]

    def die(self, key):
        if "staged" in key:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
        delete(self, key)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(store, "delete", die)
        shop.run(TUE)
    assert shop.staged() and not any(key.endswith("manifest.json") for key in shop.staged())
    assert shop.run(TUE).already_done and shop.staged() == []


@pytest.mark.parametrize("late", ["after labelling", "before the manifest"])
def test_of_two_drivers_the_second_changes_nothing_and_ends_with_its_own_code(shop, monkeypatch, late):
    other = Shop(shop.root)
    if late == "after labelling":
        with pytest.raises(ManifestLost) as lost:
            shop.run(TUE, between=lambda: other.run(TUE))
    else:
        publish = promotion.publish

        def overtaken(staged, output):
            monkeypatch.undo()
            commit = Ledger.commit

            def later(*args):
                monkeypatch.undo()
                other.run(TUE)
                return commit(*args)

            monkeypatch.setattr(Ledger, "commit", later)
            publish(staged, output)

        monkeypatch.setattr(promotion, "publish", overtaken)
        with pytest.raises(ManifestLost) as lost:
            shop.run(TUE)
    assert lost.value.exit_code == 4
    shop.check(TUE)
    assert shop.staged() == []


def test_a_changed_staged_part_is_named_and_the_run_gets_no_manifest(shop):
    def harm() -> None:
        key = next(key for key in shop.staged() if "labelled/" in key)
        store = open_store(f"{shop.root}/workspace")
        data = bytearray(store.read(key))
        data[-20] ^= 1
        store.put(key, bytes(data))

    with pytest.raises(CorruptData, match="labelled/part-.*delete .*staged.*run again"):
        shop.run(TUE, between=harm)
    assert published_keys(shop, TUE) == {}


def test_an_output_that_ignores_conditional_writes_is_refused_before_anything_is_published(shop, monkeypatch):
    monkeypatch.undo()
    store = type(shop.journal.store)
    monkeypatch.setattr(store, "put_if_absent", lambda self, key, data, notes={}: self.put(key, data) or True)
    with pytest.raises(StoreUnfit):
        shop.run(TUE)
    assert published_keys(shop, TUE) == {}


def test_a_day_that_classify_labelled_stays_as_it_is(shop):
    shop.run(TUE)
    for key in (f"portraits/{MON}.json", f"portraits/{TUE}.json"):
        shop.journal.store.delete(key)
    assert shop.run(TUE).already_done


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A function that returns the publication to an Iceberg table, with the readers' view as `table.rows()`."""
    tables.use_catalog(monkeypatch, tmp_path)

    class Table:
        def __call__(self, shop: Shop, day: str) -> Publication:
            target = open_target("iceberg:prod/shop.labels", ["language"], StorageOptions())
            return Publication(target, runs.CART, COLUMNS, f"{shop.root}/in/{day}", day)

        def rows(self, branch: str = "main") -> dict[str, int]:
            loaded = tables.iceberg("shop.labels")
            head = loaded.snapshot_by_name(branch)
            ids = loaded.scan(snapshot_id=head.snapshot_id).to_arrow()["id"].to_pylist()
            assert len({*ids}) == len(ids)
            return dict(Counter(name.rpartition("-")[0] for name in ids))

        def branches(self) -> list[str]:
            return [name for name in tables.iceberg("shop.labels").refs() if name != "main"]

    return Table()


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_a_run_that_fails_its_gate_stays_on_a_branch_until_it_is_accepted(shop, table):
    """This also holds if it was published to its output before `publish` named a table."""
    shop.run(MON, publication=table(shop, MON))
    assert table.rows() == {MON: 300} and table.branches() == []
    shop.log(WED, ODD)
    with pytest.raises(Quarantined, match="its labels are in .* and in iceberg:prod/shop.labels, branch intent-2026-11-25-"):
        shop.run(WED, publication=table(shop, WED))
    [branch] = table.branches()
    assert table.rows() == {MON: 300} and table.rows(branch) == {MON: 300, WED: 300}
    shop.run(TUE, publication=table(shop, TUE))
    assert table.rows() == {MON: 300, TUE: 300} and table.branches() == [branch]
    shop.run(WED, publication=table(shop, WED), accept=True)
    assert table.rows() == {MON: 300, TUE: 300, WED: 300} and table.branches() == []
    for day in (MON, TUE, WED):
        assert shop.run(day, publication=table(shop, day)).already_done
    assert table.rows() == {MON: 300, TUE: 300, WED: 300}


@pytest.mark.parametrize("root", ["local"], indirect=True)
@pytest.mark.parametrize("step", ["stage", "commit"])
@pytest.mark.parametrize("after", [False, True])
def test_a_driver_that_dies_around_the_branch_or_the_commit_is_followed_by_one_that_publishes_once(
    shop, table, monkeypatch, step, after
):
    once, done = getattr(Publication, step), []

    def die(self, *args):
        if not done:
            done.append(once(self, *args) if after else None)
            raise Crash
        return once(self, *args)

    monkeypatch.setattr(Publication, step, die)
    with pytest.raises(Crash):
        shop.run(TUE, publication=table(shop, TUE))
    seen = len(shop.seen)
    shop.run(TUE, publication=table(shop, TUE))
    assert table.rows() == {TUE: 300} and table.branches() == [] and len(shop.seen) == seen
    shop.check(TUE)
