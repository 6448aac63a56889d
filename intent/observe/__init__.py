"""Report runs to other systems: OpenLineage events and OpenTelemetry spans, through the official clients.

Both are off unless their standard variables are set. A collector never fails a run: everything is sent from other threads, and
the end of a run waits at most `PATIENCE` seconds for them. Knows the run's events; nothing of Ray or stores.
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
    """Hears of a run, in this order. `close` sends what is left."""

    def start(self) -> None: ...

    def hear(self, event: Event) -> None: ...

    def end(self, summary: Summary | None, error: BaseException | None) -> None: ...

    def close(self) -> None: ...


class Observed:
    """A run in progress. `summary`: its result, once it has ended."""

    def __init__(self, observers: Sequence[Observer], tell: Callable[[str], None]):
        self.observers, self.tell = list(observers), tell
        self.summary: Summary | None = None

    def hear(self, event: Event) -> None:
        self.each("hear", event)

    def each(self, method: str, *arguments) -> None:
        """Call every observer. One that fails is left out from then on, and the log says so once."""
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
    """Observe what happens inside the block. `tell` gets a line for the operator. Raises only what is raised inside."""
    from intent.observe import lineage, traces

    observed = Observed([], tell)
    for name, open_ in (("OpenLineage events", lineage.observer), ("OpenTelemetry spans", traces.observer)):
        try:
            found = open_(subject, environment, tell)
        except ImportError as error:
            tell(f"goes on without {name}: {error.name} is not installed: pip install '.[observe]' in a clone of intent")
        except Exception as error:
            tell(f"goes on without {name}: {type(error).__name__}: {error}"[:300])
        else:
            observed.observers += [found] if found else []
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
