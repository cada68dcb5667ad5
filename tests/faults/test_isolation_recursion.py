"""Production that calls with next to no stack left: it may get a RecursionError, and nobody else is the worse for it.

Every call is made at every depth just below the interpreter's limit, so that the limit is hit at each of the
library's own calls in turn, until there is room enough for all of them.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import anyio
import pytest

from mvx.common.metrics import (
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderAlreadyExistsError,
    MetricsRuntimeRecorderNotFoundError,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderQueueOverflowError,
    RecorderState,
)
from mvx.common.metrics._recorder import core_of
from tests.conftest import Effort, Tally
from tests.faults.hostile import Theatre, every_home, in_thread, theatre_for
from tests.support import DEADLINE, Count, Gate, Journal, Seen, Tick, auntil, balanced, until

T = TypeVar("T")

TRIED = "calls with next to no stack left"
ENOUGH = 12
"""Successes running after which there is room for everything."""
MOST = 300
"""Frames after which a sweep has gone wrong."""
FOR_UNDOING = 120
"""More frames than it takes to start, and to undo that."""
NOT_CALLED_LIKE_THAT = len
"""Raises a TypeError, and needs no stack for it."""


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture(scope="module", autouse=True)
def deaf() -> Iterator[None]:
    """Without stack even a complaint about a coroutine that was never awaited fails, and complains of that."""
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    yield
    gc.collect()
    sys.unraisablehook = before


def depth() -> int:
    frame: FrameType | None = sys._getframe()
    count = 0
    while frame is not None:
        count, frame = count + 1, frame.f_back
    return count


def with_room_for(frames: int, call: Callable[[], T]) -> T:
    """Call so deep down the stack that only so many more calls are possible."""

    def dive(left: int) -> T:
        return call() if left <= 0 else dive(left - 1)

    return dive(sys.getrecursionlimit() - depth() - frames - 2)


def sweep() -> Iterator[tuple[int, list[bool]]]:
    """Yield every room from none, and a list for whether the call succeeded; end when it has done so for long.

    From less than none, which does not even reach the call: an emit may need next to nothing.
    """
    running = 0
    for frames in range(-2, MOST):
        succeeded: list[bool] = []
        yield frames, succeeded
        running = running + 1 if succeeded[0] else 0
        if running == ENOUGH:
            return
    pytest.fail("the call never succeeds")


def attempt(frames: int, call: Callable[[], object], *documented: type[BaseException]) -> bool:
    """Call with that much room; return whether there was enough.  Nothing but a RecursionError may come of it."""
    try:
        with_room_for(frames, call)
    except RecursionError:
        return False
    except documented as exc:
        # The library may have run out of stack in its own thread of control, and says so in its own words.
        return not isinstance(exc.__cause__, RecursionError)
    return True


def parked(recorder: MetricsRecorder) -> None:
    """Wait until the recorder sleeps, so that the next event has to wake it."""
    until(lambda: isinstance(core_of(recorder).inbox.nap, list))


class Case:
    """A call, and what makes it possible."""

    def __init__(self, runtime: MetricsRuntime, **options: Any) -> None:
        self.runtime = runtime
        self.recorder = runtime.create_recorder("x", factory=Journal, **{"linger": 0, **options})
        self.count = Count()
        self.recorder.register_metric(self.count)
        self.expected = 0

    def prepare(self) -> None:
        parked(self.recorder)

    def call(self) -> object:
        raise NotImplementedError

    def check(self, *, succeeded: bool) -> None:
        """Check that the recorder works as if nothing had happened."""
        assert self.recorder.get_status() is RecorderState.RUNNING
        self.recorder.register_event(Tick())
        assert self.recorder.flush().wait(DEADLINE).success
        assert balanced(self.recorder.statistics())
        assert self.recorder.get_metric_snapshots()["count"]["dimensions"]["total"] == self.count.total

    def tidy_up(self) -> None:
        self.runtime.stop_and_remove_recorder("x")


class Emit(Case):
    def call(self) -> object:
        return self.recorder.register_event(Tick(1))

    def check(self, *, succeeded: bool) -> None:
        super().check(succeeded=succeeded)
        assert self.count.total in ((2,) if succeeded else (1, 2))


class EmitUnknownClass(Emit):
    def call(self) -> object:
        core_of(self.recorder).home.known.clear()
        return super().call()


class EmitInLinger(Emit):
    def __init__(self, runtime: MetricsRuntime) -> None:
        super().__init__(runtime, linger=3600.0)

    def prepare(self) -> None:
        self.recorder.register_event(Tick())
        until(lambda: core_of(self.recorder).inbox.lingering)

    def check(self, *, succeeded: bool) -> None:
        self.count.total -= 1
        assert self.recorder.flush().wait(DEADLINE).success
        super().check(succeeded=succeeded)


class EmitWhenFull(Case):
    policy: OverflowPolicy

    def __init__(self, runtime: MetricsRuntime) -> None:
        super().__init__(runtime, queue_max_size=2, queue_overflow_policy=self.policy, block_timeout=0.001)

    def prepare(self) -> None:
        self.recorder.changed = Gate()
        self.recorder.register_event(Tick())
        assert self.recorder.changed.reached.wait(DEADLINE)
        self.recorder.register_event(Tick())

    def call(self) -> object:
        return self.recorder.register_event(Tick())

    def check(self, *, succeeded: bool) -> None:
        assert self.recorder.statistics().accepted <= 3
        assert not core_of(self.recorder).inbox.line
        self.recorder.changed.open()
        assert self.recorder.flush().wait(DEADLINE).success
        super().check(succeeded=succeeded)


class Drop(EmitWhenFull):
    policy = OverflowPolicy.DROP


class DropOldest(EmitWhenFull):
    policy = OverflowPolicy.DROP_OLDEST


class RaiseError(EmitWhenFull):
    policy = OverflowPolicy.RAISE_ERROR


class Block(EmitWhenFull):
    policy = OverflowPolicy.BLOCK


class Snapshots(Case):
    def call(self) -> object:
        return self.recorder.get_metric_snapshots()


class Statistics(Case):
    def call(self) -> object:
        return self.recorder.statistics()


class Flush(Case):
    def call(self) -> object:
        return self.recorder.flush()


class FlushAndWait(Case):
    def call(self) -> object:
        return self.recorder.flush().wait(DEADLINE)


class Start(Case):
    def call(self) -> object:
        return self.recorder.start()


class RegisterMetric(Case):
    def call(self) -> object:
        return self.recorder.register_metric(Seen())


class Stop(Case):
    def call(self) -> object:
        return self.recorder.stop()

    def check(self, *, succeeded: bool) -> None:
        handle = self.recorder.stop()
        result = handle.wait(DEADLINE)
        # A stop that has completed meanwhile is none that is under way.
        assert result.success or self.recorder.get_status() is RecorderState.STOPPED
        assert self.recorder.log == ["starting", "started", "stopping", "stopped"]
        assert self.recorder.start().wait(DEADLINE).success
        super().check(succeeded=succeeded)


class Restart(Case):
    def prepare(self) -> None:
        assert self.recorder.stop().wait(DEADLINE).success

    def call(self) -> object:
        return self.recorder.start()

    def check(self, *, succeeded: bool) -> None:
        handle = self.recorder.start()
        handle.wait(DEADLINE)
        super().check(succeeded=succeeded)


class StopRecorder(Case):
    def call(self) -> object:
        self.runtime.stop_recorder("x")
        return None

    def check(self, *, succeeded: bool) -> None:
        self.runtime.stop_recorder("x")
        assert self.recorder.get_status() is RecorderState.STOPPED
        assert self.recorder.log[-1] == "stopped"


class Remove(StopRecorder):
    def call(self) -> object:
        return self.runtime.stop_and_remove_recorder("x")

    def check(self, *, succeeded: bool) -> None:
        try:
            self.runtime.stop_and_remove_recorder("x")
        except MetricsRuntimeRecorderNotFoundError:
            self.recorder.stop().wait(DEADLINE)
        assert self.recorder.get_status() is RecorderState.STOPPED
        assert self.recorder.log[-1] == "stopped"

    def tidy_up(self) -> None:
        assert "x" not in self.runtime.list_recorder_ids()


class Create(Case):
    def call(self) -> object:
        return self.runtime.create_recorder("y", factory=Journal)

    def check(self, *, succeeded: bool) -> None:
        try:
            other = self.runtime.create_recorder("y", factory=Journal)
        except MetricsRuntimeRecorderAlreadyExistsError:
            # It was created, and only the way back was too long; or it is being given up.
            until(lambda: self.runtime.try_get_recorder("y") or self._free("y"))
            found = self.runtime.try_get_recorder("y") or self.runtime.create_recorder("y", factory=Journal)
            assert isinstance(found, Journal)
            other = found
        other.register_event(Tick())
        assert other.flush().wait(DEADLINE).success
        self.runtime.stop_and_remove_recorder("y")
        super().check(succeeded=succeeded)

    def _free(self, recorder_id: str) -> bool:
        return recorder_id not in self.runtime._supervisor._creations


CASES: tuple[type[Case], ...] = (
    Emit,
    EmitUnknownClass,
    EmitInLinger,
    Drop,
    DropOldest,
    RaiseError,
    Block,
    Snapshots,
    Statistics,
    Flush,
    FlushAndWait,
    Start,
    Stop,
    Restart,
    RegisterMetric,
    StopRecorder,
    Remove,
    Create,
)


@pytest.mark.parametrize("case", CASES)
def test_a_call_with_next_to_no_stack_left(theatre: Theatre, case: type[Any], tally: Tally) -> None:
    """It succeeds or raises a RecursionError; the recorder, its neighbour and the runtime go on, and end well."""
    tried = 0

    def body() -> None:
        nonlocal tried
        with MetricsRuntime(namespace="t", **theatre.keywords) as runtime:
            neighbour = runtime.create_recorder("neighbour", linger=0)
            count = Count()
            neighbour.register_metric(count)
            for frames, succeeded in sweep():
                instance: Case = case(runtime)
                instance.prepare()
                succeeded.append(
                    attempt(frames, instance.call, RecorderQueueOverflowError, MetricsRuntimeRecorderStartupError)
                )
                tried += 1
                try:
                    assert runtime.get_status() is MetricsRuntimeState.RUNNING
                    instance.check(succeeded=succeeded[0])
                    neighbour.register_event(Tick())
                    assert neighbour.flush().wait(DEADLINE).success
                    assert count.total == tried
                    instance.tidy_up()
                except BaseException as exc:
                    exc.add_note(
                        f"with room for {frames} frames, where the call {'succeeded' if succeeded[0] else 'did not'}"
                    )
                    raise

    in_thread(body)
    assert tried > ENOUGH
    tally(TRIED, tried)


def test_a_start_in_vain_with_next_to_no_stack_left(
    theatre: Theatre, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start whose task cannot be launched has not been, however little stack is left to undo it."""
    tried = 0

    def body() -> None:
        nonlocal tried
        with MetricsRuntime(namespace="t", **theatre.keywords) as runtime:
            for frames in range(FOR_UNDOING):
                instance = Restart(runtime)
                instance.prepare()
                core = core_of(instance.recorder)
                run = core._new_run()
                with monkeypatch.context() as patch:
                    # All that comes first needs no stack of ours, so that the least is left for what follows it.
                    patch.setattr(type(core), "_new_run", itertools.repeat(run).__next__)
                    patch.setattr(type(run), "attend", staticmethod(id))
                    patch.setattr(type(run), "launch", staticmethod(NOT_CALLED_LIKE_THAT))
                    with pytest.raises((RecursionError, TypeError)):
                        with_room_for(frames, instance.call)
                assert instance.recorder.get_status() is RecorderState.STOPPED, frames
                instance.check(succeeded=False)
                instance.tidy_up()
                tried += 1

    in_thread(body)
    tally(TRIED, tried)


