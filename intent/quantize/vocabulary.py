"""Write the vocabulary of a checkpoint's tokenizer.json into a GGUF file.

A byte-level BPE keeps its merges. A BPE over characters with byte fallback, such as Gemma's, becomes a SentencePiece
vocabulary: llama.cpp merges the two neighbors whose joint text is the token with the highest score.
"""

import json
import re
from pathlib import Path

from intent.errors import ConfigError

# A distinctive part of a pre-tokenizer's JSON, and llama.cpp's name for that pre-tokenizer.
PRE_TOKENIZERS = (
    (r"\\p{N}{1,3}", "llama-bpe"),
    (r"|\\p{N}|", "qwen2"),
    ('"individual_digits": true', "smollm"),
    ('"ByteLevel"', "gpt-2"),
)
SPACE = "▁"
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def write_vocabulary(writer, checkpoint: Path, config: dict) -> None:
    """Add the tokenizer of `checkpoint` to a GGUFWriter. Raises ConfigError if llama.cpp would split text differently."""
    spec = json.loads((checkpoint / "tokenizer.json").read_text())
    if spec["model"].get("type") != "BPE":
        raise ConfigError(
            "model.source", spec["model"].get("type"), "GGUF can be written only for BPE tokenizers; quantize to gptq"
        )
    write = _write_scores if spec["model"].get("byte_fallback") else _write_merges
    write(writer, spec, config)
    writer.add_add_bos_token(_adds_bos(checkpoint))
    for name, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        value = config.get(name)
        if value is not None:
            add(value[0] if isinstance(value, list) else value)


def _write_merges(writer, spec: dict, config: dict) -> None:
    described = json.dumps(spec.get("pre_tokenizer"), ensure_ascii=False)
    pre = next((name for mark, name in PRE_TOKENIZERS if mark in described), None)
    if pre is None:
        raise ConfigError("model.source", described[:200], "llama.cpp does not know this pre-tokenizer; quantize to gptq")
    tokens, kinds = _tokens(spec, config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in _merges(spec)])


def _write_scores(writer, spec: dict, config: dict) -> None:
    import gguf

    _check_spaces(spec)
    scores, unknown = _scores(spec), spec["model"].get("unk_token")
    tokens, kinds = _tokens(spec, config["vocab_size"])
    for i, token in enumerate(tokens):
        if kinds[i] == gguf.TokenType.NORMAL and BYTE.fullmatch(token):
            kinds[i] = gguf.TokenType.BYTE
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_scores([scores.get(token, 0.0) for token in tokens])
    writer.add_add_space_prefix(False)
    if unknown is not None:
        writer.add_unk_token_id(spec["model"]["vocab"][unknown])
    if config.get("pad_token_id") is not None:
        writer.add_pad_token_id(config["pad_token_id"])


def _tokens(spec: dict, size: int) -> tuple[list[str], list[int]]:
    """Return the text and llama.cpp's type of every id below `size`. An unused id is a [PAD] token."""
    from gguf import TokenType

    added = {entry["id"]: entry for entry in spec["added_tokens"]}
    by_id = {i: token for token, i in spec["model"]["vocab"].items()} | {i: entry["content"] for i, entry in added.items()}
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(size)]
    kinds = [TokenType.NORMAL if i in by_id else TokenType.UNUSED for i in range(size)]
    for i, entry in added.items():
        if i < size:
            kinds[i] = TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED
    return tokens, kinds


def _merges(spec: dict) -> list[tuple[str, str]]:
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in spec["model"]["merges"]]


def _scores(spec: dict) -> dict[str, float]:
    """Return scores that make llama.cpp merge in the tokenizer's order: minus the rank of the first merge that makes a token.

    llama.cpp scores tokens, not pairs. So every pair that makes a token must be a merge, and the merges that make one token
    must be consecutive. Raises ConfigError otherwise.
    """
    merges, vocabulary = _merges(spec), spec["model"]["vocab"]
    scores: dict[str, float] = {}
    previous, merge_set = None, set(merges)
    for rank, (left, right) in enumerate(merges):
        token = left + right
        if token != previous and token in scores:
            _refuse_merges(token, "are apart in the list of merges; put them together")
        previous = token
        scores.setdefault(token, -float(rank))
    for token in vocabulary:
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in vocabulary and right in vocabulary and (left, right) not in merge_set:
                _refuse_merges(token, f"lack {left!r} + {right!r}; keep every merge whose two parts and result are tokens")
    return scores


def _refuse_merges(token: str, why: str) -> None:
    raise ConfigError("model.source", f"tokenizer.json, token {token!r}", f"its merges {why}, or quantize to gptq")


def _check_spaces(spec: dict) -> None:
    """Raise ConfigError unless the tokenizer only replaces spaces by ▁ and splits nothing, as llama.cpp does."""
    normalizer, pre = spec.get("normalizer"), spec.get("pre_tokenizer")
    marked = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    same = normalizer is not None and {name: normalizer.get(name) for name in marked} == marked
    if not same or (pre and pre.get("pattern") != {"String": " "}):
        described = json.dumps({"normalizer": normalizer, "pre_tokenizer": pre}, ensure_ascii=False)
        raise ConfigError(
            "model.source", described[:200], "GGUF can be written only for spaces that become ▁; quantize to gptq"
        )


def _adds_bos(checkpoint: Path) -> bool:
    from tokenizers import Tokenizer

    return bool(Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode("").ids)
