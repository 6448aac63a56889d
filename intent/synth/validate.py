"""Check a language file: list what it lacks, so that messages can be generated in the language."""

from collections.abc import Iterator, Mapping

import yaml

from intent.synth.grammar import names, parse
from intent.synth.language import FOLDER, LOADER, Language
from intent.synth.lexicon import DEPARTMENTS, ideas
from intent.synth.phenomena import SCENARIOS
from intent.synth.shelf import COLOURS, ontology, qualities
from intent.synth.words import notation

SECTIONS = ("forms", "count_forms", "brand", "head", "phrases", "agree", "unstated", "size_after", "size_words", "size_names",
            "pack_names", "size_labels", "numbers", "one_of_them", "units", "colours", "qualities", "varieties", "rules",
            "fillers", "joins", "templates")  # fmt: skip
PHRASES = ("counted", "bare", "the", "one", "of")
WRAPPERS = ("before", "after", "ramble")
GROUPS = tuple(dict.fromkeys(group for _, groups, _ in SCENARIOS.values() for group in groups)) + WRAPPERS
# The slots that every wording of a list template must have. "role_" is an item in any phrase, such as {out_the}.
LISTED: dict[str, tuple[str, ...]] = {
    "list_note": ("items",),
    "list_remove_note": ("items",),
    "list_clause_add": ("items",),
    "list_clause_remove": ("items",),
    "list_fix_last": ("clause", "num"),
    "list_fix_named": ("clause", "fixed"),
    "list_fix_drop": ("clause", "dropped_"),
    "list_fix_product": ("clause", "dropped_", "new"),
    "list_swap": ("out_", "in_"),
    "list_each_add": ("each", "all_"),
    "list_each_remove": ("each", "all_"),
    "list_need": ("all_",),
    "list_keep": ("clause", "kept_"),
    "list_have": ("clause", "kept_"),
    "list_total": ("total", "items"),
    "list_variants": ("total_np", "variants"),
    "list_more": ("clause", "more", "more_counted"),
    "list_both_add": ("both_",),
    "list_both_remove": ("both_",),
}
LIST_GROUPS = (*LISTED, "list_refuse", "list_refuse_item")
ROLES = ("all", "both", "dropped", "kept", "out", "in", "first", "last")
JOINS = ("and", "then", "clause", "all")
# Groups whose templates must have a slot out of PRODUCT. A slot in one alternative is enough.
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
IN_LISTS = {slot.rstrip("_") for slots in LISTED.values() for slot in slots} | {"refused"}


def complaints(code: str) -> list[str]:
    """Return the faults of `languages/<code>.yaml`, each with its place and remedy. Empty if messages can be generated."""
    raw = yaml.load((FOLDER / f"{code}.yaml").read_text(encoding="utf-8"), LOADER)
    if absent := [section for section in SECTIONS if section not in raw]:
        return [f"add the section {section!r}" for section in absent]
    if unparsed := list(_unparsed(raw)):
        return unparsed
    language = Language(code, raw)
    faults = [*_words(language), *_numbers(language), *_templates(language), *_joins(language), *_lists(language)]
    return faults or [*_shared(language)]


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
            yield f"varieties.{name}: products.yaml has no such variety; add it there or delete it here"
        if not isinstance(wordings, list):
            yield f"varieties.{name}: give a list of the ways to say it"
    for phrase in PHRASES:
        if phrase not in language.phrases:
            yield f"phrases.{phrase}: add the phrase"
    for unit, nouns in language.units.items():
        yield from (f"units.{unit}: {noun.text!r} {problem}" for noun in nouns for problem in notation(language, noun))


def _shared(language: Language) -> Iterator[str]:
    """Yield wordings that two qualities of one product share, because a message with them would be ambiguous."""
    # One idea stands for all with the same gender and qualities, because their wordings are the same.
    different = {(qualities(idea), language.nouns[idea][0].marks): idea for idea in ideas() if idea in language.nouns}
    for idea in different.values():
        meanings: dict[str, str] = {}
        for quality in qualities(idea):
            for wording in range(language.wordings(quality)):
                phrase = language.described(idea, 0, quality, wording).form(language.forms[0])
                if meanings.setdefault(phrase, quality) != quality:
                    yield f"varieties.{quality}: {phrase!r} also means {meanings[phrase]!r}; use another wording"


def _numbers(language: Language) -> Iterator[str]:
    for gender, words in language.numbers.words.items():
        meanings: dict[str, int] = {}
        for n, word in words.items():
            if not word.strip():
                yield f"numbers: {n} has no word for the gender {gender!r}; add it"
            elif word in meanings:
                yield f"numbers: {n} and {meanings[word]} have the same word {word!r} for the gender {gender!r}; correct one"
            meanings[word] = n
    if len(language.numbers.beyond) < 5:
        yield "numbers.beyond: add words for zero and for numbers over 99"


