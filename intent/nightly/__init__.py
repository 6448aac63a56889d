"""Do what surrounds a run every night.

`addresses.py` finds the night's addresses and `arrival.py` waits for its input. `gate.py` compares the run with the last ones,
`promotion.py` publishes it to its readers if it is within limits, and `journal.py` and `pages.py` keep its history.
"""
