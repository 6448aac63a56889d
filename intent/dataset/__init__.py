"""Hold labeled messages as data: examples, the files of a data set, imported messages, and the search for duplicates.

This package knows schemas and catalogs. It knows nothing of models or of how messages are generated.
"""
