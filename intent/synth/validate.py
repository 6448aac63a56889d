"""What a language file lacks: a list of complaints, empty when the language can be generated."""

from collections.abc import Iterator, Mapping

import yaml

from intent.synth.grammar import names, parse
from intent.synth.language import FOLDER, LOADER, Language
from intent.synth.lexicon import DEPARTMENTS, ideas
from intent.synth.phenomena import SCENARIOS
from intent.synth.shelf import COLOURS, ontology, qualities
from intent.synth.words import notation

SECTIONS = ("forms", "count_forms", "brand", "head", "phrases", "agree", "unstated", "size_after", "size_words", "numbers",
            "units", "colours", "qualities", "varieties", "rules", "fillers", "templates")  # fmt: skip
PHRASES = ("counted", "bare", "the", "one", "of")
WRAPPERS = ("before", "after", "ramble")
GROUPS = tuple(dict.fromkeys(group for _, groups, _ in SCENARIOS.values() for group in groups)) + WRAPPERS
# Slots that each template of a group must have; a template with an alternative for a slot counts as having it.
PRODUCT = {"np", "np_stated", "list_item", "name"}
COUNTED = (
    "add",
    "remove",
    "remove_stated",
    "fix_add",
    "fix_remove",
    "fix_product_add",
    "fix_product_remove",
    "distract_add",
    "occasion",
    "terse",
)
UNCOUNTED = ("add_one", "indirect", "worn_out", "remove_one", "no_more", "distract_remove")
BUILT_IN = {"np", "np_stated", "num", "counted", "digits", "name", "list_item", "other", "third"}


def complaints(code: str) -> list[str]:
    """What `languages/<code>.yaml` lacks, each with where it belongs."""
    raw = yaml.load((FOLDER / f"{code}.yaml").read_text(encoding="utf-8"), LOADER)
    if absent := [section for section in SECTIONS if section not in raw]:
        return [f"add the section {section!r}" for section in absent]
    if unparsed := list(_unparsed(raw)):
        return unparsed
    language = Language(code, raw)
    return [*_words(language), *_numbers(language), *_templates(language)] or [*_shared(language)]


def _unparsed(raw: Mapping) -> Iterator[str]:
    for section in ("rules", "templates"):
        for name, texts in raw[section].items():
            for text in texts:
                try:
                    parse(text)
                except ValueError as error:
                    yield f"{section}.{name}: {error}"


def _words(language: Language) -> Iterator[str]:
    for unit in sorted({unit for idea in ideas().values() for unit in idea.units}):
        if unit not in language.units:
            yield f"units.{unit}: add the word"
    varieties = dict.fromkeys(name for group in ontology()["varieties"].values() for name in group)
    for section, wanted in (("colours", COLOURS), ("qualities", ontology()["qualities"]), ("varieties", varieties)):
        for name in wanted:
            if name not in language.raw[section]:
                yield f"{section}.{name}: add the word"
    for name, wordings in language.varieties.items():
        if name not in varieties:
            yield f"varieties.{name}: products.yaml has no such variety"
        if not isinstance(wordings, list):
            yield f"varieties.{name}: give a list of the ways to say it"
    for phrase in PHRASES:
        if phrase not in language.phrases:
            yield f"phrases.{phrase}: add the phrase"
    for unit, nouns in language.units.items():
        yield from (f"units.{unit}: {noun.text!r} {what}" for noun in nouns for what in notation(language, noun))


def _shared(language: Language) -> Iterator[str]:
    """Wordings that say two qualities of one product: who hears them could not tell which is meant."""
    # Ideas of one gender and the same qualities are described alike.
    different = {(qualities(idea), language.nouns[idea][0].marks): idea for idea in ideas() if idea in language.nouns}
    for idea in different.values():
        meant: dict[str, str] = {}
        for quality in qualities(idea):
            for wording in range(language.wordings(quality)):
                said = language.described(idea, 0, quality, wording).form(language.forms[0])
                if meant.setdefault(said, quality) != quality:
                    yield f"varieties.{quality}: {said!r} also says {meant[said]!r}"


def _numbers(language: Language) -> Iterator[str]:
    for gender, words in language.numbers.words.items():
        said: dict[str, int] = {}
        for n, word in words.items():
            if not word.strip() or word in said:
                yield f"numbers: {n} for the gender {gender!r} is said {word!r}, as is {said.get(word)}"
            said[word] = n
    if len(language.numbers.beyond) < 5:
        yield "numbers.beyond: add words for zero and for numbers over 99"


def _templates(language: Language) -> Iterator[str]:
    known = BUILT_IN | set(language.phrases) | set(language.agree) | set(language.unstated)
    for group in GROUPS:
        if len(language.templates.get(group, ())) < (1 if group == "terse" else 3):
            yield f"templates.{group}: add at least three, one each for training, validation and test"
    every = [(f"templates.{group}", parts) for group, texts in language.templates.items() for _, parts in texts]
    every += [(f"rules.{name}", parts) for name, texts in language.rules.items() for parts in texts]
    for place, parts in every:
        for rule in sorted(names(parts, "rule") - set(language.rules)):
            yield f"{place}: defines no rule <{rule}>"
        for slot in sorted(names(parts, "slot")):
            base = slot.removeprefix("other_").removeprefix("third_")
            if base not in known:
                yield f"{place}: nobody fills {{{slot}}}"
    for group in (*COUNTED, *UNCOUNTED, "limit", "several"):
        for text, parts in language.templates.get(group, ()):
            yield from _slots(group, text, names(parts, "slot"))


def _slots(group: str, text: str, slots: set[str]) -> Iterator[str]:
    place = f"templates.{group}: {text!r}"
    if group in COUNTED and not slots & PRODUCT:
        yield f"{place} must say product and quantity: {{np}}"
    if group in ("limit", "fix_add", "fix_remove") and "num" not in slots:
        yield f"{place} must say the quantity: {{num}}"
    if group in UNCOUNTED and slots & (PRODUCT | {"num", "counted", "digits"}):
        yield f"{place} must not say a quantity, its label is 1"
    if group == "several" and not any(slot.startswith("other") for slot in slots):
        yield f"{place} must name another product: {{other}}"


def uncovered() -> list[str]:
    """The departments that `products.yaml` gives too few brands for."""
    brands = ontology()["brands"]
    return [f"products.yaml: brands.{name} lacks ten" for name in DEPARTMENTS if len(brands.get(name, ())) < 10]
