"""A language: its words, forms and phrase templates, read from one file of `languages/` and its column of `products/`.

Knows grammar; knows no product list and no intent.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, cached_property, lru_cache
from pathlib import Path

import yaml

from intent.errors import ConfigError
from intent.synth.grammar import parse
from intent.synth.lexicon import wordings

FOLDER = Path(__file__).parent / "languages"
# Every scalar is a string: "no", "null" and "on" are words here, not values.
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Noun:
    """A noun phrase in all its forms: `say("the", plural=True)` is "the apples", `counted(2)` is "apples".

    A word is written `stem|ending,ending`, one ending for each of the language's `forms`; a word without `|` never changes.
    A `~` takes the adjective ending that the determiner asks for (German, Dutch). After ` /` stand the gender and what is
    special about the noun: `p` only plural (trousers), `s` no plural (grapes in Italian), `>f` another gender in the plural.
    """

    __slots__ = ("_said", "gender", "language", "marks", "number", "plural_gender", "text")

    def __init__(self, language: "Language", text: str):
        self.language = language
        self.text, _, marks = text.partition(" /")
        self.marks = marks
        self.gender = marks[:1] or language.genders[0]
        self.plural_gender = marks[2:] if marks[1:2] == ">" else self.gender
        self.number = {"p": "many", "s": "mass"}.get(marks[1:], "")
        self._said: dict = {}

    def form(self, name: str) -> str:
        if "|" not in self.text:
            return self.text
        index = self.language.forms.index(name)
        return " ".join([_inflect(word, index) for word in self.text.split(" ")])

    @property
    def spellings(self) -> set[str]:
        """Every form, with every ending that a determiner can ask for."""
        parts = [word.partition("|") for word in self.text.split(" ")]
        endings = [(stem, more.split(",") if bar else ()) for stem, bar, more in parts]
        every = range(len(self.language.forms) if "|" in self.text else 1)
        forms = {" ".join([stem + more[i] if more else stem for stem, more in endings]) for i in every}
        if "~" not in self.text:
            return forms
        return {form.replace("~", ending) for form in forms for ending in self.language.endings}

    def say(self, phrase: str, plural: bool = False, before: str = "", after: str = "") -> str:
        """The noun with the determiner of `phrase`; `before` and `after` (a brand, a size) stand next to the noun."""
        key = (phrase, plural)
        said = self._said.get(key)
        if said is None:
            said = self._said[key] = self.language.decline(self, phrase, plural)
        determiner, noun = said
        return f"{determiner}{before}{noun}{after}"

    def counted(self, number: int) -> str:
        """The form that a number asks for, without the number."""
        key = (number,)
        said = self._said.get(key)
        if said is None:
            adjective = self.language.phrases["counted"].get("adj", {})
            ending = adjective.get(self.gender if number == 1 else "p", "")
            said = self._said[key] = self.form(self.language.count_form[number]).replace("~", ending)
        return said


def _inflect(word: str, index: int) -> str:
    stem, bar, endings = word.partition("|")
    return stem + endings.split(",")[index] if bar else word


class Language:
    """One language's data, parsed. `templates` and `rules` hold parsed templates, `nouns` the wordings of each product idea."""

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
        # Each way to say a variety: beside the noun, unchanging, behind it where it begins with "+"; or an adjective by gender.
        self.varieties: dict[str, list[str | dict[str, str]]] = raw["varieties"]
        self.agree: dict[str, dict[str, str]] = raw["agree"]
        self.unstated: dict[str, dict[str, list[str]]] = raw["unstated"]
        self.rules = {name: [parse(text) for text in texts] for name, texts in raw["rules"].items()}
        self.templates = {name: [(text, parse(text)) for text in texts] for name, texts in raw["templates"].items()}
        # What stands between the items of a list ("and", "then"), between clauses, and behind all ("and that's it").
        self.joins: dict[str, list[str]] = raw["joins"]
        self.join_contractions = [(re.compile(pattern), to) for pattern, to in raw["joins"].get("contractions", [])]
        self.brand_first = raw["brand"] == "before"
        self.head: str = raw["head"]
        self.count_form = {n: _first(raw["count_forms"], n) for n in range(1, 100)}
        self.numbers = _Numbers(raw["numbers"], self.genders)

    @cached_property
    def nouns(self) -> dict[str, list[Noun]]:
        return {idea: [Noun(self, text.strip()) for text in words.split(";")] for idea, words in wordings(self.code).items()}

    @cached_property
    def units(self) -> dict[str, list[Noun]]:
        return {unit: [Noun(self, text.strip()) for text in words.split(";")] for unit, words in self.raw["units"].items()}

    def wordings(self, quality: str) -> int:
        """How many ways there are to say a colour, another quality or a variety."""
        return len(self.varieties[quality]) if quality in self.varieties else 1

    @lru_cache(maxsize=50_000)  # noqa: B019 - a language lives as long as its process
    def described(self, idea: str, which: int, quality: str, wording: int = 0, behind: bool = False) -> Noun:
        """The noun with a colour or another quality that agrees with it, or with a variety, `behind` it or where it belongs."""
        noun = self.nouns[idea][which]
        said = self.varieties[quality][wording] if quality in self.varieties else self.adjectives[quality]
        if quality in self.varieties and isinstance(said, str):
            text = said.removeprefix("+")
            pair = (noun.text, text) if behind or text != said else (text, noun.text)
            return Noun(self, f"{pair[0]} {pair[1]} /{noun.marks}")
        if not isinstance(said, str) and noun.plural_gender != noun.gender:
            # "L'uovo fresco", "le uova fresche": each form as its own gender has it.
            sides = enumerate((noun.gender, noun.plural_gender))
            said = "|" + ",".join(_inflect(said[gender], i) for i, gender in sides)
        elif not isinstance(said, str):
            said = said[noun.gender]
        pair = (said, noun.text) if self.raw.get("adjectives", "before") == "before" else (noun.text, said)
        return Noun(self, f"{pair[0]} {pair[1]} /{noun.marks}")

    @lru_cache(maxsize=20_000)  # noqa: B019
    def quality(self, idea: str, which: int, quality: str, wording: int = 0) -> Noun:
        """A quality in place of the noun that it describes: "two red" of three shirts."""
        noun = self.nouns[idea][which]
        said = self.varieties[quality][wording] if quality in self.varieties else self.adjectives[quality]
        text = said.removeprefix("+") if isinstance(said, str) else said[noun.gender]
        return Noun(self, f"{text} /{noun.marks}")

    @lru_cache(maxsize=20_000)  # noqa: B019
    def verbatim(self, text: str, gender: str) -> Noun:
        """A name taken as it is, with the articles of `gender`."""
        noun = Noun(self, "x")
        noun.text = text.replace("|", " ").replace("~", " ")
        noun.gender = noun.plural_gender = gender
        return noun

    def contract(self, message: str) -> str:
        """The message with what its words run together to ("di il" is "del")."""
        if self._contracted.search(message):
            for pattern, to in self.contractions:
                message = pattern.sub(to, message)
        return message

    def title(self, text: str) -> str:
        """A noun as a label writes it."""
        if self.raw.get("title_case"):
            return " ".join(word if word.isupper() else word[:1].upper() + word[1:] for word in text.split())
        return text[:1].upper() + text[1:]

    def decline(self, noun: Noun, phrase: str, plural: bool) -> tuple[str, str]:
        rule = self.phrases.get(phrase) or self.phrases["bare"]
        # "Scissors" have no singular, whatever the determiner asks for.
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
    """Number words from 1 to 99 for each gender."""

    def __init__(self, raw: Mapping, genders: Sequence[str]):
        self.words = {gender: {n: self._word(raw, n, gender) for n in range(1, 100)} for gender in genders}
        self._every = frozenset(word for words in self.words.values() for word in words.values())
        self.dozens = {int(n): words for n, words in raw.get("dozens", {}).items()}
        self.pairs = {int(n): words for n, words in raw.get("pairs", {}).items()}
        self.dozens_of = "dozens_of" in raw
        self.beyond: list[str] = raw["beyond"]

    def is_word(self, text: str) -> bool:
        return text in self._every

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


def _first(rules: Sequence, n: int) -> str:
    return next(form for pattern, form in rules if re.fullmatch(pattern, str(n)))


def available() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def load(code: str) -> Language:
    """The language of `languages/<code>.yaml`, parsed once a process."""
    path = FOLDER / f"{code}.yaml"
    if not path.exists():
        raise ConfigError("data.languages", code, f"use some of {available()}, or add {path.name} to intent/synth/languages")
    return Language(code, yaml.load(path.read_text(encoding="utf-8"), LOADER))
