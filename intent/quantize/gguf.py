"""Convert a 16-bit checkpoint to GGUF: write an F16 file with the `gguf` package, then run llama.cpp's quantizer.

The file contains the checkpoint's vocabulary, so any llama.cpp program can use it. The engines of this project read
`tokenizer.json` instead. `GGUF_TYPES` in `artifacts/variant.py` lists the file types.
"""

import ctypes
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from intent.artifacts.variant import VariantSpec
from intent.errors import ConfigError, IntentError
from intent.progress import Report, counted, unreported
from intent.quantize import tensors
from intent.quantize.contents import EMBED, contents, pattern
from intent.quantize.vocabulary import write_vocabulary

# llama.cpp's name of the architecture, by model_type of config.json. The gguf package maps the tensors' names.
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}

ImportanceMatrix = Mapping[str, np.ndarray]


def make(
    checkpoint: Path,
    target: Path,
    spec: VariantSpec,
    threads: int,
    sequences: list[list[int]] | None = None,
    report: Report = unreported,
) -> dict:
    """Write the GGUF file `target` of a checkpoint, quantized as `spec` says. Returns the file's `contents`.

    `sequences`: token ids to measure the importance matrix on, if `spec` has one. Raises ConfigError for an architecture or
    tokenizer that is not supported, and IntentError if llama.cpp's quantizer fails.
    """
    report(0, 0, "", "writes the F16 file")
    if spec.file_type == "F16" and not spec.part_types:
        write_f16(checkpoint, target)
        return contents(target, spec)
    f16 = target.with_suffix(".f16")
    write_f16(checkpoint, f16)
    types = {pattern(part, _layers(checkpoint)): kind for part, kind in spec.part_types}
    matrix = importance_matrix(checkpoint, sequences or [], report) if spec.imatrix else None
    with tensors.reported(report):
        quantize(f16, target, spec.file_type, threads, matrix, types)
    f16.unlink()
    return contents(target, spec)


def write_f16(checkpoint: Path, target: Path) -> None:
    """Write an F16 GGUF. Raises ConfigError for an architecture or tokenizer that is not supported."""
    import gguf

    config = json.loads((checkpoint / "config.json").read_text())
    architecture = ARCHITECTURES.get(config["model_type"])
    if architecture is None:
        raise ConfigError(
            "model.source", config["model_type"], f"GGUF can be written only for {sorted(ARCHITECTURES)}; quantize to gptq"
        )
    writer = gguf.GGUFWriter(str(target), architecture)
    _write_shape(writer, config)
    write_vocabulary(writer, checkpoint, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    for name, tensor in _tensors(checkpoint):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise IntentError(f"{checkpoint}: a {architecture} GGUF has no tensor for {name}")
        if architecture == "llama":
            tensor = _for_llama_rope(name, tensor, config)
        elif architecture == "gemma3" and name.endswith("norm.weight"):
            # transformers multiplies by 1 + weight, and llama.cpp by the weight.
            tensor = tensor + 1
        writer.add_tensor(mapped, tensor.astype(np.float16 if tensor.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(
    source: Path,
    target: Path,
    file_type: str,
    threads: int,
    importance: ImportanceMatrix | None = None,
    types: Mapping[str, str] | None = None,
) -> None:
    """Quantize an F16 file to a llama.cpp file type, e.g. "Q4_K_M".

    `types`: tensor types, e.g. "Q8_0", by a regular expression of the tensors' names; the first that matches applies. Raises
    IntentError with llama.cpp's return code if it fails.
    """
    import llama_cpp

    from intent.engine.gguf import _silence

    _silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    matrix = _importance(importance) if importance else None
    if matrix is not None:
        params.imatrix = ctypes.cast(matrix[0], ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    overrides = _overrides(types or {}, params)
    if overrides:
        params.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(llama_cpp.llama_model_tensor_override))
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        raise IntentError(f"quant.variants=gguf-{file_type}: llama.cpp's quantizer ended with code {code} on {source}")


def _overrides(types: Mapping[str, str], params) -> ctypes.Array | None:
    """Return the quantizer's C array of tensor types, which ends with an entry without a pattern, or None if it has no entry.

    Sets the embedding's type in `params` instead. For the embedding and the output layer, llama.cpp ignores the array if the
    file type is not a quantized one.
    """
    import llama_cpp
    from gguf import GGMLQuantizationType

    if (embed := types.get(EMBED)) is not None:
        params.token_embedding_type = params.output_tensor_type = GGMLQuantizationType[embed].value
    others = {names: kind for names, kind in types.items() if names != EMBED}
    if not others:
        return None
    entries = (llama_cpp.llama_model_tensor_override * (len(others) + 1))()
    for entry, (names, kind) in zip(entries, others.items(), strict=False):
        entry.pattern, entry.type = names.encode(), GGMLQuantizationType[kind].value
    return entries


def importance_matrix(checkpoint: Path, sequences: list[list[int]], report: Report = unreported) -> dict[str, np.ndarray]:
    """Measure the mean squared inputs of every linear layer over `sequences` of token ids. Returns float32 [columns] by tensor.

    The names are GGUF's. The inputs of a tied output layer are under the embedding's name.
    """
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True)
    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[ARCHITECTURES[model.config.model_type].upper()], model.config.num_hidden_layers
    )
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}

    def add(name: str, inputs: torch.Tensor) -> None:
        squared = inputs.detach().reshape(-1, inputs.shape[-1]).square()
        sums[name] = sums.get(name, 0) + squared.sum(0)
        rows[name] = rows.get(name, 0) + len(squared)

    def watch(name: str) -> Callable:
        return lambda module, inputs: add(name, inputs[0])

    head = "token_embd.weight" if model.config.tie_word_embeddings else "output.weight"
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and (mapped := names.get_name(f"{name}.weight", try_suffixes=(".weight",))):
            module.register_forward_pre_hook(watch(mapped))
    with torch.inference_mode():
        for sequence in counted(sequences, len(sequences), report, "sequence", "measures the importance matrix"):
            # The base model leaves out the output layer, which is the most work. Only its inputs are needed.
            add(head, model.base_model(torch.tensor([sequence])).last_hidden_state)
    return {name: (total / rows[name]).numpy() for name, total in sums.items()}


