"""One Hydra entry point a job, only wiring: `python -m jobs.NAME --help`."""
