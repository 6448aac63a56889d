"""What a variant's name says: the engine, and how the checkpoint was quantized for it. Pure."""

import re
from dataclasses import dataclass
from enum import Enum

from intent.errors import ConfigError

SVM, CASCADE = "svm", "cascade"
GGUF_TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_M", "Q2_K")


class Precision(Enum):
    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def expand(pattern: str) -> list[str]:
    """Shell braces: `gptq-w{8,4}g64{,-act}` is four names."""
    if (match := re.search(r"\{([^{}]*)\}", pattern)) is None:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for part in match[1].split(",") for name in expand(head + part.strip() + tail)]


@dataclass(frozen=True)
class VariantSpec:
    """What a variant's name says: `gptq-w4g64[-act]` (act-order), `gguf-Q4_K_M[-imatrix]`, `reference[-float16]`, `svm`, or
    `cascade-NAME`: the SVM where it is sure, else the language model `model`, which is the variant NAME.

    `base` is the model before fine-tuning: to be measured, never to classify.
    """

    name: str
    engine: str
    bits: int = 16
    group_size: int = -1
    act_order: bool = False
    file_type: str = ""
    imatrix: bool = False
    precision: Precision = Precision.auto
    model: "VariantSpec | None" = None

    @property
    def runs(self) -> str:
        """The engine that decides which hardware it is for."""
        return self.model.engine if self.model else self.engine

    @property
    def only_cpus(self) -> bool:
        return self.runs in ("gguf", SVM)

    @property
    def parts(self) -> list["VariantSpec"]:
        """What must be made before it: of a cascade its two models, else nothing."""
        return [VariantSpec(SVM, SVM), self.model] if self.model else []

    @classmethod
    def parse(cls, name: str, field_name: str = "quant.variants") -> "VariantSpec":
        if name == SVM:
            return cls(SVM, SVM)
        if name.startswith(f"{CASCADE}-") and not name.removeprefix(f"{CASCADE}-").startswith((SVM, CASCADE, "base")):
            return cls(name, CASCADE, model=cls.parse(name.removeprefix(f"{CASCADE}-"), field_name))
        if match := re.fullmatch(r"reference(?:-(bfloat16|float16|float32))?", name):
            return cls(name, "reference", precision=Precision(match[1] or "auto"))
        if name == "base":
            return cls(name, "base")
        if match := re.fullmatch(r"gptq-w([2348])g([1-9]\d*)(-act)?", name):
            return cls(name, "gptq", int(match[1]), int(match[2]), bool(match[3]))
        if (match := re.fullmatch(r"gguf-([A-Z0-9_]+?)(-imatrix)?", name)) and match[1] in GGUF_TYPES:
            return cls(name, "gguf", file_type=match[1], imatrix=bool(match[2]))
        raise ConfigError(
            field_name,
            name,
            "use gptq-w<2|3|4|8>g<group size>[-act], reference[-bfloat16|-float16|-float32], "
            f"gguf-<type>[-imatrix] of {list(GGUF_TYPES)}, svm, or cascade-<one of these but svm>",
        )
