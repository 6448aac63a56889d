"""Manage the workspace's cache of labels: show it, check its files, evict old labels, or delete it."""

import sys

from intent.config import CacheJobConfig
from intent.errors import ConfigError, CorruptData
from intent.label_cache import LabelCache, Scope, merge, scopes
from intent.label_cache.config import CacheAction
from intent.label_cache.pointer import FOLDER
from intent.storage import open_store
from jobs.app import job, say
from jobs.caching import limits


def caches(config: CacheJobConfig) -> list[LabelCache]:
    """Return the cache of the configured scope, or all caches. Raises ConfigError if there is no such scope."""
    options = config.storage.options()
    scope_names = list(scopes(open_store(config.workspace, options)))
    if config.scope is not None and config.scope not in scope_names:
        raise ConfigError("scope", config.scope, f"there is no such scope; use one of {scope_names}")
    names = scope_names if config.scope is None else [config.scope]
    stores = {name: open_store(f"{config.workspace}/{FOLDER}/{name}", options) for name in names}
    # The actions look up no message, so the scopes need no key.
    return [LabelCache(store, Scope(name), limits(config.cache)) for name, store in stores.items()]


def run(config: CacheJobConfig) -> int:
    """Run the action on each cache. Returns the exit code."""
    selected = caches(config)
    if not selected:
        say(f"no label cache in {config.workspace}")
    return max([_ACTIONS[config.action](cache) for cache in selected], default=0)


def stats(cache: LabelCache) -> int:
    """Show the cache's size and age."""
    try:
        pointer = cache.read()
    except CorruptData as error:
        say(f"{cache.scope.name}: {error}")
        return 0
    facts = ", ".join(f"{name} {value}" for name, value in pointer.facts.items())
    days = sorted({int(day) for file in pointer.files for day in file.used})
    used = f", last used {cache.day - days[-1]} to {cache.day - days[0]} days ago" if days else ""
    say(f"{cache.scope.name}: {pointer.rows:,} labels of {len(pointer.nights):,} runs in {len(pointer.files):,} files{used}")
    say(f"  {pointer.bytes / 1e6:,.1f} MB, and {len(pointer.retired):,} files that are deleted later")
    say(f"  {facts or 'nothing is stored yet'}")
    if pointer.dropped:
        say(f"  dropped on {pointer.dropped}")
    return 0


def verify(cache: LabelCache) -> int:
    """Check the cache's files. Returns 1 if one is damaged or missing."""
    wrong = merge.verify(cache)
    for line in wrong:
        say(f"{cache.scope.name}: {line}")
    remedy = "runs ignore damaged files, and action=prune removes them"
    say(f"{cache.scope.name}: {f'{len(wrong)} problems; {remedy}' if wrong else 'all files are intact'}")
    return int(bool(wrong))


def prune(cache: LabelCache) -> int:
    """Evict labels beyond the limits. Returns 1 if the cache cannot be read."""
    try:
        before = cache.read()
    except CorruptData as error:
        say(f"{cache.scope.name}: {error}; action=delete removes it")
        return 1
    merge.compact(cache)
    deleted, after = cache.collect(), cache.read()
    say(f"{cache.scope.name}: {before.rows:,} labels before, {after.rows:,} after; {deleted:,} files deleted")
    return 0


def delete(cache: LabelCache) -> int:
    """Delete the cache."""
    say(f"{cache.scope.name}: {cache.delete():,} files deleted")
    return 0


_ACTIONS = {
    CacheAction.stats: stats,
    CacheAction.verify: verify,
    CacheAction.prune: prune,
    CacheAction.delete: delete,
}


@job("cache", CacheJobConfig)
def main(config: CacheJobConfig) -> None:
    sys.exit(run(config))


if __name__ == "__main__":
    main()
