"""intent: shopper messages to structured intents, with small language models, on Ray.

Start with `schema.py` (what a message can mean), `prompt.py` (how it is asked), `engine/automaton.py` and
`engine/decode.py` (how an answer is chosen) and `night/ledger.py` (how a night's work is committed). Nothing in this
package reads Hydra. Ray is imported only by `train/runner.py` and by the fleet, the metrics, the survey and the benchmarks of
`night/`.
"""

__version__ = "0.1.0"
