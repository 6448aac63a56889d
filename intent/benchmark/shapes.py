"""Make models of a published shape with random weights, to measure speed and memory without the real weights.

A random model's answers mean nothing. A benchmark forces the gold answers instead (see `meters.GoldWalk`).
"""

import json
import shutil
from pathlib import Path

from intent.errors import ConfigError

SHAPES = {
    # The config.json of meta-llama/Llama-3.2-1B-Instruct.
    "llama32_1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": 128009,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_shape(shape: str, tokenizer: Path, target: Path, seed: int = 0) -> None:
    """Write a float16 checkpoint with random weights to the folder `target`.

    `shape`: a key of SHAPES. `tokenizer`: a folder with a tokenizer.json, or a GGUF with a Llama 3 vocabulary. Raises
    ConfigError for a GGUF without such a vocabulary.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(target)
    if tokenizer.is_dir():
        shutil.copy(tokenizer / "tokenizer.json", target / "tokenizer.json")
    else:
        (target / "tokenizer.json").write_text(json.dumps(llama3_tokenizer(tokenizer), ensure_ascii=False))
    (target / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def llama3_tokenizer(vocabulary: Path) -> dict:
    """Return the tokenizer.json of a Llama 3 vocabulary in GGUF form. Raises ConfigError if the file has none."""
    from gguf import GGUFReader, TokenType
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    try:
        fields = GGUFReader(vocabulary).fields
        pre, tokens, kinds, merges = (
            fields[f"tokenizer.ggml.{name}"].contents() for name in ("pre", "tokens", "token_type", "merges")
        )
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError("vocabulary", str(vocabulary), f"is not a GGUF with a BPE vocabulary ({error})") from error
    if pre != "llama-bpe":
        raise ConfigError("vocabulary", str(vocabulary), f"its pre-tokenizer is {pre!r}; give one of Llama 3 (llama-bpe)")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, pairs, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, ids[bos])])
    return json.loads(tokenizer.to_str())
