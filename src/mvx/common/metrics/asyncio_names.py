"""The documented ``Asyncio…`` spellings: other names of the very same objects, on every backend."""

from __future__ import annotations

from ._inbox import OverflowPolicy as AsyncioMetricsRecorderQueueOverflowPolicy
from ._lifecycle import RecorderOp as AsyncioMetricsRecorderOp
from ._lifecycle import RecorderOpResult as AsyncioMetricsRecorderOpResult
from ._lifecycle import RecorderState as AsyncioMetricsRecorderState
from ._lifecycle import RecorderWaitHandle as AsyncioMetricsRecorderWaitHandle
from ._recorder import MetricsRecorder as AsyncioMetricsRecorder
from .errors import RecorderDispatcherCancelledError as AsyncioMetricsRecorderDispatcherCancelledError
from .errors import RecorderError as AsyncioMetricsRecorderError
from .errors import RecorderInvalidStateError as AsyncioMetricsRecorderInvalidStateError
from .errors import RecorderLoopUnavailableError as AsyncioMetricsRecorderLoopUnavailableError
from .errors import RecorderOnStartingHookFailedError as AsyncioMetricsRecorderOnStartingHookFailedError
from .errors import RecorderOnStoppedHookFailedError as AsyncioMetricsRecorderOnStoppedHookFailedError
from .errors import RecorderQueueOverflowError as AsyncioMetricsRecorderQueueOverflowError
from .errors import RecorderUnexpectedError as AsyncioMetricsRecorderUnexpectedError

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
]
