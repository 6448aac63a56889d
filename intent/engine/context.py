"""Whether a prompt, a message and its answer fit into a model's context: known from its tokenizer, before any weights load."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from intent.engine.automaton import Automaton
from intent.errors import ConfigError
from intent.prompt import Prompt, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Tokens of an answer, where the catalog's longest name does not need more.
ANSWER_ROOM = 96
# Where less is left for a message, a lower limit is no remedy for a long catalog.
MESSAGE_ROOM = 256
# A causal language model with a shorter context is not known.
SMALLEST = 2048


@dataclass(frozen=True)
class Context:
    """A model's tokenizer and the tokens of its context; None where its configuration does not say."""

    tokenizer: "Tokenizer"
    tokens: int | None

    @classmethod
    def parse(cls, tokenizer: bytes, tokens: int | None) -> "Context":
        """Of the bytes of a tokenizer.json."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer.json").write_bytes(tokenizer)
            return cls(load_tokenizer(Path(folder)), tokens)

    def check(self, prompt: Prompt, codec: str, max_message_tokens: int) -> None:
        """Raises ConfigError, naming what is too long, where the model cannot be asked."""
        answer = answer_room([Automaton(prompt.schema, prompt.catalog, self.tokenizer, codec)])
        require_room(len(prompt.prefix_ids(self.tokenizer)), max_message_tokens + answer, self.tokens, answer)


def config_tokens(config: bytes) -> int | None:
    """The context that a config.json names."""
    return json.loads(config).get("max_position_embeddings")


def answer_room(automata: Sequence[Automaton]) -> int:
    """Tokens for the longest answer that any of `automata` can give."""
    return max(ANSWER_ROOM, *(automaton.longest for automaton in automata))


def require_room(prefix: int, room: int, context: int | None, answer: int = ANSWER_ROOM) -> None:
    """Raises ConfigError where a prompt of `prefix` tokens and `room` for a message and its `answer` are too many."""
    if context is None or prefix + room <= context:
        return
    if (left := context - prefix - answer) >= MESSAGE_ROOM:
        told = f"the prompt has {prefix} tokens, an answer up to {answer}, and the model's context is {context}"
        raise ConfigError("engine.max_message_tokens", room - answer, f"{told}; use at most {left}")
    told = f"with {room} for a message and its answer they are more than the model's context of {context}"
    raise ConfigError("catalog", f"{prefix} tokens", f"{told}; use fewer products, shorter names, or another model")


def surely_fits(prompt: Prompt, max_message_tokens: int) -> bool:
    """Whether any model takes the prompt: a token is a byte of text or more."""
    answer = prompt.schema.repeat * (ANSWER_ROOM + max((len(name.encode()) for name in prompt.catalog), default=0))
    return len(prompt.prefix.encode()) + max_message_tokens + answer <= SMALLEST
