"""Read a language from its file in `languages/` and its column in the tables of `products/`: words, forms, phrase templates.

This module knows grammar. It knows no catalog and no intent.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path
from random import Random

import yaml

from intent.errors import ConfigError
from intent.synth.grammar import Parts, parse
from intent.synth.lexicon import wordings

FOLDER = Path(__file__).parent / "languages"
# The base loader keeps every scalar a string: "no", "null" and "on" are words here.
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Noun:
    """A noun phrase in all its forms: `say("the", plural=True)` is "the apples", `counted(2)` is "apples".

    `text` has this notation. A word is `stem|ending,ending`, with one ending for each of the language's `forms`. A word without
    `|` never changes. `~` stands for the adjective ending that the determiner requires (German, Dutch). ` /` is followed by the
    gender and an exception: `p` has only a plural (trousers), `s` has no plural (grapes in Italian), `>f` has another gender in
    the plural.
    """

    __slots__ = ("_forms", "gender", "language", "marks", "number", "plural_gender", "text")

    def __init__(self, language: "Language", text: str):
        self.language = language
        self.text, _, marks = text.partition(" /")
        self.marks = marks
        self.gender = marks[:1] or language.genders[0]
        self.plural_gender = marks[2:] if marks[1:2] == ">" else self.gender
        self.number = {"p": "many", "s": "mass"}.get(marks[1:], "")
        self._forms: dict = {}

    def form(self, name: str) -> str:
        """Return the form with this name, one of the language's `forms`. A `~` stays in it."""
        if "|" not in self.text:
            return self.text
        index = self.language.forms.index(name)
        return " ".join([_inflect(word, index) for word in self.text.split(" ")])

    @property
    def spellings(self) -> set[str]:
        """Return every form with every adjective ending."""
        parts = [word.partition("|") for word in self.text.split(" ")]
        endings = [(stem, more.split(",") if bar else ()) for stem, bar, more in parts]
        numbers = range(len(self.language.forms) if "|" in self.text else 1)
        forms = {" ".join([stem + more[i] if more else stem for stem, more in endings]) for i in numbers}
        if "~" not in self.text:
            return forms
        return {form.replace("~", ending) for form in forms for ending in self.language.endings}

    def say(self, phrase: str, plural: bool = False, before: str = "", after: str = "") -> str:
        """Return the noun with the determiner of `phrase`. `before`, `after`: a brand or size beside the noun, with blanks."""
        key = (phrase, plural)
        pair = self._forms.get(key)
        if pair is None:
            pair = self._forms[key] = self.language.decline(self, phrase, plural)
        determiner, noun = pair
        return f"{determiner}{before}{noun}{after}"

    def counted(self, number: int) -> str:
        """Return the form of the noun that follows `number`, without the number."""
        key = (number,)
        text = self._forms.get(key)
        if text is None:
            adjective = self.language.phrases["counted"].get("adj", {})
            ending = adjective.get(self.gender if number == 1 else "p", "")
            text = self._forms[key] = self.form(self.language.count_form[number]).replace("~", ending)
        return text


def _inflect(word: str, index: int) -> str:
    stem, bar, endings = word.partition("|")
    return stem + endings.split(",")[index] if bar else word


