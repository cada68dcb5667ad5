"""Diagnostics: which logger, which fields, how often, and that they cannot hurt."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from mvx.common.metrics import MetricsRecorder, MetricsRuntime, OverflowPolicy, RecorderState
from mvx.common.metrics._log import REPEAT_INTERVAL, LimitedLog, emit, logger
from mvx.common.metrics._recorder import core_of
from tests.support import DEADLINE, Count, Failing, Gate, Journal, Tick, balanced, until

NAME = "mvx.common.metrics"
FIELDS: dict[str, Any] = {"entity_id": "x"}


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Broken(logging.Handler):
    """A log handler that raises on every record, as one with a lost connection might."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        raise OSError("the log server is gone")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limited(clock: Clock) -> LimitedLog:
    return LimitedLog(clock=clock, interval=10.0)


@pytest.fixture
def broken() -> Iterator[Broken]:
    handler = Broken()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def about(caplog: pytest.LogCaptureFixture, part: str) -> list[logging.LogRecord]:
    """The library's records whose message contains ``part``."""
    return [record for record in caplog.records if record.name == NAME and part in record.getMessage()]


# --- the limited log -----------------------------------------------------------------------------


def test_the_logger_has_the_import_path_as_its_name() -> None:
    """Users configure it by the name that they import."""
    assert logger is logging.getLogger(NAME)


def test_the_first_of_a_kind_is_logged(limited: LimitedLog, caplog: pytest.LogCaptureFixture) -> None:
    """At the given level, with its arguments, its exception and its fields as attributes."""
    error = ValueError("boom")
    assert limited.log(logging.WARNING, "kind", "%d of %s", 3, "x", error=error, fields={**FIELDS, "more": 1})
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (NAME, logging.WARNING, "3 of x")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert (vars(record)["entity_id"], vars(record)["more"], vars(record)["held_back"]) == ("x", 1, 0)


