"""Generate examples by number.

Example i depends only on the corpus and on i, so the data is the same for any number of workers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from random import Random

from intent.dataset.example import Example
from intent.errors import ConfigError
from intent.synth import market, noise
from intent.synth.basket import Basket
from intent.synth.grammar import Parts
from intent.synth.language import load
from intent.synth.lexicon import ODD, Pool, ideas, kinds
from intent.synth.lists import ListMessage
from intent.synth.phenomena import LISTS, SCENARIOS, mix, shares
from intent.synth.request import Request
from intent.synth.shelf import Shelf, given, ontology
from intent.task.catalog import Catalog
from intent.task.schema import INTENTS, Choice, Count, Entity, Intent, IntentSchema, Item

GENERATOR = "grammar-25"
BLOCK = 48
ATTEMPTS = 200
SPLITS = ("train", "validation", "test", "all")
NO_WRAP = frozenset({"small_talk", "gibberish"})
ACTIONS = ("add", "remove")
NOTHING = "none"  # the action of a message that requests nothing, for a schema without lists
NEW_LINE = 0.06  # the chance that small talk has a line of its own
LONGEST = 6  # items of a list


class Corpus:
    """Messages for the cart schema in `languages`, drawn by `seed`. About 28 % of them mean `none`.

    If the schema repeats, 30 % of the messages that change the cart are lists of two to six items, and the empty list means
    `none`.

    `catalog`: the products to write about; None samples a catalog for each block of BLOCK examples. `split`: "train",
    "validation", "test" or "all". Each phrase template belongs to one of the first three by a hash of its text; with sampled
    catalogs, so does each product idea and brand. So a test set has no template, idea or brand of a training set, whatever the
    seeds. Every split uses a given catalog whole. "all" holds nothing back, for a model that is measured on messages written by
    people. `phenomena`: weights by name that replace those of `synth.phenomena`; 0 switches a phenomenon off.

    Raises ConfigError for a schema that is not a cart, an unknown split, language or phenomenon, or no language.
    """

    def __init__(
        self,
        schema: IntentSchema,
        languages: Sequence[str],
        seed: int,
        catalog: Catalog | None = None,
        split: str = "train",
        phenomena: Mapping[str, float] | None = None,
    ):
        self._count = require_cart(schema)
        if split not in SPLITS:
            raise ConfigError("split", split, f"use one of {list(SPLITS)}")
        if not languages:
            raise ConfigError("data.languages", list(languages), "name at least one language, e.g. [en]")
        for code in languages:
            load(code)
        self.schema, self.languages, self.seed, self.catalog, self.split = (schema, tuple(languages), seed, catalog, split)
        self.weights = mix(phenomena or {}, lists=schema.repeat > 1)
        self._scenarios = tuple(self.weights["scenario"].items())

    def examples(self, start: int, stop: int) -> list[Example]:
        """Return the examples from `start` to `stop` - 1. Raises ConfigError if the catalog suits no scenario."""
        rng = Random(0)  # seeded again for each example, because creating a Random takes as long as seeding it twice
        return [self._example(rng, i) for i in range(start, stop)]

    def catalogs(self, start: int, stop: int) -> dict[str, tuple[str, ...]]:
        """Return the product names of the sampled catalogs of `examples(start, stop)`, by id; empty with a given catalog."""
        if self.catalog or stop <= start:
            return {}
        blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        return {self._catalog_id(block): self._shelf(block).names for block in blocks}

    def example(self, i: int) -> Example:
        """Return example `i`."""
        return self.examples(i, i + 1)[0]

    def _example(self, rng: Random, i: int) -> Example:
        rng.seed(_mix(self.seed, self.split, i))
        shelf = self._shelf(i // BLOCK)
        code = self._language(rng, shelf)
        request, message = self._attempt(rng, shelf, code)
        message = noise.disturb(message, request.language, rng, request.surface, request.phenomena)
        catalog = "" if self.catalog else self._catalog_id(i // BLOCK)
        phenomena = tuple(request.phenomena)
        return Example(f"{self.seed}-{i}", message, self._intent(request), code, catalog, phenomena, GENERATOR, self.seed)

    def _attempt(self, rng: Random, shelf: Shelf, code: str) -> tuple[Request, str]:
        """Draw scenarios until the shelf has the products for one. Most shelves have them at the first draw."""
        for _ in range(ATTEMPTS):
            scenario = shares(self._scenarios)(rng)
            request = self._request(rng, shelf, code, scenario)
            if (message := self._message(request, scenario)) is not None:
                return request, message
        enabled = [name for name, weight in self.weights["scenario"].items() if weight]
        raise ConfigError("data.phenomena", enabled, "the catalog's products suit none of these; set others above 0")

    def _intent(self, request: Request) -> Intent:
        if isinstance(request, Basket):
            return {INTENTS: [self._item(*values) for values in request.meant]}
        if request.action == NOTHING:
            return self.schema.intent([] if self.schema.repeat > 1 else [NOTHING])
        assert request.product is not None, "a request that changes the cart has a product"
        return self.schema.intent([request.action, request.product.name, request.quantity or 1])

    def _item(self, action: str, product: str, quantity: int) -> Item:
        return dict(zip(self.schema.names, (action, product, quantity), strict=True))

    def _language(self, rng: Random, shelf: Shelf) -> str:
        """Prefer the language of the shop's product names. English less, because half of the shops have English names."""
        own = 0.15 if shelf.language == "en" else 0.6
        if not self.catalog and shelf.language in self.languages and rng.random() < own:
            return shelf.language
        return self.languages[int(rng.random() * len(self.languages))]

    def _request(self, rng: Random, shelf: Shelf, code: str, scenario: str) -> Request:
        """Create the request. With code switching, its product's words are in another language, half of the time in English."""
        words = code
        if rng.random() < self.weights["surface"]["code_switching"]:
            english = "en" in self.languages and rng.random() < 0.5
            words = "en" if english else self.languages[int(rng.random() * len(self.languages))]
        if scenario in LISTS:
            most = min(LONGEST, self.schema.repeat)
            return Basket(load(code), load(words), shelf, rng, self.weights, self._limits, most)
        return Request(load(code), load(words), shelf, rng, SCENARIOS[scenario][0], self.weights)

    def _message(self, request: Request, scenario: str) -> str | None:
        if isinstance(request, Basket):
            templates = partial(_templates, request.language.code, split=self.split)
            message = ListMessage(request, templates).write(scenario, _ideas(self.split))
            return message and self._wrap(request, message)
        request.phenomena.append(scenario)
        if scenario == "gibberish":
            return noise.gibberish(request.rng)
        groups = SCENARIOS[scenario][1]
        group = groups[int(request.rng.random() * len(groups))]
        if not request.choose(scenario, group, _ideas(self.split), self._limits):
            return None
        message = request.say(_templates(request.language.code, group, self.split))
        if request.uses_mention:
            request.describe()
        return message if scenario in NO_WRAP else self._wrap(request, message)

    def _wrap(self, request: Request, message: str) -> str:
        """Put small talk before or behind the message. It neither names a product nor requests one."""
        random, surface, code = request.rng.random, self.weights["surface"], request.language.code
        if random() < surface["rambling"]:
            request.phenomena.append("rambling")
            story = request.say(_templates(code, "ramble", self.split))
            return f"{story} {message}"
        if random() < surface["small_talk_before"]:
            request.phenomena.append("small_talk_before")
            message = request.say(_templates(code, "before", self.split)) + ("\n" if random() < NEW_LINE else "") + message
        if random() < surface["small_talk_after"]:
            request.phenomena.append("small_talk_after")
            closing = request.say(_templates(code, "after", self.split))
            message = message.rstrip("?") + ("\n" + closing.lstrip(" ,.;-") if random() < NEW_LINE else closing)
        return message

    @property
    def _limits(self) -> tuple[int, int]:
        return max(1, self._count.min), min(99, self._count.max)

    def _shelf(self, block: int) -> Shelf:
        return _given(self.catalog) if self.catalog else _sampled(self.seed, self.split, block, self.languages)

    def _catalog_id(self, block: int) -> str:
        return f"{self.seed}-{self.split}-{block}"


