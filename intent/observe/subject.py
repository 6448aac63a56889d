"""Say what runs, and what failed, to systems outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from intent.errors import IntentError
from intent.run.columns import Columns


@dataclass(frozen=True)
class Subject:
    """What runs: `name`, the same every night, from `inputs` to `output`. `fields`: of the labels. `night`: its date.

    `publish`: the table or folder that also gets the labels.
    """

    name: str
    inputs: Sequence[str]
    output: str
    columns: Columns
    fields: Sequence[pa.Field]
    night: date | None = None
    publish: str | None = None


def said(error: BaseException) -> str:
    """Return an error's kind and, if it is one of this project's, its text. A library's text may quote a message."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}" if isinstance(cause, IntentError) else type(cause).__name__
