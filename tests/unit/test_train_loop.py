"""The training loop without a cluster: it learns, stores a temperature beside its adapter, and resumes."""

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.train import ControllerError, WorkerGroupError

from intent.artifacts.variant import Precision
from intent.dataset.example import Example
from intent.engine import calibration
from intent.engine.config import Device
from intent.errors import ConfigError, IntentError
from intent.task.prompt import load_tokenizer
from intent.train import loop, runner
from intent.train.batches import encode
from intent.train.config import TrainConfig
from intent.train.loop import epochs, train
from tests.tiny import CART, NAMES, write_checkpoint

WORDS = {"add": "add", "remove": "drop", "none": "hello"}

CONFIG = TrainConfig(
    rank=8, epochs=6, batch_messages=16, validate_every=3, stop_at=1.0, patience=99, learning_rate=5e-3,
    four_bit=False, device=Device.cpu, cpus=1,
    # Other CPUs would compute in bfloat16, in which the order of sums shows.
    precision=Precision.float32,
)  # fmt: skip


class Folder:
    """A reporter that keeps the last checkpoint in a folder, and stops at step `stop`, as a lost machine does."""

    def __init__(self, folder: Path, stop: int = -1):
        self.folder, self.stop, self.updates, self.metrics = folder, stop, [], []

    def resume_from(self) -> Path | None:
        return self.folder if self.folder.exists() else None

    def step(self, done: int, total: int, text: str) -> None:
        self.updates.append((done, text))
        if done == self.stop:
            raise KeyboardInterrupt

    def checkpoint(self, metrics: dict, write: Callable[[Path], None]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        write(self.folder)
        self.metrics.append(metrics)


def groups(tokenizer):
    examples = []
    for i, action in enumerate(["add", "remove", "none"] * 16):
        product = NAMES[i % len(NAMES)]
        intent = {"action": action, "product": product, "quantity": 1}
        intent = intent if action != "none" else {"action": "none", "product": None, "quantity": None}
        examples.append(Example(str(i), f"{WORDS[action]} {product} {i // 24}", intent, "en"))
    return encode(examples, {"": NAMES}, CART, tokenizer, "compact")


def test_it_learns_and_a_run_that_was_cut_off_goes_on_with_the_same_steps(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    rows = groups(load_tokenizer(base))
    whole = Folder(tmp_path / "whole")
    metrics = train(base, CONFIG, rows, rows, whole)
    losses = [entry["loss"] for entry in whole.metrics]
    assert losses[-1] < 0.6 * losses[0] and metrics["messages"] == 6 * 48
    texts = [text for _, text in whole.updates]
    assert texts[:2] == ["loads the base model", "the first step"] and "messages/s" not in texts[2]
    assert "messages/s" in texts[3] and any(text.startswith("validates: 16 of 48 messages") for text in texts)
    temperatures, nothing = calibration.read(whole.folder, CART.names)
    assert nothing == 0
    assert len(temperatures) == 3 and all(0.25 <= t <= 8 for t in temperatures) and temperatures != [1.0] * 3

    cut = Folder(tmp_path / "cut", stop=8)
    with pytest.raises(KeyboardInterrupt):
        train(base, CONFIG, rows, rows, cut)
    resumed = Folder(cut.folder)
    again = train(base, CONFIG, rows, rows, resumed)
    assert [done for done, _ in resumed.updates][:3] == [0, 6, 7] and again["step"] == metrics["step"]
    assert abs(again["loss"] - metrics["loss"]) < 1e-3

    progress = resumed.folder / "progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"workers": 2}))
    with pytest.raises(ConfigError, match=r"train\.workers=1: .*use train\.workers=2"):
        train(base, CONFIG, rows, rows, Folder(cut.folder))


def test_training_goes_on_from_an_adapter_of_its_rank(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    rows = groups(load_tokenizer(base))
    first = Folder(tmp_path / "first")
    before = train(base, CONFIG, rows, rows, first)
    more = replace(CONFIG, adapter=str(first.folder), epochs=1, learning_rate=1e-4)
    after = train(base, more, rows, rows, Folder(tmp_path / "more"))
    assert after["step"] == 3 and after["loss"] < 1.2 * before["loss"]
    with pytest.raises(ConfigError, match=r"train\.adapter=.* has rank 8 and alpha 32; use train\.rank=8"):
        train(base, replace(more, rank=4), rows, rows, Folder(tmp_path / "other"))


def test_every_epoch_is_whole_whatever_number_of_batches_its_order_gives(tmp_path):
    base = write_checkpoint(tmp_path)
    none = {"action": "none", "product": None, "quantity": None}
    examples = [Example(f"{n}-{i}", f"hello {i}", none, "en", str(n)) for n in range(60) for i in range(2 + n % 7)]
    catalogs = {str(n): NAMES[: 2 + n % 5] for n in range(60)}
    several = encode(examples, catalogs, CART, load_tokenizer(base), "compact")
    config = replace(CONFIG, epochs=2, batch_messages=8, validate_every=99)
    assert len(set(epochs(several, config))) > 1
    metrics = train(base, config, several, several, Folder(tmp_path / "run"))
    assert metrics["messages"] == 2 * len(examples) and metrics["step"] == sum(epochs(several, config))


def test_a_step_of_several_passes_learns_as_one_pass_does(tmp_path):
    base = write_checkpoint(tmp_path / "base")
    rows = [replace(g, rows=g.rows[n::6]) for g in groups(load_tokenizer(base)) for n in range(6)]
    runs = []
    for tokens in (1, 1 << 20):
        torch.manual_seed(7)
        config = replace(CONFIG, epochs=2, pass_tokens=tokens)
        runs.append(train(base, config, rows, rows, Folder(tmp_path / str(tokens))))
    assert runs[0]["loss"] == pytest.approx(runs[1]["loss"], rel=1e-3) and runs[0]["messages"] == runs[1]["messages"]


def test_a_named_error_of_a_worker_is_the_runs_and_of_one_alone_is_not_tried_again(monkeypatch):
    diverged = IntentError("train.learning_rate=0.9: use a lower one")

    def raising(*_):
        raise diverged

    monkeypatch.setattr(runner, "_train", raising)
    asked = {workers: SimpleNamespace(config=TrainConfig(workers=workers)) for workers in (1, 2)}
    assert runner._work({"request": asked[1], "queue": None}) is diverged
    with pytest.raises(IntentError):
        runner._work({"request": asked[2], "queue": None})
    lost = ray.exceptions.RayTaskError("f", "Traceback", diverged)
    assert runner.failure(WorkerGroupError("...", {0: OSError("gone"), 1: lost})) is diverged
    assert str(runner.failure(WorkerGroupError("...", {0: OSError("gone\nfar")}))) == "training failed: OSError: gone"


def test_what_ray_train_wraps_is_named_and_memory_with_its_remedy():
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    text = str(runner.failure(ControllerError(ValueError("no such bucket\nmore"))))
    assert text == "training failed: ValueError: no such bucket"
    killed = WorkerHealthCheckFailedError("A worker health check failed.", ray.exceptions.ActorDiedError())
    for error in (WorkerGroupError("...", {0: killed}), ControllerError(ray.exceptions.OutOfMemoryError("the node ran low"))):
        text = str(runner.failure(error))
        assert "health check" not in text and "controller error" not in text
        assert text.endswith(f"[{runner.MEMORY}]")


def test_workers_share_the_messages_whole_catalogs_each_where_there_are_plenty():
    none = {"action": "none", "product": None, "quantity": None}
    several = [Example(f"{n}-{i}", f"hello {i}", none, "en", str(n)) for n in range(60) for i in range(5)]
    parts = [runner.part(several, worker, 3) for worker in range(3)]
    assert sorted(e.id for each in parts for e in each) == sorted(e.id for e in several)
    assert not {e.catalog for e in parts[0]} & {e.catalog for e in parts[1]} and len({len(each) for each in parts}) == 1
    one = [Example(str(i), f"hello {i}", none, "en", "") for i in range(9)]
    assert [len(runner.part(one, worker, 4)) for worker in range(4)] == [3, 2, 2, 2]


def test_a_step_of_several_workers_is_that_of_one_on_the_whole_batch(tmp_path, monkeypatch):
    """Each worker has a part of the messages and a different number of decisions, because `none` is one decision."""
    base = write_checkpoint(tmp_path / "base")
    (whole,) = groups(load_tokenizer(base))
    rows = sorted(whole.rows, key=lambda row: len(row.target.decisions))
    parts = [replace(whole, rows=part) for part in (rows[:24], rows[24:])]
    assert len({sum(len(row.target.decisions) for row in part.rows) for part in parts}) == 2
    gradients: dict[str, list] = {}
    load, loading, workers = loop.load_for_training, threading.Lock(), Workers(2)

    def loaded(*given):
        with loading:
            torch.manual_seed(7)
            return load(*given)

    def clip(parameters, _):
        gradients[threading.current_thread().name] = [p.grad.clone() for p in parameters]
        return torch.tensor(1.0)

    monkeypatch.setattr(loop, "load_for_training", loaded)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    once = replace(CONFIG, epochs=1, batch_messages=48)
    train(base, once, [whole], [whole], Folder(tmp_path / "one"))
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(torch.distributed, name, getattr(workers, name))
    two = replace(once, workers=2)
    with ThreadPoolExecutor(2, "worker") as pool:
        runs = [pool.submit(train, base, two, [part], [whole], Folder(tmp_path / f"{n}")) for n, part in enumerate(parts)]
        assert [run.result()["step"] for run in runs] == [1, 1]
    alone, *together = gradients.values()
    for each in together:
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(alone, each, strict=True))


class Workers:
    """torch.distributed's collectives between threads instead of processes."""

    def __init__(self, count: int):
        self.barrier, self.given = threading.Barrier(count), {}

    def all_reduce(self, tensor, operation) -> None:
        given = self._given(tensor)
        kinds = {torch.distributed.ReduceOp.SUM: torch.sum, torch.distributed.ReduceOp.AVG: torch.mean}
        tensor.copy_(kinds[operation](given, 0) if operation in kinds else given.min(0).values)

    def broadcast(self, tensor, _) -> None:
        tensor.copy_(self._given(tensor)[0])

    def _given(self, tensor):
        self.given[threading.get_ident()] = tensor.detach().clone()
        self.barrier.wait()
        gradients = torch.stack(list(self.given.values()))
        self.barrier.wait()
        return gradients


def test_a_worker_without_messages_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.workers=4: .*use fewer"):
        epochs([], replace(CONFIG, workers=4))
