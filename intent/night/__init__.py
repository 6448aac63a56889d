"""The fan-out of a classifier over a night's query log.

`shard.py` cuts the input, `ledger.py` commits, `worker.py` labels one shard, `fleet.py` (the only one that knows Ray)
gives shards to actors. Knows classifiers by the interface in `intent/engine/__init__.py` only.
"""
