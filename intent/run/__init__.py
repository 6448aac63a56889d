"""Label a query log on a cluster, exactly once per row.

`driver.py` runs all steps of a run. `listing.py` lists the input and `shard.py` cuts it into shards. `queue.py` decides which
actor gets which shard. `actor_pool.py` owns the actors; `metrics.py` exports their metrics. On an actor, `actor.py` and
`worker.py` label a shard. `part.py` builds its part and `ledger.py` commits it.
`inspection.py` reads a run's output afterwards and sums it up.

Only `actor_pool.py`, `metrics.py` and `survey.py` import Ray. The package knows classifiers only through the interface in
`intent/engine/__init__.py`, and nothing of the steps around a nightly run (`intent/nightly/`).
"""
