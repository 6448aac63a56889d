"""Configure the base model and its training."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from intent.artifacts.variant import Precision
from intent.engine.config import Device
from intent.errors import require

PACKAGE = "package:"


SHIPPED = "shipped:"


@dataclass
class ModelConfig:
    """Configure a base model.

    `source`: a Hugging Face id, a local path, or `package:NAME/FILE.gguf` for a GGUF in an installed package; a GGUF in several
    pieces is `package:NAME1/FILE1 NAME2/FILE2 ...`, in order. `revision`: of a Hugging Face id. `sha256`: of the whole GGUF.
    `adapter`: a folder with a LoRA to merge into the model first; `shipped:NAME` is one of intent/adapters. `vocabulary`:
    `full`, or a file of the tokens to keep, as jobs.vocabulary writes it; `shipped:NAME` is that of an adapter. `group_size`:
    for GPTQ; it must divide the model's dimensions. `file_type`: for GGUF; choose one that is fast for the model's row sizes
    and close to the unquantized model. The groups engine/ and quant/ use the last two in the names of their variants.
    """

    name: str = MISSING
    source: str = MISSING
    revision: str | None = None
    sha256: str | None = None
    adapter: str | None = None
    vocabulary: str = "full"
    group_size: int = 64
    file_type: str = "Q8_0"

    def __post_init__(self):
        require(self.source != "", "model.source", self.source, "give a Hugging Face id, a folder, or package:NAME/FILE.gguf")
        fits = self.sha256 is None or self.source.startswith(PACKAGE)
        remedy = f"applies only to a source package:NAME/FILE, not to {self.source}; use model.sha256=null"
        require(fits, "model.sha256", self.sha256, remedy)


@dataclass
class TrainConfig:
    """Configure QLoRA (Dettmers et al., arXiv 2305.14314): NF4 base, LoRA on all linear layers, loss on the answer only.

    `also`: more data sets, of this or other schemas, to mix into the first. `adapter`: continue from this adapter, which has
    the same rank and is given like `model.adapter`; with `model.adapter=null`, the result is an adapter of the plain base
    again. `warmup_share`: the share of the steps with a rising learning rate. `epochs`: 0 keeps the base unchanged.
    `batch_messages`: messages per step, divided equally among the `workers`. `pass_tokens`: the most tokens of one forward
    pass; a larger step takes several passes, each of packed rows of similar widths. `validate_every`: in steps. `stop_at`: stop
    when this share of the validation messages is answered exactly. `patience`: stop after this many validations without a new
    best. `cpus`: per worker.
    """

    uri: str | None = None
    also: list[str] = field(default_factory=list)
    adapter: str | None = None
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    epochs: int = 1
    batch_messages: int = 32
    pass_tokens: int = 40_000
    validate_every: int = 30
    stop_at: float = 0.99
    patience: int = 4
    four_bit: bool = True
    device: Device = Device.auto
    precision: Precision = Precision.auto
    workers: int = 1
    cpus: int = 2
    seed: int = 7

    def __post_init__(self):
        require(self.rank > 0, "train.rank", self.rank, "use a positive LoRA rank, e.g. 16")
        require(0 < self.learning_rate < 1, "train.learning_rate", self.learning_rate, "use a value in (0, 1), e.g. 1e-3")
        require(self.epochs >= 0, "train.epochs", self.epochs, "use at least 1, or 0 to keep the base unchanged")
        require(self.pass_tokens > 0, "train.pass_tokens", self.pass_tokens, "use at least 1, e.g. 40000")
        require(self.batch_messages > 0, "train.batch_messages", self.batch_messages, "use at least 1 message per step")
        require(0 < self.stop_at <= 1, "train.stop_at", self.stop_at, "use a share in (0, 1]")
        for name in ("workers", "cpus", "validate_every", "patience"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "use at least 1")
        more = -(-self.batch_messages // self.workers) * self.workers
        near = " or ".join(str(size) for size in (more - self.workers, more) if size > 0)
        remedy = f"cannot be divided equally among {self.workers} workers (train.workers); use {near}"
        require(self.batch_messages % self.workers == 0, "train.batch_messages", self.batch_messages, remedy)

    @property
    def worker_messages(self) -> int:
        """Return the messages per step of one worker."""
        return self.batch_messages // self.workers
