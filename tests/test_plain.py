"""Recorders without hooks in a runtime: no task, but turns."""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    RecorderDispatcherCancelledError,
    RecorderDrainTimeoutError,
    RecorderInvalidStateError,
    RecorderState,
    RecorderUnexpectedError,
)
from mvx.common.metrics import _hub as hub_module
from mvx.common.metrics import _rounds as rounds_module
from mvx.common.metrics._hub import LoopHub
from mvx.common.metrics._plain import PlainRun
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._rounds import QUIET_ROUNDS, ROUND
from mvx.common.metrics._runtime import supervisor_of
from tests.support import DEADLINE, Count, Tick, balanced, until


class Held:
    """Holds up the runtime's thread."""

    def __init__(self, hub: LoopHub) -> None:
        self.release = threading.Event()
        held = threading.Event()

        def hold() -> None:
            held.set()
            assert self.release.wait(DEADLINE)

        hub.call_soon(hold)
        assert held.wait(DEADLINE)


class Doing(Count):
    """Does something with every event."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act = act

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        self.act()
        return True


@pytest.fixture
def runtime(backend: dict[str, Any]) -> Iterator[MetricsRuntime]:
    with MetricsRuntime(namespace="t", **backend) as runtime:
        yield runtime


def hub_of(runtime: MetricsRuntime) -> LoopHub:
    return supervisor_of(runtime).engine_at_work().hub


def run_of(recorder: MetricsRecorder) -> PlainRun:
    run = core_of(recorder)._run
    assert isinstance(run, PlainRun)
    return run


def no_round_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a round that has found something the next is put off for longer than any test lasts; so is the heartbeat."""
    for pause in ("ROUND", "MAX_PAUSE"):
        monkeypatch.setattr(rounds_module, pause, 3600.0)
    monkeypatch.setattr(hub_module, "HEARTBEAT", 3600.0)


def cancel_tasks(runtime: MetricsRuntime) -> None:
    """Cancel everything in the runtime's loop, as somebody might who owns it in part."""
    home = supervisor_of(runtime).engine_at_work().home
    hub_of(runtime).call_soon(home._task_group.cancel_scope.cancel)


# --- beginning -----------------------------------------------------------------------------------


def test_one_is_created_while_the_thread_is_held_up(runtime: MetricsRuntime) -> None:
    """It is RUNNING at once and takes events, which are handled when the thread is back."""
    held = Held(hub_of(runtime))
    recorder = runtime.create_recorder("x")
    assert recorder.get_status() is RecorderState.RUNNING
    assert run_of(recorder).starting.done()
    recorder.register_metric(metric := Count())
    recorder.register_event(Tick())
    assert metric.total == 0
    held.release.set()
    assert recorder.flush().wait(DEADLINE).success
    assert metric.total == 1


