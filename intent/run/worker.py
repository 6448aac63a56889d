"""Label one shard: turn its rows into one part, with each row labelled, abstained or rejected exactly once.

Arrow kernels process rows; Python loops only over distinct messages. Knows a classifier, but not Ray.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.engine import Classifier, Prediction, Status, abstain, classify_each
from intent.engine.grouped import Grouped
from intent.engine.shelved import Shelved, surest
from intent.errors import EngineFailed, IntentError
from intent.label_cache import Lookup, Reader, piece
from intent.retrieve.route import NOWHERE, Asks
from intent.run import items
from intent.run.columns import Columns
from intent.run.new_labels import Fresh
from intent.run.part import Part, build_part
from intent.run.rows import distinct, refuse
from intent.run.shard import Shard
from intent.task.schema import CONFIDENCE, INTENTS, IntentSchema, Item, same

MAX_CHARACTERS = 4096
NULL = "null message"
# The column that says whether the label cache gave an answer. No slot has this name.
CACHED = "intent.cached"
NOT_LABELLED = ("reason", CACHED)


@dataclass(frozen=True)
class Answers:
    """The answers to distinct messages, and where they came from.

    `table`: the answers. `position`: the index in `table` of each distinct message's answer and, last, of null's. `classified`:
    messages that the model saw. `found`: messages that the label cache answered. `asked`: how many of the cached messages the
    model saw again. `agreed`: how many of those got the same intent. `fresh`: new entries for the cache.
    """

    table: pa.Table
    position: np.ndarray
    classified: int = 0
    found: int = 0
    asked: int = 0
    agreed: int = 0
    fresh: Fresh | None = None


@dataclass
class Worker:
    """Label shards with one classifier, for the run whose fingerprint is `run`.

    Abstains from all answers below `abstain_below`, whatever their source. `reader`: reads the label cache.
    """

    classifier: Classifier
    schema: IntentSchema
    columns: Columns
    run: str
    max_characters: int = MAX_CHARACTERS
    abstain_below: float = 0.0
    reader: Reader | None = None

    def label(self, shard: Shard, rows: pa.Table, frequent_answers: pa.Table | None = None) -> Part:
        """Return the shard's part. `frequent_answers`: answers by message that need no model."""
        started = time.monotonic()
        messages, indices = distinct(rows[self.columns.message])
        distinct_answers = self.answer(messages, frequent_answers)
        answers = distinct_answers.table.take(pa.array(distinct_answers.position[indices]))
        refused = pc.equal(answers["status"], str(Status.REJECTED))
        ids = rows[self.columns.id]
        rejected = pa.table({"id": ids, "reason": answers["reason"]}).filter(refused)
        labelled = self._labelled(rows, answers)
        if rejected.num_rows:
            labelled = labelled.filter(pc.invert(refused))
        # A rejection by a model names that model.
        unasked = pc.sum(pc.and_(refused, pc.is_null(answers["variant"]))).as_py() or 0
        cached = pc.sum(answers[CACHED]).as_py() or 0
        counts = self._counts(shard, labelled, rejected.num_rows, distinct_answers, {"refused": unasked, "cached": cached})
        if self.columns.explode:
            labelled = items.explode(labelled, self.schema)
            counts["lines"] = len(labelled)
        counts["seconds"] = round(time.monotonic() - started, 3)
        return replace(build_part(counts, labelled, rejected), fresh=distinct_answers.fresh)

    def answer(self, messages: pa.Array, frequent_answers: pa.Table | None = None) -> Answers:
        """Answer distinct messages from `frequent_answers`, from the label cache, or by the model."""
        texts, reasons = refuse(messages, self.max_characters)
        position = np.full(len(messages) + 1, -1, np.int64)
        open_ = np.flatnonzero(reasons.is_null().to_numpy(zero_copy_only=False))
        refused = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False))
        tables = [self._rejections(pa.concat_arrays([reasons.take(pa.array(refused)), pa.array([NULL])]))]
        position[np.append(refused, len(messages))] = np.arange(len(refused) + 1)
        if frequent_answers is not None and self.reader and not self.reader.trusted:
            frequent_answers = frequent_answers.filter(pc.invert(frequent_answers[CACHED]))
        if frequent_answers is not None and len(open_):
            hit = pc.index_in(texts.take(pa.array(open_)), frequent_answers["message"].combine_chunks())
            is_frequent = hit.is_valid().to_numpy(zero_copy_only=False)
            position[open_[is_frequent]] = sum(map(len, tables)) + np.arange(is_frequent.sum())
            tables.append(self._abstained(frequent_answers.drop_columns(["message"]).take(hit.drop_null())))
            open_ = open_[~is_frequent]
        if isinstance(self.classifier, Shelved) and len(open_):
            some = texts.take(pa.array(open_))
            asks = self.classifier.route(some.to_pylist())
            shelf_answers = self.ask(some.take(pa.array(asks.rows)), asks)
            position[open_] = sum(map(len, tables)) + np.arange(len(open_))
            rows = surest(asks, *self.weights(shelf_answers.table))
            tables.append(self._abstained(shelf_answers.table.take(pa.array(rows))))
            return replace(shelf_answers, table=pa.concat_tables(tables), position=position)
        if self.reader is None or not len(open_):
            position[open_] = sum(map(len, tables)) + np.arange(len(open_))
            tables.append(self._classify(texts.take(pa.array(open_)).to_pylist())[1])
            return Answers(pa.concat_tables(tables), position, len(open_))
        lookup = self.reader.look(texts.take(pa.array(open_)))
        to_classify, sure = ~lookup.hit | lookup.again, ~lookup.again[lookup.hit]
        # The answers have one order: first the cache's, then the model's.
        position[open_[~to_classify]] = sum(map(len, tables)) + np.arange(sure.sum())
        tables.append(self._cached(lookup, sure))
        position[open_[to_classify]] = sum(map(len, tables)) + np.arange(to_classify.sum())
        grouped, table = self._classify(texts.take(pa.array(open_[to_classify])).to_pylist())
        tables.append(table)
        agreed = self._agreed(lookup, to_classify, grouped.predictions)
        counts = (int(to_classify.sum()), int(sure.sum()), int(lookup.again.sum()), int(agreed.sum()))
        return Answers(pa.concat_tables(tables), position, *counts, fresh=self._fresh(lookup, to_classify, grouped, ~agreed))

    def ask(self, texts: pa.Array, asks: Asks) -> Answers:
        """Return the answer to each of `asks` about its text, from the label cache or the model, without abstaining.

        Counts each message at its first ask. A message that no shelf fits counts as seen by a model.
        """
        somewhere = np.flatnonzero(asks.shelves != NOWHERE)
        nowhere = np.flatnonzero(asks.shelves == NOWHERE)
        texts_, shelves, first = texts.take(pa.array(somewhere)), asks.shelves[somewhere], asks.first[somewhere]
        unsure = replace(self, abstain_below=0.0)
        if self.reader is None:
            positions, open_, lookup = [nowhere, somewhere], np.arange(len(somewhere)), None
            cached = []
        else:
            keys = pa.array([self._shelved.index.keys[shelf] for shelf in shelves.tolist()], pa.string())
            lookup = self.reader.look(pc.binary_join_element_wise(keys, texts_, " "))
            to_classify, sure = ~lookup.hit | lookup.again, ~lookup.again[lookup.hit]
            open_ = np.flatnonzero(to_classify)
            positions, cached = [nowhere, somewhere[~to_classify], somewhere[open_]], [unsure._cached(lookup, sure)]
        missing = self._shelved.classify_asks(texts.take(pa.array(nowhere)).to_pylist(), asks.shelves[nowhere])
        grouped, table = unsure._classify(texts_.take(pa.array(open_)).to_pylist(), shelves[open_])
        order = np.argsort(np.concatenate(positions), kind="stable")
        answers = pa.concat_tables([self._answers(missing), *cached, table]).take(pa.array(order))
        classified, position = int(first[open_].sum()) + len(nowhere), np.arange(len(asks))
        if lookup is None:
            return Answers(answers, position, classified)
        agreed = self._agreed(lookup, to_classify, grouped.predictions)
        again = first & lookup.again
        counts = classified, int((first & ~to_classify).sum()), int(again.sum()), int((agreed & again[open_]).sum())
        return Answers(answers, position, *counts, fresh=self._fresh(lookup, to_classify, grouped, ~agreed))

    @property
    def _shelved(self) -> Shelved:
        """Return the classifier as the one of a catalog of shelves, which it is whenever there are asks."""
        return cast(Shelved, self.classifier)

    def weights(self, answers: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the columns by which `surest` compares the answers of asks."""
        fine = pc.not_equal(answers["status"], str(Status.REJECTED))
        named = pc.is_valid(answers[self.schema.entity])
        return fine.to_numpy(), named.to_numpy(), answers["confidence"].to_numpy()

    def _abstained(self, answers: pa.Table) -> pa.Table:
        """Remove the intents of answers below the threshold, and mark them as abstained."""
        if not self.abstain_below:
            return answers
        # The column is rounded, so round the threshold too: an answer that just reaches it must not fall below it.
        below = pa.scalar(self.abstain_below, answers.schema.field("confidence").type)
        unsure = pc.and_(pc.equal(answers["status"], str(Status.OK)), pc.less(answers["confidence"], below))
        if not pc.any(unsure).as_py():
            return answers
        names = self.schema.names if self.schema.repeat == 1 else [INTENTS]
        for name in names:
            at, field = answers.column_names.index(name), answers.schema.field(name)
            answers = answers.set_column(at, field, pc.if_else(unsure, pa.scalar(None, field.type), answers[name]))
        at = answers.column_names.index("status")
        status = pc.if_else(unsure, str(Status.ABSTAINED), answers["status"])
        return answers.set_column(at, answers.schema.field(at), status)

    @property
    def answer_schema(self) -> pa.Schema:
        """Return the columns of answers: the intent, then confidence, status, variant, reason and whether it is cached."""
        kinds = [("confidence", pa.float32()), ("status", pa.string()), ("variant", pa.string()), ("reason", pa.string())]
        return pa.schema([*self.schema.arrow_fields(), *(pa.field(*kind) for kind in [*kinds, (CACHED, pa.bool_())])])

    def _classify(self, messages: Sequence[str], shelves: np.ndarray | None = None) -> tuple[Grouped, pa.Table]:
        """Return the model's predictions, about each message's shelf if there are `shelves`, and the table of answers."""
        try:
            if shelves is not None:
                grouped = Grouped.of(self._shelved.classify_asks(messages, shelves))
            else:
                grouped = Grouped.of(classify_each(self.classifier, messages) if messages else [])
            if self.schema.repeat > 1:
                return grouped, self._lists(grouped.predictions)
            return grouped, self._repeated(grouped.kinds, grouped.codes, grouped.confidence)
        except IntentError:
            raise
        except Exception as error:
            raise EngineFailed(self.classifier.variant, error) from None

    def _cached(self, lookup: Lookup, sure: np.ndarray) -> pa.Table:
        """Return the answers of the hits selected by `sure`."""
        codes, confidence = lookup.codes[sure], lookup.confidence[sure]
        if self.schema.repeat == 1:
            kinds = [Prediction(intent, variant=variant) for intent, variant in lookup.answers]
            return self._repeated(kinds, codes, confidence, cached=True)
        rest = confidence.tolist(), lookup.slots.filter(pa.array(sure)).to_pylist()
        answers = [lookup.answers[code] for code in codes]
        predictions = [
            Prediction(a[0], confidence, slots, variant=a[1]) for a, confidence, slots in zip(answers, *rest, strict=True)
        ]
        return self._lists(predictions, cached=True)

    def _lists(self, predictions: Sequence[Prediction], cached: bool = False) -> pa.Table:
        """Return the answers of a schema with lists. Items have their own confidences, so equal answers share nothing."""
        return self._answers([abstain(prediction, self.abstain_below) for prediction in predictions], cached)

    def _repeated(
        self, kinds: Sequence[Prediction], codes: np.ndarray, confidence: np.ndarray, cached: bool = False
    ) -> pa.Table:
        """Return the answers `kinds[codes]` with these confidences. Builds the row of each kind and of its abstention once."""
        below = self.abstain_below
        abstained = [abstain(replace(kind, confidence=0.0), 1.0) for kind in kinds] if below else []
        indices = codes + len(kinds) * (confidence < below)
        table = self._answers([*kinds, *abstained], cached).take(pa.array(indices))
        at = table.column_names.index("confidence")
        return table.set_column(at, table.schema.field(at), pa.array(confidence.astype(np.float32)))

    def _agreed(self, lookup: Lookup, to_classify: np.ndarray, predictions: Sequence[Prediction]) -> np.ndarray:
        """Return, as bool [predictions], which messages the cache had and the model gave the same intent again."""
        agree = np.zeros(len(predictions), bool)
        cached_intents = [lookup.answers[code][0] for code in lookup.codes[lookup.again[lookup.hit]]]
        for i, cached_intent in zip(np.flatnonzero(lookup.again[to_classify]), cached_intents, strict=True):
            prediction = predictions[i]
            agree[i] = prediction.status is Status.OK and same(prediction.intent, cached_intent)
        return agree

    def _fresh(self, lookup: Lookup, to_classify: np.ndarray, grouped: Grouped, new: np.ndarray) -> Fresh | None:
        assert self.reader is not None, "new entries need a cache"
        labels = piece.entries(
            lookup.high[to_classify], lookup.low[to_classify], grouped, self.classifier.variant, self.reader.cache.day
        )
        sure = new & np.array([kind.status is Status.OK for kind in grouped.kinds], bool)[grouped.codes]
        labels = labels if sure.all() else labels.filter(pa.array(sure))
        return Fresh.of(self.reader.cache.scope.name, self.reader.epoch, labels, lookup.stale)

    def _answers(self, predictions: Sequence[Prediction], cached: bool = False) -> pa.Table:
        intents = [p.intent if p.status is Status.OK else None for p in predictions]
        names = self.schema.names if self.schema.repeat == 1 else [INTENTS]
        slots: list[list[Any]] = [[intent[name] if intent else None for intent in intents] for name in names]
        if self.schema.repeat > 1:
            slots = [[items and _sure(items, p.slots) for items, p in zip(slots[0], predictions, strict=True)]]
        rest = [
            [p.confidence for p in predictions],
            [p.status for p in predictions],
            [p.variant or self.classifier.variant for p in predictions],
            [p.reason or None for p in predictions],
            [cached] * len(predictions),
        ]
        fields = self.answer_schema
        return pa.table([pa.array(values, field.type) for values, field in zip([*slots, *rest], fields, strict=True)], fields)

    def _rejections(self, reasons: pa.Array) -> pa.Table:
        fields, rows = self.answer_schema, len(reasons)
        filled = {"reason": reasons, "status": pa.repeat(str(Status.REJECTED), rows), CACHED: pa.repeat(False, rows)}
        return pa.table([filled.get(field.name, pa.nulls(rows, field.type)) for field in fields], fields)

    def _labelled(self, rows: pa.Table, answers: pa.Table) -> pa.Table:
        kept_columns = {name: rows[name] for name in self.columns.keep}
        labels = {name: answers[name] for name in answers.column_names if name not in NOT_LABELLED}
        return pa.table({"id": rows[self.columns.id], **labels, **kept_columns})

    def _counts(self, shard: Shard, labelled: pa.Table, rejected: int, answers: Answers, rows: dict[str, int]) -> dict:
        abstained = pc.sum(pc.equal(labelled["status"], str(Status.ABSTAINED))).as_py() or 0
        variants = {entry["values"]: entry["counts"] for entry in labelled["variant"].value_counts().to_pylist()}
        return {
            "shard": shard.id,
            "fingerprint": self.run,
            "rows": shard.rows,
            "labelled": len(labelled) - abstained,
            "abstained": abstained,
            "rejected": rejected,
            "variants": variants,
            **self.receipt_fields(answers),
            **rows,
        }

    def receipt_fields(self, answers: Answers) -> dict:
        """Return where the answers came from, as fields of a receipt."""
        counts = {name: getattr(answers, name) for name in ("classified", "found", "asked", "agreed")}
        return counts | ({"cache": self.reader.token} if self.reader else {})


def _sure(items: Sequence[Item], confidences: Sequence[float]) -> list[dict]:
    """Add each item's confidence to it, or null if the classifier gives none."""
    return [item | {CONFIDENCE: sure} for item, sure in zip_longest(items, confidences)]
