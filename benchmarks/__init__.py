"""How fast the engine is, beside its neighbours: one file a question, each contender in a process of its own.

``python -m benchmarks`` prepares an environment for each library, runs every question over several rounds
with the contenders in turn, and prints medians and ratios.  Absolute times say little on a machine that
others use; ratios within one run say something.
"""
