"""Add the noise of keyboards, hurry and speech recognition to a message without changing its meaning."""

import re
from collections.abc import Mapping
from random import Random

from intent.synth.language import Language
from intent.task.text import without_accents

NEAR = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "k": "jl", "l": "k",
    "m": "n", "n": "bm", "o": "ip", "p": "o", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "y": "tu",
}  # fmt: skip
EMOJI = ("🙂", "🙏", "😊", "👍", "🛒", "❤️", "😅", "😂", "🤔", "✨", "👀", "🥰", "🙈", "‼️", "💪", "🤷")
# The marks that speech recognition drops. Group 1 has those to drop; a comma or slash within a number ("1,5") stays.
SPOKEN_MARKS = re.compile(r"(?<=\d)[,/](?=\d)|([^\w\s'’.%-]|[.-]+(?=\s|$)|(?<=\s)-)")


def disturb(message: str, language: Language, rng: Random, weights: Mapping[str, float], phenomena: list[str]) -> str:
    """Return the message with random noise, and add the kinds of noise to `phenomena`. `weights`: the chance of each kind."""
    random = rng.random
    if random() < weights["voice"]:
        # Speech recognition would drop all of "???", but a message must not be empty.
        return _note("voice", message, voice(message, language, rng) or message, phenomena)
    if random() < weights["typo"]:
        slipped = typo(message, rng)
        message = _note("typo", message, typo(slipped, rng) if random() < 0.15 else slipped, phenomena)
    if random() < weights["no_diacritics"]:
        digraphs = language.code in ("de", "hr") and random() < 0.4
        message = _note("no_diacritics", message, without_accents(message, digraphs), phenomena)
    if random() < weights["no_punctuation"]:
        # "???" is only punctuation, but a message must not be empty.
        message = _note("no_punctuation", message, unpunctuated(message).strip() or message, phenomena)
    else:
        message = _punctuate(message, random)
    if random() < weights["casing"]:
        r = random()
        changed = message.lower() if r < 0.75 else message.upper() if r < 0.9 else message.title()
        message = _note("casing", message, changed, phenomena)
    elif random() < 0.6:
        message = message[:1].upper() + message[1:]
    if random() < weights["emoji"]:
        emoji = "".join(EMOJI[int(random() * len(EMOJI))] for _ in range(1 if random() < 0.7 else 2))
        message = _note("emoji", message, f"{emoji} {message}" if random() < 0.15 else f"{message} {emoji}", phenomena)
    return "\n".join(" ".join(line.split()) for line in message.strip().split("\n"))


def _note(name: str, before: str, after: str, phenomena: list[str]) -> str:
    if after != before:
        phenomena.append(name)
    return after


def _punctuate(message: str, random) -> str:
    if not message[-1:].isalnum():
        return message
    r = random()
    return message + ("." if r < 0.22 else "!" if r < 0.27 else " !" if r < 0.275 else "..." if r < 0.285 else "")


def unpunctuated(text: str) -> str:
    """Remove punctuation at the ends of words and English apostrophes ("dont"), as someone in a hurry does."""
    text = re.sub(r"[,;:!?…]+(?=\s|$)|\.+(?=\s|$)|[¿¡]", "", text)
    return re.sub(r"(?<=[a-z])['’](?=(?:t|s|m|re|ve|ll|d)\b)", "", text)


def typo(text: str, rng: Random) -> str:
    """Misspell one word inside. The word has at least five letters, so that it stays readable."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    i = long[int(rng.random() * len(long))]
    words[i] = _slip(words[i], rng)
    return " ".join(words)


def _slip(word: str, rng: Random) -> str:
    at = 1 + int(rng.random() * (len(word) - 2))
    c, kind = word[at], rng.random()
    if kind < 0.3:
        return word[:at] + word[at + 1] + c + word[at + 2 :]
    if kind < 0.55:
        return word[:at] + word[at + 1 :]
    if kind < 0.75:
        return word[:at] + c + word[at:]
    near = NEAR.get(c.lower(), c)
    return word[:at] + near[int(rng.random() * len(near))] + word[at + 1 :]


def voice(text: str, language: Language, rng: Random) -> str:
    """Write the text as speech recognition does.

    It has no capitals and no punctuation, and numbers are words. Sometimes it has a filler or a repeated word.
    """
    text = re.sub(r"(?<!\S)\d{1,2}(?!\S)", lambda match: _spoken(int(match.group()), language) or match.group(), text)
    words = SPOKEN_MARKS.sub(lambda match: " " if match[1] else match[0], text.lower()).split()
    if len(words) > 2 and rng.random() < 0.5:
        at = int(rng.random() * len(words))
        if rng.random() < 0.7:
            words.insert(at, language.fillers[int(rng.random() * len(language.fillers))])
        elif words[at].isalpha() and not language.numbers.is_word(words[at]):
            words.insert(at, words[at])
    return " ".join(words)


def _spoken(n: int, language: Language) -> str | None:
    """Return the number's word if it is the same for every gender, else None."""
    words = {by_number.get(n) for by_number in language.numbers.words.values()}
    return words.pop() if len(words) == 1 else None


def gibberish(rng: Random) -> str:
    """Return random keys, one emoji or bare punctuation."""
    r = rng.random()
    if r < 0.2:
        return EMOJI[int(rng.random() * len(EMOJI))]
    if r < 0.35:
        return rng.choice(("?", "??", "...", "!!!", ".", "??!", "-"))
    length = rng.randint(2, 14)
    keys = "".join(rng.choice("asdfghjklqwertzuiopyxcvbnm     ") for _ in range(length))
    return " ".join(keys.split()) or "asdf"
