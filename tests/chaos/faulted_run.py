"""Compare a large run with faults to the same run without: rows lost, rows duplicated, and the cost of the faults.

`make faulted-run` runs it. By hand, with PYTHONPATH=.:tests:tests/chaos:

    python tests/chaos/faulted_run.py --rows 10000000 --out faulted-run.json

For each engine, the stub and the linear SVM, a log of `--rows` rows on an S3 server is labelled twice by two actors. In the
second run the driver is killed when a third and when two thirds of the parts are there, an actor every `--actor-seconds`, and
the store fails a share `--store-share` of its calls: it throttles, or hangs up before it has done anything. Of its writes it
fails half as many more, by hanging up after it has done them.
"""

import argparse
import functools
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow.parquet as pq
import ray
from s3_proxy import Rule, S3Proxy
from servers import BUCKET, free_port, wait_for

from intent.benchmark import stub
from intent.benchmark.fan_out import IDENTITY
from intent.dataset.example import Example
from intent.engine import Classifier
from intent.engine.svm import load_svm, write_svm
from intent.evaluate.machine import machine
from intent.run.actor_pool import EngineSpec
from intent.run.config import FleetConfig
from intent.run.driver import classify_log
from intent.run.ledger import LABELLED, REJECTED, Ledger
from intent.storage import StorageOptions, Store, open_store
from intent.task.schema import Choice, IntentSchema
from intent.train.linear import fit_svm

ENGINES = ("stub", "svm")
ACTORS, MOST_DRIVERS = 2, 20
VERBS = ("add", "put", "remove", "get")
LABELS = IntentSchema("verbs", "Which verb comes first?", (Choice("verb", (*VERBS, "none")),))


@dataclass(frozen=True)
class Outcome:
    """`seconds`: of the run with all its drivers. `drivers_failed`: how many ended with an error by themselves.
    Another went on. `failed_calls`: of the store's `calls`.
    """

    engine: str
    faults: bool
    rows: int
    seconds: float
    lost: int
    doubled: int
    drivers_killed: int
    drivers_failed: int
    actors_killed: int
    calls: int
    failed_calls: int


def engine(name: str, folder: Path) -> tuple[EngineSpec, IntentSchema]:
    """`folder`: holds the SVM, and a file with the process id of each actor."""
    load = stub.StubClassifier if name == "stub" else functools.partial(load_svm, folder / "svm", LABELS)
    named = functools.partial(_leave_pid, folder / "pids", load)
    return EngineSpec(name, name, named, actors=ACTORS, cpus=1, rate=1000.0), stub.CART if name == "stub" else LABELS


def _leave_pid(pids: Path, load: Callable[[], Classifier]) -> Classifier:
    """Load first. On a busy machine, loading takes longer than the time between two kills, and no actor would ever work."""
    classifier = load()
    (pids / str(os.getpid())).touch()
    return classifier


def write_model(folder: Path) -> None:
    """Train an SVM on the beginnings of the log's messages."""
    draw = random.Random(7)
    texts = [" ".join(draw.choice(stub.WORDS) for _ in range(5)) for _ in range(2000)]
    labels = [text.split()[0] if text.split()[0] in VERBS else "none" for text in texts]
    examples = [Example(str(i), text, {"verb": label}, "en") for i, (text, label) in enumerate(zip(texts, labels, strict=True))]
    (folder / "svm").mkdir()
    write_svm(folder / "svm", fit_svm(examples[:1800], examples[1800:], LABELS))


def drive(args: argparse.Namespace) -> None:
    """Run one driver, in a process of its own, on the cluster of `args.address`."""
    ray.init(address=args.address, log_to_driver=False)
    spec, schema = engine(args.engine, Path(args.folder))
    fleet = FleetConfig(rows_per_shard=args.rows_per_shard, attempts=10)
    options = StorageOptions(endpoint=args.endpoint, region="us-east-1")
    classify_log(f"s3://{BUCKET}/log", args.output, options, IDENTITY, schema, [spec], fleet)


def faults_of(share: float) -> list[Rule]:
    return [*(Rule(kind, share=share / 2) for kind in ("slowdown", "gone")), Rule("lost", "PUT", share=share / 2)]


