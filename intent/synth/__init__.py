"""Generate synthetic shoppers' messages from a grammar, language files and a seed.

This package knows schemas and catalogs. It knows nothing of models, tokens or Ray.
"""
