"""Synthetic messages: what shoppers write, generated from language files by seed.

Knows schemas and catalogs; knows nothing of models, tokens or Ray.
"""