def run(args: argparse.Namespace, name: str, folder: Path, proxy: S3Proxy, direct: StorageOptions, faults: bool) -> Outcome:
    output = f"s3://{BUCKET}/{name}-{'faults' if faults else 'plain'}"
    store, shards = open_store(output, direct), -(-args.rows // args.rows_per_shard)
    command = [sys.executable, __file__, "drive", "--engine", name, "--output", output, "--folder", str(folder)]
    command += ["--endpoint", proxy.endpoint, "--address", args.address, "--rows-per-shard", str(args.rows_per_shard)]
    at = [shards // 3, 2 * shards // 3] if faults else []
    asked, harmed, drivers, ended = proxy.requests, proxy.hits, 0, []
    proxy.rules = faults_of(args.store_share) if faults else []
    started = time.monotonic()
    with open(folder / "drivers.txt", "a") as log, _killing(folder / "pids", args.actor_seconds if faults else None) as killed:
        while True:
            with _driver(command, log) as driver:
                while driver.poll() is None and not (at and sum(1 for _ in store.list(f"{LABELLED}/")) >= at[0]):
                    time.sleep(0.5)
            if driver.returncode == 0:
                break
            if at and driver.returncode == -signal.SIGKILL:
                drivers, at = drivers + 1, at[1:]
                continue
            ended.append(driver.returncode)
            if not faults or len(ended) > MOST_DRIVERS:
                raise SystemExit(f"drivers of {output} ended with {ended}:\n{Path(log.name).read_text()[-4000:]}")
    seconds, proxy.rules = time.monotonic() - started, []
    lost, doubled = check(store, args.rows)
    calls = proxy.requests - asked, proxy.hits - harmed
    return Outcome(name, faults, args.rows, seconds, lost, doubled, drivers, len(ended), len(killed), *calls)


@contextmanager
def _driver(command: list[str], log: TextIO) -> Iterator[subprocess.Popen]:
    """Start a driver. Kill it at the end of the block if it is still running."""
    driver = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield driver
    finally:
        driver.kill()
        driver.wait()


@contextmanager
def _killing(pids: Path, every: float | None) -> Iterator[list[int]]:
    """Kill one loaded actor every `seconds` seconds while the block runs."""
    killed, done = [], threading.Event()

    def kill() -> None:
        while not done.wait(every):
            alive = [int(path.name) for path in pids.iterdir() if _is_actor(int(path.name))]
            if alive:
                victim = random.Random(len(killed)).choice(sorted(alive))
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill, daemon=True)
    if every:
        thread.start()
    try:
        yield killed
    finally:
        done.set()
        if every:
            thread.join()


def _is_actor(pid: int) -> bool:
    """Return whether the process is an actor. Its id may belong to another process by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Actor")
    except OSError:
        return False


def check(store: Store, rows: int) -> tuple[int, int]:
    """Return the numbers of missing and of duplicated rows. Also checks the manifest."""
    counts = np.zeros(rows, np.int64)
    for prefix in (LABELLED, REJECTED):
        for blob in store.list(f"{prefix}/"):
            ids = pq.read_table(io.BytesIO(store.read(blob.key)), columns=["id"])["id"].to_numpy()
            np.add.at(counts, ids.astype(np.int64), 1)
    Ledger(store, IDENTITY).verify()
    return int((counts == 0).sum()), int((counts > 1).sum())


@contextmanager
def _store() -> Iterator[StorageOptions]:
    """Start an S3 server with the bucket, in a process of its own."""
    port = free_port()
    script = Path(__file__).parent.parent / "moto_server.py"
    command = [sys.executable, str(script), "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        options = StorageOptions(endpoint=f"http://127.0.0.1:{port}", region="us-east-1")
        wait_for(f"{options.endpoint}/moto-api/", 120)
        open_store(f"s3://{BUCKET}", options).client.create_bucket(Bucket=BUCKET)
        yield options
    finally:
        server.kill()
        server.wait()


def put_log(folder: Path, rows: int, options: StorageOptions) -> None:
    stub.write_log(folder / "log", rows, min(rows, 100_000))
    store = open_store(f"s3://{BUCKET}/log", options)
    for path in sorted((folder / "log").iterdir()):
        store.put_file(path.name, path)
        path.unlink()


def publish(out: str | None, outcomes: list[Outcome]) -> None:
    """Write the figures of the runs so far."""
    if out:
        date, command = time.strftime("%Y-%m-%d", time.gmtime()), " ".join(["python", *sys.argv])
        figures = {"command": command, "date": date, "machine": machine(), "nights": [asdict(outcome) for outcome in outcomes]}
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(figures, indent=1))


def main(args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory(prefix="intent-faulted-run-") as scratch, _store() as direct:
        folder, proxy = Path(scratch), S3Proxy(direct.endpoint, seed=args.seed)
        (folder / "pids").mkdir()
        write_model(folder)
        put_log(folder, args.rows, direct)
        ray.init(address="local", num_cpus=ACTORS, include_dashboard=False, log_to_driver=False)
        args.address = ray.get_runtime_context().gcs_address
        outcomes = []
        for name, faults in itertools.product(args.engines, (False, True)):
            outcomes.append(run(args, name, folder, proxy, direct, faults))
            print(outcomes[-1], flush=True)
            publish(args.out, outcomes)
        ray.shutdown()
        proxy.close()
    if any(outcome.lost or outcome.doubled for outcome in outcomes):
        raise SystemExit("rows were lost or duplicated")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "action", nargs="?", choices=["measure", "drive"], default="measure", help="drive: one driver, by itself"
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rows-per-shard", type=int, default=20_000)
    parser.add_argument("--actor-seconds", type=float, default=10.0, help="an actor is killed so often")
    parser.add_argument("--store-share", type=float, default=0.05, help="of the store's calls, which fail")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="the file for the figures")
    for name in ("engine", "output", "folder", "endpoint", "address"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    arguments = parse(sys.argv[1:])
    drive(arguments) if arguments.action == "drive" else main(arguments)
