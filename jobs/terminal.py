"""What a job prints is never a reason to fail: not for a letter that a terminal lacks, a closed pipe or a full disk."""

import io
import sys
from contextlib import suppress


class Terminal(io.TextIOWrapper):
    """Text to whoever still reads."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def take_over() -> None:
    """From now on this process prints to `Terminal`s."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            stream.flush()
            buffered = stream.line_buffering
            setattr(sys, name, Terminal(stream.buffer, stream.encoding, "backslashreplace", line_buffering=buffered))
