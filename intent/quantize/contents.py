"""Which tensor types a GGUF file really has: llama.cpp falls back to another where rows do not fit the one asked for."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from intent.artifacts.variant import GGUF_TYPES, VariantSpec

EMBED = r"^(token_embd|output)\.weight$"
DOWN = r"\.ffn_down\."


def pattern(part: str, layers: int) -> str:
    """A regular expression that finds the tensors of a part of a model with so many layers, by their GGUF names."""
    return {"embed": EMBED, "down": DOWN, "ends": rf"^blk\.(0|{layers - 1})\."}[part]


def contents(file: Path, spec: VariantSpec) -> dict:
    """Count the bytes of the weight matrices: {"types": by tensor type, "fell_back": those in a type not asked for}.

    A file type asks for each of the tensor types that it mixes by design, `spec` for those of the parts that it sets apart.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    layers = int(reader.fields[f"{reader.fields['general.architecture'].contents()}.block_count"].contents())
    asked = [(re.compile(pattern(part, layers)), {kind}) for part, kind in spec.part_types]
    types: Counter[str] = Counter()
    fell_back = 0
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            continue
        kind, size = tensor.tensor_type.name, int(tensor.n_bytes)
        types[kind] += size
        wanted = next((kinds for found, kinds in asked if found.search(tensor.name)), GGUF_TYPES[spec.file_type])
        fell_back += size * (kind not in wanted)
    return {"types": dict(types.most_common()), "fell_back": fell_back}


def describe(metrics: Mapping) -> str:
    """The `contents` in a record's metrics, in words; empty where there are none."""
    if "types" not in metrics:
        return ""
    said = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in metrics["types"].items())
    return said + (f"; {metrics['fell_back'] / 1e6:,.1f} MB in a type not asked for" if metrics["fell_back"] else "")
