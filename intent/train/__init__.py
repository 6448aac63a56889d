"""Fine-tune a base model on examples and merge the result into a 16-bit checkpoint.

`base.py` loads base models, `vocabulary.py` trims their vocabulary, `batches.py` packs messages behind shared prefixes,
`attention.py` computes attention over packed rows, `loop.py` trains, `merge.py` merges the adapter, and `linear.py` fits linear
classifiers. Only `runner.py`, which runs the loop on workers, knows Ray.
"""
