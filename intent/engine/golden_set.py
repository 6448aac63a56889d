"""Check that an engine labels like the unquantized model, on a golden set that each variant carries.

A faulty build, driver, kernel or file fails here before it labels a row. Knows no engine.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from intent.engine import Classifier, classify_each
from intent.errors import Disagreement
from intent.task.prompt import Prompt
from intent.task.schema import Intent, IntentSchema, same, to_json

# Variants of earlier versions have this file, and the name stays so that they are checked too.
FILE = "parity.json"
MESSAGES, CANDIDATES = 64, 192
SURE = 0.8
NAMED = 3


@dataclass(frozen=True)
class GoldenSet:
    """Messages about the names of one catalog, and the unquantized model's intents for them."""

    catalog: Sequence[str]
    messages: Sequence[str]
    intents: Sequence[Intent | None]

    @classmethod
    def of(cls, reference: Classifier, prompt: Prompt, messages: Sequence[str]) -> "GoldenSet":
        """Select up to MESSAGES messages of which `reference`, with `prompt`, is at least SURE. If there are too few, adds the
        surest others.

        Where the model is unsure, rounding decides the label, so such a message does not test an engine.
        """
        predictions = classify_each(reference, messages)
        indices = sorted(range(len(predictions)), key=lambda i: -min(predictions[i].confidence, SURE))[:MESSAGES]
        return cls(list(prompt.catalog), [messages[i] for i in indices], [predictions[i].intent for i in indices])

    @classmethod
    def read(cls, folder: Path) -> "GoldenSet | None":
        """Read the golden set from a variant's folder; None if it has none."""
        path = folder / FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, folder: Path) -> None:
        """Write the golden set into a variant's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")

    def prompt(self, schema: IntentSchema) -> Prompt:
        """Return the prompt with which the reference was asked."""
        return Prompt(schema, tuple(self.catalog))

    def check(self, classifier: Classifier, count: int, allowed: float) -> None:
        """Raise Disagreement if more than a share `allowed` of the first `count` labels differ from the reference's.

        `classifier` must ask with this set's prompt.
        """
        predictions = classify_each(classifier, self.messages[:count])
        wrong = [i for i, prediction in enumerate(predictions) if not same(prediction.intent, self.intents[i])]
        if len(wrong) > allowed * len(predictions):
            # The error gives numbers, because logs must not contain messages.
            examples = "; ".join(f"#{i} {_text(predictions[i].intent)}, not {_text(self.intents[i])}" for i in wrong[:NAMED])
            raise Disagreement(
                f"{classifier.variant}: {len(wrong)} of {len(predictions)} golden-set messages are labeled differently from "
                f"the unquantized model, more than engine.golden_disagreement={allowed:g} allows ({examples}); check this "
                "machine's build and driver, or make the variant again with python -m jobs.quantize"
            )


def _text(intent: Intent | None) -> str:
    return to_json(intent) if intent else "rejected"
