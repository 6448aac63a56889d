"""Train with QLoRA (Dettmers et al., arXiv 2305.14314) on one worker, with validation, early stopping and resuming.

This module knows nothing of Ray. Checkpoints and progress go through a `Reporter`.
"""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from intent.engine import calibration
from intent.engine.device import pick_device, pick_precision, set_threads
from intent.engine.reference import check_precision
from intent.errors import ConfigError, IntentError, require
from intent.train import attention
from intent.train.base import adapter_folder
from intent.train.batches import Batch, Group, Packed, batches, decisions, loss, micro_batches, pack
from intent.train.config import TrainConfig

if TYPE_CHECKING:
    import torch

STATE = "state.pt"
PROGRESS = "progress.json"
LINEAR = "all-linear"
BETAS = (0.9, 0.99)
MAX_SKIPPED = 5
COMPILED_FROM = 500  # steps; with fewer, compiling takes longer than it saves
GRAPHS = 256  # more than the combinations of batch shapes, layers and modes, so that none falls back to eager mode


class Reporter(Protocol):
    """Receive a training's progress and checkpoints."""

    def resume_from(self) -> Path | None:
        """Return the folder of the last checkpoint to resume from, or None to start from the beginning."""

    def step(self, done: int, total: int, text: str) -> None:
        """Report the finished steps, the total (0 if it is not known yet), and a line about the current work."""

    def checkpoint(self, metrics: dict, write: Callable[[Path], None]) -> None:
        """Store the files that `write` puts into a folder, with their metrics."""


def train(base: Path, config: TrainConfig, training: Sequence[Group], validation: Sequence[Group], reporter: Reporter) -> dict:
    """Train an adapter on `training`, which is this worker's part of the messages.

    Returns the metrics of the last validation. The best adapter is the last checkpoint whose metrics have `best` true. Raises
    ConfigError for settings that do not fit, and IntentError if the gradient is not finite for several steps.
    """
    import torch

    check_precision(base, config.precision, "train.precision", prefix="")
    device = pick_device(config.device, "train.device")
    steps = epochs(training, config, device)
    set_threads(config.cpus if device == "cpu" else None)
    torch.manual_seed(config.seed)
    dtype = pick_precision(config.precision, device)
    reporter.step(0, 0, "loads the base model")
    model = load_for_training(base, config, device, dtype)
    compiles = attention.fused(device) and sum(steps) >= COMPILED_FROM
    if compiles:
        _compile(model)
    session = _Session(model, config, device, dtype, training, steps, reporter, compiles)
    return session.run(validation)


