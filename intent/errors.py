"""Define the named errors. A message names the field, its value and the remedy. A class has the exit code of its job."""

import traceback
from pathlib import Path


class IntentError(Exception):
    """The base of every error that a job reports in one line instead of a traceback."""

    exit_code = 1


class ConfigError(IntentError):
    """A configuration value is refused, before any work."""

    exit_code = 2

    def __init__(self, field: str, value: object, remedy: str):
        super().__init__(f"{field}={value!r}: {remedy}")
        self.field, self.value, self.remedy = field, value, remedy

    def __reduce__(self):
        return type(self), (self.field, self.value, self.remedy)


class MissingArtifact(IntentError):
    """An artifact that an earlier job makes does not exist."""

    exit_code = 2


class ShardsFailed(IntentError):
    """Some shards failed, and all others finished. A second run tries just those again."""

    exit_code = 3


class ManifestLost(IntentError):
    """Another run wrote its manifest for the same output first."""

    exit_code = 4


class StoreUnfit(IntentError):
    """The object store lacks a guarantee that the commit protocol needs."""

    exit_code = 5


class RunMismatch(ConfigError):
    """The output holds a run of other models, prompts, schemas or inputs. They are never mixed."""


class Quarantined(IntentError):
    """A nightly run is labelled but outside its limits. It is not published."""

    exit_code = 7


class NotArrived(IntentError):
    """The input of a nightly run is not complete in time."""

    exit_code = 8


class CorruptData(IntentError):
    """Bytes do not match their SHA-256, or a file is not what it claims to be."""


class Disagreement(IntentError):
    """An engine's labels differ from the reference's on the gold set by more than the allowed share."""

    exit_code = 6


class EngineHung(IntentError):
    """An actor finished nothing for far too long, while loading its engine or at work. It is killed."""

    exit_code = 3


class EngineFailed(IntentError):
    """An engine raised an unexpected error. Says its kind and place but not its text, which may quote messages."""

    def __init__(self, variant: str, error: Exception):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        super().__init__(
            f"{variant} raised {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} ({frame.name})"
        )

    def __reduce__(self):
        # Tracebacks do not travel to other processes.
        return IntentError, self.args


def require(ok: bool, field: str, value: object, remedy: str) -> None:
    """Raise ConfigError for `field` unless `ok`."""
    if not ok:
        raise ConfigError(field, value, remedy)
