"""Log handlers are user code, too, and the engine calls them at its most delicate moments."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
)
from mvx.common.metrics._log import LimitedLog, emit, logger
from mvx.common.metrics._recorder import core_of
from tests.conftest import Effort, Tally
from tests.faults.hostile import (
    RAISES,
    Afflicted,
    Moody,
    Stage,
    Theatre,
    Trouble,
    every_home,
    held_up,
    theatre_for,
    told,
)
from tests.support import DEADLINE, Count, Failing, Gate, Journal, Seen, Tick, balanced, until

TRIED = "hostile metrics, hooks and events"


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def backend(theatre: Theatre) -> dict[str, Any]:
    return theatre.keywords


class Reacting(logging.Handler):
    """Calls a function with every record."""

    def __init__(self, react: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.react = react
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.react(record)


@contextlib.contextmanager
def reacting(react: Callable[[logging.LogRecord], object]) -> Iterator[Reacting]:
    """Have ``react`` called with what the library logs; the other tests of faults have it silenced."""
    handler = Reacting(react)
    logger.disabled, before = False, logger.disabled
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.disabled = before


async def fail_metric(recorder: Afflicted) -> None:
    recorder.register_metric(Failing(ValueError("a metric's")))
    for n in range(3):
        recorder.register_event(Tick(n))
    assert (await recorder.flush()).success
    assert recorder.statistics().processed == recorder.statistics().metric_errors == 3


async def fail_snapshot(recorder: Afflicted) -> None:
    moody = Moody("snapshot", Trouble("", lambda: ValueError("a snapshot's"), ValueError))
    recorder.register_metric(moody)
    moody.armed = True
    recorder.register_event(Tick())
    assert (await recorder.aget_metric_snapshots())["moody"]["error"]["type"] == "ValueError"
    assert recorder.get_metric_snapshots()["moody"]["error"]["type"] == "ValueError"


async def change(recorder: Afflicted) -> None:
    recorder.register_metric(Count())
    for n in range(3):
        recorder.register_event(Tick(n))
    assert (await recorder.flush()).success


async def overflow(recorder: Afflicted) -> None:
    recorder.register_metric(Count())
    with held_up(recorder):  # else the drain might keep pace
        for n in range(20):
            recorder.register_event(Tick(n))
    assert (await recorder.flush()).success
    assert (recorder.statistics().processed, recorder.statistics().dropped) == (2, 18)


SITUATIONS: dict[str, tuple[Any, str]] = {
    "metric": (fail_metric, ""),
    "snapshot": (fail_snapshot, ""),
    "starting hook": (change, "_on_starting"),
    "change hook": (change, "_on_metric_changed"),
    "stop hook": (change, "_on_stopped"),
    "overflow": (overflow, ""),
}
"""When the library logs: what to do, and which hook fails meanwhile."""


@RAISES
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_log_handler_that_raises(
    theatre: Theatre, home: str, situation: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """Nobody is left to tell, so nobody is told: the recorder goes on as if the record had been written."""
    act, place = SITUATIONS[situation]
    hook_error = Trouble("", lambda: ValueError("a hook's"), ValueError)

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):
            with stage.trial(situation, trouble.name), reacting(lambda _: trouble.strike()) as handler:
                options = {"queue_max_size": 2, "queue_overflow_policy": OverflowPolicy.DROP}
                part = await stage.play(
                    Afflicted, act, place=place, trouble=hook_error, **(options if situation == "overflow" else {})
                )
                assert handler.records
                if place == "_on_starting":
                    assert hook_error.is_cause_of(part.refused)
                    continue
                if place == "_on_stopped":
                    assert hook_error.is_cause_of(part.spoilt)
                else:
                    assert part.spoilt is None
                    assert part.recorder.get_status() is RecorderState.STOPPED
                assert balanced(part.recorder.statistics())
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
@pytest.mark.parametrize("policy", [FailurePolicy.FAIL, FailurePolicy.QUARANTINE])
def test_a_log_handler_that_raises_does_not_change_the_policy(
    theatre: Theatre, home: str, policy: FailurePolicy, troubles: tuple[Trouble, ...]
) -> None:
    """What ends a recorder under FAIL, or sets a metric aside, is the metric's failure and not the log's."""
    failing = ValueError("a metric's")

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):

            async def act(recorder: MetricsRecorder) -> None:
                recorder.register_metric(Failing(failing))
                for _ in range(2):
                    told(lambda: recorder.register_event(Tick()), RecorderInvalidStateError)
                    await recorder.flush()
                if policy is FailurePolicy.QUARANTINE:
                    assert "quarantined" in (await recorder.aget_metric_snapshots())["failing"]
                else:
                    answer = told(lambda: recorder.register_event(Tick()), RecorderInvalidStateError)
                    assert answer is not None
                    assert answer.cause.cause is failing  # type: ignore[union-attr] # an error of the library
                assert recorder.statistics().metric_errors == 1

            with stage.trial(trouble.name), reacting(lambda _: trouble.strike()):
                await stage.play(Afflicted, act, failure_policy=policy, quarantine_after=1)
                await stage.neighbour_is_well()

    theatre.show(home, scene)


def test_ctrl_c_in_a_log_handler_stays_ctrl_c() -> None:
    """In the main thread a KeyboardInterrupt belongs to the program, wherever it hits."""
    with (
        reacting(lambda _: Trouble("", KeyboardInterrupt, KeyboardInterrupt).strike()),
        pytest.raises(KeyboardInterrupt),
    ):
        emit(logging.ERROR, "x", fields={})


@pytest.mark.parametrize("policy", OverflowPolicy)
@pytest.mark.parametrize("kind", [MetricsRecorder, Afflicted])
def test_a_log_handler_that_emits_into_the_same_recorder(
    backend: dict[str, Any], policy: OverflowPolicy, kind: type[MetricsRecorder]
) -> None:
    """A handler that counts log records by events does no harm, not even about its own metric's failures."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=kind, queue_max_size=3, queue_overflow_policy=policy, block_timeout=0.001
        )
        recorder.register_metric(Failing(ValueError("logged")))
        # No limit of the rate: every failure is a record, and every record is an event that fails.
        core_of(recorder).dispatcher._log = LimitedLog(interval=0.0)
        with reacting(
            lambda _: told(
                lambda: recorder.register_event(Tick(1)), RecorderQueueOverflowError, RecorderInvalidStateError
            )
        ) as handler:
            recorder.register_event(Tick(0))
            until(lambda: recorder.statistics().processed > 20)
            assert recorder.get_metric_snapshots()["failing"]["dimensions"]["total"] > 1
            assert recorder.flush().wait(DEADLINE).success
            assert recorder.stop().wait(DEADLINE).success
        assert len(handler.records) > 20
        assert balanced(recorder.statistics())


