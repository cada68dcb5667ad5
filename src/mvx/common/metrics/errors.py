"""Every exception that the library raises or reports, in two families.

:class:`RecorderError` and :class:`MetricsRuntimeError` share :class:`MetricsError`, whose
``message``, ``details``, ``cause``, ``reason_code`` and ``to_log_payload()`` each class fills
from the data it is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Self

from ._text import name_of, say, show

__all__ = [
    "MetricsError",
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
    "MetricsRuntimeUnexpectedError",
    "MetricsRuntimeWouldDeadlockError",
    "RecorderDispatcherCancelledError",
    "RecorderDrainTimeoutError",
    "RecorderError",
    "RecorderInvalidStateError",
    "RecorderLoopUnavailableError",
    "RecorderOnStartingHookFailedError",
    "RecorderOnStoppedHookFailedError",
    "RecorderQueueOverflowError",
    "RecorderTimeoutError",
    "RecorderUnexpectedError",
    "RecorderWouldDeadlockError",
]


class MetricsError(Exception):
    """Base of every error of this library.

    Instances can be pickled and copied; a copy carries no traceback.
    """

    default_reason_code: ClassVar[str] = "METRICS_ERROR"

    message: str
    """What went wrong, in one sentence."""
    details: Mapping[str, Any]
    """The data behind the message; read-only."""
    cause: BaseException | None
    """The exception that led to this one, also set as ``__cause__``."""
    reason_code: str
    """A stable upper-case code to branch on or to count by."""

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        reason_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self._fill(message, dict(details or {}), cause, reason_code or self.default_reason_code)

    def _fill(self, message: str, details: dict[str, Any], cause: BaseException | None, reason_code: str) -> None:
        self.message = message
        self.details = MappingProxyType(details)
        self.cause = cause
        if cause is not None:  # setting it to None would hide the context
            self.__cause__ = cause
        self.reason_code = reason_code

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructors of the subclasses differ; their data does not.
        return _rebuild, (type(self), self.message, dict(self.details), self.cause, self.reason_code)

    def fresh(self) -> Self:
        """Return a copy without traceback: one instance raised in several places would mix theirs."""
        rebuild, args = self.__reduce__()
        copied: Self = rebuild(*args)
        return copied

    def to_log_payload(self) -> dict[str, Any]:
        """Return kind, reason, message, details and, where there is one, cause, as plain JSON values."""
        payload: dict[str, Any] = {
            "kind": type(self).__name__,
            "reason": self.reason_code,
            "message": self.message,
            "details": _plain(self.details),
        }
        if self.cause is not None:
            payload["cause"] = {"kind": name_of(type(self.cause)).rpartition(".")[2], "message": say(self.cause)}
        return payload


def _rebuild(
    kind: type[MetricsError], message: str, details: dict[str, Any], cause: BaseException | None, reason_code: str
) -> MetricsError:
    error = kind.__new__(kind, message)
    error.args = (message,)
    error._fill(message, details, cause, reason_code)  # noqa: SLF001 — the other half of __reduce__
    return error


def _plain(value: object) -> Any:
    """Return ``value`` as JSON can hold it: an error's details may hold exceptions and enum members."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, MetricsError):
        return value.to_log_payload()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return show(value)


def _not_allowed(call: str | None, situation: str, expected: tuple[str, ...]) -> str:
    subject = f"{call}() is not allowed" if call else "not allowed"
    where = f"only in {', '.join(map(repr, expected))}" if expected else "nor in any other"
    return f"{subject} in {situation}, {where}"


# --- a recorder's errors -----------------------------------------------------------------------


class RecorderError(MetricsError):
    """Base of every error of a recorder."""

    default_reason_code = "RECORDER_ERROR"


class RecorderLoopUnavailableError(RecorderError):
    """There is no event loop to work on: none runs in this thread, or the recorder's own has ended."""

    default_reason_code = "EVENT_LOOP_UNAVAILABLE"

    def __init__(self, situation: str = "no asyncio or trio event loop runs in the calling thread") -> None:
        super().__init__(f"event loop unavailable: {situation}", details={"situation": situation})