def held_out(texts: Sequence[str], split: str) -> list[str]:
    """Return the texts of `split`, in the order of their hashes: a tenth each for test and validation, the rest for training.

    One or two texts are too few to split, so every split has them. "all" is every text.
    """
    ordered = sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(ordered) < 3 or split == "all":
        return ordered
    share = max(1, round(len(ordered) / 10))
    return {"test": ordered[:share], "validation": ordered[share : 2 * share], "train": ordered[2 * share :]}[split]


def require_cart(schema: IntentSchema) -> Count:
    """Return the cart's slot of the quantity. Raises ConfigError for a schema that the generator has no messages for."""
    ends = () if schema.repeat > 1 else (NOTHING,)
    match schema.slots:
        case (Choice() as choice, Entity(), Count() as count) if (
            sorted(choice.values) == sorted(ACTIONS + ends) and choice.ends == ends
        ):
            pass
        case _:
            remedy = "has no generator; use labeled messages of your own: labelled.uri=..."
            raise ConfigError("schema.name", schema.name, remedy)
    if count.min > 1 or count.default != 1 or not 2 <= count.max <= 99:
        limits = f"min {count.min}, max {count.max}, default {count.default}"
        remedy = "use min 0 or 1, max 2 to 99 and default 1, or labeled messages of your own: labelled.uri=..."
        raise ConfigError(f"schema.slots.{count.name}", limits, remedy)
    return count


@cache
def _given(catalog: Catalog) -> Shelf:
    return given(catalog.names)


@lru_cache(maxsize=64)
def _sampled(seed: int, split: str, block: int, languages: tuple[str, ...]) -> Shelf:
    rng = Random(_mix(seed, split, block) ^ 0x5E1F)
    return market.sample(rng, languages, _ideas(split), _brands(split))


@cache
def _ideas(split: str) -> Pool:
    """Split the ideas of each department on their own, so that every split has ideas of every department."""
    departments: dict[str, list[str]] = {}
    for idea in ideas().values():
        if idea.name not in kinds() and idea.department != ODD:
            departments.setdefault(idea.department, []).append(idea.name)
    return Pool([name for names in departments.values() for name in held_out(names, split)])


@cache
def _brands(split: str) -> frozenset[str]:
    return frozenset(brand for brands in ontology()["brands"].values() for brand in held_out(brands, split))


@cache
def _templates(code: str, group: str, split: str) -> list[Parts]:
    templates = dict(load(code).templates[group])
    return [templates[text] for text in held_out(list(templates), split)]


def _mix(seed: int, split: str, i: int) -> int:
    return (seed * len(SPLITS) + SPLITS.index(split)) * 1_000_003_000_017 + i * 2_654_435_761
