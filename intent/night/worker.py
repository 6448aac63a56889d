"""Labelling one shard: rows in, one part out, each row labelled, abstained or rejected, exactly once.

Everything about rows is Arrow kernels; Python loops only over distinct messages. Knows a classifier, never Ray.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.engine import Classifier, Prediction, Status, classify_each
from intent.errors import EngineFailed, IntentError
from intent.night import items
from intent.night.columns import Columns
from intent.night.part import Part, build_part
from intent.night.rows import distinct, refuse
from intent.night.shard import Shard
from intent.schema import CONFIDENCE, INTENTS, IntentSchema, Item

MAX_CHARACTERS = 4096
NULL = "null message"


@dataclass
class Worker:
    """Labels shards with one classifier, for the run with the fingerprint `run`."""

    classifier: Classifier
    schema: IntentSchema
    columns: Columns
    run: str
    max_characters: int = MAX_CHARACTERS

    def label(self, shard: Shard, rows: pa.Table, known: pa.Table | None = None) -> Part:
        """The shard's part. `known`: answers, by message, that need no model."""
        started = time.monotonic()
        messages, places = distinct(rows[self.columns.message])
        answers, position, classified = self.answer(messages, known)
        answers = answers.take(pa.array(position[places]))
        refused = pc.equal(answers["status"], str(Status.REJECTED))
        ids = rows[self.columns.id]
        rejected = pa.table({"id": ids, "reason": answers["reason"]}).filter(refused)
        labelled = self._labelled(rows, answers)
        if rejected.num_rows:
            labelled = labelled.filter(pc.invert(refused))
        # Whatever a model rejected names that model.
        unasked = pc.sum(pc.and_(refused, pc.is_null(answers["variant"]))).as_py() or 0
        counts = self._counts(shard, labelled, rejected.num_rows, classified, unasked)
        if self.columns.explode:
            labelled = items.explode(labelled, self.schema)
            counts["lines"] = len(labelled)
        counts["seconds"] = round(time.monotonic() - started, 3)
        return build_part(counts, labelled, rejected)

    def answer(self, messages: pa.Array, known: pa.Table | None = None) -> tuple[pa.Table, np.ndarray, int]:
        """Answers, the answer's place for each of the distinct `messages` and, last, for null; and how many the model saw."""
        texts, reasons = refuse(messages, self.max_characters)
        position = np.full(len(messages) + 1, -1, np.int64)
        open_ = np.flatnonzero(reasons.is_null().to_numpy(zero_copy_only=False))
        refused = np.flatnonzero(reasons.is_valid().to_numpy(zero_copy_only=False))
        tables = [self._rejections(pa.concat_arrays([reasons.take(pa.array(refused)), pa.array([NULL])]))]
        position[np.append(refused, len(messages))] = np.arange(len(refused) + 1)
        if known is not None and len(open_):
            hit = pc.index_in(texts.take(pa.array(open_)), known["message"].combine_chunks())
            found = hit.is_valid().to_numpy(zero_copy_only=False)
            position[open_[found]] = sum(map(len, tables)) + np.arange(found.sum())
            tables.append(known.drop_columns(["message"]).take(hit.drop_null()))
            open_ = open_[~found]
        position[open_] = sum(map(len, tables)) + np.arange(len(open_))
        tables.append(self._classify(texts.take(pa.array(open_)).to_pylist()))
        return pa.concat_tables(tables), position, len(open_)

    @property
    def answer_schema(self) -> pa.Schema:
        kinds = [("confidence", pa.float32()), ("status", pa.string()), ("variant", pa.string()), ("reason", pa.string())]
        return pa.schema([*self.schema.arrow_fields(), *(pa.field(*kind) for kind in kinds)])

    def _classify(self, messages: Sequence[str]) -> pa.Table:
        try:
            return self._answers(classify_each(self.classifier, messages) if messages else [])
        except IntentError:
            raise
        except Exception as error:
            raise EngineFailed(self.classifier.variant, error) from None

    def _answers(self, predictions: Sequence[Prediction]) -> pa.Table:
        intents = [p.intent if p.status is Status.OK else None for p in predictions]
        names = self.schema.names if self.schema.repeat == 1 else [INTENTS]
        slots = [[intent[name] if intent else None for intent in intents] for name in names]
        if self.schema.repeat > 1:
            slots = [[given and _sure(given, p.slots) for given, p in zip(slots[0], predictions, strict=True)]]
        rest = [
            [p.confidence for p in predictions],
            [p.status for p in predictions],
            [p.variant or self.classifier.variant for p in predictions],
            [p.reason or None for p in predictions],
        ]
        fields = self.answer_schema
        return pa.table([pa.array(values, field.type) for values, field in zip([*slots, *rest], fields, strict=True)], fields)

    def _rejections(self, reasons: pa.Array) -> pa.Table:
        fields, rows = self.answer_schema, len(reasons)
        filled = {"reason": reasons, "status": pa.repeat(str(Status.REJECTED), rows)}
        return pa.table([filled.get(field.name, pa.nulls(rows, field.type)) for field in fields], fields)

    def _labelled(self, rows: pa.Table, answers: pa.Table) -> pa.Table:
        kept = {name: rows[name] for name in self.columns.keep}
        made = {name: answers[name] for name in answers.column_names if name != "reason"}
        return pa.table({"id": rows[self.columns.id], **made, **kept})

    def _counts(self, shard: Shard, labelled: pa.Table, rejected: int, classified: int, refused: int) -> dict:
        abstained = pc.sum(pc.equal(labelled["status"], str(Status.ABSTAINED))).as_py() or 0
        variants = {entry["values"]: entry["counts"] for entry in labelled["variant"].value_counts().to_pylist()}
        return {
            "shard": shard.id,
            "fingerprint": self.run,
            "rows": shard.rows,
            "labelled": len(labelled) - abstained,
            "abstained": abstained,
            "rejected": rejected,
            "classified": classified,
            "refused": refused,
            "variants": variants,
        }


def _sure(given: Sequence[Item], confidences: Sequence[float]) -> list[dict]:
    """Each item with its confidence, null where the classifier says none."""
    return [item | {CONFIDENCE: sure} for item, sure in zip_longest(given, confidences)]
