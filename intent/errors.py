"""Named errors. Each message names the field, its value and the remedy; each class has the exit code of its job."""

import traceback
from pathlib import Path


class IntentError(Exception):
    """Base of every error that a job reports in one line instead of a traceback."""

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
    """Something an earlier job makes is not there."""

    exit_code = 2


class ShardsFailed(IntentError):
    """Some shards failed after all others finished; a second run tries just those again."""

    exit_code = 3


class ManifestLost(IntentError):
    """Another run's manifest for the same output won."""

    exit_code = 4


class StoreUnfit(IntentError):
    """The object store lacks a guarantee that the commit protocol needs."""

    exit_code = 5


class RunMismatch(ConfigError):
    """The output holds a run of other models, prompts, schemas or inputs; they are never mixed."""


class Quarantined(IntentError):
    """A night is labelled and outside its limits; it is not published."""

    exit_code = 7


class NotArrived(IntentError):
    """The night's input is not complete in time."""

    exit_code = 8


class CorruptData(IntentError):
    """Bytes do not match their SHA-256, or a file cannot be read as what it claims to be."""


class Disagreement(IntentError):
    """An engine's labels differ from the reference's on the gold set by more than the allowed share."""

    exit_code = 6


class EngineHung(IntentError):
    """An actor has done nothing for far too long, at loading its engine or at work; it is killed."""

    exit_code = 3


class EngineFailed(IntentError):
    """An engine raised what it does not raise by itself. Says what and where, not its words, which may quote messages."""

    def __init__(self, variant: str, error: Exception):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        super().__init__(
            f"{variant} raised {type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} ({frame.name})"
        )

    def __reduce__(self):
        # No traceback goes to another process.
        return IntentError, self.args
