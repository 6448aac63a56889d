"""The fan-out of a classifier over a night's query log.

`run.py` is the night from beginning to end. `shard.py` cuts the input, `queue.py` decides who gets which shard, `fleet.py`
has the actors and `metrics.py` what is seen of them (these two alone know Ray), `actor.py` and `worker.py` label a shard,
`part.py` and `ledger.py` commit it. For `jobs.nightly`, `arrival.py` waits for the input, `accept.py` takes a night from
its staging place to its readers if `gate.py` finds nothing against it, and `journal.py` and `page.py` keep what the nights
looked like. Knows classifiers by the interface in `intent/engine/__init__.py` only.
"""
