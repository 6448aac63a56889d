"""The label cache of a job: what a variant's labels are kept under, and what is done about the cache beside labelling."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial

from intent.artifacts import Artifact, fingerprint
from intent.artifacts.lineage import Lineage
from intent.artifacts.variant import CASCADE, LINEAR, VariantSpec
from intent.engine import calibration, parity
from intent.errors import ConfigError, CorruptData, IntentError
from intent.label_cache import LabelCache, Limits, Scope, find_secret, merge, scopes
from intent.label_cache.config import CacheConfig, CacheVariants
from intent.label_cache.key import VARIABLE
from intent.label_cache.pointer import FOLDER
from intent.run import fresh
from intent.storage import StorageOptions, Store, open_store
from intent.task import prompt
from jobs.app import Steps, reason_of, say, watcher

GIGABYTE = 10**9
# A night is done without its cache: a task whose process hangs must not hold the job.
MOST_SECONDS = 1800
RESTARTS = 3


def label_cache(lineage: Lineage, name: str, variant: Artifact) -> LabelCache | None:
    """The cache that the variant's labels are kept in; None where the job uses none."""
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
    """None, told once, where the workspace has no key and takes none. `variable`: of the environment, which goes before it."""
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
    return Limits(int(config.gigabytes * GIGABYTE), config.days)


def _store(lineage: Lineage, scope: str) -> Store:
    return open_store(f"{lineage.config.workspace}/{FOLDER}/{scope}", lineage.options)


def _facts(lineage: Lineage, name: str, variant: Artifact) -> dict[str, object]:
    """Everything that decides a label but the message. The variant's fingerprint is of its files: weights, calibration."""
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
        # Whose answer counts hangs on it, too.
        facts["cascade_below"] = engine.abstain_below
    if lineage.config.cache.variants is CacheVariants.any and _checked(lineage, name, variant):
        # The class of the variants that were found to label as this checkpoint does.
        facts |= {"variant": "any", "model": variant.record.inputs["checkpoint"]}
        facts["calibration"] = variant.record.files.get(calibration.FILE, {}).get("sha256")
    return facts


def _checked(lineage: Lineage, name: str, variant: Artifact) -> bool:
    """Whether its actors start only where it labels the gold set as the unquantized model did."""
    alone = VariantSpec.parse(name).engine not in (*LINEAR, CASCADE) and "checkpoint" in variant.record.inputs
    return alone and parity.GOLD in variant.record.files and lineage.config.engine.parity_messages > 0


@contextmanager
def tending(lineage: Lineage, variants: Mapping[str, Artifact]) -> Iterator[Callable[[str], None]]:
    """While a night is labelled, its caches are merged, evicted from and rid of what does not count. Nothing waits for it,
    and what fails is told and no more.

    Yields what is to be called with the output of the night that is finished, for the caches to learn its labels.
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
    """Looks after caches beside the labelling, in one process: at the end it is up, and what was learnt is read at once."""

    def __init__(self, mine: Sequence[LabelCache], lineage: Lineage):
        self.mine, self.lineage = mine, lineage

    def tend(self) -> None:
        _tend(self.mine, self.lineage)

    def learn(self, output: Store) -> int:
        return fresh.learn(output, self.mine)


def _tend(mine: Sequence[LabelCache], lineage: Lineage) -> None:
    for cache in mine:
        if merge.due(cache, cache.read()):
            merge.compact(cache)
        cache.collect()
    for name in set(scopes(open_store(lineage.config.workspace, lineage.options))) - {cache.scope.name for cache in mine}:
        other = LabelCache(_store(lineage, name), Scope(name), limits(lineage.config.cache))
        # Perhaps of a newer version.
        with suppress(CorruptData):
            if not merge.expire(other):
                other.collect()


def _learn(lineage: Lineage, keeper: Callable, output: str) -> None:
    """What a finished night left in `output` goes into the caches. A night is no less done where this fails."""
    import ray

    store = open_store(output, lineage.options)

    def learn() -> None:
        with Steps("label cache", "label", watcher(lineage.config.cluster)) as steps:
            steps.update(0, 0, "learns what is new")
            learnt = ray.get(keeper().learn.remote(store), timeout=MOST_SECONDS)
            steps.update(learnt, learnt)

    if next(store.list(f"{fresh.FOLDER}/"), None):
        _try("has not learnt this night's labels; run the same command again", learn)


def _caches(lineage: Lineage, variants: Mapping[str, Artifact]) -> list[LabelCache]:
    """One of each scope."""
    found = [label_cache(lineage, name, variant) for name, variant in variants.items()]
    return list({cache.scope.name: cache for cache in found if cache}.values())


def _try(trouble: str, call: Callable[[], object]) -> None:
    from ray.exceptions import RayError

    try:
        call()
    except (IntentError, OSError, RayError) as error:
        say(f"the label cache {trouble}: {reason_of(error)}")
