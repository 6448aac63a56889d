"""Build the prompt of a message: one shared prefix, then the message, one separator, and the answer.

Pure: knows text and token ids, but no model. Every engine and the training get the same token ids, because all ids come from
here, through the checkpoint's own `tokenizer.json`. A message costs its own tokens and one for the separator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from intent.task.catalog import ascii_digits, normalize
from intent.task.schema import IntentSchema

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEPARATOR = "\n"
# Raise the version when the prompt's text changes, so that labels of different versions are never mixed. The instruction is in
# conf/schema/.
VERSION = 3


@dataclass(frozen=True)
class Prompt:
    """The text around a message for a schema and a catalog's names (empty if the schema uses none)."""

    schema: IntentSchema
    catalog: Sequence[str] = ()

    @cached_property
    def prefix(self) -> str:
        """Return the text that all messages share: the instruction and the catalog."""
        lines = [self.schema.instruction.strip()]
        if self.schema.uses_catalog:
            lines += ["Products:", *(f"- {ascii_digits(name)}" for name in self.catalog)]
        return "\n".join(lines) + "\n\n"

    def prefix_ids(self, tokenizer: "Tokenizer") -> list[int]:
        """Return the token ids of the prefix."""
        return tokenizer.encode(self.prefix).ids

    def message_ids(self, tokenizer: "Tokenizer", messages: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each normalized message and the separator.

        Text that looks like a special token stays text, if `load_tokenizer` loaded the tokenizer.
        """
        encoded = tokenizer.encode_batch([normalize(message) for message in messages], add_special_tokens=False)
        separator = tokenizer.encode(SEPARATOR, add_special_tokens=False).ids
        return [entry.ids + separator for entry in encoded]


def load_tokenizer(folder: Path) -> "Tokenizer":
    """Load the checkpoint's tokenizer. Special tokens in a text are read as plain text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
