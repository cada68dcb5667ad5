"""The exception tree: what each error says, carries and survives."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from mvx.common import metrics
from mvx.common.metrics import (
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
    MetricsRuntimeState,
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
    RecorderState,
    RecorderTimeoutError,
    RecorderUnexpectedError,
    RecorderWouldDeadlockError,
    errors,
)

BOOM = ValueError("boom")

# class -> (an instance, reason code, parent, what the message says, details)
CASES: list[tuple[MetricsError, str, type[MetricsError], list[str], dict[str, Any]]] = [
    (RecorderError("odd"), "RECORDER_ERROR", MetricsError, ["odd"], {}),
    (
        RecorderLoopUnavailableError("it has ended"),
        "EVENT_LOOP_UNAVAILABLE",
        RecorderError,
        ["it has ended"],
        {"situation": "it has ended"},
    ),
    (
        RecorderInvalidStateError(
            RecorderState.STOPPING, (RecorderState.VIRGIN, RecorderState.STOPPED), call="start", cause=BOOM
        ),
        "INVALID_RECORDER_STATE",
        RecorderError,
        ["start()", "'STOPPING'", "'VIRGIN', 'STOPPED'"],
        {"recorder_state": "STOPPING", "expected_states": ("VIRGIN", "STOPPED")},
    ),
    (
        RecorderOnStartingHookFailedError(BOOM),
        "ON_STARTING_HOOK_FAILED",
        RecorderError,
        ["_on_starting()", "ValueError('boom')"],
        {},
    ),
    (
        RecorderOnStoppedHookFailedError(BOOM),
        "ON_STOPPED_HOOK_FAILED",
        RecorderError,
        ["_on_stopped()", "ValueError('boom')"],
        {},
    ),
    (
        RecorderQueueOverflowError(3, waited=0.25, hint="try later"),
        "QUEUE_OVERFLOW",
        RecorderError,
        ["3 events", "0.25 s", "try later"],
        {"capacity": 3, "waited_seconds": 0.25},
    ),
    (
        RecorderDispatcherCancelledError(4),
        "DISPATCHER_UNEXPECTEDLY_CANCELLED",
        RecorderError,
        ["cancelled", "4 events"],
        {"abandoned": 4},
    ),
    (
        RecorderDrainTimeoutError(5, 0.5),
        "DRAIN_TIMEOUT",
        RecorderError,
        ["drain_timeout of 0.5 s", "5 events"],
        {"abandoned": 5, "drain_timeout_seconds": 0.5},
    ),
    (
        RecorderTimeoutError("get_metric_snapshots", 30.0),
        "TIMEOUT",
        RecorderError,
        ["get_metric_snapshots()", "30 s"],
        {"call": "get_metric_snapshots", "timeout_seconds": 30.0},
    ),
    (
        RecorderWouldDeadlockError("wait() for STOP", "await the handle instead"),
        "WOULD_DEADLOCK",
        RecorderError,
        ["wait() for STOP", "await the handle instead"],
        {"call": "wait() for STOP"},
    ),
    (RecorderUnexpectedError(BOOM), "UNEXPECTED_ERROR", RecorderError, ["ValueError('boom')"], {}),
    (MetricsRuntimeError("odd"), "RUNTIME_ERROR", MetricsError, ["odd"], {}),
    (
        MetricsRuntimeInvalidStateError(MetricsRuntimeState.CLOSED, (MetricsRuntimeState.VIRGIN,), call="start"),
        "INVALID_RUNTIME_STATE",
        MetricsRuntimeError,
        ["start()", "'CLOSED'", "'VIRGIN'"],
        {"runtime_state": "CLOSED", "expected_states": ("VIRGIN",)},
    ),
    (
        MetricsRuntimeStartupError(BOOM, hint="install it"),
        "STARTUP_ERROR",
        MetricsRuntimeError,
        ["ValueError('boom')", "install it"],
        {},
    ),
    (
        MetricsRuntimeShutdownError({"a": BOOM, "b": RecorderUnexpectedError(BOOM)}),
        "SHUTDOWN_ERROR",
        MetricsRuntimeError,
        ["2 recorder(s)", "'a', 'b'"],
        {"failed_recorder_ids": ("a", "b"), "recorder_errors": {"a": BOOM, "b": None}},
    ),
    (
        MetricsRuntimeLoopUnavailableError(),
        "EVENT_LOOP_UNAVAILABLE",
        MetricsRuntimeError,
        ["event loop"],
        {"situation": "the runtime's event loop has ended"},
    ),
    (
        MetricsRuntimeWouldDeadlockError("shutdown()", "await ashutdown()"),
        "WOULD_DEADLOCK",
        MetricsRuntimeError,
        ["shutdown()", "await ashutdown()"],
        {"call": "shutdown()"},
    ),
    (
        MetricsRuntimeRecorderError("orders", cause=BOOM, hint="look there"),
        "RUNTIME_RECORDER_ERROR",
        MetricsRuntimeError,
        ["'orders'", "ValueError('boom')", "look there"],
        {"recorder_id": "orders"},
    ),
    (
        MetricsRuntimeRecorderStartupError("orders", cause=BOOM),
        "RECORDER_STARTUP_ERROR",
        MetricsRuntimeRecorderError,
        ["'orders'", "ValueError('boom')"],
        {"recorder_id": "orders"},
    ),
    (
        MetricsRuntimeRecorderAlreadyExistsError("orders"),
        "RECORDER_ALREADY_EXISTS",
        MetricsRuntimeRecorderError,
        ["'orders'", "exists"],
        {"recorder_id": "orders"},
    ),
    (
        MetricsRuntimeRecorderNotFoundError("orders"),
        "RECORDER_NOT_FOUND",
        MetricsRuntimeRecorderError,
        ["'orders'", "not registered"],
        {"recorder_id": "orders"},
    ),
    (
        MetricsRuntimeRecorderStopError("orders", cause=BOOM),
        "RECORDER_STOP_ERROR",
        MetricsRuntimeRecorderError,
        ["'orders'", "ValueError('boom')"],
        {"recorder_id": "orders"},
    ),
    (
        MetricsRuntimeUnexpectedError(BOOM, "its thread failed"),
        "UNEXPECTED_ERROR",
        MetricsRuntimeError,
        ["its thread failed", "ValueError('boom')"],
        {},
    ),
    (MetricsError("odd"), "METRICS_ERROR", MetricsError, ["odd"], {}),
]
each_error = pytest.mark.parametrize("error", [case[0] for case in CASES], ids=lambda error: type(error).__name__)
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]


def test_every_class_is_tested_here() -> None:
    """The cases of this file leave no exported error class out."""
    exported = {value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, MetricsError)}
    assert {type(case[0]) for case in CASES} == exported
    assert {kind.__name__ for kind in exported} == set(errors.__all__)


def test_the_package_exports_every_error() -> None:
    """What can be raised can be caught by a name imported from the package."""
    for name in errors.__all__:
        assert getattr(metrics, name) is getattr(errors, name)


@pytest.mark.parametrize(
    ("error", "reason_code", "parent", "says", "details"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)
def test_what_an_error_carries(
    error: MetricsError, reason_code: str, parent: type[MetricsError], says: list[str], details: dict[str, Any]
) -> None:
    """Reason code, place in the hierarchy, a message that names the data, and the data as details."""
    assert error.reason_code == type(error).default_reason_code == reason_code
    assert isinstance(error, parent)
    assert str(error) == error.message
    for part in says:
        assert part in error.message
    assert set(error.details) == set(details)
    for key, value in details.items():
        if key != "recorder_errors":
            assert error.details[key] == value


def test_the_two_families_are_apart() -> None:
    """Catching a recorder's errors does not catch a runtime's, nor the other way round."""
    for error, *_ in CASES:
        if type(error) is not MetricsError:
            assert isinstance(error, RecorderError) is not isinstance(error, MetricsRuntimeError)


@each_error
def test_the_cause_is_chained(error: MetricsError) -> None:
    """``cause`` is ``__cause__`` too, so that a traceback shows it without ``raise ... from``."""
    assert error.cause is error.__cause__
    if error.cause is not None:
        with pytest.raises(type(error)) as caught:
            raise error
        assert "ValueError: boom" in "".join(traceback.format_exception(caught.value))


def test_an_error_without_a_cause_keeps_its_context() -> None:
    """Raised while another exception is handled, it does not hide that one from the traceback."""
    with pytest.raises(RecorderError) as caught:
        try:
            raise BOOM
        except ValueError:
            raise RecorderQueueOverflowError(1)  # noqa: B904 — the implicit context is what is tested
    assert caught.value.__context__ is BOOM
    assert "ValueError: boom" in "".join(traceback.format_exception(caught.value))


@each_error
def test_details_are_read_only(error: MetricsError) -> None:
    """A handler cannot change what the next handler reads."""
    with pytest.raises(TypeError):
        error.details["more"] = 1  # type: ignore[index] # because that is what must not work


@each_error
def test_the_log_payload_is_plain_json(error: MetricsError) -> None:
    """json.dumps takes it as it is, and it comes back with kind, reason, message, details and cause."""
    payload = error.to_log_payload()
    read = json.loads(json.dumps(payload, allow_nan=False))
    assert read == payload
    assert read["kind"] == type(error).__name__
    assert read["reason"] == error.reason_code
    assert read["message"] == error.message
    assert set(read["details"]) == set(error.details)
    if error.cause is None:
        assert "cause" not in read
    else:
        assert read["cause"] == {"kind": type(error.cause).__name__, "message": str(error.cause)}


@each_error
@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_an_error_survives_being_copied(error: MetricsError, duplicate: Callable[[Any], Any]) -> None:
    """Class, message, details, cause and reason code are those of the original."""
    other = duplicate(error)
    assert type(other) is type(error)
    assert other is not error
    assert (other.message, str(other), other.args) == (error.message, str(error), error.args)
    assert other.reason_code == error.reason_code
    assert repr(dict(other.details)) == repr(dict(error.details))
    assert repr(other.cause) == repr(error.cause)
    assert other.cause is other.__cause__
    assert other.to_log_payload() == error.to_log_payload()


@each_error
def test_an_error_survives_being_pickled_twice(error: MetricsError) -> None:
    """As when it travels through two process pools."""
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))
    assert twice.to_log_payload() == error.to_log_payload()


@pytest.mark.parametrize("duplicate", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_a_subclass_with_a_constructor_of_its_own_survives(duplicate: Callable[[Any], Any]) -> None:
    """Copying does not call the constructor, whose parameters it cannot know."""
    other = duplicate(_OfAnApplication(7, other="x"))
    assert type(other) is _OfAnApplication
    assert (other.message, dict(other.details)) == ("application error 7 x", {"number": 7})


class _OfAnApplication(RecorderError):
    """Made by an application."""

    default_reason_code = "OF_AN_APPLICATION"

    def __init__(self, number: int, *, other: str) -> None:
        super().__init__(f"application error {number} {other}", details={"number": number})


def test_a_base_class_takes_everything_by_keyword() -> None:
    """An application can raise the bases with a message, details, cause and reason code of its own."""
    details = {"a": 1}
    error = MetricsError("odd", details=details, cause=BOOM, reason_code="ODD")
    details["a"] = 2
    assert (error.message, dict(error.details), error.cause, error.reason_code) == ("odd", {"a": 1}, BOOM, "ODD")


def test_a_payload_makes_everything_plain() -> None:
    """Enum members, nested mappings, sets, errors and foreign objects in details become JSON values."""
    inner = RecorderQueueOverflowError(1)
    error = MetricsError(
        "odd",
        details={
            "state": RecorderState.RUNNING,
            "nested": {1: (None, True, 1.5, "x")},
            "set": frozenset({3}),
            "error": inner,
            "object": BOOM,
        },
    )
    details = json.loads(json.dumps(error.to_log_payload()))["details"]
    assert details == {
        "state": "RUNNING",
        "nested": {"1": [None, True, 1.5, "x"]},
        "set": [3],
        "error": inner.to_log_payload(),
        "object": "ValueError('boom')",
    }


def test_a_payload_keeps_no_traceback_alive() -> None:
    """It holds text only, so that a log queue does not hold the frames of whoever failed."""
    payload = RecorderUnexpectedError(BOOM).to_log_payload()
    assert payload["cause"] == {"kind": "ValueError", "message": "boom"}


def test_the_details_of_a_failed_shutdown_hold_the_errors_themselves() -> None:
    """``recorder_errors`` maps each failed id to its error; the first is the cause."""
    first, second = ValueError("1"), RecorderUnexpectedError(BOOM)
    error = MetricsRuntimeShutdownError({"a": first, "b": second})
    assert error.details["recorder_errors"] == {"a": first, "b": second}
    assert error.cause is first


def test_an_error_about_a_recorder_knows_its_id() -> None:
    """``recorder_id`` without looking into the details."""
    for kind in (
        MetricsRuntimeRecorderError,
        MetricsRuntimeRecorderAlreadyExistsError,
        MetricsRuntimeRecorderNotFoundError,
        MetricsRuntimeRecorderStartupError,
        MetricsRuntimeRecorderStopError,
    ):
        assert kind("orders").recorder_id == "orders"


def test_a_fresh_copy_has_no_traceback() -> None:
    """Each waiter gets an instance of its own to raise."""
    error = RecorderUnexpectedError(BOOM)
    with pytest.raises(RecorderUnexpectedError):
        raise error
    other = error.fresh()
    assert type(other) is RecorderUnexpectedError
    assert other is not error
    assert other.__traceback__ is None
    assert error.__traceback__ is not None
    assert other.to_log_payload() == error.to_log_payload()


@pytest.mark.parametrize(
    ("name", "reason_code"),
    [
        ("AsyncioMetricsRecorderDispatcherCancelledError", "DISPATCHER_UNEXPECTEDLY_CANCELLED"),
        ("AsyncioMetricsRecorderInvalidStateError", "INVALID_RECORDER_STATE"),
        ("AsyncioMetricsRecorderLoopUnavailableError", "EVENT_LOOP_UNAVAILABLE"),
        ("AsyncioMetricsRecorderOnStartingHookFailedError", "ON_STARTING_HOOK_FAILED"),
        ("AsyncioMetricsRecorderOnStoppedHookFailedError", "ON_STOPPED_HOOK_FAILED"),
        ("AsyncioMetricsRecorderQueueOverflowError", "QUEUE_OVERFLOW"),
        ("AsyncioMetricsRecorderUnexpectedError", "UNEXPECTED_ERROR"),
        ("MetricsRuntimeInvalidStateError", "INVALID_RUNTIME_STATE"),
        ("MetricsRuntimeLoopUnavailableError", "EVENT_LOOP_UNAVAILABLE"),
        ("MetricsRuntimeRecorderAlreadyExistsError", "RECORDER_ALREADY_EXISTS"),
        ("MetricsRuntimeRecorderNotFoundError", "RECORDER_NOT_FOUND"),
        ("MetricsRuntimeRecorderStartupError", "RECORDER_STARTUP_ERROR"),
        ("MetricsRuntimeRecorderStopError", "RECORDER_STOP_ERROR"),
        ("MetricsRuntimeShutdownError", "SHUTDOWN_ERROR"),
        ("MetricsRuntimeStartupError", "STARTUP_ERROR"),
        ("MetricsRuntimeUnexpectedError", "UNEXPECTED_ERROR"),
    ],
)
def test_the_documented_reason_codes(name: str, reason_code: str) -> None:
    """Whoever branches on the reason codes of the documented implementation goes on unchanged."""
    assert getattr(metrics, name).default_reason_code == reason_code
