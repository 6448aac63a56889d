"""Parse a variant's name into its engine and quantization settings. Pure."""

import re
from dataclasses import dataclass
from enum import Enum

from intent.errors import ConfigError

SVM, EMBEDDING, CASCADE = "svm", "embedding", "cascade"
# The variants that need no language model, and the sources of vectors of EMBEDDING.
LINEAR = (SVM, EMBEDDING)
EMBEDDINGS = ("wordllama", "minilm")
# llama.cpp's file types, and the tensor types that each mixes by design.
GGUF_TYPES = {
    "F16": {"F16"},
    "BF16": {"BF16"},
    "Q8_0": {"Q8_0"},
    "Q6_K": {"Q6_K"},
    "Q5_K_M": {"Q5_K", "Q6_K"},
    "Q4_K_M": {"Q4_K", "Q6_K"},
    "Q4_0": {"Q4_0", "Q4_1", "Q6_K"},
    "IQ4_NL": {"IQ4_NL", "Q5_K", "Q6_K"},
    "IQ4_XS": {"IQ4_XS", "Q5_K", "Q6_K"},
    "Q3_K_M": {"Q3_K", "Q4_K", "Q5_K", "Q6_K"},
    "Q2_K": {"Q2_K", "Q3_K", "Q4_K", "Q6_K"},
}
PLAIN_TYPES = ("F16", "BF16")
# The parts of a model that a name can give another type, and the possible types, whose blocks fit the rows of every model.
GGUF_PARTS = ("embed", "down", "ends")
PART_TYPES = ("F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


class Precision(Enum):
    """The precision of unquantized weights. `auto`: by device."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


def expand(pattern: str) -> list[str]:
    """Expand shell braces: `gptq-w{8,4}g64{,-act}` is four names."""
    if (match := re.search(r"\{([^{}]*)\}", pattern)) is None:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for part in match[1].split(",") for name in expand(head + part.strip() + tail)]


@dataclass(frozen=True)
class VariantSpec:
    """The settings in a variant's name.

        gptq-w4g64[-act]                       GPTQ: bits, group size, act-order
        gguf-Q4_K_M[-PART-TYPE...][-imatrix]   GGUF: file type, other types for parts, importance matrix
        reference[-float16]                    the unquantized checkpoint
        svm                                    the linear SVM
        embedding-SOURCE                       vectors of SOURCE with a linear classifier
        cascade-NAME                           the SVM if it is sure, else the language model `model`, the variant NAME
        base                                   the model before fine-tuning; it is measured but never classifies

    `part_types`: the pairs (part, tensor type) of a GGUF; see `parse`. `source`: the embedding model.
    """

    name: str
    engine: str
    bits: int = 16
    group_size: int = -1
    act_order: bool = False
    file_type: str = ""
    part_types: tuple[tuple[str, str], ...] = ()
    imatrix: bool = False
    precision: Precision = Precision.auto
    source: str = ""
    model: "VariantSpec | None" = None

    @property
    def runs(self) -> str:
        """Return the engine that decides the variant's hardware."""
        return self.model.engine if self.model else self.engine

    @property
    def only_cpus(self) -> bool:
        """Return whether the variant runs only on CPUs."""
        return self.runs in ("gguf", *LINEAR)

    @property
    def linear(self) -> bool:
        """Return whether the variant needs no language model."""
        return self.engine in LINEAR

    @property
    def calibrated(self) -> bool:
        """Return whether its quantization uses calibration messages."""
        return self.engine == "gptq" or self.imatrix

    @property
    def parts(self) -> list["VariantSpec"]:
        """Return the variants that must be made first: the two models of a cascade."""
        return [VariantSpec(SVM, SVM), self.model] if self.model else []

    @classmethod
    def parse(cls, name: str, field_name: str = "quant.variants") -> "VariantSpec":
        """Parse a name. Raises ConfigError, naming `field_name`, if it is invalid.

        A GGUF's name is `gguf-FILETYPE`, then any number of `-PART-TYPE`, then `-imatrix` if an importance matrix is used. PART
        is `embed` (the token embedding and the output layer), `down` (every layer's ffn_down) or `ends` (the first and the last
        layer). If a tensor belongs to several, the first in the name counts. `gguf-Q4_0-embed-Q8_0-imatrix` has layers in Q4_0
        and the embedding in Q8_0. The layers of F16 and BF16 files have one type, so only `embed` can differ.
        """
        if name == SVM:
            return cls(SVM, SVM)
        if name.startswith(f"{CASCADE}-") and not name.removeprefix(f"{CASCADE}-").startswith((*LINEAR, CASCADE, "base")):
            return cls(name, CASCADE, model=cls.parse(name.removeprefix(f"{CASCADE}-"), field_name))
        if match := re.fullmatch(r"reference(?:-(bfloat16|float16|float32))?", name):
            return cls(name, "reference", precision=Precision(match[1] or "auto"))
        if name == "base":
            return cls(name, "base")
        if match := re.fullmatch(rf"embedding-({'|'.join(EMBEDDINGS)})", name):
            return cls(name, EMBEDDING, source=match[1])
        if match := re.fullmatch(r"gptq-w([2348])g([1-9]\d*)(-act)?", name):
            return cls(name, "gptq", int(match[1]), int(match[2]), bool(match[3]))
        part = rf"-(?:{'|'.join(GGUF_PARTS)})-(?:{'|'.join(PART_TYPES)})"
        if match := re.fullmatch(rf"gguf-({'|'.join(GGUF_TYPES)})((?:{part})*)(-imatrix)?", name):
            apart = tuple(re.findall(r"-([a-z]+)-([A-Z0-9_]+)", match[2]))
            named = [part for part, _ in apart]
            if len(set(named)) == len(named) and (match[1] not in PLAIN_TYPES or named in ([], ["embed"])):
                return cls(name, "gguf", file_type=match[1], part_types=apart, imatrix=bool(match[3]))
        raise ConfigError(
            field_name,
            name,
            "use gptq-w<2|3|4|8>g<group size>[-act], reference[-bfloat16|-float16|-float32], "
            f"gguf-<type>[-<part>-<part's type>][-imatrix] with a type of {list(GGUF_TYPES)}, parts of {list(GGUF_PARTS)} "
            f"(F16 and BF16: embed) and their types of {list(PART_TYPES)}, svm, embedding-<one of {list(EMBEDDINGS)}>, "
            "or cascade-<one of these except svm and embedding>",
        )
