"""A 16-bit checkpoint to GGUF: an F16 file written with the `gguf` package, then llama.cpp's own quantizer.

The file carries the checkpoint's vocabulary, so that any llama.cpp program can use it; this project's engines read
`tokenizer.json` beside it.
"""

import ctypes
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from intent.errors import ConfigError, IntentError
from intent.progress import Report, counted, unreported
from intent.quantize import tensors

# model_type of config.json -> llama.cpp's name of the architecture. Both load tensors by the gguf package's name map.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
# A part of the tokenizer's pre-tokenizer that tells it apart -> llama.cpp's name of it.
PRE_TOKENIZERS = (
    (r"\\p{N}{1,3}", "llama-bpe"),
    (r"|\\p{N}|", "qwen2"),
    ('"individual_digits": true', "smollm"),
    ('"ByteLevel"', "gpt-2"),
)

ImportanceMatrix = Mapping[str, np.ndarray]


def make(
    checkpoint: Path,
    target: Path,
    file_type: str,
    threads: int,
    sequences: list[list[int]] | None = None,
    report: Report = unreported,
) -> None:
    """Write the GGUF file `target` of a checkpoint; with an importance matrix where `sequences` to measure it are given."""
    report(0, 0, "", "writes the F16 file")
    if file_type == "F16":
        return write_f16(checkpoint, target)
    f16 = target.with_suffix(".f16")
    write_f16(checkpoint, f16)
    matrix = importance_matrix(checkpoint, sequences, report) if sequences else None
    with tensors.reported(report):
        quantize(f16, target, file_type, threads, matrix)
    f16.unlink()


def write_f16(checkpoint: Path, target: Path) -> None:
    """Raises ConfigError for an architecture or tokenizer that is not known here."""
    import gguf

    config = json.loads((checkpoint / "config.json").read_text())
    architecture = ARCHITECTURES.get(config["model_type"])
    if architecture is None:
        raise ConfigError(
            "model.source", config["model_type"], f"GGUF is written for {sorted(ARCHITECTURES)}; quantize to gptq"
        )
    writer = gguf.GGUFWriter(str(target), architecture)
    _write_shape(writer, config)
    _write_vocabulary(writer, checkpoint, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    for name, tensor in _tensors(checkpoint):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise IntentError(f"{checkpoint}: tensor {name} has no place in a {architecture} GGUF")
        if architecture == "llama":
            tensor = _for_llama_rope(name, tensor, config)
        writer.add_tensor(mapped, tensor.astype(np.float16 if tensor.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path, file_type: str, threads: int, importance: ImportanceMatrix | None = None) -> None:
    """Quantize an F16 file to a llama.cpp file type, e.g. "Q4_K_M". Raises IntentError with llama.cpp's return code."""
    import llama_cpp

    from intent.engine.gguf import _silence

    _silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    kept = _importance(importance) if importance else None
    if kept is not None:
        params.imatrix = ctypes.cast(kept[0], ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        raise IntentError(f"quant.variants=gguf-{file_type}: llama.cpp's quantizer ended with code {code} on {source}")


def importance_matrix(checkpoint: Path, sequences: list[list[int]], report: Report = unreported) -> dict[str, np.ndarray]:
    """Mean of the squared inputs of every linear layer over `sequences`, by GGUF tensor name, float32 [columns]."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[ARCHITECTURES[model.config.model_type].upper()], model.config.num_hidden_layers
    )
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}

    def watch(name: str) -> Callable:
        def hook(module, inputs):
            squared = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).square()
            sums[name] = sums.get(name, 0) + squared.sum(0)
            rows[name] = rows.get(name, 0) + len(squared)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and (mapped := names.get_name(f"{name}.weight", try_suffixes=(".weight",))):
            module.register_forward_pre_hook(watch(mapped))
    with torch.inference_mode():
        for sequence in counted(sequences, len(sequences), report, "sequence", "measures the importance matrix"):
            model(torch.tensor([sequence]))
    return {name: (total / rows[name]).numpy() for name, total in sums.items()}


def _importance(matrix: ImportanceMatrix) -> tuple:
    """The C array that the quantizer reads, ended by an entry without a name, and what it points to."""
    import llama_cpp

    arrays = {name.encode(): np.ascontiguousarray(values, np.float32) for name, values in matrix.items()}
    entries = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for entry, (name, values) in zip(entries, arrays.items(), strict=False):
        entry.name, entry.size = name, values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries, arrays


def _write_shape(writer, config: dict) -> None:
    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    writer.add_name(config.get("_name_or_path") or config["model_type"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(1)
    scaling = rope.get("rope_type") or "default"
    if scaling not in ("default", "llama3"):
        raise ConfigError("model.source", scaling, "this scaling of positions is not written to GGUF; use a GPTQ variant")
    if scaling == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, head_size))


def _llama3_factors(rope: dict, head_size: int) -> np.ndarray:
    """Llama 3.1's long-context frequency divisors, float32 [head_size / 2] (as in transformers' modeling_rope_utils)."""
    frequencies = rope["rope_theta"] ** -(np.arange(0, head_size, 2) / head_size)
    wavelengths = 2 * np.pi / frequencies
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    smooth = (rope["original_max_position_embeddings"] / wavelengths - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"]
    )
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(wavelengths < high, 1.0, np.where(wavelengths > low, rope["factor"], between)).astype(np.float32)


def _write_vocabulary(writer, checkpoint: Path, config: dict) -> None:
    import gguf

    spec = json.loads((checkpoint / "tokenizer.json").read_text())
    if spec["model"].get("type") != "BPE":
        raise ConfigError("model.source", spec["model"].get("type"), "GGUF is written for byte-level BPE tokenizers only")
    described = json.dumps(spec.get("pre_tokenizer"), ensure_ascii=False)
    pre = next((name for mark, name in PRE_TOKENIZERS if mark in described), None)
    if pre is None:
        raise ConfigError("model.source", described[:200], "this pre-tokenizer has no known name in llama.cpp")
    added = {entry["id"]: entry for entry in spec["added_tokens"]}
    by_id = {i: token for token, i in spec["model"]["vocab"].items()} | {i: entry["content"] for i, entry in added.items()}
    size = config["vocab_size"]
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(size)]
    control, normal, unused = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNUSED
    kinds = [(control if added[i]["special"] else gguf.TokenType.USER_DEFINED) if i in added else normal for i in range(size)]
    kinds = [kind if i in by_id else unused for i, kind in enumerate(kinds)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]])
    writer.add_add_bos_token(_adds_bos(checkpoint))
    for name, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        value = config.get(name)
        if value is not None:
            add(value[0] if isinstance(value, list) else value)


def _adds_bos(checkpoint: Path) -> bool:
    from tokenizers import Tokenizer

    return bool(Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("").ids)


def _tensors(checkpoint: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the checkpoint's safetensors files as float32, one at a time."""
    import torch
    from safetensors import safe_open

    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, opened.get_tensor(name).to(torch.float32).numpy()


def _for_llama_rope(name: str, tensor: np.ndarray, config: dict) -> np.ndarray:
    """Query and key rows in llama.cpp's interleaved order (transformers holds each head's halves one after the other)."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return tensor
    heads = config["num_attention_heads"]
    if ".k_proj." in name:
        heads = config.get("num_key_value_heads") or heads
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
