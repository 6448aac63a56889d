"""What a catalog's size costs and spoils: one engine, the same kinds of messages, catalogs from a hundred products on.

A large catalog has too many shelves for a benchmark to ask about each. So the messages are those whose first shelf is one of
a few, drawn at random. What a log of LOG messages takes is reckoned from the seconds of a prompt and of an ask. Knows no Ray.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import numpy as np

from intent.benchmark.large_catalog import LargeCorpus, asked, products
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.engine.shelved import Asked, Shelved
from intent.evaluate.speed import peak_bytes
from intent.retrieve.index import Index
from intent.retrieve.retriever import SHIPPED, Retriever
from intent.task.prompt import Prompt
from intent.task.schema import IntentSchema, same

LOG = 100_000
# Shelves that messages are drawn from, messages that routing is measured with, and generated at once.
DRAWN, ROUTED, BLOCK = 8, 4_000, 500


@dataclass(frozen=True)
class Result:
    """`found`: share of messages about a product whose product is on an asked shelf. `asks`: a message. `routed`: messages a
    second. `exact`: share of the `messages` that were asked. `log_seconds`: of LOG different messages, prompts and all.
    """

    products: int
    shelves: int
    index_seconds: float
    found: float
    asks: float
    routed: float
    exact: float
    messages: int
    prompt_seconds: float
    ask_seconds: float
    log_seconds: float
    rss_bytes: int


class _Timed:
    """A classifier that counts its prompts and the seconds they take."""

    def __init__(self, classifier: Asked):
        self.classifier, self.variant, self.prompts, self.seconds = classifier, classifier.variant, 0, 0.0

    def ask(self, prompt: Prompt) -> None:
        started = time.perf_counter()
        self.classifier.ask(prompt)
        self.prompts, self.seconds = self.prompts + 1, self.seconds + time.perf_counter() - started

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        return self.classifier.classify(messages)


def measure(
    size: int,
    load: Callable[[Sequence[str]], Asked],
    schema: IntentSchema,
    languages: Sequence[str],
    messages: int,
    shelves_above: int,
    tell: Callable[[str], None] = lambda what: None,
) -> Result:
    """`load`: the engine's classifier of a prompt with these names."""
    stock = products(size)
    names = tuple(product.name for product in stock)
    corpus = LargeCorpus(schema, languages, 99, stock, "test")
    if size <= shelves_above:
        examples = corpus.examples(0, messages)
        tell(f"asks {messages:,} messages")
        timed = _Timed(load(names))
        timed.ask(Prompt(schema, names[:1]))
        timed.prompts, timed.seconds = 0, 0.0
        timed.ask(Prompt(schema, names))
        exact, seconds = _exact(timed, examples)
        each = seconds / messages
        log = timed.seconds + LOG * each
        return Result(size, 1, 0.0, 1.0, 1.0, 0.0, exact, messages, timed.seconds, each, log, peak_bytes())
    tell("cuts the catalog into shelves")
    started = time.perf_counter()
    index = Index.build(names, Retriever.read(SHIPPED))
    built = time.perf_counter() - started
    pool = corpus.examples(0, ROUTED)
    started = time.perf_counter()
    routed = asked(index, pool)
    rate = ROUTED / (time.perf_counter() - started)
    timed = _Timed(load(index.longest_names))
    shelved = Shelved(cast(Asked, timed), index, schema)
    drawn = np.random.default_rng(7).choice(len(index), min(DRAWN, len(index)), replace=False)
    examples = _about(shelved, corpus, set(drawn.tolist()), messages)
    tell(f"asks {messages:,} messages about {len(drawn)} of {len(index):,} shelves and what else they may be about")
    exact, seconds = _exact(shelved, examples)
    asks = len(shelved.route([example.message for example in examples]))
    prompt, each = timed.seconds / timed.prompts, (seconds - timed.seconds) / asks
    log = len(index) * prompt + LOG * routed["asks"] * each
    rest = routed["found"], routed["asks"], rate, exact, messages, prompt, each, log, peak_bytes()
    return Result(size, len(index), built, *rest)


def _about(shelved: Shelved, corpus: LargeCorpus, drawn: set[int], messages: int) -> list[Example]:
    """The first `messages` examples whose first shelf is one of `drawn`."""
    found: dict[str, Example] = {}
    for block in count():
        some = corpus.examples(block * BLOCK, (block + 1) * BLOCK)
        asks = shelved.route([example.message for example in some])
        for row, shelf in zip(asks.rows[asks.first], asks.shelves[asks.first], strict=True):
            if shelf in drawn:
                found.setdefault(some[row].message, some[row])
        if len(found) >= messages:
            return list(found.values())[:messages]
    raise AssertionError("unreachable: the corpus has no end")


def _exact(classifier, examples: Sequence[Example]) -> tuple[float, float]:
    """The share of intents that are right, and the seconds that they took."""
    started = time.perf_counter()
    found = classifier.classify([example.message for example in examples])
    seconds = time.perf_counter() - started
    right = [same(prediction.intent, example.intent) for prediction, example in zip(found, examples, strict=True)]
    return float(np.mean(right)), seconds


def render(results: Sequence[Result]) -> str:
    """A Markdown table."""
    head = ("products", "shelves", "index", "found", "asks", "routed/s", "exact", "prompt", "asks/s", f"{LOG:,} messages", "")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for r in results:
        cells = (
            f"{r.products:,}",
            f"{r.shelves:,}",
            f"{r.index_seconds:.1f} s",
            f"{r.found:.3f}",
            f"{r.asks:.2f}",
            f"{r.routed:,.0f}" if r.routed else "",
            f"{r.exact:.3f} of {r.messages:,}",
            f"{r.prompt_seconds:.1f} s",
            f"{1 / r.ask_seconds:.1f}",
            f"{r.log_seconds / 3600:.2f} h",
            f"{r.log_seconds / results[0].log_seconds:.2f}x",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
