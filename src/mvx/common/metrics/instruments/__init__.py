"""Ready-made metrics: say which events and what of them, and register.

Each instrument is an ordinary :class:`~mvx.common.metrics.Metric`, typed by the events that it is told to
look at::

    from mvx.common.metrics.instruments import Counter

    recorder = MetricsRecorder("shop")
    placed = Counter("orders.placed", on=OrderPlaced)
    recorder.register_metric(placed)
    recorder.register_event(OrderPlaced())
    await recorder.flush()
    assert placed.snapshot()["dimensions"] == {"total": 1}

What one wants to know decides which one it is: **how many** (:class:`Counter`), **how much** in all
(:class:`Sum`), **how many at once** (:class:`UpDownCounter`), **how it stands** now (:class:`Gauge`), **how often**
(:class:`Rate`), **which share** (:class:`Ratio`), **how it is distributed**, in figures (:class:`Summary`) or
as counts between bounds (:class:`Histogram`).

All take the same options.  ``on`` names the event class or classes; ``value`` is what to measure, an attribute's
name or a function of the event; ``when`` keeps the events that are meant.  An attribute that the events do
not have is an error at once.  With ``tags`` an instrument keeps a **series** for each combination of
tag values (:func:`label_of` says what becomes of a value).  There are at most ``max_series``, and one more
which takes what has no room, with ``"__overflow__"`` (:data:`OVERFLOW`) for every tag; ``expire_after`` seconds
without an event end a series.

A **snapshot** has the documented ``name`` and ``dimensions``, numbers or None, and tells the
instrument's ``kind``, ``unit``, ``description`` and ``series``: plain JSON values.  Reading changes nothing, so any
number of readers can each have what is new to them: :func:`snapshot_delta`.

What is no number to measure (NaN, an infinity, a bool, text, None; where something can only
grow, what is negative) is counted as ``invalid``, and the first is logged.  The memory of every instrument is bounded,
whatever comes.

An instrument **belongs to one recorder**, as every metric does, which hands it one event at a time; so it has no lock.
Ask the recorder for its snapshot, from any thread, rather than the instrument while events are being handled.
"""

from __future__ import annotations

from ._tags import OVERFLOW, Label, label_of
from .counter import Counter
from .delta import snapshot_delta
from .gauge import Gauge
from .histogram import Histogram
from .rate import Rate
from .ratio import Ratio
from .sum import Sum
from .summary import Summary
from .updown import UpDownCounter

__all__ = [
    "OVERFLOW",
    "Counter",
    "Gauge",
    "Histogram",
    "Label",
    "Rate",
    "Ratio",
    "Sum",
    "Summary",
    "UpDownCounter",
    "label_of",
    "snapshot_delta",
]