class Language:
    """The data of one language. Templates and nouns are parsed when they are first used."""

    def __init__(self, code: str, raw: Mapping):
        self.code, self.raw = code, raw
        self.forms: list[str] = raw["forms"]
        self.genders: list[str] = raw.get("genders", ["m"])
        self.phrases: dict[str, dict] = raw["phrases"]
        self.unit_phrases = frozenset(name for name, rule in self.phrases.items() if "unit" in rule)
        self.one_phrases = frozenset(name for name, rule in self.phrases.items() if "one" in rule)
        self.endings = {ending for rule in self.phrases.values() for ending in rule.get("adj", {}).values()} | {""}
        self.contractions = [(re.compile(pattern), to) for pattern, to in raw.get("contractions", [])]
        self._contracted = re.compile("|".join(f"(?:{pattern})" for pattern, _ in raw.get("contractions", [])) or r"(?!)")
        self.elisions = [(re.compile(pattern), to) for pattern, to in raw.get("elisions", [])]
        self.fillers: list[str] = raw["fillers"]
        self.adjectives: dict[str, str | dict[str, str]] = {**raw["colours"], **raw["qualities"]}
        # The ways to say a variety: fixed text before the noun, or behind it after "+"; or an adjective by gender.
        self.varieties: dict[str, list[str | dict[str, str]]] = raw["varieties"]
        self.agree: dict[str, dict[str, str]] = raw["agree"]
        self.unstated: dict[str, dict[str, list[str]]] = raw["unstated"]
        # How an adjective replaces a noun that was said before: "the red one", "die rote".
        self.one_of_them = [parse(text) for text in raw["one_of_them"]]
        # The words between the items of a list ("and", "then"), between clauses, and behind the list ("and that's it").
        self.joins: dict[str, list[str]] = raw["joins"]
        self.join_contractions = [(re.compile(pattern), to) for pattern, to in raw["joins"].get("contractions", [])]
        self.brand_first = raw["brand"] == "before"
        self.head: str = raw["head"]
        self.count_form = {n: _first(raw["count_forms"], n) for n in range(1, 100)}
        self.numbers = _Numbers(raw["numbers"], self.genders)

    @cached_property
    def rules(self) -> dict[str, list[Parts]]:
        """Return the parsed templates that other templates name."""
        return {name: [parse(text) for text in texts] for name, texts in self.raw["rules"].items()}

    @cached_property
    def templates(self) -> dict[str, list[tuple[str, Parts]]]:
        """Return the texts of each group of templates, each with its parsed template."""
        return {name: [(text, parse(text)) for text in texts] for name, texts in self.raw["templates"].items()}

    @cached_property
    def nouns(self) -> dict[str, list[Noun]]:
        """Return the wordings of each idea. Shops use the first one."""
        return {idea: [Noun(self, text) for text in nouns_of(cell)] for idea, cell in wordings(self.code).items()}

    @cached_property
    def units(self) -> dict[str, list[Noun]]:
        """Return the wordings of each unit, such as bottle."""
        return {unit: [Noun(self, text) for text in nouns_of(cell)] for unit, cell in self.raw["units"].items()}

    def draw_wording(self, idea: str, rng: Random) -> int:
        """Draw the number of the wording that someone uses for an idea. The first ones, the plainest, are drawn more often."""
        return int(rng.random() ** 1.4 * len(self.nouns[idea]))

    def wordings(self, quality: str) -> int:
        """Return how many ways there are to say a color, another quality or a variety."""
        return len(self.varieties[quality]) if quality in self.varieties else 1

    @lru_cache(maxsize=50_000)  # noqa: B019 - a language lives as long as its process
    def described(self, idea: str, which: int, quality: str, wording: int = 0, behind: bool = False) -> Noun:
        """Return the noun with a color, another quality or a variety.

        An adjective agrees with the noun. The text of a variety comes behind the noun if `behind`, else on its usual side.
        `which`: the wording of the noun; `wording`: that of the variety.
        """
        noun = self.nouns[idea][which]
        modifier = self.varieties[quality][wording] if quality in self.varieties else self.adjectives[quality]
        if quality in self.varieties and isinstance(modifier, str):
            text = modifier.removeprefix("+")
            pair = (noun.text, text) if behind or text != modifier else (text, noun.text)
            return Noun(self, f"{pair[0]} {pair[1]} /{noun.marks}")
        if not isinstance(modifier, str) and noun.plural_gender != noun.gender:
            # The adjective needs the gender of each form: "l'uovo fresco", but "le uova fresche".
            sides = enumerate((noun.gender, noun.plural_gender))
            modifier = "|" + ",".join(_inflect(modifier[gender], i) for i, gender in sides)
        elif not isinstance(modifier, str):
            modifier = modifier[noun.gender]
        pair = (modifier, noun.text) if self.raw.get("adjectives", "before") == "before" else (noun.text, modifier)
        return Noun(self, f"{pair[0]} {pair[1]} /{noun.marks}")

    @lru_cache(maxsize=20_000)  # noqa: B019
    def quality(self, idea: str, which: int, quality: str, wording: int = 0) -> Noun:
        """Return a quality that replaces its noun: "two red" of three shirts. `which` and `wording` as in `described`."""
        noun = self.nouns[idea][which]
        modifier = self.varieties[quality][wording] if quality in self.varieties else self.adjectives[quality]
        text = modifier.removeprefix("+") if isinstance(modifier, str) else modifier[noun.gender]
        return Noun(self, f"{text} /{noun.marks}")

    def is_adjective(self, quality: str, wording: int = 0) -> bool:
        """Return whether the quality's wording can have an article: "the red one", but not "the with lemon one"."""
        modifier = self.varieties[quality][wording] if quality in self.varieties else self.adjectives[quality]
        return quality in self.adjectives or not isinstance(modifier, str) or "~" in modifier

    @lru_cache(maxsize=20_000)  # noqa: B019
    def verbatim(self, text: str, gender: str) -> Noun:
        """Return a name that never changes, with the articles of `gender`."""
        noun = Noun(self, "x")
        noun.text = text.replace("|", " ").replace("~", " ")
        noun.gender = noun.plural_gender = gender
        return noun

    def contract(self, message: str) -> str:
        """Apply the language's contractions ("di il" becomes "del")."""
        if self._contracted.search(message):
            for pattern, to in self.contractions:
                message = pattern.sub(to, message)
        return message

    def title(self, text: str) -> str:
        """Capitalize a noun as shops write product names."""
        if self.raw.get("title_case"):
            return " ".join(word if word.isupper() else word[:1].upper() + word[1:] for word in text.split())
        return text[:1].upper() + text[1:]

    def decline(self, noun: Noun, phrase: str, plural: bool) -> tuple[str, str]:
        """Return (determiner with a blank behind it where needed, noun). An unknown `phrase` is `bare`."""
        rule = self.phrases.get(phrase) or self.phrases["bare"]
        # "Scissors" has no singular, even if the phrase requires one.
        plural = noun.number == "many" or (plural and rule.get("number") != "s")
        key = "p" if plural else noun.gender
        form = rule.get("forms", {}).get("p" if plural else "s", self.forms[-1 if plural else 0])
        word = noun.form(form).replace("~", rule.get("adj", {}).get(key, ""))
        determiners = rule.get("det", {})
        if plural:
            common = "" if rule.get("number") == "s" else determiners.get("all", "")
            determiner = determiners.get("p" + noun.plural_gender, determiners.get("p", common))
        else:
            determiner = determiners.get(key, determiners.get("s", determiners.get("all", "")))
        if not determiner:
            return "", word
        text = f"{determiner} \0{word}"
        for pattern, to in self.elisions:
            text = pattern.sub(to, text)
        determiner, _, word = text.partition("\0")
        return determiner, word


