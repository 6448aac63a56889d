"""Prevent printing from failing a job: ignore a character that a terminal lacks, a closed pipe, and a full disk."""

import io
import sys
from contextlib import suppress


class Terminal(io.TextIOWrapper):
    """A text stream that ignores errors of the system."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def take_over() -> None:
    """Replace stdout and stderr by `Terminal`s."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            buffered = stream.line_buffering
            setattr(sys, name, Terminal(stream.buffer, stream.encoding, "backslashreplace", line_buffering=buffered))