def test_a_log_handler_that_blocks(backend: dict[str, Any]) -> None:
    """It holds up the runtime's thread and nothing else: production emits, and an end that waits for it is bounded."""
    entered, release = threading.Event(), threading.Event()

    def block(_: logging.LogRecord) -> None:
        entered.set()
        assert release.wait(DEADLINE)

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x", queue_max_size=10)
        neighbour = runtime.create_recorder("neighbour")
        count = Count()
        neighbour.register_metric(count)
        recorder.register_metric(Failing(ValueError("logged")))
        with reacting(block):
            recorder.register_event(Tick())
            assert entered.wait(DEADLINE)
            for n in range(100):
                recorder.register_event(Tick(n))
                neighbour.register_event(Tick(n))
            assert recorder.statistics().dropped == 91
            with pytest.raises(TimeoutError):
                neighbour.flush().wait(0.001)
            release.set()
            assert neighbour.flush().wait(DEADLINE).success
            assert recorder.flush().wait(DEADLINE).success
        assert count.total == 100
        assert recorder.statistics().processed == 10


def test_a_log_handler_that_waits_for_the_recorder(backend: dict[str, Any]) -> None:
    """In the recorder's own thread it is told that it would wait for itself; in another it gets its answer."""
    answers: list[object] = []

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(Failing(ValueError("logged")))

        def wait(_: logging.LogRecord) -> None:
            answers.append(recorder.get_metric_snapshots()["failing"]["dimensions"])
            recorder.flush().wait()

        with reacting(wait):
            recorder.register_event(Tick())
            assert recorder.flush().wait(DEADLINE).success
            assert answers == [{"total": 1}]
            assert recorder.get_status() is RecorderState.RUNNING
            logger.error("from production")  # the handler's own lock is held by now
            assert len(answers) == 2


def test_a_log_handler_that_raises_while_the_runtime_ends(backend: dict[str, Any]) -> None:
    """A shutdown tells what it found, and ends, with nobody to write it down."""
    for kind in (ValueError, SystemExit, KeyboardInterrupt):
        trouble = Trouble("", kind, kind)
        with reacting(lambda _: trouble.strike()):
            runtime = MetricsRuntime(namespace="t", **backend)
            runtime.start()
            failing = runtime.create_recorder("failing", factory=Journal)
            failing.errors["stopped"] = ValueError("no")
            late = runtime.create_recorder("late", factory=Journal, drain_timeout=0.01)
            late.register_metric(Seen())
            late.changed = Gate()
            late.register_event(Tick())
            assert late.changed.reached.wait(DEADLINE)
            well = runtime.create_recorder("well", factory=Journal)
            with pytest.raises(MetricsRuntimeShutdownError) as caught:
                runtime.shutdown()
            assert set(caught.value.details["failed_recorder_ids"]) == {"failing", "late"}
            assert well.log[-1] == late.log[-1] == "stopped"
            assert runtime.get_status() is MetricsRuntimeState.FAILURE


@pytest.mark.anyio
async def test_a_log_handler_that_raises_as_a_block_ends(anyio_backend: object) -> None:
    """The block's own exception is the one that leaves it."""
    with reacting(lambda _: Trouble("", SystemExit, SystemExit).strike()):
        with pytest.raises(KeyError):
            async with Journal() as recorder:
                recorder.errors["stopped"] = ValueError("no")
                raise KeyError
        with pytest.raises(KeyError):
            async with MetricsRuntime(namespace="t") as runtime:
                other = await runtime.acreate_recorder("x", factory=Journal)
                other.errors["stopped"] = ValueError("no")
                raise KeyError
    await anyio.sleep(0)
