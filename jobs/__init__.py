"""Hydra entry points, one per job: `python -m jobs.NAME --help`. They only wire the library's parts together."""
