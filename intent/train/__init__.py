"""From a base model and examples to a 16-bit checkpoint.

`base.py` finds base models, `batches.py` lays messages behind one shared prefix, `loop.py` is the training itself,
`merge.py` folds the adapter in, `runner.py` (the only one that knows Ray) puts the loop on workers.
"""
