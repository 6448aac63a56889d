"""Base models: a Hugging Face id, a local folder, or a GGUF inside an installed package, all as 16-bit safetensors.

`trust_remote_code` is never set, and nothing but safetensors and a GGUF of known SHA-256 is read.
"""

import copy
import importlib.util
import json
from importlib.resources import files
from pathlib import Path

from intent.artifact import file_sha256
from intent.config import PACKAGE, SHIPPED, ModelConfig
from intent.errors import ConfigError, CorruptData
from intent.train.merge import copy_calibration

ADAPTER = "adapter_model.safetensors"


def write_base(model: ModelConfig, target: Path) -> None:
    """Write model and tokenizer of `model.source`, with `model.adapter` merged in, to the folder `target`.

    Raises ConfigError naming the source or the adapter.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = _resolve(model)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, use_safetensors=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except OSError as error:
        raise ConfigError(
            "model.source", model.source, f"cannot be loaded ({error}); check the name, the network and your access to it"
        ) from error
    plain = _plain(loaded)
    if model.adapter:
        try:
            plain = PeftModel.from_pretrained(plain, str(adapter_folder(model.adapter))).merge_and_unload(safe_merge=True)
        except (RuntimeError, ValueError) as error:
            raise ConfigError("model.adapter", model.adapter, f"does not fit {model.source}; use model.adapter=null") from error
    plain.to(torch.float16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    if model.adapter:
        copy_calibration(adapter_folder(model.adapter), target)
    if file := options.get("gguf_file"):
        _restore_digits(Path(where) / file, target)


def adapter_folder(adapter: str, field: str = "model.adapter") -> Path:
    """Raises ConfigError naming `field` where there is no adapter."""
    shipped = Path(str(files("intent") / "adapters"))
    folder = shipped / adapter.removeprefix(SHIPPED) if adapter.startswith(SHIPPED) else Path(adapter)
    if not (folder / ADAPTER).is_file():
        known = sorted(SHIPPED + path.name for path in shipped.iterdir() if path.is_dir())
        raise ConfigError(field, adapter, f"has no {ADAPTER}; give a folder that has one, or one of {known}, or null")
    return folder


def _resolve(model: ModelConfig) -> tuple[str, dict]:
    if not model.source.startswith(PACKAGE):
        return model.source, {"revision": model.revision} if model.revision else {}
    package, _, file = model.source.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        raise ConfigError("model.source", model.source, f"the Python package {package} is not installed; run make install")
    folder = Path(spec.origin).parent
    found = file_sha256(folder / file) if (folder / file).exists() else "no such file"
    if model.sha256 and found != model.sha256:
        raise CorruptData(f"{folder / file}: SHA-256 is {found}, model.sha256 says {model.sha256}; install the package again")
    return str(folder), {"gguf_file": file}


def _plain(model):
    """The same weights in a model that does not remember that they came from a quantized file."""
    if getattr(model.config, "quantization_config", None) is None:
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = type(model)(config).to(model.dtype)
    plain.load_state_dict(model.state_dict(), strict=True)
    return plain


def _restore_digits(gguf_file: Path, target: Path) -> None:
    """Put back the split into single digits that transformers drops when it reads a SmolLM vocabulary from GGUF."""
    from gguf import GGUFReader

    field = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    if field is None or field.contents() != "smollm":
        return
    path = target / "tokenizer.json"
    spec = json.loads(path.read_text())
    digits = {"type": "Digits", "individual_digits": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, spec["pre_tokenizer"]]}
    path.write_text(json.dumps(spec, ensure_ascii=False))
