"""A small labelling run for tests: logs, engines that answer by rule, and the invariant that every test ends with."""

import functools
import io
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from intent.engine import Prediction, Status
from intent.errors import ManifestLost
from intent.run.actor_pool import EngineSpec
from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import Ledger, RunIdentity
from intent.storage import StorageOptions, Store, open_store
from intent.task.schema import Choice, Count, Entity, IntentSchema

CART = IntentSchema(
    "cart", "test", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity"))
)
BASKET = IntentSchema("basket", "test", (Choice("action", ("add", "remove")), Entity("product"), Count("quantity")), repeat=8)
IDENTITY = RunIdentity({"rule": "1"}, prompt="p", schema="s", catalog="c")


def rule(message: str) -> Prediction:
    """Label by rule. The quantity is the message's length; 'unsure' abstains, 'refuse' rejects, 'hello' is no intent."""
    if "refuse" in message:
        reason = "message of 900 tokens is over the limit of 256"
        return Prediction(None, status=Status.REJECTED, reason=reason, message=message)
    if "unsure" in message:
        return Prediction({"action": "add", "product": "Milk", "quantity": 1}, 0.2, (), Status.ABSTAINED, message=message)
    if "hello" in message:
        return Prediction({"action": "none", "product": None, "quantity": None}, 0.8, message=message)
    return Prediction({"action": "add", "product": "Milk", "quantity": len(message)}, 0.9, message=message)


def list_rule(message: str) -> Prediction:
    """Label as `rule`, with one item more for each "and". The first item's quantity is the message's length."""
    prediction = rule(message)
    if prediction.status is Status.REJECTED:
        return prediction
    if prediction.status is Status.ABSTAINED:
        return replace(prediction, intent={"intents": None})
    if "hello" in message:
        return replace(prediction, intent={"intents": []})
    more = [{"action": "remove", "product": "Eggs", "quantity": n} for n in range(1, message.count(" and ") + 1)]
    items = [prediction.intent, *more]
    return replace(prediction, intent={"intents": items}, slots=tuple(1 - 0.125 * n for n in range(len(items))))


@dataclass
class RuleClassifier:
    """`rule`, or `list_rule`, after `seconds` per call. 'die' in a message kills the process, 'raise' raises.

    `log`: a file that gets a line for every message seen.
    """

    variant: str = "rule"
    seconds: float = 0.0
    log: str | None = None
    lists: bool = False

    def classify(self, messages):
        assert len(set(messages)) == len(messages), "a message was given twice"
        if self.log:
            with open(self.log, "a") as file:
                file.writelines(f"{message}\n" for message in messages)
        time.sleep(self.seconds)
        if any("die" in message for message in messages):
            os._exit(137)
        if any("raise" in message for message in messages):
            # As some engines do. A report of the error must not quote its text.
            raise RuntimeError(f"cannot decode {list(messages)}")
        return [(list_rule if self.lists else rule)(message) for message in messages]


def engine(variant: str = "rule", actors: int = 1, cpus: float = 0.5, before=None, env_vars=None, **kwargs) -> EngineSpec:
    """`before` runs in the actor's process before it loads its engine. Tests inject their faults there."""

    def load():
        if before:
            before()
        return RuleClassifier(variant, **kwargs)

    return EngineSpec(variant, "stub", load, actors=actors, cpus=cpus, env_vars=env_vars or {})


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened for {seconds:g} seconds")
        time.sleep(0.05)


def take_fault(harm: str, kind: str) -> bool:
    """Remove one of the files `kind`-* in the folder `harm`. Returns whether there was one: one fault per file."""
    for path in Path(harm).glob(f"{kind}-*"):
        path.unlink()
        return True
    return False


def dying(harm: str, owner: type, name: str, after: bool = False) -> None:
    """Make calls of `owner.name` kill this process, before or after the call, while `harm` has faults of `name`."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def call(*args, **kwargs):
        kind = f"{name}_{'after' if after else 'before'}"
        if not after and take_fault(harm, kind):
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if after and take_fault(harm, kind):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, call)


def write_log(store: Store, files: int = 3, rows: int = 100, messages=None, key: str = "log-{}.parquet", **kwargs) -> None:
    for number in range(files):
        ids = [f"{number}-{row}" for row in range(rows)]
        column = [messages[row % len(messages)] if messages else f"add {row % 37} milk" for row in range(rows)]
        put_table(store, key.format(number), pa.table({"id": ids, "message": column}), **kwargs)


def put_table(store: Store, key: str, table: pa.Table, **kwargs) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **kwargs)
    store.put(key, sink.getvalue().to_pybytes())


def read(store: Store, prefix: str) -> pa.Table:
    tables = [pq.read_table(io.BytesIO(store.read(blob.key)), page_checksum_verification=True) for blob in store.list(prefix)]
    return pa.concat_tables(tables) if tables else pa.table({"id": [], "reason": []})


def run(root: str, engines=None, rows_per_shard: int = 40, attempts: int = 3, identity: RunIdentity = IDENTITY, **kwargs):
    options = kwargs.pop("options", StorageOptions())
    schema = kwargs.pop("schema", CART)
    fleet = FleetConfig(rows_per_shard=rows_per_shard, attempts=attempts)
    return classify_log(f"{root}/in", f"{root}/out", options, identity, schema, engines or [engine()], fleet, **kwargs)


def snapshot(root: str, options: StorageOptions = StorageOptions()) -> dict[str, str]:
    return {blob.key: blob.etag for blob in open_store(f"{root}/out", options).list()}


def check_run(root: str, id_column: str = "id", options: StorageOptions = StorageOptions()) -> dict:
    """Check I0: every id of the input is in the output exactly once, and the store matches the manifest.

    If each item has a row of its own, only the first one of a message counts.
    """
    source, output = open_store(f"{root}/in", options), open_store(f"{root}/out", options)
    given = Counter(read(source, "").column(id_column).to_pylist())
    labelled, rejected = read(output, "labelled/"), read(output, "rejected/")
    if "item" in labelled.column_names:
        labelled = labelled.filter(pc.less_equal(pc.fill_null(labelled["item"], 0), 1))
    assert Counter(labelled["id"].to_pylist() + rejected["id"].to_pylist()) == given
    manifest = Ledger(output, IDENTITY).verify()
    assert manifest["rows"] == sum(given.values()) == manifest["labelled"] + manifest["abstained"] + manifest["rejected"]
    assert manifest["rejected"] == len(rejected)
    assert not list(output.list("frequent/")), "the table of frequent messages outlived the run"
    assert manifest["abstained"] == labelled["status"].to_pylist().count("abstained")
    if root.startswith("s3://"):
        assert "Uploads" not in output.client.list_multipart_uploads(Bucket=output.bucket)
    return manifest


def meet(harm) -> None:
    """Make this process's driver wait before its manifest until another driver has reached the same point."""
    commit = Ledger.commit

    def call(*args):
        harm.add(f"here-{os.getpid()}")
        wait_until(lambda: len(harm.left) == 2)
        return commit(*args)

    Ledger.commit = call


def stop_before(harm, owner: type, name: str) -> None:
    """Make this process write its id to `harm`/pid and stop, before each call of `owner`.`name`."""
    original = getattr(owner, name)

    def call(*args):
        Path(harm, "pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return original(*args)

    setattr(owner, name, call)


def ends_of(drivers) -> list[int]:
    """Return the row count of each driver's run, or exit code 4 where another driver's manifest won, sorted."""
    ends = []
    for driver in drivers:
        try:
            ends.append(ray.get(driver).rows)
        except ManifestLost as lost:
            ends.append(lost.exit_code)
    return sorted(ends)
