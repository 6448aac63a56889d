"""Keep printing from failing a job: a character that a terminal lacks, a closed pipe or a full disk is ignored."""

import io
import sys
from contextlib import suppress


class Terminal(io.TextIOWrapper):
    """A stream that ignores readers that are gone."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def take_over() -> None:
    """Make this process print to `Terminal`s from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            buffered = stream.line_buffering
            setattr(sys, name, Terminal(stream.buffer, stream.encoding, "backslashreplace", line_buffering=buffered))
