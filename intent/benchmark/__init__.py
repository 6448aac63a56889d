"""Measure speed: of engines and their alternatives, a run's fan-out, the label cache, and large catalogs.

`engines.py` plans a benchmark of engines. `meters.py` measures our engines and the hardware's limit, and `peers.py` measures
alternatives. `shapes.py` makes models of a published shape. `fan_out.py` and `label_cache.py` measure runs, mostly with the
stub engine of `stub.py`. `catalog_sizes.py` measures the effect of a catalog's size on catalogs from `large_catalog.py`.
"""
