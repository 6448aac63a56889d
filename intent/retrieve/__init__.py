"""Retrieve the products of a large catalog that a message may be about.

`vectors.py` embeds text, and `training.py` learns the embedding. `cells.py` clusters the vector space, `index.py` cuts a
catalog into shelves of similar products, and `route.py` selects the shelves for a message: one, two or none. This package knows
nothing of language models or runs.
"""
