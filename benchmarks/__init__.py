"""Side-by-side measurements: `python -m benchmarks` runs them all, `python -m benchmarks metrics` one.

Each module measures slotlib and a peer in one run, in turns, on one thread, and returns `Row`s. Both sides are checked
to compute the same thing wherever they can be. The table states the goal beside every figure, met or not.
"""
