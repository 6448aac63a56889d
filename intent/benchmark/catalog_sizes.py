"""Measure the effect of a catalog's size on speed and accuracy, with one engine and the same kinds of messages.

A large catalog has too many shelves to load every prompt in a benchmark. So only messages are used whose first shelf is one of
a few random shelves. The time for a log of LOG messages is estimated from the seconds per prompt and per ask. An ask is one
classification of one message with one shelf's prompt. This module knows no Ray.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import numpy as np

from intent.benchmark.large_catalog import LargeCorpus, products, routing_figures
from intent.dataset.example import Example
from intent.engine import Prediction
from intent.engine.shelved import PromptedClassifier, Shelved
from intent.evaluate.speed import peak_bytes
from intent.retrieve.index import Index
from intent.retrieve.retriever import SHIPPED, Retriever
from intent.task.prompt import Prompt
from intent.task.schema import IntentSchema, same

LOG = 100_000
# The number of random shelves, of messages to measure routing with, and of messages to generate at once.
DRAWN, ROUTED, BLOCK = 8, 4_000, 500


@dataclass(frozen=True)
class Result:
    """The figures of one size.

    `index_seconds`: to build the index. `found`: of the messages about a product, the share for which the product is on an
    asked shelf. `asks`: shelves asked per message. `routed`: messages routed per second; 0 without shelves. `exact`: exact
    match of the `messages` classified. `prompt_seconds`: per prompt. `ask_seconds`: per ask. `log_seconds`: the estimate for
    LOG different messages, including all prompts. `rss_bytes`: peak resident memory.
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
    """A classifier that counts its prompts and their seconds."""

    def __init__(self, classifier: PromptedClassifier):
        self.classifier, self.variant, self.prompts, self.seconds = classifier, classifier.variant, 0, 0.0

    def ask(self, prompt: Prompt) -> None:
        started = time.perf_counter()
        self.classifier.ask(prompt)
        self.prompts, self.seconds = self.prompts + 1, self.seconds + time.perf_counter() - started

    def classify(self, messages: Sequence[str]) -> list[Prediction]:
        return self.classifier.classify(messages)


def measure(
    size: int,
    load: Callable[[Sequence[str]], PromptedClassifier],
    schema: IntentSchema,
    languages: Sequence[str],
    messages: int,
    shelves_above: int,
    tell: Callable[[str], None] = lambda note: None,
) -> Result:
    """Measure a catalog of `size` products.

    `load`: returns the engine's classifier for a prompt with these names. `messages`: how many to classify. `shelves_above`:
    the largest catalog that stands whole in the prompt. `tell`: called with the current step. Raises ConfigError if the
    generator does not know `size` products.
    """
    stock = products(size)
    names = tuple(product.name for product in stock)
    corpus = LargeCorpus(schema, languages, 99, stock, "test")
    if size <= shelves_above:
        return _measure_whole(names, load, schema, corpus, messages, tell)
    return _measure_shelved(names, load, schema, corpus, messages, tell)


def _measure_whole(
    names: Sequence[str],
    load: Callable[[Sequence[str]], PromptedClassifier],
    schema: IntentSchema,
    corpus: LargeCorpus,
    messages: int,
    tell: Callable[[str], None],
) -> Result:
    """Measure a catalog that stands whole in the prompt."""
    examples = corpus.examples(0, messages)
    tell(f"asks {messages:,} messages")
    timed = _Timed(load(names))
    timed.ask(Prompt(schema, tuple(names[:1])))
    timed.prompts, timed.seconds = 0, 0.0
    timed.ask(Prompt(schema, tuple(names)))
    exact, seconds = _exact(timed, examples)
    each = seconds / messages
    log = timed.seconds + LOG * each
    return Result(len(names), 1, 0.0, 1.0, 1.0, 0.0, exact, messages, timed.seconds, each, log, peak_bytes())


def _measure_shelved(
    names: Sequence[str],
    load: Callable[[Sequence[str]], PromptedClassifier],
    schema: IntentSchema,
    corpus: LargeCorpus,
    messages: int,
    tell: Callable[[str], None],
) -> Result:
    """Measure a catalog that is split into shelves."""
    tell("splits the catalog into shelves")
    started = time.perf_counter()
    index = Index.build(names, Retriever.read(SHIPPED))
    built = time.perf_counter() - started
    pool = corpus.examples(0, ROUTED)
    started = time.perf_counter()
    routed = routing_figures(index, pool)
    rate = ROUTED / (time.perf_counter() - started)
    timed = _Timed(load(index.longest_names))
    shelved = Shelved(cast(PromptedClassifier, timed), index, schema)
    drawn = np.random.default_rng(7).choice(len(index), min(DRAWN, len(index)), replace=False)
    examples = _about(shelved, corpus, set(drawn.tolist()), messages)
    tell(f"asks {messages:,} messages whose first shelf is one of {len(drawn)} out of {len(index):,}")
    exact, seconds = _exact(shelved, examples)
    asks = len(shelved.route([example.message for example in examples]))
    prompt, each = timed.seconds / timed.prompts, (seconds - timed.seconds) / asks
    log = len(index) * prompt + LOG * routed["asks"] * each
    rest = routed["found"], routed["asks"], rate, exact, messages, prompt, each, log, peak_bytes()
    return Result(len(names), len(index), built, *rest)


def _about(shelved: Shelved, corpus: LargeCorpus, drawn: set[int], messages: int) -> list[Example]:
    """Return the first `messages` different examples whose first shelf is one of `drawn`."""
    by_message: dict[str, Example] = {}
    for block in count():
        some = corpus.examples(block * BLOCK, (block + 1) * BLOCK)
        asks = shelved.route([example.message for example in some])
        for row, shelf in zip(asks.rows[asks.first], asks.shelves[asks.first], strict=True):
            if shelf in drawn:
                by_message.setdefault(some[row].message, some[row])
        if len(by_message) >= messages:
            return list(by_message.values())[:messages]
    raise AssertionError("unreachable: the corpus has no end")


def _exact(classifier, examples: Sequence[Example]) -> tuple[float, float]:
    """Return (share of right intents, seconds for all examples)."""
    started = time.perf_counter()
    predictions = classifier.classify([example.message for example in examples])
    seconds = time.perf_counter() - started
    right = [same(prediction.intent, example.intent) for prediction, example in zip(predictions, examples, strict=True)]
    return float(np.mean(right)), seconds


def render(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table. The last column is the log's time relative to the first result."""
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