def load_for_training(base: Path, config: TrainConfig, device: str, dtype):
    """Load the frozen base in NF4 with double quantization (or in `dtype`), and add a LoRA to every linear layer.

    Raises ConfigError if `config.adapter` has another rank or alpha, or is of another base.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        base,
        quantization_config=nf4 if config.four_bit else None,
        device_map={"": torch.cuda.current_device() if device == "cuda" else device},
        dtype=dtype,
        use_safetensors=True,
        attn_implementation=attention.register(),
    )
    if config.adapter:
        return _continued(model, adapter_folder(config.adapter, "train.adapter"), config)
    adapter = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=LINEAR, task_type="CAUSAL_LM"
    )
    return get_peft_model(model, adapter)


def _continued(model, folder: Path, config: TrainConfig):
    """Load the adapter in `folder` on the base as a trainable one."""
    from peft import LoraConfig, PeftModel

    adapter = LoraConfig.from_pretrained(folder)
    same = (adapter.r, adapter.lora_alpha) == (config.rank, config.alpha)
    remedy = f"use train.rank={adapter.r} train.alpha={adapter.lora_alpha}"
    require(same, "train.adapter", config.adapter, f"has rank {adapter.r} and alpha {adapter.lora_alpha}; {remedy}")
    adapter.lora_dropout = config.dropout
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True, config=adapter)
    except (RuntimeError, ValueError) as error:
        raise ConfigError("train.adapter", config.adapter, "does not fit the base; use an adapter of model.source") from error


def _compile(model) -> None:
    """Compile each layer, which takes two minutes at the first step."""
    import torch

    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = GRAPHS
    # A layer that cannot be compiled runs in eager mode.
    torch._dynamo.config.suppress_errors = True
    for layer in model.get_decoder().layers:
        layer.compile(dynamic=True)


class _Session:
    """Hold one worker's training state."""

    def __init__(
        self,
        model,
        config: TrainConfig,
        device: str,
        dtype,
        training: Sequence[Group],
        steps: Sequence[int],
        reporter: Reporter,
        compiles: bool,
    ):
        import torch

        self.model, self.config, self.reporter, self.compiles = model, config, reporter, compiles
        self.device, self.dtype, self.training = device, dtype, training
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=BETAS, weight_decay=0.0, fused=device == "cuda"
        )
        self.epochs, self.total = steps, sum(steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.done, self.best, self.stale, self.messages, self.skipped = 0, -1.0, 0, 0, 0
        self.temperatures: dict[str, float] = {}
        self._resume()

    def run(self, validation: Sequence[Group]) -> dict:
        metrics: dict = {}
        first, before, start = True, self.messages, time.monotonic()
        self._say("the first step, which compiles" if self.compiles else "the first step")
        for passes in self._packed(self._remaining()):
            value = self._step([packed for _, packed in passes])
            self.done += 1
            self.messages += sum(len(batch.rows) for batch, _ in passes) * world_size()
            rate = (self.messages - before) / (time.monotonic() - start)
            if first:
                # The first step may compile, so its time says nothing about the speed of the others.
                first, before, start = False, self.messages, time.monotonic()
                self._say(f"loss {value:.3f}")
            else:
                self._say(f"loss {value:.3f}, {rate:,.0f} messages/s")
            if self.done % self.config.validate_every == 0 or self.done == self.total:
                metrics = self._validate(validation, value)
                if metrics["exact"] >= self.config.stop_at or self.stale >= self.config.patience:
                    break
        return metrics

    def _say(self, text: str) -> None:
        self.reporter.step(self.done, self.total, text + (f", exact {self.best:.3f}" if self.best >= 0 else ""))

    def _remaining(self):
        """Yield the batches after the finished steps. The order depends only on the seed, so resuming skips the same ones."""
        skip = self.done
        for epoch, steps in enumerate(self.epochs):
            if skip < steps:
                shuffled = batches(self.training, self.config.worker_messages, self.config.seed + epoch)
                yield from itertools.islice(shuffled, skip, steps)
            skip = max(0, skip - steps)

    def _packed(self, remaining: Iterator[Batch]) -> Iterator[list[tuple[Batch, Packed]]]:
        """Yield each batch as micro-batches, one per forward pass, with their arrays. A thread prepares the next batch."""
        block = attention.block(self.device)

        def packed(batch: Batch) -> list[tuple[Batch, Packed]]:
            return [(micro, pack(micro, block)) for micro in micro_batches(batch, self.config.pass_tokens)]

        with ThreadPoolExecutor(1) as pool:
            waiting = None
            for batch in remaining:
                following = pool.submit(packed, batch)
                if waiting:
                    yield waiting.result()
                waiting = following
            if waiting:
                yield waiting.result()

    def _step(self, passes: Sequence[Packed]) -> float:
        """Update the weights with the gradient over the decisions of all passes. Returns their mean loss.

        Raises IntentError if the gradient was not finite for more than MAX_SKIPPED steps in a row.
        """
        import torch

        self.model.train()
        decisions = sum(len(packed.right) for packed in passes)
        share, total = self._share(decisions), 0.0
        for packed in passes:
            with self._autocast():
                value = loss(self.model, packed) * (len(packed.right) / decisions)
            (value * share).backward()
            total += value.detach()
        if world_size() > 1:
            self._average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if norm.isfinite():
            self.skipped = 0
            self.optimizer.step()
        else:
            self.skipped += 1
            if self.skipped > MAX_SKIPPED:
                raise IntentError(
                    f"train.learning_rate={self.config.learning_rate}: the gradient is not finite; use a lower rate"
                )
        self.schedule.step()
        self.optimizer.zero_grad()
        return float(total)

    def _average_gradients(self) -> None:
        """Average the workers' gradients in one all-reduce, because an adapter has hundreds of small tensors."""
        import torch

        gradients = [parameter.grad for parameter in self.parameters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat, torch.distributed.ReduceOp.AVG)
        means = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [mean.view_as(gradient) for mean, gradient in zip(means, gradients, strict=True)])

    def _share(self, decisions: int) -> "float | torch.Tensor":
        """Return this worker's weight in the average over workers, which makes it the mean over the whole batch's decisions."""
        import torch

        if world_size() == 1:
            return 1.0
        total = torch.tensor(float(decisions), device=self.device)
        torch.distributed.all_reduce(total, torch.distributed.ReduceOp.SUM)
        return decisions * world_size() / total

    def _validate(self, validation: Sequence[Group], value: float) -> dict:
        self.model.eval()
        rows = right = 0
        count = sum(len(group.rows) for group in validation)
        all_decisions: dict[str, list[calibration.Decision]] = {}
        with self._autocast():
            for passes in self._packed(batches(validation, self.config.worker_messages)):
                self._say(f"validates: {rows:,} of {count:,} messages")
                for batch, packed in passes:
                    exact, by_slot = decisions(self.model, batch, packed)
                    right, rows = right + exact, rows + len(batch.rows)
                    for slot, more in by_slot.items():
                        all_decisions.setdefault(slot, []).extend(more)
        self.temperatures = {
            name: calibration.fit([decision.margins for decision in made]) for name, made in all_decisions.items()
        }
        share = self._agreed(right / rows)
        best = share > self.best
        self.best, self.stale = max(share, self.best), 0 if best else self.stale + 1
        metrics = {"exact": share, "best": best, "loss": value, "step": self.done, "messages": self.messages}
        self.reporter.checkpoint(metrics, self._save)
        return metrics

    def _agreed(self, share: float) -> float:
        """Return the first worker's share. If shares differed by rounding, one worker could stop and the others would hang."""
        import torch

        agreed = torch.tensor(share, dtype=torch.float64, device=self.device)
        if world_size() > 1:
            torch.distributed.broadcast(agreed, 0)
        return agreed.item()

    def _autocast(self):
        import torch

        return torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _rate(self, step: int) -> float:
        """Return the factor of the learning rate: a linear warm-up, then a cosine decay to 0.1."""
        warmup = max(1, int(self.total * self.config.warmup_share))
        if step < warmup:
            return (step + 1) / warmup
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.total - warmup)))

    def _save(self, folder: Path) -> None:
        import torch

        self.model.save_pretrained(folder)
        calibration.write(folder, self.temperatures)
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        torch.save(state, folder / STATE)
        counts = {"done": self.done, "best": self.best, "stale": self.stale, "messages": self.messages}
        (folder / PROGRESS).write_text(json.dumps(counts | {"workers": world_size()}))

    def _resume(self) -> None:
        import torch
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        folder = self.reporter.resume_from()
        if folder is None:
            return
        counts = json.loads((folder / PROGRESS).read_text())
        workers = counts["workers"]
        remedy = f"this training began with {workers} workers, each with its part of the messages; use train.workers={workers}"
        require(workers == world_size(), "train.workers", world_size(), remedy)
        set_peft_model_state_dict(self.model, load_file(folder / "adapter_model.safetensors"))
        state = torch.load(folder / STATE, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.done, self.best, self.stale, self.messages = (counts[key] for key in ("done", "best", "stale", "messages"))


def epochs(training: Sequence[Group], config: TrainConfig, device: str = "cpu") -> list[int]:
    """Return the number of batches of each epoch: the smallest number that any worker has.

    The number depends on a worker's shuffled order, because the order decides which catalogs share a batch. Raises ConfigError
    if a worker has no batch.
    """
    import torch

    seeds = range(config.seed, config.seed + config.epochs)
    steps = torch.tensor([sum(1 for _ in batches(training, config.worker_messages, seed)) for seed in seeds], device=device)
    if world_size() > 1:
        torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MIN)
    enough = steps.min() > 0
    require(enough, "train.workers", config.workers, "a worker would have no message; use fewer workers or more messages")
    return steps.tolist()


def world_size() -> int:
    """Return the number of workers that train together."""
    import torch

    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
