"""Label a query log on a cluster, exactly once per row, and check each nightly run before it is published.

One labelling run: `run.py` runs all its steps. `listing.py` lists the input and `shard.py` cuts it into shards. `queue.py`
decides which actor gets which shard. `fleet.py` owns the actors; `metrics.py` exports their metrics. On an actor, `actor.py`
and `worker.py` label a shard. `part.py` builds its part and `ledger.py` commits it.

Around a nightly run: `arrival.py` waits for the input, `gate.py` checks the result, `accept.py` publishes it, and `journal.py`
and `page.py` keep its history.

Only `fleet.py`, `metrics.py`, `survey.py` and the benchmarks import Ray. The package knows classifiers only through the
interface in `intent/engine/__init__.py`.
"""
