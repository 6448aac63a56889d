"""Score a variant's answers: exact match; shares right by slot, language and phenomenon; calibration, confusion, agreement."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from intent.dataset.example import Example
from intent.engine import Prediction, Status
from intent.task.schema import INTENTS, Intent, IntentSchema, Item, answer_key, items_of, same

BINS = 10
DRAWS, LEVEL = 2000, 95


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] over `messages`.

        exact        every slot is right
        slots        the slot is right, by slot; a message without an answer counts as wrong in every slot
        languages    exact, by language
        phenomena    exact, by phenomenon
        none         precision and recall of the answer "none", over all and by phenomenon (see `_none`)
        ece          expected calibration error of the answers, with equal-width bins
        kept_at_99   the largest share of answers, most confident first, of which 99 % are right
        intervals    95 % bootstrap intervals of "exact", "slots.NAME", "languages.NAME", "phenomena.NAME", "none.NAME"
        sizes        the number of messages of each of these but "exact"
        reliability  see `reliability`

    For a schema of lists, "exact" is the whole list in any order, and `slots` counts only items that match a gold item.
    `items`: precision, recall and F1 of whole items, and the expected calibration error of their confidence. `lengths`: exact,
    by the number of gold items. "items.f1" and "lengths.NAME" have intervals too. For other schemas, `items` and `lengths`
    are empty.
    """

    messages: int
    exact: float
    slots: dict[str, float]
    languages: dict[str, float]
    phenomena: dict[str, float]
    none: dict[str, float]
    none_precision: float
    none_recall: float
    ece: float
    kept_at_99: float
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    reliability: list[tuple[float, float, float]] = field(default_factory=list)
    items: dict[str, float] = field(default_factory=dict)
    lengths: dict[str, float] = field(default_factory=dict)


