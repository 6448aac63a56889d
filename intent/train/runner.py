"""Run the loop of `loop.py` on Ray Train workers with a GPU or CPUs. Checkpoints go to storage and survive a worker's death."""

import gc
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import ray
from ray.util.queue import Empty, Queue

from intent.artifacts import Artifact, Files, fetch
from intent.dataset import dataset
from intent.dataset.example import Example
from intent.engine.config import Device
from intent.errors import IntentError
from intent.storage import StorageOptions, open_store
from intent.storage.s3 import S3Store
from intent.train.config import TrainConfig

if TYPE_CHECKING:
    from intent.train.batches import Group

Step = Callable[[int, int, str], None]
MEMORY = "memory may have run out: use fewer products, a smaller train.batch_messages, or a node with more memory"
MIN_CATALOGS = 8  # per worker and file; with fewer, messages are distributed one by one instead of by catalog


@dataclass(frozen=True)
class TrainRequest:
    """Describe a training for its workers. It names artifacts instead of containing them, so it is small to send."""

    base: Artifact
    data: tuple[Artifact, ...]
    storage: StorageOptions
    output_format: str
    config: TrainConfig


def fit(request: TrainRequest, name: str, storage_path: str, step: Step, target: Path) -> dict:
    """Train, and copy the best adapter to the folder `target`. Returns its metrics.

    A training of the same `name` and `storage_path` that was interrupted resumes from its last checkpoint. `step`: called with
    the finished steps, the total and a line about the current work. Raises IntentError if the training fails.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    uses_gpu = _uses_gpu(request.config)
    scaling = ScalingConfig(
        num_workers=request.config.workers,
        use_gpu=uses_gpu,
        resources_per_worker={"CPU": request.config.cpus} | ({"GPU": 1} if uses_gpu else {}),
    )
    path, filesystem = _ray_storage(storage_path, request.storage)
    running = RunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=2),
        checkpoint_config=CheckpointConfig(num_to_keep=2, checkpoint_score_attribute="exact"),
    )
    queue = Queue(actor_options={"num_cpus": 0})
    trainer = TorchTrainer(
        _work, train_loop_config={"request": request, "queue": queue}, scaling_config=scaling, run_config=running
    )
    try:
        with _listening(queue, step):
            result = trainer.fit()
    except TrainingFailedError as error:
        raise failure(error) from error
    if isinstance(result.return_value, IntentError):
        raise result.return_value
    checkpoint, metrics = max(result.best_checkpoints, key=lambda pair: pair[1]["exact"])
    checkpoint.to_directory(str(target))
    return {key: value for key, value in metrics.items() if key in ("exact", "loss", "step", "messages")}


def failure(error: Exception) -> IntentError:
    """Find the error to report: a worker's IntentError, or else the root cause with a hint if memory may have run out."""
    raised = [_root(each) for each in getattr(error, "worker_failures", {}).values()] or [_root(error)]
    if named := [each for each in raised if isinstance(each, IntentError)]:
        return named[0]
    first = raised[0]
    lines = [line.strip() for line in str(first).splitlines() if line.strip()] or [""]
    text = f"training failed: {type(first).__name__}: {next((line for line in lines if 'because' in line), lines[0])}"
    killed = isinstance(first, MemoryError | ray.exceptions.OutOfMemoryError | ray.exceptions.RayActorError)
    # These are the words of CUDA and of the CPU allocator.
    if killed or any(words in text for words in ("out of memory", "allocate memory")):
        text += f" [{MEMORY}]"
    return IntentError(text)


def _root(error: BaseException) -> BaseException:
    """Return the original error inside the errors of Ray and Ray Train."""
    for name in ("controller_failure", "health_check_failure", "cause"):
        if isinstance(inner := getattr(error, name, None), BaseException):
            return _root(inner)
    return error


def _uses_gpu(config: TrainConfig) -> bool:
    return config.device is Device.cuda or (config.device is Device.auto and ray.cluster_resources().get("GPU", 0) > 0)


def _ray_storage(uri: str, options: StorageOptions):
    """Return (path, filesystem) for Ray Train. The endpoint is passed explicitly, because pyarrow reads no variable for it."""
    if not uri.startswith("s3://"):
        return str(Path(uri).absolute()), None
    from pyarrow.fs import S3FileSystem

    client = cast(S3Store, open_store(uri, options)).client
    return uri.removeprefix("s3://"), S3FileSystem(endpoint_override=client.meta.endpoint_url, region=options.region)


