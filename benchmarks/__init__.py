"""How fast the engine is: one file a question, each contender in a process of its own.

``python -m benchmarks`` runs every question and prints medians over several rounds and the ratio to
the limit, a function that appends to a deque.  Absolute times say little on a machine that others
use, ratios within one run say something.
"""
