"""Describe a run and its error to external systems."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from intent.errors import IntentError
from intent.run.columns import Columns


@dataclass(frozen=True)
class Subject:
    """A run from `inputs` to `output`. `name`: the same for every nightly run. `fields`: of the labels. `day`: the date.

    `publish`: the table or folder that also gets the labels.
    """

    name: str
    inputs: Sequence[str]
    output: str
    columns: Columns
    fields: Sequence[pa.Field]
    day: date | None = None
    publish: str | None = None


def described(error: BaseException) -> str:
    """Return an error's type and, for this project's errors, its text. A library's text may quote a message."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}" if isinstance(cause, IntentError) else type(cause).__name__
