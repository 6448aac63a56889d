"""Check that an engine labels like the unquantized model, on a gold set of messages that each variant carries.

A build, driver, kernel or file that computes something else fails here before it labels a row. Knows no engine.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from intent.engine import Classifier, classify_each
from intent.errors import Disagreement
from intent.task.prompt import Prompt
from intent.task.schema import Intent, IntentSchema, same, to_json

GOLD = "parity.json"
MESSAGES, CANDIDATES = 64, 192
SURE = 0.8
NAMED = 3


@dataclass(frozen=True)
class GoldSet:
    """Messages about one catalog's names, and the unquantized model's intents for them."""

    catalog: Sequence[str]
    messages: Sequence[str]
    intents: Sequence[Intent | None]

    @classmethod
    def of(cls, reference: Classifier, prompt: Prompt, messages: Sequence[str]) -> "GoldSet":
        """Select up to MESSAGES messages that `reference`, asked with `prompt`, is sure of; if there are too few, also its
        surest others.

        Where the model itself is unsure, rounding decides, so such a message says nothing about an engine.
        """
        found = classify_each(reference, messages)
        kept = sorted(range(len(found)), key=lambda i: -min(found[i].confidence, SURE))[:MESSAGES]
        return cls(list(prompt.catalog), [messages[i] for i in kept], [found[i].intent for i in kept])

    @classmethod
    def read(cls, folder: Path) -> "GoldSet | None":
        """Read the gold set from a variant's folder; None if it has none."""
        path = folder / GOLD
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, folder: Path) -> None:
        (folder / GOLD).write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")

    def prompt(self, schema: IntentSchema) -> Prompt:
        return Prompt(schema, tuple(self.catalog))

    def check(self, classifier: Classifier, count: int, allowed: float) -> None:
        """Raise Disagreement if more than a share `allowed` of the first `count` labels differ from the reference's.

        `classifier` must ask with this set's prompt.
        """
        found = classify_each(classifier, self.messages[:count])
        wrong = [i for i, given in enumerate(found) if not same(given.intent, self.intents[i])]
        if len(wrong) > allowed * len(found):
            # By number, because logs must not contain messages.
            said = "; ".join(f"#{i} {_said(found[i].intent)}, not {_said(self.intents[i])}" for i in wrong[:NAMED])
            raise Disagreement(
                f"{classifier.variant}: {len(wrong)} of {len(found)} gold messages are labelled otherwise than by the "
                f"unquantized model, more than engine.parity_disagreement={allowed:g} allows ({said}); check this machine's "
                "build and driver, or make the variant again with python -m jobs.quantize"
            )


def _said(intent: Intent | None) -> str:
    return to_json(intent) if intent else "rejected"
