"""Find the tensor types that a GGUF file really has: llama.cpp uses another type if rows do not fit the requested one."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from intent.artifacts.variant import GGUF_TYPES, VariantSpec

EMBED = r"^(token_embd|output)\.weight$"
DOWN = r"\.ffn_down\."


def pattern(part: str, layers: int) -> str:
    """Return a regular expression for the GGUF tensor names of a part of a model with so many layers."""
    return {"embed": EMBED, "down": DOWN, "ends": rf"^blk\.(0|{layers - 1})\."}[part]


def contents(file: Path, spec: VariantSpec) -> dict:
    """Count the bytes of the weight matrices: {"types": by tensor type, "fell_back": those in a type that was not requested}.

    A file type requests each of the tensor types that it mixes by design. `spec` requests those of the parts with a type of
    their own.
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
    """Describe the `contents` in a record's metrics; "" if there are none."""
    if "types" not in metrics:
        return ""
    said = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in metrics["types"].items())
    return said + (f"; {metrics['fell_back'] / 1e6:,.1f} MB in a type not asked for" if metrics["fell_back"] else "")
