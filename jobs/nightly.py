"""Classify one date's query log: `classify` with `{date}` filled in, by default for yesterday (UTC)."""

from datetime import UTC, date, datetime, timedelta

from intent.config import NightlyConfig
from intent.errors import ConfigError
from jobs.app import cluster, job, say
from jobs.classify import classify, describe

YESTERDAY = "yesterday"


def resolve(text: str, today: date) -> date:
    """The date that `text` names. Raises ConfigError."""
    if text == YESTERDAY:
        return today - timedelta(days=1)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError("date", text, f"give {YESTERDAY} or a date as YYYY-MM-DD") from None


def fill(field: str, uri: str, day: date) -> str:
    if "{date}" not in uri:
        raise ConfigError(field, uri, "must hold {date}, so that each night has a place of its own")
    return uri.replace("{date}", day.isoformat())


@job("nightly", NightlyConfig)
def main(config: NightlyConfig) -> None:
    day = resolve(config.date, datetime.now(UTC).date())
    config.input, config.output = fill("input", config.input, day), fill("output", config.output, day)
    with cluster(config.cluster):
        summary = classify(config)
    say(f"night of {day}: {describe(summary)}")


if __name__ == "__main__":
    main()
