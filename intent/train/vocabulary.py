"""Trim a model's vocabulary to the tokens that a shop's text needs: fewer weights, and a smaller output layer.

A vocabulary file lists the tokens that some text was seen to need. Kept are those, the bytes, every single Latin letter,
digit and sign, and the control tokens. The merges that build a kept token keep their intermediate tokens too, so that it
is built as before. What is not listed is written with shorter tokens, in the end with bytes: text in any script comes back
exactly.

Knows the text of tokenizer.json; knows nothing of models or training.
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
# Latin tokens among so many of the first are kept as well: the most frequent ones, for words that the text did not have.
FIRST = 30_000
BYTE, UNUSED = re.compile(r"<0x[0-9A-F]{2}>"), re.compile(r"<unused\d+>")


def needed(spec: dict, used: Iterable[str]) -> list[str]:
    """Return the tokens to list in a vocabulary file, in the order of their ids.

    `spec`: the parsed tokenizer.json. `used`: tokens that some text was encoded to.
    """
    ids = spec["model"]["vocab"]
    kept = set(used) | {token for token, i in ids.items() if i < FIRST and not UNUSED.fullmatch(token) and _is_latin(token)}
    return sorted((token for token in kept if token in ids and not _always(token)), key=ids.__getitem__)


def trim(spec: dict, listed: Iterable[str]) -> tuple[dict, list[int]]:
    """Return the tokenizer.json with only the tokens that `listed` needs, and the former ids of its tokens, in order.

    Raises ConfigError where the tokenizer does not fall back to bytes, and where a listed token is not in it.
    """
    model = spec["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ConfigError("model.vocabulary", model.get("type"), "only BPE that falls back to bytes is trimmed; use full")
    ids: dict[str, int] = model["vocab"] | {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    merges = [tuple(merge) if not isinstance(merge, str) else tuple(merge.split(" ")) for merge in model["merges"]]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    added = {entry["content"] for entry in spec["added_tokens"]}
    kept = {token for token in added if not UNUSED.fullmatch(token)}
    kept |= {token for token in ids if _always(token)}
    for token in listed:
        if token not in ids:
            raise ConfigError("model.vocabulary", token, "is no token of this model; make the list again for it, or use full")
        kept.update([token] if token in added else _built_from(token, ranks))
    former = sorted(ids[token] for token in kept)
    by_id = {i: token for token, i in ids.items()}
    now = {by_id[i]: new for new, i in enumerate(former)}
    trimmed = json.loads(json.dumps({key: value for key, value in spec.items() if key != "model"}))
    trimmed["added_tokens"] = [e | {"id": now[e["content"]]} for e in trimmed["added_tokens"] if e["content"] in now]
    for entry in (trimmed.get("post_processor") or {}).get("special_tokens", {}).values():
        entry["ids"] = [now[token] for token in entry["tokens"]]
    lasting = [list(pair) for pair in merges if all(part in now for part in (*pair, "".join(pair)))]
    return trimmed | {"model": model | {"vocab": now, "merges": lasting}}, former


def read(path: Path) -> list[str]:
    """Return the tokens listed in a vocabulary file: a JSON string a line, since tokens may hold line breaks."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, tokens: Sequence[str]) -> None:
    path.write_text("".join(json.dumps(token, ensure_ascii=True) + "\n" for token in tokens), encoding="utf-8")


def _always(token: str) -> bool:
    """Whether a token is kept whatever is listed."""
    return bool(BYTE.fullmatch(token)) or (len(token) == 1 and _is_latin(token))


def _is_latin(token: str) -> bool:
    """Whether all of its letters are, if it has any."""
    return all(map(_latin_or_no_letter, token))


@cache
def _latin_or_no_letter(character: str) -> bool:
    return not character.isalpha() or unicodedata.name(character, "").startswith("LATIN")


def _built_from(token: str, ranks: dict[tuple[str, str], int]) -> Iterator[str]:
    """Yield the token and every token that merging its characters by rank passes through."""
    parts = list(token)
    yield from parts
    while len(parts) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), at) for at, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            return
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[at]
