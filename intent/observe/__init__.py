"""Report runs to other systems: OpenLineage events and OpenTelemetry spans, through the official clients.

Both are off unless their standard variables are set. A collector never fails a run. Other threads send everything, and the
end of a run waits at most `PATIENCE` seconds for them. Knows the run's events; nothing of Ray or stores.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from intent.observe.subject import Subject as Subject
from intent.run.events import Event
from intent.run.progress import Summary

PATIENCE = 10.0


class Observer(Protocol):
    """Reports one run. The methods are called in this order."""

    def start(self) -> None:
        """Report the start."""

    def hear(self, event: Event) -> None:
        """Report an event."""

    def end(self, summary: Summary | None, error: BaseException | None) -> None:
        """Report the end, with a summary or an error."""

    def close(self) -> None:
        """Send everything that was not sent yet."""


class Observed:
    """A run in progress. `summary`: its result, once it has ended."""

    def __init__(self, observers: Sequence[Observer], tell: Callable[[str], None]):
        self.observers, self.tell = list(observers), tell
        self.summary: Summary | None = None

    def hear(self, event: Event) -> None:
        """Pass an event on to every observer."""
        self.each("hear", event)

    def each(self, method: str, *arguments) -> None:
        """Call a method of every observer. Drops an observer that fails, and tells the operator."""
        for observer in list(self.observers):
            try:
                getattr(observer, method)(*arguments)
            except Exception as error:
                self.observers.remove(observer)
                self.tell(f"goes on without {type(observer).__name__}: {type(error).__name__}: {error}"[:300])


@contextmanager
def run(
    subject: Subject,
    tell: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
    patience: float = PATIENCE,
) -> Iterator[Observed]:
    """Observe the run inside the block. `tell`: called with lines for the operator. Raises only errors of the block."""
    from intent.observe import lineage, traces

    observed = Observed([], tell)
    for name, open_ in (("OpenLineage events", lineage.observer), ("OpenTelemetry spans", traces.observer)):
        try:
            observer = open_(subject, environment, tell)
        except ImportError as error:
            tell(f"goes on without {name}: {error.name} is not installed: pip install '.[observe]' in a clone of intent")
        except Exception as error:
            tell(f"goes on without {name}: {type(error).__name__}: {error}"[:300])
        else:
            observed.observers += [observer] if observer else []
    observed.each("start")
    try:
        yield observed
    except BaseException as error:
        observed.each("end", None, error)
        raise
    else:
        observed.each("end", observed.summary, None)
    finally:
        if observed.observers:
            # A daemon thread, so that a collector that hangs does not keep the process alive.
            closing = threading.Thread(target=observed.each, args=("close",), daemon=True)
            closing.start()
            closing.join(patience)
            if closing.is_alive():
                tell(f"lineage or traces were not delivered within {patience:g} s; the run is not affected")