class RecorderInvalidStateError(RecorderError):
    """The call is not allowed in the state that the recorder is in."""

    default_reason_code = "INVALID_RECORDER_STATE"

    def __init__(
        self,
        recorder_state: Enum,
        expected_states: Iterable[Enum],
        *,
        call: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        expected = tuple(str(state.value) for state in expected_states)
        super().__init__(
            _not_allowed(call, f"recorder state {recorder_state.value!r}", expected),
            details={"recorder_state": recorder_state.value, "expected_states": expected},
            cause=cause,
        )


class RecorderOnStartingHookFailedError(RecorderError):
    """``_on_starting()`` raised; the recorder never ran."""

    default_reason_code = "ON_STARTING_HOOK_FAILED"

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the hook _on_starting() raised {show(cause)}", cause=cause)


class RecorderOnStoppedHookFailedError(RecorderError):
    """``_on_stopped()`` raised or outran its time limit; every event had been dealt with before."""

    default_reason_code = "ON_STOPPED_HOOK_FAILED"

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the hook _on_stopped() raised {show(cause)}", cause=cause)


class RecorderQueueOverflowError(RecorderError):
    """The inbox is full; the event was not accepted."""

    default_reason_code = "QUEUE_OVERFLOW"

    def __init__(self, capacity: int, *, waited: float | None = None, hint: str | None = None) -> None:
        text = f"the inbox is full: {capacity} events wait to be processed"
        details: dict[str, Any] = {"capacity": capacity}
        if waited is not None:
            text += f", and no room came within {waited:g} s"
            details["waited_seconds"] = waited
        if hint:
            text += f"; {hint}"
        super().__init__(text, details=details)


class RecorderDispatcherCancelledError(RecorderError):
    """The actor was cancelled from outside: its event loop or task group ended before ``stop()``."""

    default_reason_code = "DISPATCHER_UNEXPECTEDLY_CANCELLED"

    def __init__(self, abandoned: int = 0) -> None:
        super().__init__(
            f"the recorder's task was cancelled from outside; {abandoned} events abandoned",
            details={"abandoned": abandoned},
        )


class RecorderDrainTimeoutError(RecorderError):
    """The drain ran out of time; what was left is counted as abandoned."""

    default_reason_code = "DRAIN_TIMEOUT"

    def __init__(self, abandoned: int, drain_timeout: float | None) -> None:
        limit = "its time limit" if drain_timeout is None else f"drain_timeout of {drain_timeout:g} s"
        super().__init__(
            f"the drain outran {limit}; {abandoned} events abandoned, the hook under way cancelled",
            details={"abandoned": abandoned, "drain_timeout_seconds": drain_timeout},
        )


class RecorderTimeoutError(RecorderError):
    """A wait for the recorder outran its limit; the recorder itself goes on."""

    default_reason_code = "TIMEOUT"

    def __init__(self, call: str, timeout: float) -> None:
        super().__init__(
            f"{call}() was not answered within {timeout:g} s", details={"call": call, "timeout_seconds": timeout}
        )


class RecorderWouldDeadlockError(RecorderError):
    """The wait could never end, because what it waits for needs the caller to go on first."""

    default_reason_code = "WOULD_DEADLOCK"

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} would wait for itself; {instead}", details={"call": call})


class RecorderUnexpectedError(RecorderError):
    """A metric or a hook failed under ``FailurePolicy.FAIL``, or the library itself did."""

    default_reason_code = "UNEXPECTED_ERROR"

    def __init__(self, cause: BaseException, situation: str = "the recorder failed") -> None:
        super().__init__(f"{situation}: {show(cause)}", cause=cause)


# --- a runtime's errors ------------------------------------------------------------------------


class MetricsRuntimeError(MetricsError):
    """Base of every error of a runtime."""

    default_reason_code = "RUNTIME_ERROR"