def test_a_shutdown_with_next_to_no_stack_left(theatre: Theatre, tally: Tally) -> None:
    """Another call completes what one with too little room has begun."""
    tried = 0

    def body() -> None:
        nonlocal tried
        for frames, succeeded in sweep():
            runtime = MetricsRuntime(namespace="t", **theatre.keywords)
            runtime.start()
            recorder = runtime.create_recorder("x", factory=Journal, linger=0)
            recorder.register_event(Tick())
            succeeded.append(attempt(frames, runtime.shutdown))
            runtime.shutdown()
            assert runtime.get_status() is MetricsRuntimeState.CLOSED, frames
            assert recorder.log[-1] == "stopped"
            assert recorder.statistics().processed == 1
            tried += 1

    in_thread(body)
    tally(TRIED, tried)


def test_a_start_of_a_runtime_with_next_to_no_stack_left(theatre: Theatre, tally: Tally) -> None:
    """It is running afterwards, or can be started, or says that it could not be."""
    tried = 0

    def body() -> None:
        nonlocal tried
        for frames, succeeded in sweep():
            runtime = MetricsRuntime(namespace="t", **theatre.keywords)
            succeeded.append(attempt(frames, runtime.start))
            until(lambda: runtime.get_status() is not MetricsRuntimeState.STARTING)
            if runtime.get_status() is not MetricsRuntimeState.FAILURE:
                runtime.start()
                recorder = runtime.create_recorder("x")
                recorder.register_event(Tick())
                assert recorder.flush().wait(DEADLINE).success, frames
                runtime.shutdown()
                assert runtime.get_status() is MetricsRuntimeState.CLOSED, frames
            tried += 1

    in_thread(body)
    tally(TRIED, tried)