def _importance(matrix: ImportanceMatrix) -> tuple:
    """Return the quantizer's C array, which ends with an entry without a name, and the arrays that it points to."""
    import llama_cpp

    arrays = {name.encode(): np.ascontiguousarray(values, np.float32) for name, values in matrix.items()}
    entries = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for entry, (name, values) in zip(entries, arrays.items(), strict=False):
        entry.name, entry.size = name, values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries, arrays


def _layers(checkpoint: Path) -> int:
    return json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]


def _write_shape(writer, config: dict) -> None:
    every = config.get("rope_parameters") or {}
    rope = every.get("full_attention", every)
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
    if config["model_type"] == "gemma3_text":
        _write_windows(writer, config, head_size)
    scaling = rope.get("rope_type") or "default"
    if scaling not in ("default", "llama3"):
        raise ConfigError("model.source", scaling, "this scaling of positions cannot be written to GGUF; use a GPTQ variant")
    if scaling == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, head_size))


def _write_windows(writer, config: dict, head_size: int) -> None:
    """Write which layers have a sliding window, its length, and the base of their rotary positions."""
    # llama.cpp assumes these values for every Gemma 3.
    for name, assumed in (("query_pre_attn_scalar", head_size), ("attn_logit_softcapping", None)):
        if config.get(name, assumed) != assumed:
            raise ConfigError("model.source", f"{name}={config[name]}", f"llama.cpp assumes {assumed}; quantize to gptq")
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    writer.add_rope_freq_base_swa(config["rope_parameters"]["sliding_attention"]["rope_theta"])


def _llama3_factors(rope: dict, head_size: int) -> np.ndarray:
    """Compute Llama 3.1's frequency divisors for long contexts, float32 [head_size / 2], as in transformers."""
    frequencies = rope["rope_theta"] ** -(np.arange(0, head_size, 2) / head_size)
    wavelengths = 2 * np.pi / frequencies
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    smooth = (rope["original_max_position_embeddings"] / wavelengths - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"]
    )
    between = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(wavelengths < high, 1.0, np.where(wavelengths > low, rope["factor"], between)).astype(np.float32)


def _tensors(checkpoint: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor of the checkpoint's safetensors files as float32, one at a time."""
    import torch
    from safetensors import safe_open

    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, opened.get_tensor(name).to(torch.float32).numpy()


def _for_llama_rope(name: str, tensor: np.ndarray, config: dict) -> np.ndarray:
    """Reorder query and key rows. llama.cpp interleaves the halves of a head, and transformers stores one after the other."""
    if ".q_proj." not in name and ".k_proj." not in name:
        return tensor
    heads = config["num_attention_heads"]
    if ".k_proj." in name:
        heads = config.get("num_key_value_heads") or heads
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
