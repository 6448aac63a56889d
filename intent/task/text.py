"""Remove accents from text."""

import unicodedata

DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "đ": "dj", "Đ": "Dj"})
LAST_ACCENTED = "\u0530"  # Latin, Greek and Cyrillic letters come before it
PLAIN = str.maketrans({"ß": "ss", "đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "œ": "oe", "æ": "ae"})


def without_accents(text: str, digraphs: bool = False) -> str:
    """Remove accents. `digraphs`: write ü as ue, as on a foreign keyboard."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text).translate(DIGRAPHS if digraphs else PLAIN)
    characters, after_accented = [], False
    for c in unicodedata.normalize("NFD", text):
        # In other scripts, a combining mark changes the letter: "ビ" is not "ヒ".
        if not unicodedata.combining(c):
            after_accented = c < LAST_ACCENTED
        if not (after_accented and unicodedata.combining(c)):
            characters.append(c)
    return unicodedata.normalize("NFC", "".join(characters))