def _templates(language: Language) -> Iterator[str]:
    known = BUILT_IN | set(language.phrases) | set(language.agree) | set(language.unstated)
    for group in GROUPS:
        if len(language.templates.get(group, ())) < (1 if group == "terse" else 3):
            yield f"templates.{group}: add at least three, one each for training, validation and test"
    for group in LIST_GROUPS:
        if len(language.templates.get(group, ())) < 3:
            yield f"templates.{group}: add at least three, one each for training, validation and test"
    if "both" not in language.agree and "both" not in language.phrases:
        yield "phrases.both or agree.both: add the word before a noun that means two products: both"
    if "no" not in language.rules:
        yield "rules.no: add the words of someone who corrects a mistake, with the punctuation before them"
    every = [(f"templates.{group}", parts) for group, texts in language.templates.items() for _, parts in texts]
    every += [(f"rules.{name}", parts) for name, texts in language.rules.items() for parts in texts]
    for place, parts in every:
        for rule in sorted(names(parts, "rule") - set(language.rules)):
            yield f"{place}: there is no rule <{rule}>; add it under rules"
        listed = place.startswith("templates.list_")
        for slot in sorted(names(parts, "slot")):
            base = slot.removeprefix("other_").removeprefix("third_")
            role, _, phrase = slot.partition("_")
            base = phrase if listed and role in ROLES and phrase else base
            if base not in known and not (listed and slot in IN_LISTS):
                yield f"{place}: {{{slot}}} is no slot or phrase; correct it, or add it under phrases, agree or unstated"
    for group in (*COUNTED, *UNCOUNTED, "limit", "several"):
        for text, parts in language.templates.get(group, ()):
            yield from _slots(group, text, names(parts, "slot"))


def _joins(language: Language) -> Iterator[str]:
    for name in JOINS:
        joins = language.joins.get(name, ())
        if len(joins) < 3:
            yield f"joins.{name}: add at least three"
        for join in joins:
            if name != "all" and not join.endswith(" "):
                yield f"joins.{name}: {join!r} must end with a space, to keep two words apart"
            if any(c.isdigit() for c in join):
                yield f"joins.{name}: {join!r} must not contain a number, because it would be read as a quantity"


def _lists(language: Language) -> Iterator[str]:
    for group in LIST_GROUPS:
        for text, parts in language.templates.get(group, ()):
            always = [part[1] for part in parts if not isinstance(part, str) and part[0] == "slot"]
            for problem in _listed(group, always, names(parts, "slot")):
                yield f"templates.{group}: {text!r} {problem}"


def _listed(group: str, always: list[str], slots: set[str]) -> Iterator[str]:
    """Yield the faults of a list template. `always`: the slots of every wording, in order; `slots`: those of any wording."""
    required = LISTED.get(group, ())
    for slot in required:
        if not any(_stands_for(slot, actual) for actual in always):
            yield f"must say {{{slot + '...' if slot.endswith('_') else slot}}} in every wording"
    if "clause" in required and group not in ("list_keep", "list_have") and always and always[0] != "clause":
        yield "must say {clause} first, because a correction or an addition comes behind the list"
    if group == "list_refuse" and not ("refused" in always or _is_pair(always)):
        yield "must say {refused}, or {first_...} and {last_...}, in every wording"
    if group == "list_refuse_item" and (len(always) != 1 or slots & (PRODUCT | {"num", "counted", "digits"})):
        yield "must say its product once and no quantity: {bare} or another phrase"
    if required and (other := sorted(slot for slot in slots if not any(_stands_for(known, slot) for known in required))):
        yield f"says {other} beside its own slots; remove them"


def _stands_for(slot: str, actual: str) -> bool:
    """Return whether `actual` is `slot`, or a phrase of it if `slot` ends with "_"."""
    return actual == slot.rstrip("_") or (slot.endswith("_") and actual.startswith(slot))


def _is_pair(slots: list[str]) -> bool:
    return [slot.split("_")[0] for slot in slots] == ["first", "last"]


def _slots(group: str, text: str, slots: set[str]) -> Iterator[str]:
    place = f"templates.{group}: {text!r}"
    if group in COUNTED and not slots & PRODUCT:
        yield f"{place} must say product and quantity: {{np}}"
    if group in ("limit", "fix_add", "fix_remove") and "num" not in slots:
        yield f"{place} must say the quantity: {{num}}"
    if group in UNCOUNTED and slots & (PRODUCT | {"num", "counted", "digits"}):
        yield f"{place} must not say a quantity, because its label's quantity is 1"
    if group == "several" and not any(slot.startswith("other") for slot in slots):
        yield f"{place} must name another product: {{other}}"


def uncovered() -> list[str]:
    """Return a complaint for each department with too few brands in `products.yaml`."""
    brands = ontology()["brands"]
    return [
        f"products.yaml: brands.{name}: add brands until there are ten"
        for name in DEPARTMENTS
        if len(brands.get(name, ())) < 10
    ]
