"""Hold labelled messages as data: examples, the files of a data set, messages that people labelled, and repeated messages.

Knows schemas and catalogs; knows nothing of models or of how messages are made.
"""
