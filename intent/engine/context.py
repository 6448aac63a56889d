"""Check whether a prompt, a message and its answer fit into a model's context, from its tokenizer, before any weights load."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intent.engine.automaton import Automaton
from intent.errors import ConfigError
from intent.task.prompt import Prompt, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The tokens of an answer, unless the catalog's longest name needs more.
ANSWER_TOKENS = 96
# With fewer tokens than this for a message, the catalog is too long and a lower message limit does not help.
LEAST_MESSAGE_TOKENS = 256
# No known causal language model has a shorter context.
SMALLEST = 2048


@dataclass(frozen=True)
class Context:
    """A model's tokenizer, and its context in tokens; None if its configuration lacks it."""

    tokenizer: "Tokenizer"
    tokens: int | None

    @classmethod
    def parse(cls, tokenizer: bytes, tokens: int | None) -> "Context":
        """Create the context from the bytes of a tokenizer.json."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer.json").write_bytes(tokenizer)
            return cls(load_tokenizer(Path(folder)), tokens)

    def check(self, prompt: Prompt, output_format: str, max_message_tokens: int) -> None:
        """Raise ConfigError, naming the part that is too long, if prompt, message and answer do not fit into the context."""
        answer = answer_tokens([Automaton(prompt.schema, prompt.catalog, self.tokenizer, output_format)])
        require_fit(len(prompt.prefix_ids(self.tokenizer)), max_message_tokens + answer, self.tokens, answer)


def config_tokens(config: bytes) -> int | None:
    """Return the context, in tokens, from a config.json; None if it lacks it."""
    return json.loads(config).get("max_position_embeddings")


def answer_tokens(automata: Sequence[Automaton]) -> int:
    """Return the tokens of the longest answer of any of `automata`."""
    return max(ANSWER_TOKENS, *(automaton.longest for automaton in automata))


def require_fit(prefix: int, max_seq_len: int, context: int | None, answer: int = ANSWER_TOKENS) -> None:
    """Raise ConfigError if `prefix` tokens of prompt, with `max_seq_len` for a message and its `answer`, are too many."""
    if context is None or prefix + max_seq_len <= context:
        return
    if (most := context - prefix - answer) >= LEAST_MESSAGE_TOKENS:
        sizes = f"the prompt has {prefix} tokens, an answer up to {answer}, and the model's context is {context}"
        raise ConfigError("engine.max_message_tokens", max_seq_len - answer, f"{sizes}; use at most {most}")
    excess = f"with {max_seq_len} for a message and its answer they are more than the model's context of {context}"
    raise ConfigError("catalog", f"{prefix} tokens", f"{excess}; use fewer products, shorter names, or another model")


def surely_fits(prompt: Prompt, max_message_tokens: int) -> bool:
    """Return whether the prompt fits the context of every known model. Counts one token per byte, the most there can be."""
    answer = prompt.schema.repeat * (ANSWER_TOKENS + max((len(name.encode()) for name in prompt.catalog), default=0))
    return len(prompt.prefix.encode()) + max_message_tokens + answer <= SMALLEST
