"""Do the steps around a nightly run.

`addresses.py` fills in the addresses for a date, and `arrival.py` waits for the input. `gate.py` compares the run with the last
ones, `promotion.py` publishes it to its readers if it is within its limits, and `journal.py` and `pages.py` keep its history.
Knows nothing of Ray or Hydra.
"""