def score(schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Score:
    """Return the score of the predictions, one for each example, in order."""
    pairs = list(zip(examples, predictions, strict=True))
    right = np.array([is_right(example.intent, prediction) for example, prediction in pairs])
    answered = np.array([prediction.status is Status.OK for _, prediction in pairs])
    confidence = np.array([prediction.confidence for _, prediction in pairs])
    predicted = np.array([_is_nothing(schema, prediction.intent) for _, prediction in pairs])
    gold = np.array([_is_nothing(schema, example.intent) for example, _ in pairs])
    groups = {
        "slots": _slots(schema, pairs),
        "languages": _by(pairs, right, lambda example: [example.language]),
        "phenomena": _by(pairs, right, lambda example: example.phenomena),
        "none": _none(examples, predicted, gold),
    }
    items: dict[str, float] = {}
    interval = {}
    if schema.repeat > 1:
        groups["lengths"] = _by(pairs, right, lambda example: [str(len(items_of(example.intent)))])
        counts = np.array([_whole_items(example.intent, prediction) for example, prediction in pairs], np.float64)
        items = dict(zip(("precision", "recall", "f1"), map(float, _ratios(counts.sum(axis=0))), strict=True))
        items["ece"] = calibration_error(*_sure_items(pairs))
        interval = {"items.f1": _bootstrap_f1(counts)}
    shares = {group: {name: float(np.mean(values)) for name, values in named.items()} for group, named in groups.items()}
    flat = {f"{group}.{name}": values for group, named in groups.items() for name, values in named.items()}
    return Score(
        messages=len(pairs),
        exact=float(right.mean()),
        none_precision=_share(predicted & gold, predicted),
        none_recall=_share(predicted & gold, gold),
        ece=calibration_error(confidence[answered], right[answered]),
        kept_at_99=kept_share(confidence, right, 0.99),
        intervals={"exact": bootstrap(right)} | {name: bootstrap(values) for name, values in flat.items()} | interval,
        sizes={name: len(values) for name, values in flat.items()},
        reliability=reliability(confidence[answered], right[answered]),
        items=items,
        **shares,
    )


def _none(examples: Sequence[Example], predicted: np.ndarray, gold: np.ndarray) -> dict[str, list[bool]]:
    """Return each metric of the answer "none" as one value per message that it counts. Metrics without messages are left out.

    "precision": of the messages answered "none", which mean it. "recall": of the messages that mean it, which are answered so.
    "recall: KIND": the recall for messages with one phenomenon. "wrong: KIND": of the messages with one phenomenon that mean
    something, which are answered "none".

    `predicted`, `gold`: bool [messages], whether the message is answered "none" and whether it means it.
    """
    overall: dict[str, list[bool]] = {"precision": gold[predicted].tolist(), "recall": predicted[gold].tolist()}
    kinds: dict[str, list[bool]] = defaultdict(list)
    for example, is_predicted, is_gold in zip(examples, predicted.tolist(), gold.tolist(), strict=True):
        for kind in example.phenomena if overall["precision"] or overall["recall"] else ():
            kinds[f"{'recall' if is_gold else 'wrong'}: {kind}"].append(is_predicted)
    return {name: values for name, values in (overall | dict(sorted(kinds.items()))).items() if values}


def bootstrap(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean under resampling with replacement (Efron 1979). It is deterministic.

    Few values are distinct, so a resample is drawn as the count of each value: the same distribution, but faster.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(values), counts / len(values), DRAWS)
    low, high = np.percentile(draws @ distinct / len(values), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def loss(examples: Sequence[Example], ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> tuple[float, float, float]:
    """Return the loss of exact match from `theirs` to `ours` on the same messages, and its 95 % paired bootstrap interval."""
    lost = [is_right(e.intent, b) - is_right(e.intent, a) for e, a, b in zip(examples, ours, theirs, strict=True)]
    return float(np.mean(lost)), *bootstrap(lost)


def confusion(schema: IntentSchema, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, list]:
    """Return [gold, predicted, count] by slot, most frequent first. None stands for an empty slot or a missing item."""
    answers = zip(examples, predictions, strict=True)
    pairs = [pair for example, p in answers for pair in aligned(schema, example.intent, p.intent)]
    counts = {name: Counter((gold.get(name), predicted.get(name)) for gold, predicted in pairs) for name in schema.names}
    return {name: [[*pair, n] for pair, n in counter.most_common()] for name, counter in counts.items()}


def is_right(intent: Intent, prediction: Prediction) -> bool:
    """Return whether the prediction is an answer and equals the intent; lists in any order."""
    return prediction.status is Status.OK and same(intent, prediction.intent)


def slot_is_right(intent: Mapping, prediction: Prediction, name: str) -> bool:
    """Return whether the prediction is an answer and its slot `name` equals the intent's. Not for lists."""
    return prediction.status is Status.OK and intent[name] == _slot(prediction, name)


def agreement(a: Sequence[Prediction], b: Sequence[Prediction]) -> float:
    """Return the share of messages that two variants label the same, in [0, 1]."""
    return float(np.mean([same(x.intent, y.intent) and x.status == y.status for x, y in zip(a, b, strict=True)]))


def agreement_by_slot(schema: IntentSchema, a: Sequence[Prediction], b: Sequence[Prediction]) -> dict[str, float]:
    """Return the share of messages, or of items of lists, whose slot two variants label the same, by slot, in [0, 1]."""
    pairs = [pair for x, y in zip(a, b, strict=True) for pair in aligned(schema, x.intent, y.intent)]
    alike = {name: [x.get(name) == y.get(name) for x, y in pairs] for name in schema.names}
    # Without any item there is no disagreement.
    return {name: float(np.mean(values)) if values else 1.0 for name, values in alike.items()}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015) with BINS equal-width bins.

    `confidence`: float [answers] in [0, 1]. `right`: bool [answers].
    """
    return float(sum(abs(true - sure) * share for sure, true, share in reliability(confidence, right)))


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[tuple[float, float, float]]:
    """Return (mean confidence, share right, share of all answers) of each equal-width bin of confidence that is not empty."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    among = [bins == b for b in np.unique(bins)]
    return [(float(confidence[rows].mean()), float(right[rows].mean()), float(rows.mean())) for rows in among]


def kept_share(confidence: np.ndarray, right: np.ndarray, precision: float) -> float:
    """Return the largest share of answers that a confidence threshold can keep so that a share `precision` of them is right."""
    order = np.argsort(-confidence, kind="stable")
    descending, shares = confidence[order], np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    # A threshold cannot separate answers of equal confidence.
    reached = np.flatnonzero((shares >= precision) & (np.append(descending[1:], -1.0) < descending))
    return float((reached[-1] + 1) / len(right)) if len(reached) else 0.0


def _slots(schema: IntentSchema, pairs: Sequence[tuple[Example, Prediction]]) -> dict[str, list[bool]]:
    """Return by slot whether it is right, for each message, or for each item of a list that matches a gold item."""
    if schema.repeat == 1:
        return {name: [slot_is_right(example.intent, p, name) for example, p in pairs] for name in schema.names}
    items = [pair for example, p in pairs if p.status is Status.OK for pair in aligned(schema, example.intent, p.intent)]
    matched = [(gold, predicted) for gold, predicted in items if gold and predicted]
    return {name: [gold[name] == predicted[name] for gold, predicted in matched] for name in schema.names} if matched else {}


def aligned(schema: IntentSchema, gold: Intent | None, predicted: Intent | None) -> list[tuple[Item, Item]]:
    """Return pairs of (gold item, predicted item), matched greedily by the number of equal slots, at least one.

    An item without a match is paired with an empty item. An intent that is not a list gives one pair.
    """
    if schema.repeat == 1:
        return [(cast(Item, gold or {}), cast(Item, predicted or {}))]
    ours, theirs = items_of(gold), items_of(predicted)
    alike = [
        (-sum(a[name] == b[name] for name in schema.names), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs)
    ]
    match: dict[int, int] = {}
    for common, i, j in sorted(alike):
        if common and i not in match and j not in match.values():
            match[i] = j
    pairs = [(a, theirs[match[i]] if i in match else {}) for i, a in enumerate(ours)]
    return pairs + [({}, b) for j, b in enumerate(theirs) if j not in match.values()]


def _whole_items(gold: Intent, prediction: Prediction) -> tuple[int, int, int]:
    """Return how many items of a list are right, predicted and gold."""
    ours = Counter(answer_key(gold))
    theirs = Counter(answer_key(prediction.intent) if prediction.status is Status.OK else ())
    return (ours & theirs).total(), theirs.total(), ours.total()


def _sure_items(pairs: Sequence[tuple[Example, Prediction]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of each answered item that has one, and whether it is a gold item: two float arrays [items]."""
    rows = []
    for example, prediction in pairs:
        gold = answer_key(example.intent) or ()
        for item, sure in zip(items_of(prediction.intent), prediction.slots, strict=False):
            rows += [(sure, (answer_key(item) or ("",))[0] in gold)] if prediction.status is Status.OK else []
    confidence, right = np.array(rows, np.float64).reshape(-1, 2).T
    return confidence, right


def _ratios(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and F1 of counts (right, predicted, gold) [3, ...]. A ratio without a denominator is 1."""
    right, predicted, gold = counts
    shares = [(right, predicted), (right, gold), (2 * right, predicted + gold)]
    precision, recall, f1 = (np.where(whole > 0, part / np.maximum(whole, 1), 1.0) for part, whole in shares)
    return precision, recall, f1


def _bootstrap_f1(counts: np.ndarray) -> tuple[float, float]:
    """Return the interval of the F1 of resampled messages, as `bootstrap`. `counts`: as of `_ratios`, [messages, 3]."""
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(counts), times / len(counts), DRAWS)
    low, high = np.percentile(_ratios((draws @ distinct).T)[2], [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)


def _is_nothing(schema: IntentSchema, intent: Intent | None) -> bool:
    """Return whether an intent requests nothing: it is the schema's value for that, such as `none`, or the empty list."""
    if schema.repeat > 1:
        return intent is not None and intent[INTENTS] == []
    return (intent or {}).get(schema.names[0]) in schema.nothing


def _slot(prediction: Prediction, name: str):
    intent: Intent = prediction.intent or {}
    return intent.get(name)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 1.0


def _by(pairs: Sequence, right: np.ndarray, keys: Callable[[Example], Iterable[str]]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for (example, _), ok in zip(pairs, right, strict=True):
        for key in keys(example):
            groups[key].append(bool(ok))
    return dict(sorted(groups.items()))
