"""Trim a model's vocabulary to the tokens that a shop's text needs, for fewer weights and a smaller output layer.

A vocabulary file lists the tokens that some text needed. A trimmed vocabulary has those, the bytes, every single Latin letter,
digit and sign, and the control tokens. It also has the intermediate tokens of every kept token's merges, so that kept tokens
are built as before. Other text is encoded with shorter tokens or bytes, so text in any script is still represented exactly.

This module knows the format of tokenizer.json. It knows nothing of models or training.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from intent.errors import ConfigError

FULL = "full"
FILE = "vocabulary.txt"
# Latin tokens with a lower id are listed too. They are the most frequent ones and cover words that the text did not have.
FIRST = 30_000
BYTE, UNUSED = re.compile(r"<0x[0-9A-F]{2}>"), re.compile(r"<unused\d+>")


def needed(spec: dict, used: Iterable[str]) -> list[str]:
    """Return the tokens to list in a vocabulary file, in the order of their ids.

    `spec`: the parsed tokenizer.json. `used`: the tokens that the text was encoded to.
    """
    ids = spec["model"]["vocab"]
    kept = set(used) | {token for token, i in ids.items() if i < FIRST and not UNUSED.fullmatch(token) and _is_latin(token)}
    return sorted((token for token in kept if token in ids and not _always(token)), key=ids.__getitem__)


def trim(spec: dict, listed: Iterable[str]) -> tuple[dict, list[int]]:
    """Trim a parsed tokenizer.json to the tokens that `listed` needs. Returns (trimmed spec, former ids of its tokens).

    Raises ConfigError if the tokenizer does not fall back to bytes, or does not have a listed token.
    """
    model = spec["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ConfigError("model.vocabulary", model.get("type"), "only BPE that falls back to bytes can be trimmed; use full")
    ids: dict[str, int] = model["vocab"] | {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    merges = [_pair(merge) for merge in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    added = {entry["content"] for entry in spec["added_tokens"]}
    kept = {token for token in added if not UNUSED.fullmatch(token)}
    kept |= {token for token in ids if _always(token)}
    for token in listed:
        if token not in ids:
            raise ConfigError(
                "model.vocabulary", token, "is not a token of this model; make the list again for it, or use full"
            )
        kept.update([token] if token in added else _built_from(token, ranks))
    former = sorted(ids[token] for token in kept)
    by_id = {i: token for token, i in ids.items()}
    new_ids = {by_id[i]: new for new, i in enumerate(former)}
    trimmed = json.loads(json.dumps({key: value for key, value in spec.items() if key != "model"}))
    trimmed["added_tokens"] = [e | {"id": new_ids[e["content"]]} for e in trimmed["added_tokens"] if e["content"] in new_ids]
    for entry in (trimmed.get("post_processor") or {}).get("special_tokens", {}).values():
        entry["ids"] = [new_ids[token] for token in entry["tokens"]]
    kept_merges = [list(pair) for pair in merges if all(part in new_ids for part in (*pair, "".join(pair)))]
    return trimmed | {"model": model | {"vocab": new_ids, "merges": kept_merges}}, former


def read(path: Path) -> list[str]:
    """Read the tokens of a vocabulary file. It has one JSON string per line, because tokens may contain line breaks."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, tokens: Sequence[str]) -> None:
    """Write a vocabulary file, as `read` reads it."""
    path.write_text("".join(json.dumps(token, ensure_ascii=True) + "\n" for token in tokens), encoding="utf-8")


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Return the two tokens of a merge. Older files write them as one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _always(token: str) -> bool:
    """Return whether a token is kept even if it is not listed."""
    return bool(BYTE.fullmatch(token)) or (len(token) == 1 and _is_latin(token))


def _is_latin(token: str) -> bool:
    """Return whether all letters of the token, if it has any, are Latin."""
    return all(map(_latin_or_no_letter, token))


@cache
def _latin_or_no_letter(character: str) -> bool:
    return not character.isalpha() or unicodedata.name(character, "").startswith("LATIN")


def _built_from(token: str, ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Yield the token, its characters and the intermediate tokens of merging them by rank."""
    parts = list(token)
    yield from parts
    while len(parts) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            return
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[at]