class MetricsRuntimeInvalidStateError(MetricsRuntimeError):
    """The call is not allowed in the state that the runtime is in."""

    default_reason_code = "INVALID_RUNTIME_STATE"

    def __init__(
        self,
        runtime_state: Enum,
        expected_states: Iterable[Enum],
        *,
        call: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        expected = tuple(str(state.value) for state in expected_states)
        super().__init__(
            _not_allowed(call, f"runtime state {runtime_state.value!r}", expected),
            details={"runtime_state": runtime_state.value, "expected_states": expected},
            cause=cause,
        )


class MetricsRuntimeStartupError(MetricsRuntimeError):
    """The runtime's thread or its event loop could not be started."""

    default_reason_code = "STARTUP_ERROR"

    def __init__(self, cause: BaseException | None = None, *, hint: str | None = None) -> None:
        text = "the runtime could not be started"
        if cause is not None:
            text += f": {show(cause)}"
        if hint:
            text += f"; {hint}"
        super().__init__(text, cause=cause)


class MetricsRuntimeShutdownError(MetricsRuntimeError):
    """The runtime has ended, but not every recorder stopped well.

    ``details["failed_recorder_ids"]`` is a tuple of ids and ``details["recorder_errors"]`` maps
    each to its error.
    """

    default_reason_code = "SHUTDOWN_ERROR"

    def __init__(
        self,
        recorder_errors: Mapping[str, BaseException] | None = None,
        *,
        cause: BaseException | None = None,
        situation: str | None = None,
    ) -> None:
        errors = dict(recorder_errors or {})
        parts = [situation] if situation else []
        if errors:
            parts.append(f"{len(errors)} recorder(s) failed to stop: {', '.join(map(repr, errors))}")
        if cause is None and errors:
            cause = next(iter(errors.values()))
        super().__init__(
            f"the runtime did not shut down cleanly: {'; '.join(parts) or show(cause)}",
            details={"failed_recorder_ids": tuple(errors), "recorder_errors": errors},
            cause=cause,
        )


class MetricsRuntimeLoopUnavailableError(MetricsRuntimeError):
    """The runtime's event loop is gone, or does not answer."""

    default_reason_code = "EVENT_LOOP_UNAVAILABLE"

    def __init__(self, situation: str = "the runtime's event loop has ended") -> None:
        super().__init__(f"event loop unavailable: {situation}", details={"situation": situation})


class MetricsRuntimeWouldDeadlockError(MetricsRuntimeError):
    """A blocking call was made on the very thread that would have to do the work."""

    default_reason_code = "WOULD_DEADLOCK"

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} would wait for itself; {instead}", details={"call": call})


class MetricsRuntimeRecorderError(MetricsRuntimeError):
    """Base of the errors about one recorder of a runtime; ``recorder_id`` says which."""

    default_reason_code = "RUNTIME_RECORDER_ERROR"
    _situation: ClassVar[str] = "failed"

    def __init__(self, recorder_id: str, *, cause: BaseException | None = None, hint: str | None = None) -> None:
        text = f"recorder {recorder_id!r} {self._situation}"
        if cause is not None:
            text += f": {show(cause)}"
        if hint:
            text += f"; {hint}"
        super().__init__(text, details={"recorder_id": recorder_id}, cause=cause)

    @property
    def recorder_id(self) -> str:
        """The id of the recorder that the error is about."""
        return str(self.details["recorder_id"])


class MetricsRuntimeRecorderStartupError(MetricsRuntimeRecorderError):
    """The factory or ``_on_starting()`` failed; the id is free again."""

    default_reason_code = "RECORDER_STARTUP_ERROR"
    _situation = "could not be created"


class MetricsRuntimeRecorderAlreadyExistsError(MetricsRuntimeRecorderError):
    """The id is in use, or a recorder of that id is being created."""

    default_reason_code = "RECORDER_ALREADY_EXISTS"
    _situation = "exists already"


class MetricsRuntimeRecorderNotFoundError(MetricsRuntimeRecorderError):
    """No recorder of that id is registered, or it is being removed."""

    default_reason_code = "RECORDER_NOT_FOUND"
    _situation = "is not registered"


class MetricsRuntimeRecorderStopError(MetricsRuntimeRecorderError):
    """The recorder did not stop well; ``cause`` says why."""

    default_reason_code = "RECORDER_STOP_ERROR"
    _situation = "did not stop well"


class MetricsRuntimeUnexpectedError(MetricsRuntimeError):
    """The runtime's own thread failed."""

    default_reason_code = "UNEXPECTED_ERROR"

    def __init__(self, cause: BaseException | None = None, situation: str = "the runtime failed") -> None:
        super().__init__(situation if cause is None else f"{situation}: {show(cause)}", cause=cause)
