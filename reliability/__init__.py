"""What becomes of events when things go wrong: situations, run with this library and with mvx-common 0.3.0.

``python -m reliability`` runs the long profile of the fault tests and every situation, and renews the tables
of ``docs/reliability.md``.
"""
