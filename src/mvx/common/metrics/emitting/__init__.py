"""Emitting made easy: what a production component holds, and what times its work.

:class:`MetricsEmitter` takes the place of the helper that every instrumented component would write for
itself: it registers the component's metrics, emits its events, does nothing without a recorder, and lets no
trouble of the metrics into production.  :func:`observe` times a block or a function of any kind and emits
an event made from its :class:`Outcome`, for which :class:`OutcomeEvent` is a ready base class.

All four are names of :mod:`mvx.common.metrics`, too.  Nothing of the kernel imports this package.
"""

from __future__ import annotations

from ._emitter import MetricsEmitter
from ._observe import MethodObservation, Observation, observe
from ._outcome import Outcome, OutcomeEvent, OutcomeStatus

__all__ = ["MethodObservation", "MetricsEmitter", "Observation", "Outcome", "OutcomeEvent", "OutcomeStatus", "observe"]