class _Numbers:
    """The number words from 1 to 99 for each gender."""

    def __init__(self, raw: Mapping, genders: Sequence[str]):
        self.words = {gender: {n: self._word(raw, n, gender) for n in range(1, 100)} for gender in genders}
        # The same with blanks, as dictation and hasty people write them: "twenty four", "vier und zwanzig".
        self.apart = {gender: {n: self._apart(raw, n, gender) for n in range(1, 100)} for gender in genders}
        self._every = frozenset(word for words in self.words.values() for word in words.values())
        self._over_one = frozenset(word for words in self.words.values() for n, word in words.items() if n > 1)
        self.dozens = {int(n): words for n, words in raw.get("dozens", {}).items()}
        self.pairs = {int(n): words for n, words in raw.get("pairs", {}).items()}
        self.dozens_of = "dozens_of" in raw
        self.beyond: list[str] = raw["beyond"]

    def is_word(self, text: str) -> bool:
        return text in self._every

    def in_text(self, text: str) -> bool:
        """Return whether a text has a number over one, in digits or words."""
        return any(word.isdigit() or word in self._over_one for word in re.findall(r"\d+|\w+", text.casefold()))

    @staticmethod
    def _word(raw: Mapping, n: int, gender: str) -> str:
        gendered = raw.get("gendered", {})
        if gender in gendered.get(str(n), {}):
            return gendered[str(n)][gender]
        if str(n) in raw.get("exceptions", {}):
            return raw["exceptions"][str(n)]
        if n < 20:
            return raw["below_twenty"][n - 1]
        tens, unit = raw["tens"][n // 10 - 2], n % 10
        if not unit:
            return tens
        word = gendered.get(str(unit), {}).get(gender, raw["below_twenty"][unit - 1])
        return raw["join"].format(tens=tens, unit=word)

    def _apart(self, raw: Mapping, n: int, gender: str) -> str:
        word = self.words[gender][n]
        if n < 21 or not n % 10 or " " in word or "-" in word:
            return word.replace("-", " ")
        tens, unit = raw["tens"][n // 10 - 2], raw["below_twenty"][n % 10 - 1]
        # "{unit}und{tens}" becomes "{unit} und {tens}".
        return re.sub(r"\s+", " ", re.sub(r"(\{\w+\})", r" \1 ", raw["join"])).strip().format(tens=tens, unit=unit)


def _first(rules: Sequence, n: int) -> str:
    return next(form for pattern, form in rules if re.fullmatch(pattern, str(n)))


def nouns_of(cell: str) -> list[str]:
    """Return the wordings of a cell, each in the notation of `Noun`."""
    return [text.strip() for text in cell.split(";")]


def available() -> list[str]:
    """Return the codes of the languages that have a file."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load(code: str) -> Language:
    """Return the language of `languages/<code>.yaml`, parsed once per process. Raises ConfigError if the file is missing."""
    path = FOLDER / f"{code}.yaml"
    if not path.exists():
        raise ConfigError("data.languages", code, f"use codes out of {available()}, or add intent/synth/languages/{path.name}")
    return Language(code, yaml.load(path.read_text(encoding="utf-8"), LOADER))
