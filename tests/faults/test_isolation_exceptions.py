"""What is kept of an exception, and of the event that it was raised on: no more than is needed."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from mvx.common.metrics import FailurePolicy, Metric, MetricEvent, MetricsRuntime, MetricsRuntimeShutdownError
from mvx.common.metrics._log import logger
from tests.conftest import Effort
from tests.faults.hostile import (
    KINDS,
    POLICIES,
    Afflicted,
    EmptyError,
    Theatre,
    Trouble,
    UndecidedError,
    every_home,
    theatre_for,
)
from tests.support import DEADLINE, Count, Failing, Tick

ISOLATING = (FailurePolicy.ISOLATE, FailurePolicy.QUARANTINE)


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def backend(theatre: Theatre) -> dict[str, Any]:
    return theatre.keywords


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the library logs; the other tests of faults have it silenced."""
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeping()
    logger.disabled = False
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)


def length_of_traceback(error: BaseException) -> int:
    count, traceback = 0, error.__traceback__
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_that_is_raised_again_and_again(backend: dict[str, Any], kind: type[Afflicted]) -> None:
    """One and the same object does not grow by a piece of traceback with each event."""
    error, hooked = ValueError("always the same"), ValueError("likewise")
    trouble = Trouble("", lambda: hooked, ValueError)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=kind, place="_on_metric_changed", trouble=trouble)
        recorder.register_metric(Failing(error))
        recorder.register_metric(Count())
        for n in range(1000):
            recorder.register_event(Tick(n))
        assert recorder.flush().wait(DEADLINE).success
        assert recorder.statistics().metric_errors == 1000
        assert length_of_traceback(error) < 20
        assert length_of_traceback(hooked) < 20


class Memento(MetricEvent):
    """An event that tells when it is gone."""

    event_type = "test.memento"


@pytest.mark.parametrize("policy", ISOLATING)
@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_event_is_not_kept(backend: dict[str, Any], kind: type[Afflicted], policy: FailurePolicy) -> None:
    """Once it has been handled nothing of the recorder refers to it any more, by way of a traceback neither."""
    trouble = Trouble("", lambda: ValueError("no"), ValueError)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=kind, place="_on_metric_changed", trouble=trouble, failure_policy=policy, quarantine_after=2
        )

        class Picky(Count):
            event_types = (Memento,)  # type: ignore[assignment] # another class than its base's

            def handle_event(self, event: MetricEvent) -> bool:
                super().handle_event(event)
                raise ValueError("no")

        class Pleased(Count):
            event_types = (Memento,)  # type: ignore[assignment] # another class than its base's

        recorder.register_metric(Picky("picky"))
        recorder.register_metric(Pleased("pleased"))
        mementos = []
        for _ in range(3):
            event = Memento()
            mementos.append(weakref.ref(event))
            recorder.register_event(event)
            del event
            recorder.register_event(Tick())  # what the actor holds is the last event that it took
            assert recorder.flush().wait(DEADLINE).success
        gc.collect()
        assert [memento() for memento in mementos] == [None] * 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("error", [EmptyError, UndecidedError])
def test_an_exception_that_is_not_true_is_logged(
    backend: dict[str, Any], policy: FailurePolicy, error: type[Exception], records: list[logging.LogRecord]
) -> None:
    """With its traceback, whatever its own answer to bool() is."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", failure_policy=policy)
        recorder.register_metric(Failing(error()))
        recorder.register_event(Tick())
        recorder.flush().wait(DEADLINE)
        runtime.try_get_recorder("x")
        told = [record for record in records if "raised" in record.getMessage()]
        assert len(told) == 1
        assert isinstance(told[0].exc_info, tuple)
        assert told[0].exc_info[0] is error
        assert told[0].exc_info[2] is not None
        if policy is FailurePolicy.FAIL:
            assert recorder.stop().wait(DEADLINE).error is not None
            with pytest.raises(MetricsRuntimeShutdownError, match="'x'"):
                runtime.shutdown()


class Handler:
    """A callable that is no function: as an attribute of a class it is one object for all metrics."""

    def __init__(self) -> None:
        self.seen: list[MetricEvent] = []
        self.fails_on = 0

    def __call__(self, event: MetricEvent) -> bool:
        self.seen.append(event)
        if len(self.seen) == self.fails_on:
            raise ValueError("no")
        return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ISOLATING)
@pytest.mark.parametrize("fails_on", [1, 2, 3])
def test_metrics_that_share_a_handler(
    backend: dict[str, Any], kind: type[Afflicted], policy: FailurePolicy, fails_on: int
) -> None:
    """A failure is that of the metric that was being called: each of them sees each event once."""
    handler = Handler()
    handler.fails_on = fails_on

    class Sharing(Count):
        handle_event = handler  # no function, so no method: what a mock is, too

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=kind, failure_policy=policy, quarantine_after=1)
        for name in "abc":
            recorder.register_metric(Sharing(name))
        recorder.register_event(Tick(1))
        assert recorder.flush().wait(DEADLINE).success
        assert handler.seen == [Tick(1)] * 3
        assert recorder.statistics().metric_errors == 1
        if policy is FailurePolicy.QUARANTINE:
            snapshots = recorder.get_metric_snapshots()
            assert [name for name in "abc" if "quarantined" in snapshots[name]] == ["abc"[fails_on - 1]]


def test_a_metric_may_raise_what_it_keeps(backend: dict[str, Any]) -> None:
    """The exception that a metric raises stays its own: nothing but its traceback is changed."""
    cause, context = KeyError("cause"), KeyError("context")
    error = ValueError("no", 1)
    error.__cause__, error.__context__ = cause, context
    error.add_note("a note")
    metric: Metric = Failing(error)
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.QUARANTINE, quarantine_after=1)
        recorder.register_metric(metric)
        recorder.register_event(Tick())
        assert recorder.get_metric_snapshots()["failing"]["quarantined"]["failures"] == 1
    assert (error.args, error.__notes__) == (("no", 1), ["a note"])
    assert (error.__cause__, error.__context__, error.__suppress_context__) == (cause, context, True)