def test_ctrl_c_in_a_creation_leaves_no_recorder_behind(
    runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun and nobody knows of it: it is stopped, and the id is free."""
    made: list[MetricsRecorder] = []
    start = MetricsRecorder.start

    def start_and_be_interrupted(recorder: MetricsRecorder) -> None:
        made.append(recorder)
        start(recorder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MetricsRecorder, "start", start_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            runtime.create_recorder("x")
    until(lambda: made[0].get_status() is RecorderState.STOPPED)
    assert runtime.create_recorder("x").get_status() is RecorderState.RUNNING
    until(lambda: len(hub_of(runtime).rounds) == 1)


# --- rounds --------------------------------------------------------------------------------------


def test_the_hub_sleeps_when_nothing_comes(runtime: MetricsRuntime) -> None:
    """And is rung for by the first event after that; those that follow while it is awake ring no more."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(metric := Count())
    hub = hub_of(runtime)
    recorder.register_event(Tick())
    until(lambda: metric.total == 1 and hub.nap == [None])
    assert core_of(recorder).inbox.nap is hub.nap
    held = Held(hub)
    recorder.register_event(Tick())
    assert hub.nap == []
    calls = len(hub._calls)
    recorder.register_event(Tick())
    assert len(hub._calls) == calls == 1
    held.release.set()
    until(lambda: metric.total == 3)


@pytest.mark.parametrize("forced", [False, True], ids=["found by a round", "forced by a flush"])
def test_the_hub_sleeps_after_so_many_quiet_rounds(
    runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    """Who emits now and then need not wake it each time; an event that did not wait for a round counts, too."""
    no_round_comes_by_itself(monkeypatch)
    recorder = runtime.create_recorder("x")
    hub = hub_of(runtime)

    def make_a_round() -> bool:
        """Return whether the hub is still awake behind it."""
        over = threading.Event()
        hub.call_soon(hub.rounds.look)
        hub.call_soon(lambda: hub.call_soon(over.set))  # behind the work that the look has found
        assert over.wait(DEADLINE)
        return hub.nap == []

    recorder.register_event(Tick())
    until(lambda: recorder.statistics().processed == 1)
    make_a_round()  # which finds that there was one
    for _ in range(QUIET_ROUNDS - 1):
        assert make_a_round()
    recorder.register_event(Tick())
    if forced:
        assert recorder.flush().wait(DEADLINE).success
    assert make_a_round()
    assert recorder.statistics().processed == 2
    if not forced:
        make_a_round()
    for _ in range(QUIET_ROUNDS):
        assert make_a_round()
    assert not make_a_round()


def test_a_half_full_inbox_does_not_wait_for_the_round(
    runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst finds room."""
    no_round_comes_by_itself(monkeypatch)
    recorder = runtime.create_recorder("x", queue_max_size=10, linger=ROUND)
    recorder.register_metric(metric := Count())
    recorder.register_event(Tick())
    inbox = core_of(recorder).inbox
    until(lambda: metric.total == 1 and hub_of(runtime).rounds.due < math.inf and not inbox.awake)
    assert hub_of(runtime).nap == []
    for n in range(6):
        recorder.register_event(Tick(n))
    until(lambda: metric.total == 7)


def test_a_lost_ring_is_healed(runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception may hit a producer between its taking the token and its ringing: the heartbeat makes up for it."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(metric := Count())
    hub = hub_of(runtime)
    until(lambda: hub._beating and not hub._calls)
    hub.nap.clear()  # what the producer did before the exception hit it
    recorder.register_event(Tick())
    assert not hub._calls
    hub.call_soon(hub._heartbeat)
    until(lambda: metric.total == 1 and hub.nap == [None])


def test_an_idle_one_beside_a_busy_one_waits_for_one_round(
    runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default: its first event wakes nobody, lies until the next round, and is handled in that one."""
    no_round_comes_by_itself(monkeypatch)
    hub = hub_of(runtime)
    rounds = 0
    look_round = hub.rounds.look

    def look_and_count() -> None:
        nonlocal rounds
        rounds += 1
        look_round()

    monkeypatch.setattr(hub.rounds, "look", look_and_count)
    monkeypatch.setattr(hub, "_heartbeat", lambda: None)  # it would find the event, too

    def come() -> None:
        hub.rounds.due = hub.loop.now()
        hub._set_alarm()

    busy, idle = runtime.create_recorder("busy"), runtime.create_recorder("idle")
    enough = threading.Event()

    def feed() -> None:
        if not enough.is_set():
            busy.register_event(Tick())

    busy.register_metric(feeding := Doing(feed))
    idle.register_metric(waiting := Doing(lambda: waited.append((rounds - before, feeding.total - emitted))))
    waited: list[tuple[int, int]] = []
    busy.register_event(Tick())  # and one more with each that is handled, so that there always is one
    until(lambda: feeding.total > 100)
    for done in range(3):
        until(lambda: not core_of(idle).inbox.awake)  # handling an event, it would find the next one by itself
        before, emitted = rounds, feeding.total
        held = Held(hub)
        idle.register_event(Tick())
        assert not hub._calls
        held.release.set()
        until(lambda: feeding.total > emitted + 1000)
        assert waiting.total == done
        hub.call_soon(come)
        until(lambda: len(waited) == done + 1)  # not its total, which is counted before
    enough.set()
    assert [over for over, _ in waited] == [1, 1, 1]
    assert min(meanwhile for _, meanwhile in waited) > 1000


@pytest.mark.parametrize(("work", "pause"), [(0.0, 0.1), (0.0004, 0.1), (0.002, 0.2), (10.0, 1.0)])
def test_rounds_take_no_more_than_their_share(
    runtime: MetricsRuntime, monkeypatch: pytest.MonkeyPatch, work: float, pause: float
) -> None:
    """The more work a look at everybody is, the later comes the next, but within a second."""
    hub = hub_of(runtime)
    monkeypatch.setattr(hub.rounds, "_wake_who_has_events", lambda: True)
    clock = iter((0.0, work))

    class Clock:
        thread_time = staticmethod(lambda: next(clock))

    held = Held(hub)  # so that the hub's own steps do not use up the clock
    with monkeypatch.context() as patched:
        patched.setattr(rounds_module, "time", Clock)
        patched.setattr(hub.loop.__class__, "now", lambda _: 100.0)
        hub.rounds.look()
    assert hub.rounds.due == 100.0 + pause
    hub.rounds.due = math.inf
    held.release.set()


def test_a_linger_of_ones_own(runtime: MetricsRuntime) -> None:
    """Whoever wants another linger than the rounds give is not looked at by them."""
    recorder = runtime.create_recorder("x", linger=3600.0)
    recorder.register_metric(metric := Count())
    recorder.register_event(Tick())
    inbox = core_of(recorder).inbox
    until(lambda: metric.total == 1 and inbox.lingering)
    assert inbox.nap is not hub_of(runtime).nap
    recorder.register_event(Tick())
    other = runtime.create_recorder("y")
    other.register_event(Tick())
    until(lambda: other.statistics().processed == 1)
    assert metric.total == 1
    assert recorder.flush().wait(DEADLINE).success
    assert metric.total == 2


# --- turns ---------------------------------------------------------------------------------------


def test_metrics_of_two_recorders_do_not_share_context_variables(runtime: MetricsRuntime) -> None:
    """What a metric sets, its own recorder's metrics see from then on, and nobody else's."""
    variable = contextvars.ContextVar("variable", default=0)
    seen: dict[str, list[int]] = {"one": [], "two": []}
    for name, mine in seen.items():

        def act(mine: list[int] = mine) -> None:
            mine.append(variable.get())
            variable.set(variable.get() + 1)

        runtime.create_recorder(name).register_metric(Doing(act))
    for n in range(3):
        for name in seen:
            recorder = runtime.get_recorder(name)
            recorder.register_event(Tick(n))
            assert recorder.flush().wait(DEADLINE).success
    assert seen == {"one": [0, 1, 2], "two": [0, 1, 2]}


def test_a_request_is_answered_after_what_was_accepted_before(runtime: MetricsRuntime) -> None:
    """Also when the events before it take more than one turn, and others come meanwhile."""
    hub = hub_of(runtime)
    recorder = runtime.create_recorder("x")

    def tire_and_feed() -> None:
        hub._rested_at = 0.0
        if metric.total < 50:
            recorder.register_event(Tick())

    recorder.register_metric(metric := Doing(tire_and_feed))
    held = Held(hub)
    for n in range(5):
        recorder.register_event(Tick(n))
    flush = recorder.flush()
    snapshots: list[int] = []
    reader = threading.Thread(
        target=lambda: snapshots.append(recorder.get_metric_snapshots()["count"]["dimensions"]["total"])
    )
    reader.start()
    until(lambda: len(core_of(recorder).inbox.requests) == 2)
    held.release.set()
    assert flush.wait(DEADLINE).success
    reader.join(DEADLINE)
    assert snapshots == [5]
    until(lambda: recorder.statistics().pending == 0)


# --- ending --------------------------------------------------------------------------------------


def test_a_drain_that_runs_out_of_time(runtime: MetricsRuntime) -> None:
    """What is left is abandoned, counted and reported."""
    hub = hub_of(runtime)
    recorder = runtime.create_recorder("x", drain_timeout=0.0)

    def tire() -> None:
        hub._rested_at = 0.0

    recorder.register_metric(Doing(tire))
    held = Held(hub)
    for n in range(5):
        recorder.register_event(Tick(n))
    stop = recorder.stop()
    held.release.set()
    error = stop.wait(DEADLINE).error
    assert isinstance(error, RecorderDrainTimeoutError)
    statistics = recorder.statistics()
    assert statistics.abandoned == error.details["abandoned"] == 4
    assert balanced(statistics)
    assert recorder.get_status() is RecorderState.STOPPED


def test_a_metric_that_fails_the_recorder(runtime: MetricsRuntime) -> None:
    """Under FAIL: it is over, what is pending is abandoned, and its neighbours go on."""

    def fail() -> None:
        raise ArithmeticError

    recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.FAIL)
    recorder.register_metric(Doing(fail))
    held = Held(hub_of(runtime))
    for n in range(3):
        recorder.register_event(Tick(n))
    flush = recorder.flush()
    held.release.set()
    assert isinstance(flush.wait(DEADLINE).error, RecorderUnexpectedError)
    assert recorder.get_status() is RecorderState.FAILURE
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.abandoned, statistics.metric_errors) == (1, 2, 1)
    other = runtime.create_recorder("y")
    other.register_event(Tick())
    assert other.flush().wait(DEADLINE).success
    with pytest.raises(MetricsRuntimeShutdownError):
        runtime.shutdown()


@pytest.mark.parametrize("drain_timeout", [None, 5.0])
def test_the_runtimes_loop_is_ended_by_somebody_else(backend: dict[str, Any], drain_timeout: float | None) -> None:
    """All that was accepted is processed all the same, and the recorders are CANCELLED."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    recorders = [runtime.create_recorder(f"r{n}", drain_timeout=drain_timeout) for n in range(3)]
    held = Held(hub_of(runtime))
    for recorder in recorders:
        recorder.register_metric(Count())
        for n in range(100):
            recorder.register_event(Tick(n))
    flush = recorders[0].flush()
    cancel_tasks(runtime)
    held.release.set()
    until(lambda: runtime.get_status() is MetricsRuntimeState.FAILURE)
    assert flush.wait(DEADLINE).success
    for recorder in recorders:
        assert recorder.get_status() is RecorderState.CANCELLED
        assert recorder.statistics().processed == 100
        assert balanced(recorder.statistics())
        with pytest.raises(RecorderInvalidStateError):
            recorder.register_event(Tick())


def test_the_end_of_the_runtimes_loop_does_not_wait_for_ever(backend: dict[str, Any]) -> None:
    """The time of a drain is all that a recorder gets: where that is none, the one event that is begun in any case."""
    runtime = MetricsRuntime(namespace="t", **backend)
    runtime.start()
    hub = hub_of(runtime)
    recorder = runtime.create_recorder("x", drain_timeout=0.0, linger=3600.0)

    def tire() -> None:
        hub._rested_at = 0.0

    recorder.register_metric(metric := Doing(tire))
    recorder.register_event(Tick())
    inbox = core_of(recorder).inbox
    until(lambda: metric.total == 1 and inbox.lingering)  # so that nothing is done with the others before the end
    for n in range(100):
        recorder.register_event(Tick(n))
    held = Held(hub)  # else the loop might have ended before it has been told to
    cancel_tasks(runtime)
    held.release.set()
    until(lambda: runtime.get_status() is MetricsRuntimeState.FAILURE)
    assert recorder.get_status() is RecorderState.CANCELLED
    error = core_of(recorder).error
    assert isinstance(error, RecorderDispatcherCancelledError)
    statistics = recorder.statistics()
    assert error.details["abandoned"] == statistics.abandoned == 99
    assert statistics.processed == metric.total == 2
    assert balanced(statistics)
