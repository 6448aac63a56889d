"""Write base models as 16-bit safetensors, from a Hugging Face id, a local folder, or a GGUF inside installed packages.

Only safetensors and GGUF files are read, and `trust_remote_code` is never set. A package's code is never imported.
"""

import copy
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path

from intent.artifacts import file_sha256
from intent.errors import ConfigError, CorruptData
from intent.train import vocabulary
from intent.train.config import PACKAGE, SHIPPED, ModelConfig
from intent.train.merge import copy_calibration

ADAPTER = "adapter_model.safetensors"


def write_base(model: ModelConfig, target: Path) -> None:
    """Write the model and tokenizer of `model.source` to the folder `target`, in float16.

    Merges `model.adapter` and trims the vocabulary to `model.vocabulary` first. Raises ConfigError if the source, the adapter
    or the vocabulary cannot be used, and CorruptData if a GGUF does not have `model.sha256`.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _located(model) as (where, options), _gguf_read_once():
        try:
            loaded = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, use_safetensors=True, **options)
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
        except OSError as error:
            raise ConfigError(
                "model.source", model.source, f"cannot be loaded ({error}); check the name, the network and your access to it"
            ) from error
        tokenizer.save_pretrained(target)
        if file := options.get("gguf_file"):
            _restore_digits(Path(where) / file, target)
    plain = _plain(loaded)
    if model.adapter:
        try:
            plain = PeftModel.from_pretrained(plain, str(adapter_folder(model.adapter))).merge_and_unload(safe_merge=True)
        except (RuntimeError, ValueError) as error:
            raise ConfigError("model.adapter", model.adapter, f"does not fit {model.source}; use model.adapter=null") from error
        copy_calibration(adapter_folder(model.adapter), target)
    if model.vocabulary != vocabulary.FULL:
        _trim(plain, target / "tokenizer.json", vocabulary.read(vocabulary_file(model.vocabulary)))
    plain.to(torch.float16).save_pretrained(target)


def _trim(model, tokenizer: Path, listed: Sequence[str]) -> None:
    """Remove the tokens that `listed` does not need from the tokenizer's file and the model's embeddings."""
    import torch

    spec, former = vocabulary.trim(json.loads(tokenizer.read_text(encoding="utf-8")), listed)
    tokenizer.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
    layers = {layer.weight.data_ptr(): layer for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    rows = [layer.weight.data[torch.tensor(former)] for layer in layers.values()]
    model.resize_token_embeddings(len(former), mean_resizing=False)
    layers = {layer.weight.data_ptr(): layer for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    for layer, kept in zip(layers.values(), rows, strict=True):
        layer.weight.data.copy_(kept)
    new_ids = {old: new for new, old in enumerate(former)}
    for config in (model.config, model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
            value = getattr(config, name, None)
            if value is not None:
                kept = [new_ids[i] for i in (value if isinstance(value, list) else [value]) if i in new_ids]
                setattr(config, name, kept if isinstance(value, list) else next(iter(kept), None))


def adapter_folder(adapter: str, field: str = "model.adapter") -> Path:
    """Return the folder of an adapter. Raises ConfigError, which names `field`, if it does not exist."""
    folder = _shipped() / adapter.removeprefix(SHIPPED) if adapter.startswith(SHIPPED) else Path(adapter)
    if not (folder / ADAPTER).is_file():
        raise ConfigError(field, adapter, f"has no {ADAPTER}; give a folder that has one, one of {_with(ADAPTER)}, or null")
    return folder


def vocabulary_file(name: str) -> Path:
    """Return the file that lists a vocabulary. Raises ConfigError if it does not exist."""
    path = _shipped() / name.removeprefix(SHIPPED) / vocabulary.FILE if name.startswith(SHIPPED) else Path(name)
    if not path.is_file():
        remedy = f"no such file; give a file that jobs.vocabulary wrote, one of {_with(vocabulary.FILE)}, or full"
        raise ConfigError("model.vocabulary", name, remedy)
    return path


def _shipped() -> Path:
    return Path(str(files("intent") / "adapters"))


def _with(file: str) -> list[str]:
    return sorted(SHIPPED + path.parent.name for path in _shipped().glob(f"*/{file}"))


@contextmanager
def _located(model: ModelConfig) -> Iterator[tuple[str, dict]]:
    """Yield the name or folder that transformers loads, and the options for it. Joins and checks the pieces of a GGUF."""
    if not model.source.startswith(PACKAGE):
        yield model.source, {"revision": model.revision} if model.revision else {}
        return
    pieces = [_piece(model, piece) for piece in model.source.removeprefix(PACKAGE).split()]
    with tempfile.TemporaryDirectory(prefix="intent-base-") as folder:
        path = pieces[0] if len(pieces) == 1 else Path(folder) / "model.gguf"
        if len(pieces) > 1:
            with open(path, "wb") as joined:
                for piece in pieces:
                    with open(piece, "rb") as file:
                        shutil.copyfileobj(file, joined, 1 << 20)
        actual = file_sha256(path)
        if model.sha256 and actual != model.sha256:
            paths = ", ".join(map(str, pieces))
            raise CorruptData(f"{paths}: SHA-256 is {actual}, not model.sha256={model.sha256}; install the packages again")
        yield str(path.parent), {"gguf_file": path.name}


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """Make transformers reuse one GGUF reader. It would create three, which take seconds each for 262,144 tokens."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader

    class PlainReader(gguf.GGUFReader):
        """A reader of a plain array. A slice of NumPy's memory map takes much longer, and a vocabulary needs millions."""

        @property
        def data(self):
            return self._data

        @data.setter
        def data(self, mapped):
            self._data = np.asarray(mapped)

    cached = cache(PlainReader)
    gguf.GGUFReader = lambda path, *more: cached(str(path), *more)
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _piece(model: ModelConfig, piece: str) -> Path:
    package, _, file = piece.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        raise ConfigError("model.source", model.source, f"the Python package {package} is not installed; run make install")
    path = Path(spec.origin).parent / file
    if not path.is_file():
        raise ConfigError("model.source", model.source, f"{path} does not exist; install {package} again, run make install")
    return path


def _plain(model):
    """Copy the weights into a model without a quantization config, which transformers keeps after it dequantizes a GGUF."""
    if getattr(model.config, "quantization_config", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = type(model)(config).to(model.dtype)
    plain.load_state_dict(model.state_dict(), strict=True)
    return plain


def _restore_digits(gguf_file: Path, target: Path) -> None:
    """Restore the split into single digits, which transformers drops when it reads a SmolLM vocabulary from GGUF."""
    from gguf import GGUFReader

    field = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    if field is None or field.contents() != "smollm":
        return
    path = target / "tokenizer.json"
    spec = json.loads(path.read_text())
    digits = {"type": "Digits", "individual_digits": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, spec["pre_tokenizer"]]}
    path.write_text(json.dumps(spec, ensure_ascii=False))
