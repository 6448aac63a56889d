"""Find the tensor types that a GGUF file really has, because llama.cpp replaces a requested type that rows do not fit."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from intent.artifacts.variant import GGUF_TYPES, VariantSpec

EMBED = r"^(token_embd|output)\.weight$"
DOWN = r"\.ffn_down\."


def pattern(part: str, layers: int) -> str:
    """Return a regular expression for the names of a part's GGUF tensors: `embed`, `down`, or `ends` (first and last layer)."""
    return {"embed": EMBED, "down": DOWN, "ends": rf"^blk\.(0|{layers - 1})\."}[part]


def contents(file: Path, spec: VariantSpec) -> dict:
    """Count the bytes of the weight matrices. Returns {"types": by tensor type, "fell_back": in a type that was not requested}.

    `spec` requests the types of some parts. For the other parts, it requests the types that its file type mixes by design.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    layers = int(reader.fields[f"{reader.fields['general.architecture'].contents()}.block_count"].contents())
    requested = [(re.compile(pattern(part, layers)), {kind}) for part, kind in spec.part_types]
    types: Counter[str] = Counter()
    fell_back = 0
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            continue
        kind, size = tensor.tensor_type.name, int(tensor.n_bytes)
        types[kind] += size
        allowed = next((kinds for names, kinds in requested if names.search(tensor.name)), GGUF_TYPES[spec.file_type])
        fell_back += size * (kind not in allowed)
    return {"types": dict(types.most_common()), "fell_back": fell_back}


def describe(metrics: Mapping) -> str:
    """Format the result of `contents` in a record's metrics. Returns "" if the metrics have none."""
    if "types" not in metrics:
        return ""
    sizes = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in metrics["types"].items())
    return sizes + (f"; {metrics['fell_back'] / 1e6:,.1f} MB in a type not asked for" if metrics["fell_back"] else "")