def test_a_repetition_is_held_back(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Within the interval nothing is logged, and the caller is told so."""
    assert limited.log(logging.ERROR, "kind", "again", fields=FIELDS)
    for _ in range(5):
        clock.now += 1.9
        assert not limited.log(logging.ERROR, "kind", "again", fields=FIELDS)
    assert len(caplog.records) == 1


def test_what_was_held_back_is_told(limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The first record after the interval carries the count, in its text and as a field; then it starts anew."""
    for _ in range(4):
        limited.log(logging.ERROR, "kind", "failed: %s", "x", fields=FIELDS)
    clock.now += 10.0
    assert limited.log(logging.ERROR, "kind", "failed: %s", "x", fields=FIELDS)
    clock.now += 10.0
    assert limited.log(logging.ERROR, "kind", "failed: %s", "x", fields=FIELDS)
    assert [record.getMessage() for record in caplog.records] == [
        "failed: x",
        "failed: x (3 more like this held back)",
        "failed: x",
    ]
    assert [vars(record)["held_back"] for record in caplog.records] == [0, 3, 0]


def test_kinds_are_limited_apart(limited: LimitedLog, caplog: pytest.LogCaptureFixture) -> None:
    """A noisy failure does not silence another one."""
    for kind in ("a", "b", "a", "b", "c"):
        limited.log(logging.ERROR, kind, kind, fields=FIELDS)
    assert [record.getMessage() for record in caplog.records] == ["a", "b", "c"]


def test_the_interval_counts_from_the_last_record(
    limited: LimitedLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure that repeats without end is logged once an interval, not never again."""
    for _ in range(31):
        limited.log(logging.ERROR, "kind", "again", fields=FIELDS)
        clock.now += 1.0
    assert len(caplog.records) == 4


def test_the_kinds_remembered_are_bounded(limited: LimitedLog) -> None:
    """A program that fails in ever new ways does not grow for ever."""
    for n in range(10 * LimitedLog.MAX_KINDS):
        assert limited.log(logging.DEBUG, n, "new", fields=FIELDS)
        assert len(limited._seen) <= LimitedLog.MAX_KINDS


def test_a_repetition_is_logged_once_a_minute_by_default() -> None:
    """The documented rate."""
    assert LimitedLog()._interval == REPEAT_INTERVAL == 60.0


def test_a_broken_handler_reaches_nobody(limited: LimitedLog, broken: Broken) -> None:
    """What a log handler raises stays in here, limited or not."""
    emit(logging.ERROR, "one", fields=FIELDS)
    assert limited.log(logging.ERROR, "kind", "two", fields=FIELDS)
    assert len(broken.records) == 2


def test_a_field_that_logging_reserves_reaches_nobody() -> None:
    """Nor does logging's own refusal of an attribute."""
    emit(logging.ERROR, "one", fields={"name": "taken by logging"})


# --- in a recorder -------------------------------------------------------------------------------


def test_a_failing_metric_is_logged_with_its_traceback(
    backend: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The record leads to the line that raised, and says which recorder and which metric it was."""
    with MetricsRuntime(namespace="shop", **backend) as runtime:
        recorder = runtime.create_recorder("orders")
        recorder.register_metric(Failing(ValueError("boom"), "sums"))
        recorder.register_event(Tick())
        assert recorder.flush().wait(DEADLINE).success
    (record,) = about(caplog, "raised on an event")
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "metric 'sums' raised on an event of class Tick"
    fields = vars(record)
    assert (fields["entity_id"], fields["namespace"], fields["metric_name"]) == ("orders", "shop", "sums")
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    frames = [frame.name for frame in traceback.extract_tb(record.exc_info[1].__traceback__)]
    assert frames[-1] == "handle_event"


def test_a_metric_that_always_fails_is_logged_once(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A thousand failures are a thousand in the statistics and one in the log."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("orders")
        recorder.register_metric(Failing(ValueError("boom")))
        for n in range(1000):
            recorder.register_event(Tick(n))
        assert recorder.flush().wait(DEADLINE).success
        assert recorder.statistics().metric_errors == 1000
    assert len(about(caplog, "raised on an event")) == 1


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("starting", "_on_starting() raised"),
        ("changed", "_on_metric_changed() raised"),
        ("stopped", "_on_stopped() failed"),
    ],
)
@pytest.mark.anyio
async def test_a_failing_hook_is_logged_with_its_traceback(
    hook: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each hook's exception is in the log, whatever becomes of the recorder."""
    recorder = Journal("orders", namespace="shop")
    recorder.register_metric(Count())
    recorder.errors[hook] = ValueError("boom")
    if (await recorder.start()).success:
        recorder.register_event(Tick())
        await recorder.stop()
    (record,) = about(caplog, message)
    assert record.levelno == logging.ERROR
    assert (vars(record)["entity_id"], vars(record)["namespace"]) == ("orders", "shop")
    assert record.exc_info is not None
    assert record.exc_info[1] is recorder.errors[hook]


def test_a_broken_log_handler_does_not_hurt_a_recorder(backend: dict[str, Any], broken: Broken) -> None:
    """Failures in metrics and hooks, losses, and a log that cannot be written: the recorder goes on."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=2)
        count = Count()
        recorder.register_metric(Failing(ValueError("boom")))
        recorder.register_metric(count)
        recorder.errors["changed"] = ValueError("bang")
        recorder.errors["stopped"] = ValueError("bump")
        recorder.changed = gate = Gate()
        for n in range(10):
            recorder.register_event(Tick(n))
        gate.open()
        assert recorder.flush().wait(DEADLINE).success
        recorder.register_event(Tick())
        assert recorder.get_metric_snapshots()["count"]["dimensions"]["total"] == count.total
        statistics = recorder.statistics()
        assert balanced(statistics)
        assert statistics.processed == count.total == statistics.metric_errors
        assert recorder.get_status() is RecorderState.RUNNING
        del recorder.errors["stopped"]
    assert recorder.get_status() is RecorderState.STOPPED
    assert broken.records


class Overflowing:
    """A recorder of capacity 2 under DROP, which can be made to lose events, and its log's clock."""

    def __init__(self, runtime: MetricsRuntime) -> None:
        self.clock = Clock()
        self.recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=2, linger=0.0)
        self.recorder.register_metric(Count())
        core_of(self.recorder)._log._clock = self.clock

    def lose(self, count: int) -> None:
        """Hold the recorder up in an event, fill the room for another, and emit ``count`` more."""
        self.recorder.changed = gate = Gate()
        self.recorder.register_event(Tick())
        assert gate.reached.wait(DEADLINE)
        for _ in range(1 + count):
            self.recorder.register_event(Tick())
        gate.open()
        assert self.recorder.flush().wait(DEADLINE).success
        until(lambda: core_of(self.recorder).inbox.idle)  # it tells of its losses behind the answer

    def handle_one(self) -> None:
        self.recorder.register_event(Tick())
        assert self.recorder.flush().wait(DEADLINE).success


def test_losses_are_logged_at_a_limited_rate(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """One warning an interval; none of the losses is missing from the counts, and none is in there twice."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        overflowing = Overflowing(runtime)
        overflowing.lose(3)
        overflowing.lose(4)
        overflowing.clock.now += REPEAT_INTERVAL
        overflowing.lose(5)
        overflowing.clock.now += REPEAT_INTERVAL
        overflowing.handle_one()
        assert overflowing.recorder.statistics().dropped == 12
    records = about(caplog, "the inbox overflowed")
    assert [record.levelno for record in records] == [logging.WARNING] * 2
    assert "3 events thrown away" in records[0].getMessage()
    assert "9 events thrown away" in records[1].getMessage()
    assert vars(records[0])["entity_id"] == "x"


def test_losses_are_not_told_again_after_a_restart(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """A restarted recorder warns of its new losses only."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        overflowing = Overflowing(runtime)
        overflowing.lose(3)
        runtime.stop_recorder("x")
        assert overflowing.recorder.start().wait(DEADLINE).success
        overflowing.clock.now += REPEAT_INTERVAL
        overflowing.handle_one()
    assert len(about(caplog, "the inbox overflowed")) == 1


def test_evicted_events_are_losses_too(backend: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """DROP_OLDEST loses events as DROP does, and says so."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=Journal, queue_max_size=2, queue_overflow_policy=OverflowPolicy.DROP_OLDEST
        )
        recorder.register_metric(Count())
        recorder.changed = gate = Gate()
        recorder.register_event(Tick())
        assert gate.reached.wait(DEADLINE)
        for _ in range(4):
            recorder.register_event(Tick())
        gate.open()
        assert recorder.flush().wait(DEADLINE).success
        assert recorder.statistics().evicted == 3
    assert len(about(caplog, "3 events thrown away")) == 1


@pytest.mark.anyio
async def test_nothing_is_logged_when_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    """Start, events, snapshots and stop leave no record, not even for debugging."""
    caplog.set_level(logging.DEBUG, logger=NAME)
    async with MetricsRecorder("x") as recorder:
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        await recorder.aget_metric_snapshots()
    assert not about(caplog, "")