class _listening:
    """Call `step` with the workers' reports from the queue until the block ends."""

    def __init__(self, queue: Queue, step: Step):
        self.queue, self.step, self.over = queue, step, threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *error):
        self.over.set()
        self.thread.join(timeout=5)
        self.queue.shutdown()

    def _listen(self) -> None:
        while not self.over.is_set():
            try:
                self.step(*self.queue.get(timeout=0.5))
            except Empty:
                continue


def _work(config: dict) -> IntentError | None:
    """Train on one worker. A single worker returns an IntentError, because Ray would retry after a raised one, in vain."""
    try:
        _train(config["request"], config["queue"])
    except IntentError as error:
        if config["request"].config.workers > 1:
            # If this worker returned, the others would wait for it forever.
            raise
        return getattr(error, "cause", None) or error
    return None


def _train(request: TrainRequest, queue: Queue) -> None:
    from ray.train import get_context

    from intent.train.loop import train

    context, reporter = get_context(), _RayReporter(queue)
    # Millions of rows are created and kept until the end. Scanning them for garbage would waste time.
    gc.disable()
    training = _encoded(request, "train", reporter, context.get_world_rank(), context.get_world_size())
    validation = _encoded(request, "validation", reporter)
    gc.freeze()
    gc.enable()
    base = fetch(request.base, request.storage)
    train(base, request.config, training, validation, reporter)


def _encoded(request: TrainRequest, split: str, reporter: "_RayReporter", worker: int = 0, workers: int = 1) -> list["Group"]:
    """Encode the worker's part of the split.

    Several files are encoded by one task each. The tasks reserve no CPU, because this worker has reserved its own already.
    """
    keys = [(data, key) for data in request.data for key in dataset.split_keys(Files(data, request.storage), split)]
    reporter.step(0, 0, f"reads the {split} messages")
    if len(keys) == 1:
        return _encode(request, *keys[0], worker, workers)
    # One task runs per CPU, so threads inside the tokenizers would only compete with each other.
    task = ray.remote(num_cpus=0, runtime_env={"env_vars": {"TOKENIZERS_PARALLELISM": "false"}})(_encode)
    at_once = max(1, int(ray.cluster_resources().get("CPU", 1)) // request.config.workers)
    waiting = deque(task.remote(request, data, key, worker, workers) for data, key in keys[:at_once])
    groups: list[Group] = []
    for number, key in enumerate([*keys[at_once:], *[None] * len(waiting)], 1):
        groups += ray.get(waiting.popleft())
        reporter.step(0, 0, f"reads the {split} messages: {number} of {len(keys)} files")
        if key:
            waiting.append(task.remote(request, *key, worker, workers))
    return groups


def _encode(request: TrainRequest, data: Artifact, key: str, worker: int, workers: int) -> list["Group"]:
    from intent.task.prompt import load_tokenizer
    from intent.train.batches import encode

    files = Files(data, request.storage)
    tokenizer = load_tokenizer(fetch(request.base, request.storage))
    examples = part(dataset.read_file(files, key), worker, workers)
    catalogs = dataset.read_catalogs(files, (example.catalog for example in examples))
    return encode(examples, catalogs, dataset.read_schema(files), tokenizer, request.output_format)


def part(examples: Sequence[Example], worker: int, workers: int) -> Sequence[Example]:
    """Select one worker's examples: whole catalogs, whose messages share a prefix, or every nth example if catalogs are few."""
    catalogs = list(dict.fromkeys(example.catalog for example in examples))
    if len(catalogs) < MIN_CATALOGS * workers:
        return examples[worker::workers]
    own = set(catalogs[worker::workers])
    return [example for example in examples if example.catalog in own]


class _RayReporter:
    """Implement `loop.Reporter` with Ray Train. Only rank 0 reports progress and stores checkpoints."""

    def __init__(self, queue: Queue):
        from ray.train import get_checkpoint, get_context

        self.queue, self.first = queue, get_context().get_world_rank() == 0
        checkpoint = get_checkpoint()
        self.folder = Path(checkpoint.to_directory()) if checkpoint else None

    def resume_from(self) -> Path | None:
        return self.folder

    def step(self, done: int, total: int, text: str) -> None:
        if self.first:
            self.queue.put((done, total, text))

    def checkpoint(self, metrics: dict, write: Callable[[Path], None]) -> None:
        import tempfile

        from ray.train import Checkpoint, report

        with tempfile.TemporaryDirectory() as folder:
            if self.first:
                write(Path(folder))
            report(metrics, checkpoint=Checkpoint.from_directory(folder) if self.first else None)
