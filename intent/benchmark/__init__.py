"""Measure speed: engines beside what a user would pick instead, a run's fan-out, the label cache, and catalogs of any size.

`engines.py` plans a benchmark of engines. `meters.py` measures ours and the limit, and `peers.py` others. `shapes.py` makes
models of a published shape. `fan_out.py` and `label_cache.py` measure runs, mostly with the engine of `stub.py`, which costs
nothing. `catalog_sizes.py` measures what a catalog's size costs, on catalogs of `large_catalog.py`.
"""
