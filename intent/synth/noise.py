"""What keyboards, hurry and voice recognition do to a message without changing what it means."""

import unicodedata

from intent.synth.request import Request

NEAR = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "k": "jl", "l": "k",
    "m": "n", "n": "bm", "o": "ip", "p": "o", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "y": "tu",
}  # fmt: skip
EMOJI = ("🙂", "🙏", "😊", "👍", "🛒", "❤️", "😅", "🥛", "🍞")


def disturb(message: str, request: Request) -> str:
    rng = request.rng
    r = rng.random()
    if r < 0.30:
        message = message.lower()
        request.phenomena.append("casing")
    elif r < 0.33:
        message = message.upper()
        request.phenomena.append("casing")
    elif r < 0.65:
        message = message[:1].upper() + message[1:]
    if rng.random() < 0.15:
        bare = strip(message)
        if bare != message:
            message = bare
            request.phenomena.append("no_diacritics")
    if rng.random() < 0.12:
        message = typo(message, rng)
        request.phenomena.append("typo")
    if rng.random() < 0.05:
        message = f"{message} {EMOJI[int(rng.random() * len(EMOJI))]}"
        request.phenomena.append("emoji")
    elif rng.random() < 0.25 and message[-1:].isalnum():
        message += "."
    return " ".join(message.split())


def strip(text: str) -> str:
    text = text.replace("ß", "ss").replace("đ", "dj").replace("Đ", "Dj")
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def typo(text: str, rng) -> str:
    """One slip of the finger inside a word of five letters or more."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    i = long[int(rng.random() * len(long))]
    word = words[i]
    at = 1 + int(rng.random() * (len(word) - 2))
    c = word[at]
    kind = int(rng.random() * 4)
    near = NEAR.get(c.lower(), c)
    middle = (c + c, "", near[int(rng.random() * len(near))], word[at + 1] + c)[kind]
    words[i] = word[:at] + middle + word[at + (2 if kind == 3 else 1) :]
    return " ".join(words)
