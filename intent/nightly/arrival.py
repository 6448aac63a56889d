"""Wait for a nightly run's input. The sender of the log writes a marker object last. Knows a store and a clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from intent.errors import NotArrived
from intent.storage import Store

# Check often at first, so that an almost complete log is soon seen, and then once a minute.
FIRST_SECONDS, MOST_SECONDS = 1.0, 60.0


def wait(
    store: Store,
    key: str,
    deadline: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `store` has `key`. Raises NotArrived at `deadline`, in Unix time, after at least one check."""
    pause, until = FIRST_SECONDS, f"{datetime.fromtimestamp(deadline, UTC):%Y-%m-%d %H:%M} UTC"
    while store.stat(key) is None:
        remaining = deadline - clock()
        if remaining <= 0:
            raise NotArrived(
                f"arrival={key!r}: {store.uri} has no such object by {until}; run again once it is there, "
                "or raise arrival_hours"
            )
        if pause == FIRST_SECONDS:
            say(f"waiting for {store.uri}/{key} until {until}")
        sleep(min(pause, remaining))
        pause = min(2 * pause, MOST_SECONDS)
