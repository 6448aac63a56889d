"""Compare a variant's language model with the unquantized one, decision by decision.

Both walk the right answers of the same held-out messages, so both meet the same decisions. The KL divergence and the share of
the same choice are what llama.cpp's `llama-perplexity --kl-divergence` reports as "Mean KLD" and "Same top p"
(https://github.com/ggml-org/llama.cpp/tree/master/tools/perplexity). llama.cpp compares all tokens of its vocabulary at every
position of a text. Here only the tokens count that the automaton allows at a decision, because only they can be answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intent.dataset.example import Example
from intent.engine.batch import BatchClassifier
from intent.engine.forced import log_softmax, walk_answers
from intent.evaluate.speed import Load
from intent.progress import Report, unreported

# The number of messages whose decisions are kept, which bounds the time and the memory.
MOST = 500
# What identifies a decision: the message's number among the examples, the decision's number in it, and the right token's id.
KEYS = ("message", "decision", "token")
SCHEMA = pa.schema({**dict.fromkeys(KEYS, pa.int32()), "log_probabilities": pa.list_(pa.float32())})
NOT_COMPARED: dict[str, float | None] = {"kl": None, "same_choice": None}


def decisions_of(
    load: Load, examples: Sequence[Example], catalogs: Mapping[str, Sequence[str]], report: Report = unreported
) -> pa.Table:
    """Return one row per decision on the way to the right answers, of MOST examples that are spread evenly.

    `load`: returns a `BatchClassifier` for a catalog's names. It is called once, for the first catalog. `catalogs`: product
    names by catalog id. Columns: KEYS, and the log-probabilities of the allowed tokens in the order of their ids.
    """
    report(0, 0, "", "walks the right answers")
    count = min(MOST, len(examples))
    chosen = [i * len(examples) // count for i in range(count)]
    parts = [SCHEMA.empty_table()]
    classifier: BatchClassifier | None = None
    for key in dict.fromkeys(examples[i].catalog for i in chosen):
        rows = [i for i in chosen if examples[i].catalog == key]
        if classifier is None:
            classifier = cast(BatchClassifier, load(catalogs[key]))
        else:
            classifier.ask(replace(classifier.prompt, catalog=tuple(catalogs[key])))
        walked = walk_answers(classifier, [examples[i].message for i in rows], [examples[i].intent for i in rows])
        decisions = [
            (rows[at], number, decided.token, decided.log_probabilities)
            for at, record in walked.items()
            for number, decided in enumerate(record)
        ]
        if decisions:
            columns = map(list, zip(*decisions, strict=True))
            parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA))
    if classifier:
        classifier.close()
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in KEYS])


def compare(reference: pa.Table, variant: pa.Table) -> dict[str, float | None]:
    """Compare two tables of `decisions_of`. The values are None unless both have the same decisions, and at least one.

    `kl`: the mean of KL(reference || variant) over decisions, in nats. `same_choice`: the share of decisions at which the same
    allowed token is the most probable.
    """
    if not reference.num_rows or not _alike(reference, variant):
        return NOT_COMPARED
    divergences, same = [], 0
    for ours, theirs in zip(_log_probabilities(variant), _log_probabilities(reference), strict=True):
        divergences.append(np.sum(np.exp(theirs) * (theirs - ours)))
        same += int(ours.argmax() == theirs.argmax())
    return {"kl": float(np.mean(divergences)), "same_choice": same / len(divergences)}


def _alike(a: pa.Table, b: pa.Table) -> bool:
    """Return whether two tables have the same decisions with as many allowed tokens."""
    lengths = [pc.list_value_length(table["log_probabilities"]) for table in (a, b)]
    return a.select(KEYS).equals(b.select(KEYS)) and lengths[0].equals(lengths[1])


def _log_probabilities(table: pa.Table) -> Iterator[np.ndarray]:
    """Yield the log-probabilities of each decision, float64. They are normalized again, because float32 rounded them."""
    for each in table["log_probabilities"]:
        yield log_softmax(each.values.to_numpy())