def test_an_event_that_was_accepted_with_next_to_no_stack_left(theatre: Theatre) -> None:
    """If the emit raised after all, the event is processed within a heartbeat, with nobody to look after it."""

    def body() -> None:
        with MetricsRuntime(namespace="t", **theatre.keywords) as runtime:
            recorders = []
            for frames in range(60):
                recorder = runtime.create_recorder(f"{frames}", linger=0)
                recorder.register_metric(Count())
                parked(recorder)
                attempt(frames, lambda: recorder.register_event(Tick()))
                recorders.append(recorder)
            for recorder in recorders:
                until(lambda: recorder.statistics().pending == 0)
                assert recorder.get_status() is RecorderState.RUNNING
                assert balanced(recorder.statistics())

    in_thread(body)


@pytest.mark.parametrize("call", ["register_event", "start", "flush", "stop"])
def test_a_recorder_on_a_loop_with_next_to_no_stack_left(theatre: Theatre, call: str, tally: Tally) -> None:
    """The first event starts it, or does not: the next one finds it as it should be."""
    tried = 0

    async def main() -> None:
        nonlocal tried
        for frames, succeeded in sweep():
            recorder = Journal(linger=0)
            recorder.register_metric(Count())
            if call == "stop":
                assert (await recorder.start()).success
            calls: dict[str, Callable[[], object]] = {
                "register_event": lambda: recorder.register_event(Tick(1)),
                "start": recorder.start,
                "flush": recorder.flush,
                "stop": recorder.stop,
            }
            succeeded.append(attempt(frames, calls[call]))
            with anyio.fail_after(DEADLINE):
                if call == "stop":
                    await recorder.stop()
                    await auntil(lambda: recorder.get_status() is RecorderState.STOPPED)
                    assert recorder.log == ["starting", "started", "stopping", "stopped"], frames
                await recorder.start()
                assert recorder.get_status() is RecorderState.RUNNING, frames
                recorder.register_event(Tick(2))
                assert (await recorder.flush()).success, frames
                assert recorder.statistics().processed in (1, 2), frames
                assert (await recorder.stop()).success, frames
                assert recorder.log.count("started") == recorder.log.count("stopped"), frames
                assert balanced(recorder.statistics()), frames
            tried += 1

    in_thread(lambda: anyio.run(main, **theatre.keywords))
    tally(TRIED, tried)


