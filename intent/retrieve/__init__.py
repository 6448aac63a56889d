"""Which products of a large catalog a message may be about.

`vectors.py` reads text as vectors, `training.py` learns them. `cells.py` cuts their space, `index.py` a catalog into shelves of
like products, and `route.py` names the one or two shelves that a message is asked about, or none. Knows no model and no night.
"""
