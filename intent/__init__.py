"""intent: shopper messages to structured intents, with small language models, on Ray.

Start with `task/schema.py` (what a message can mean), `task/prompt.py` (how it is asked), `engine/automaton.py` and
`engine/decode.py` (how an answer is chosen) and `run/ledger.py` (how a run's work is committed). `AGENTS.md` says where to make
a change. Nothing in this package reads Hydra. Ray is imported only by `train/runner.py`, by `run/` (the actor pool, the metrics
and the survey) and by `benchmark/`.
"""

__version__ = "0.1.0"