class Deep(Count):
    """Calls something with next to no stack left, in the midst of an event."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__("deep")
        self.call = call
        self.frames = 0

    def handle_event(self, event: Any) -> bool:
        super().handle_event(event)
        return with_room_for(self.frames, lambda: self.call() is None)


@pytest.mark.parametrize("call", ["own", "neighbour", "snapshots", "stop"])
def test_a_metric_that_calls_with_next_to_no_stack_left(theatre: Theatre, home: str, call: str, tally: Tally) -> None:
    """What it runs into is its own failure."""
    tried = 0

    async def scene(stage: Any) -> None:
        nonlocal tried
        for frames in range(0, 60, 1 if theatre.long else 7):

            async def act(recorder: Journal) -> None:
                calls: dict[str, Callable[[], object]] = {
                    "own": lambda: recorder.register_event(Seen),  # type: ignore[arg-type] # bad input, rather than more and more
                    "neighbour": lambda: stage.neighbour.register_event(Gate),
                    "snapshots": recorder.get_metric_snapshots,
                    "stop": recorder.stop,
                }
                deep = Deep(calls[call])
                deep.frames = frames
                recorder.register_metric(deep)
                recorder.register_metric(Count())
                for n in range(3):
                    if recorder.get_status() is RecorderState.RUNNING:
                        recorder.register_event(Tick(n))
                        await recorder.flush()
                assert balanced(recorder.statistics())
                if call != "stop":
                    assert recorder.get_status() is RecorderState.RUNNING
                    assert recorder.statistics().processed == 3

            with stage.trial(frames):
                part = await stage.play(Journal, act)
                await auntil(lambda: part.recorder.get_status() is RecorderState.STOPPED)
                assert part.recorder.log[-1] == "stopped"
                await stage.neighbour_is_well()
                tried += 1

    theatre.show(home, scene)
    tally(TRIED, tried)
