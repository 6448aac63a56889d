"""Open the label caches of a job by scope, maintain them during labelling, and add the labels of a finished run."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial

from intent.artifacts import Artifact, fingerprint
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import CASCADE, LINEAR, VariantSpec
from intent.engine import calibration, golden_set
from intent.errors import ConfigError, CorruptData, IntentError
from intent.label_cache import LabelCache, Limits, Scope, find_secret, merge, scopes
from intent.label_cache.config import CacheConfig, CacheVariants
from intent.label_cache.key import VARIABLE
from intent.label_cache.pointer import FOLDER
from intent.run import new_labels
from intent.storage import StorageOptions, Store, open_store
from intent.task import prompt
from jobs.app import Steps, reason_of, say, watcher

GIGABYTE = 10**9
# A run does not depend on its cache, so a maintenance task that hangs must not hold the job.
MOST_SECONDS = 1800
RESTARTS = 3


def label_cache(lineage: Lineage, name: str, variant: Artifact) -> LabelCache | None:
    """Return the label cache of a variant, or None if the job uses none."""
    config = getattr(lineage.config, "cache", None)
    if not config or not config.enabled:
        return None
    secret = _secret(lineage.config.workspace, lineage.options, os.environ.get(VARIABLE))
    if secret is None:
        return None
    scope = Scope.of(_facts(lineage, name, variant), secret)
    return LabelCache(_store(lineage, scope.name), scope, limits(config), config.sample, config.agreement)


@lru_cache
def _secret(workspace: str, options: StorageOptions, variable: str | None) -> bytes | None:
    """Return the cache's key. If the workspace has none and cannot store one, returns None and tells the operator once.

    `variable`: the value of the environment variable, which takes precedence. It is an argument only for `lru_cache`.
    """
    try:
        return find_secret(open_store(workspace, options))
    except ConfigError as error:
        if error.field != "uri":
            raise
        reason = error
    except (IntentError, OSError) as error:
        reason = error
    say(f"goes on without the label cache: {reason_of(reason)}")
    return None


def limits(config: CacheConfig) -> Limits:
    """Return the cache's limits in bytes and days."""
    return Limits(int(config.gigabytes * GIGABYTE), config.days)


def _store(lineage: Lineage, scope: str) -> Store:
    return open_store(f"{lineage.config.workspace}/{FOLDER}/{scope}", lineage.options)


def _facts(lineage: Lineage, name: str, variant: Artifact) -> dict[str, object]:
    """Return everything that determines a label, except for the message. The variant's fingerprint covers its files."""
    engine = lineage.config.engine
    facts = {
        "variant": name,
        "model": variant.fingerprint,
        "output_format": variant.record.output_format or lineage.config.output_format.value,
        "schema": lineage.schema_fingerprint,
        "prompt": fingerprint([prompt.VERSION, lineage.prompt.prefix]),
        "max_message_tokens": engine.max_message_tokens,
    }
    if name.startswith(f"{CASCADE}-"):
        # This threshold decides which of the cascade's models answers.
        facts["cascade_below"] = engine.abstain_below
    if lineage.config.cache.variants is CacheVariants.any and _checked(lineage, name, variant):
        # All variants that passed the golden-set check against this checkpoint share one scope.
        facts |= {"variant": "any", "model": variant.record.inputs["checkpoint"]}
        facts["calibration"] = variant.record.files.get(calibration.FILE, {}).get("sha256")
    return facts


def _checked(lineage: Lineage, name: str, variant: Artifact) -> bool:
    """Return whether the variant's actors start only after the golden-set check against the unquantized model."""
    alone = VariantSpec.parse(name).engine not in (*LINEAR, CASCADE) and "checkpoint" in variant.record.inputs
    return alone and golden_set.FILE in variant.record.files and lineage.config.engine.golden_messages > 0


@contextmanager
def tending(lineage: Lineage, variants: Mapping[str, Artifact]) -> Iterator[Callable[[str], None]]:
    """Merge, evict and clean the caches of the job while it labels. Labelling does not wait for this, and a failure is only
    reported.

    Yields a function that adds the labels of a finished run, given its output, to the caches.
    """
    import ray

    mine = _caches(lineage, variants)
    options = {"num_cpus": 0, "max_concurrency": 2, "max_restarts": RESTARTS, "max_task_retries": RESTARTS}
    start = partial(ray.remote(Keeper).options(**options).remote, mine, lineage)
    if not mine:
        yield lambda output: _learn(lineage, start, output)
        return
    keeper = start()
    try:
        call = keeper.tend.remote()
        yield lambda output: _learn(lineage, lambda: keeper, output)
        _try("is not tended", lambda: ray.get(call, timeout=MOST_SECONDS))
    finally:
        ray.kill(keeper)


class Keeper:
    """Maintain caches in one process beside the labelling, which is already running when the run's labels are added."""

    def __init__(self, mine: Sequence[LabelCache], lineage: Lineage):
        self.mine, self.lineage = mine, lineage

    def tend(self) -> None:
        """Merge, evict and clean the caches."""
        _tend(self.mine, self.lineage)

    def learn(self, output: Store) -> int:
        """Add a finished run's labels to the caches. Returns their number."""
        return new_labels.learn(output, self.mine)


def _tend(mine: Sequence[LabelCache], lineage: Lineage) -> None:
    for cache in mine:
        if merge.due(cache, cache.read()):
            merge.compact(cache)
        cache.collect()
    for name in set(scopes(open_store(lineage.config.workspace, lineage.options))) - {cache.scope.name for cache in mine}:
        other = LabelCache(_store(lineage, name), Scope(name), limits(lineage.config.cache))
        # A newer version may have written a pointer that this version cannot read.
        with suppress(CorruptData):
            if not merge.expire(other):
                other.collect()


def _learn(lineage: Lineage, keeper: Callable, output: str) -> None:
    """Add the labels that a finished run left in `output` to the caches. A failure does not affect the run."""
    import ray

    store = open_store(output, lineage.options)

    def learn() -> None:
        with Steps("label cache", "label", watcher(lineage.config.cluster)) as steps:
            steps.update(0, 0, "adds new labels")
            learned = ray.get(keeper().learn.remote(store), timeout=MOST_SECONDS)
            steps.update(learned, learned)

    if next(store.list(f"{new_labels.FOLDER}/"), None):
        _try("has not learned this run's labels; run the same command again", learn)


def _caches(lineage: Lineage, variants: Mapping[str, Artifact]) -> list[LabelCache]:
    """Return the caches of the variants, one per scope."""
    opened = [label_cache(lineage, name, variant) for name, variant in variants.items()]
    return list({cache.scope.name: cache for cache in opened if cache}.values())


def _try(trouble: str, call: Callable[[], object]) -> None:
    from ray.exceptions import RayError

    try:
        call()
    except (IntentError, OSError, RayError) as error:
        say(f"the label cache {trouble}: {reason_of(error)}")
