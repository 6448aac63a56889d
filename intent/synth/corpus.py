"""Generated messages by number: example i depends on the corpus and i alone, so any number of workers gives the same data."""

import hashlib
import random
from collections.abc import Sequence
from functools import cache

from intent.catalog import Catalog
from intent.errors import ConfigError
from intent.schema import Choice, Count, Entity, IntentSchema
from intent.synth import noise
from intent.synth.example import Example
from intent.synth.grammar import Parts
from intent.synth.language import load
from intent.synth.request import Request
from intent.synth.shelf import Shelf, given, ideas, sample

GENERATOR = "templates-1"
BLOCK = 48
SPLITS = ("train", "validation", "test")

# What a message does: (name, action, template group, weight).
SCENARIOS = (
    ("direct", "add", "add", 30),
    ("indirect", "add", "add_one", 9),
    ("limit", "add", "limit", 2),
    ("correction", "add", "fix_add", 3),
    ("correction", "remove", "fix_remove", 2),
    ("correction", "add", "fix_product", 2),
    ("direct", "remove", "remove", 18),
    ("colloquial", "remove", "remove_stated", 3),
    ("negation", "remove", "remove_one", 7),
    ("question", "none", "question", 4),
    ("past_event", "none", "past", 3),
    ("opinion", "none", "opinion", 2),
    ("several_products", "none", "several", 3),
    ("no_product", "none", "no_product", 3),
    ("injection", "none", "injection", 2),
    ("other_request", "none", "other_request", 3),
    ("small_talk", "none", "small_talk", 3),
    ("not_in_catalog", "none", "", 4),
    ("ambiguous", "none", "", 3),
    ("quantity_out_of_range", "none", "", 2),
)


class Corpus:
    """Messages for the cart schema in `languages`, by `seed`; about 28 % mean `none`.

    `split` holds out phrase templates and, with sampled catalogs, products: a template or a product idea belongs to
    exactly one of train, validation and test by a hash of its text, so it never changes sides and a test set has
    nothing that a training set of any seed could have shown.
    """

    def __init__(
        self,
        schema: IntentSchema,
        languages: Sequence[str],
        seed: int,
        catalog: Catalog | None = None,
        split: str = "train",
    ):
        if [type(slot) for slot in schema.slots] != [Choice, Entity, Count]:
            raise ConfigError(
                "schema.name", schema.name, "cannot be generated for; bring your own labelled data with data.uri=..."
            )
        if split not in SPLITS:
            raise ConfigError("split", split, f"use one of {list(SPLITS)}")
        for code in languages:
            load(code)
        self.schema, self.languages, self.seed, self.split = schema, tuple(languages), seed, split
        self.catalog = catalog

    def examples(self, start: int, stop: int) -> list[Example]:
        return [self.example(i) for i in range(start, stop)]

    def catalogs(self, start: int, stop: int) -> dict[str, tuple[str, ...]]:
        """The sampled catalogs that `examples(start, stop)` refer to, by id; empty with a given catalog."""
        if self.catalog or stop <= start:
            return {}
        return {self._catalog_id(block): self._shelf(block).names for block in range(start // BLOCK, (stop - 1) // BLOCK + 1)}

    def example(self, i: int) -> Example:
        rng = random.Random(_mix(self.seed, self.split, i))
        shelf = self._shelf(i // BLOCK)
        code = self.languages[int(rng.random() * len(self.languages))]
        request, message = None, None
        while message is None:
            scenario = rng.choices(SCENARIOS, _WEIGHTS)[0]
            request = Request(load(code), shelf, rng, scenario[1], self.schema.slots[2])
            message = self._message(request, *scenario[:3])
        message = noise.disturb(self._wrap(request, message), request)
        product, quantity = (request.product.name, request.quantity) if request.action != "none" else (None, None)
        intent = dict(zip(self.schema.names, (request.action, product, quantity), strict=True))
        catalog = "" if self.catalog else self._catalog_id(i // BLOCK)
        return Example(f"{self.seed}-{i}", message, intent, code, catalog, tuple(request.phenomena), GENERATOR, self.seed)

    def _message(self, request: Request, name: str, action: str, group: str) -> str | None:
        request.phenomena.append(name)
        if group in ("add_one", "remove_one"):
            request.quantity = 1
        if name in ("not_in_catalog", "ambiguous", "quantity_out_of_range"):
            group = "add" if request.rng.random() < 0.7 else "remove"
        if not request.choose(name, group):
            return None
        return request.say(_templates(request.language.code, group, self.split))

    def _wrap(self, request: Request, message: str) -> str:
        rng, language = request.rng, request.language
        if request.phenomena[0] not in ("small_talk",):
            if rng.random() < 0.22:
                message = request.say(_templates(language.code, "before", self.split)) + message
                request.phenomena.append("small_talk_around")
            if rng.random() < 0.15:
                message += request.say(_templates(language.code, "after", self.split))
        return message

    def _shelf(self, block: int) -> Shelf:
        if self.catalog:
            return _given(self.catalog)
        return _sampled(self.seed, self.split, block, self.languages)

    def _catalog_id(self, block: int) -> str:
        return f"{self.seed}-c{block}"


_WEIGHTS = [weight for *_, weight in SCENARIOS]


@cache
def _given(catalog: Catalog) -> Shelf:
    return given(catalog.names)


_SHELVES: dict[tuple, Shelf] = {}


def _sampled(seed: int, split: str, block: int, languages: tuple[str, ...]) -> Shelf:
    key = (seed, split, block, languages)
    if key not in _SHELVES:
        if len(_SHELVES) > 64:
            _SHELVES.clear()
        rng = random.Random(_mix(seed, split, block) ^ 0x5E1F)
        language = "en" if rng.random() < 0.5 else rng.choice(languages)
        _SHELVES[key] = sample(rng, language, _ideas(split))
    return _SHELVES[key]


@cache
def _ideas(split: str) -> list[str]:
    return held_out(sorted(ideas()), split)


@cache
def _templates(code: str, group: str, split: str) -> list[Parts]:
    templates = dict(load(code).templates[group])
    return [templates[text] for text in held_out(list(templates), split)]


def held_out(texts: Sequence[str], split: str) -> list[str]:
    """The texts that belong to `split`: by hash 80 % train, 10 % validation, 10 % test, at least one each where there are 3.

    Short lists are split by the order of their hashes, so that each side has something to say.
    """
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(ordered) < 3:
        return ordered
    share = max(1, round(len(ordered) / 10))
    sides = {"test": ordered[:share], "validation": ordered[share : 2 * share], "train": ordered[2 * share :]}
    return sides[split]


def _mix(seed: int, split: str, i: int) -> int:
    return (seed * 3 + SPLITS.index(split)) * 1_000_003_000_017 + i * 2_654_435_761
