"""Name what a benchmark can measure."""

from enum import Enum, StrEnum


class Shape(Enum):
    embedded = "embedded"
    llama32_1b = "llama32_1b"


class RowKind(StrEnum):
    engine = "engine"
    create_completion = "create_completion"
    generate = "generate"
    pipeline = "pipeline"
    server = "server"
    vllm = "vllm"
    ray_data = "ray_data"
    encoder = "encoder"
    limit = "limit"
