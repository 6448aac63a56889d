"""Name what a benchmark can measure."""

from enum import Enum, StrEnum


class Shape(Enum):
    """The model to benchmark: the configured base model (`embedded`), or random weights in a shape of `shapes.SHAPES`."""

    embedded = "embedded"
    llama32_1b = "llama32_1b"


class RowKind(StrEnum):
    """The kinds of rows in a benchmark, each with a meter in `meters.py` or `peers.py`."""

    engine = "engine"
    create_completion = "create_completion"
    generate = "generate"
    pipeline = "pipeline"
    server = "server"
    vllm = "vllm"
    ray_data = "ray_data"
    encoder = "encoder"
    limit = "limit"
