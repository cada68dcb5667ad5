"""Structured metric events: production code says what happened, and carries on.

An **event** (:class:`MetricEvent`) is a fact that a component reports.  The component hands it to
the **recorder** that was passed into it, through :class:`MetricsRecorderProto`, the one contract
that production code depends on.  The recorder's **inbox** takes it from any thread at the price of
a function call; what happens when it is full is an :class:`OverflowPolicy`.  The recorder is an
actor: on its own event loop it takes the events out in batches and hands each to the **metrics**
(:class:`Metric`) that want its class; what happens when one raises is a :class:`FailurePolicy`.  A
metric keeps measured state, and a **snapshot** shows it.  A recorder's subclass reacts through
**hooks**.

A recorder lives on the loop that it was made on, in a task group (``async with``), or in a
:class:`MetricsRuntime`, which owns a thread with an asyncio or trio loop for an application's
recorders::

    with MetricsRuntime(namespace="shop") as runtime:
        orders = Orders(metrics_recorder=runtime.create_recorder("orders"))

Where every event went is told by :class:`RecorderStatistics`.  A component emits most easily through
a :class:`MetricsEmitter`, and times its work with :func:`observe`.  Most metrics need not be written:
:mod:`mvx.common.metrics.instruments` has them ready-made.
"""

from __future__ import annotations

from ._dispatch import FailurePolicy
from ._event import MetricEvent
from ._inbox import OverflowPolicy
from ._lifecycle import RecorderOp, RecorderOpResult, RecorderState, RecorderWaitHandle
from ._metric import Metric
from ._protocols import MetricsRecorderProto
from ._recorder import MetricsRecorder
from ._runtime import MetricsRuntime
from ._statistics import RecorderStatistics
from ._supervisor import MetricsRuntimeState
from .asyncio_names import (
    AsyncioMetricsRecorder,
    AsyncioMetricsRecorderDispatcherCancelledError,
    AsyncioMetricsRecorderError,
    AsyncioMetricsRecorderInvalidStateError,
    AsyncioMetricsRecorderLoopUnavailableError,
    AsyncioMetricsRecorderOnStartingHookFailedError,
    AsyncioMetricsRecorderOnStoppedHookFailedError,
    AsyncioMetricsRecorderOp,
    AsyncioMetricsRecorderOpResult,
    AsyncioMetricsRecorderQueueOverflowError,
    AsyncioMetricsRecorderQueueOverflowPolicy,
    AsyncioMetricsRecorderState,
    AsyncioMetricsRecorderUnexpectedError,
    AsyncioMetricsRecorderWaitHandle,
)
from .emitting import MetricsEmitter, Outcome, OutcomeEvent, observe
from .errors import (
    MetricsError,
    MetricsRuntimeError,
    MetricsRuntimeInvalidStateError,
    MetricsRuntimeLoopUnavailableError,
    MetricsRuntimeRecorderAlreadyExistsError,
    MetricsRuntimeRecorderError,
    MetricsRuntimeRecorderNotFoundError,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeStartupError,
    MetricsRuntimeUnexpectedError,
    MetricsRuntimeWouldDeadlockError,
    RecorderDispatcherCancelledError,
    RecorderDrainTimeoutError,
    RecorderError,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderOnStartingHookFailedError,
    RecorderOnStoppedHookFailedError,
    RecorderQueueOverflowError,
    RecorderTimeoutError,
    RecorderUnexpectedError,
    RecorderWouldDeadlockError,
)

__all__ = [
    "AsyncioMetricsRecorder",
    "AsyncioMetricsRecorderDispatcherCancelledError",
    "AsyncioMetricsRecorderError",
    "AsyncioMetricsRecorderInvalidStateError",
    "AsyncioMetricsRecorderLoopUnavailableError",
    "AsyncioMetricsRecorderOnStartingHookFailedError",
    "AsyncioMetricsRecorderOnStoppedHookFailedError",
    "AsyncioMetricsRecorderOp",
    "AsyncioMetricsRecorderOpResult",
    "AsyncioMetricsRecorderQueueOverflowError",
    "AsyncioMetricsRecorderQueueOverflowPolicy",
    "AsyncioMetricsRecorderState",
    "AsyncioMetricsRecorderUnexpectedError",
    "AsyncioMetricsRecorderWaitHandle",
    "FailurePolicy",
    "Metric",
    "MetricEvent",
    "MetricsEmitter",
    "MetricsError",
    "MetricsRecorder",
    "MetricsRecorderProto",
    "MetricsRuntime",
    "MetricsRuntimeError",
    "MetricsRuntimeInvalidStateError",
    "MetricsRuntimeLoopUnavailableError",
    "MetricsRuntimeRecorderAlreadyExistsError",
    "MetricsRuntimeRecorderError",
    "MetricsRuntimeRecorderNotFoundError",
    "MetricsRuntimeRecorderStartupError",
    "MetricsRuntimeRecorderStopError",
    "MetricsRuntimeShutdownError",
    "MetricsRuntimeStartupError",
    "MetricsRuntimeState",
    "MetricsRuntimeUnexpectedError",
    "MetricsRuntimeWouldDeadlockError",
    "Outcome",
    "OutcomeEvent",
    "OverflowPolicy",
    "RecorderDispatcherCancelledError",
    "RecorderDrainTimeoutError",
    "RecorderError",
    "RecorderInvalidStateError",
    "RecorderLoopUnavailableError",
    "RecorderOnStartingHookFailedError",
    "RecorderOnStoppedHookFailedError",
    "RecorderOp",
    "RecorderOpResult",
    "RecorderQueueOverflowError",
    "RecorderState",
    "RecorderStatistics",
    "RecorderTimeoutError",
    "RecorderUnexpectedError",
    "RecorderWaitHandle",
    "RecorderWouldDeadlockError",
    "observe",
]
