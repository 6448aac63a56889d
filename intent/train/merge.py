"""Merge an adapter into the 16-bit base. Merging into the 4-bit base would lose much of the training to rounding."""

import shutil
from pathlib import Path

from intent.engine import calibration

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the merged float16 checkpoint and its tokenizer to `target`, and the adapter to `target`/adapter.

    The sum is computed in float32, so that the result is rounded only once.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    merged.to(torch.float16).save_pretrained(target)
    copy_tokenizer(base, target)
    copy_calibration(adapter, target)
    (target / "adapter").mkdir()
    for name in ADAPTER_FILES:
        shutil.copy(adapter / name, target / "adapter" / name)
    copy_calibration(adapter, target / "adapter")


def copy_calibration(source: Path, target: Path) -> None:
    """Copy the calibration's temperatures, if `source` has them."""
    if (source / calibration.FILE).exists():
        shutil.copy(source / calibration.FILE, target)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files that `source` has."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)
