"""What the recorders of one loop share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    RecorderState,
    RecorderUnexpectedError,
)
from mvx.common.metrics._backends import EventLoop, LoopGoneError
from mvx.common.metrics._hub import LoopHub, hub_of
from mvx.common.metrics._recorder import core_of
from mvx.common.metrics._rounds import ROUND
from mvx.common.metrics._runtime import supervisor_of
from mvx.common.metrics._waiting import current_loop
from tests.support import DEADLINE, HOMES, Count, Journal, Plain, Tick, auntil, balanced, virgin


def test_idle_recorders_share_one_wake_up(backend: dict[str, Any]) -> None:
    """Emitting to a thousand idle recorders while their loop is busy posts a single wake-up."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorders = [runtime.create_recorder(f"r{n}") for n in range(1000)]
        for recorder in recorders:
            recorder.register_metric(Count())
        hub = core_of(recorders[0]).home.hub()
        posts: list[object] = []
        busy, release = threading.Event(), threading.Event()

        class Counting:
            def __init__(self, loop: EventLoop) -> None:
                self._loop = loop

            def post(self, callback: Callable[[], object]) -> None:
                posts.append(callback)
                self._loop.post(callback)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._loop, name)

        def hold() -> None:
            busy.set()
            release.wait(DEADLINE)

        hub.call_soon(hold)
        assert busy.wait(DEADLINE)
        plain = hub.loop
        hub.loop = Counting(plain)
        try:
            for recorder in recorders:
                recorder.register_event(Tick())
        finally:
            hub.loop = plain
            release.set()
        assert len(posts) == 1
        assert all(r.get_metric_snapshots()["count"]["dimensions"] == {"total": 1} for r in recorders)


@pytest.mark.anyio
async def test_one_hub_a_loop() -> None:
    """Recorders made on the same loop share its hub."""
    one, two = MetricsRecorder("one"), MetricsRecorder("two")
    assert core_of(one).home.hub() is core_of(two).home.hub() is hub_of(current_loop())


@pytest.mark.anyio
async def test_a_failing_call_hurts_no_other() -> None:
    """What a call raises is logged; the calls behind it run."""
    hub = hub_of(current_loop())
    done = anyio.Event()

    def fail() -> None:
        raise ValueError

    hub.call_soon(fail)
    hub.call_soon(done.set)
    with anyio.fail_after(DEADLINE):
        await done.wait()


@pytest.mark.anyio
async def test_a_lost_wake_up_is_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception may hit a producer between its append and its wake-up: the heartbeat makes up for it."""
    monkeypatch.setattr("mvx.common.metrics._hub.HEARTBEAT", 0.05)
    async with MetricsRecorder("x", linger=0.0) as recorder:
        metric = Count()
        recorder.register_metric(metric)
        assert (await recorder.flush()).success
        inbox = core_of(recorder).inbox
        while not inbox.idle:
            await anyio.sleep(0)
        assert isinstance(inbox.nap, list)
        inbox.nap.pop()  # what the producer did before the exception hit it
        recorder.register_event(Tick())
        assert metric.total == 0
        await auntil(lambda: metric.total)


@pytest.mark.anyio
async def test_linger_gathers_events_into_batches() -> None:
    """While events keep coming, the actor sleeps between two drains and emitters wake nobody."""
    wake_ups = 0

    async with MetricsRecorder("x", linger=3600.0) as recorder:
        recorder.register_metric(Count())
        recorder.register_event(Tick())  # an idle recorder handles the first event at once
        with anyio.fail_after(DEADLINE):
            while recorder.statistics().processed < 1:
                await anyio.sleep(0)
        core = core_of(recorder)
        while not core.inbox.lingering:
            await anyio.sleep(0)

        def ring() -> bool:
            nonlocal wake_ups
            wake_ups += 1
            return True

        bell, core.inbox._bell = core.inbox._bell, ring
        for n in range(1000):
            recorder.register_event(Tick(n))
        assert wake_ups == 0
        core.inbox._bell = bell
        assert recorder.statistics().processed == 1
        assert (await recorder.flush()).success  # does not wait for the linger to end
        assert recorder.statistics().processed == 1001


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("home", "kind"),
    # Without hooks in a runtime there are rounds instead: see test_plain.py.
    [
        (home, kind)
        for home in HOMES
        for kind in (MetricsRecorder, Plain, Journal)
        if (home, kind) != ("runtime", MetricsRecorder)
    ],
)
async def test_by_default_a_recorder_lingers_for_one_round(
    home: str, kind: type[MetricsRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that comes during the linger waits for its end, and not for another; behind none there is no linger."""
    asked: list[tuple[object, float]] = []

    def look_later(_: LoopHub, sleeper: object, delay: float) -> bool:
        asked.append((sleeper, delay))
        return True

    monkeypatch.setattr(LoopHub, "look_later", look_later)
    async with virgin(home, kind, "x") as recorder:
        recorder.register_metric(metric := Count())
        recorder.register_event(Tick())
        inbox, hub = core_of(recorder).inbox, core_of(recorder).home.hub()
        for rounds in range(1, 4):
            await auntil(lambda: len(asked) == rounds and inbox.lingering)
            assert metric.total == rounds
            recorder.register_event(Tick())
            await turns_of(hub)
            assert (metric.total, inbox.lingering) == (rounds, True)
            hub.call_soon(inbox.look)
        await auntil(lambda: len(asked) == 4 and inbox.lingering)
        assert metric.total == 4
        hub.call_soon(inbox.look)
        await auntil(lambda: inbox.idle)
        hub.call_soon(inbox.wake)  # for nothing
        await turns_of(hub)
        await auntil(lambda: inbox.idle)
        assert asked == [(inbox, ROUND)] * 4


async def turns_of(hub: LoopHub) -> None:
    """Wait until the hub's loop, which may be another thread's, has come round a few times."""
    for _ in range(5):
        come_round = threading.Event()
        hub.call_soon(come_round.set)
        await auntil(come_round.is_set)


@pytest.mark.anyio
async def test_a_half_full_inbox_ends_a_linger() -> None:
    """A burst finds room: the actor is woken when half of it is taken."""
    async with MetricsRecorder("x", linger=3600.0, queue_max_size=10) as recorder:
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        inbox = core_of(recorder).inbox
        with anyio.fail_after(DEADLINE):
            while not inbox.lingering:
                await anyio.sleep(0)
            for n in range(6):
                recorder.register_event(Tick(n))
            while recorder.statistics().processed < 7:
                await anyio.sleep(0)


@pytest.mark.anyio
async def test_a_linger_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that came during a linger are handled at its end, and an idle inbox parks."""
    lingers: list[float] = []
    plain = LoopHub.look_later

    def look_later(hub: LoopHub, sleeper: Any, delay: float) -> bool:
        lingers.append(delay)
        return plain(hub, sleeper, delay)

    monkeypatch.setattr(LoopHub, "look_later", look_later)
    async with MetricsRecorder("x", linger=0.01) as recorder:
        metric = Count()
        recorder.register_metric(metric)
        inbox = core_of(recorder).inbox
        recorder.register_event(Tick())
        with anyio.fail_after(DEADLINE):
            while not lingers:  # not inbox.lingering, which may be over before anybody looks
                await anyio.sleep(0)
            recorder.register_event(Tick())
            await auntil(lambda: metric.total == 2)
            await auntil(lambda: inbox.idle)


@pytest.mark.anyio
async def test_a_busy_recorder_does_not_starve_its_neighbour(home: str) -> None:
    """A recorder that feeds itself without end lets the other recorders of its loop work, and can be stopped."""
    if home == "group":
        pytest.skip("two recorders of one loop are the same there")

    class Endless(Count):
        def __init__(self, recorder: MetricsRecorder) -> None:
            super().__init__()
            self._recorder = recorder

        def handle_event(self, event: MetricEvent) -> bool:
            self._recorder.register_event(event)
            return super().handle_event(event)

    async def check(busy: MetricsRecorder, calm: MetricsRecorder) -> None:
        busy.register_metric(Endless(busy))
        calm.register_metric(Count())
        busy.register_event(Tick())
        with anyio.fail_after(DEADLINE):
            for n in range(20):
                calm.register_event(Tick(n))
                assert (await calm.aget_metric_snapshots())["count"]["dimensions"] == {"total": n + 1}
            assert (await busy.flush()).success
            assert (await busy.stop()).success

    if home == "loop":
        calm = MetricsRecorder("calm")
        await check(MetricsRecorder("busy"), calm)
        await calm.stop()
    else:
        async with MetricsRuntime(namespace="t", backend=current_loop().backend) as runtime:
            await check(await runtime.acreate_recorder("busy"), await runtime.acreate_recorder("calm"))


def test_a_hub_of_a_gone_loop_says_so() -> None:
    """is_gone() finds out that a loop was closed."""
    hubs: list[LoopHub] = []

    async def main() -> None:
        hubs.append(hub_of(current_loop()))

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
        assert hubs.pop().is_gone()


@pytest.mark.anyio
async def test_ctrl_c_in_a_wake_up_does_not_make_the_hub_deaf() -> None:
    """The call that was cut short is made up for by the next."""
    hub = hub_of(current_loop())
    plain = hub.loop
    done = anyio.Event()

    class Interrupted:
        def post(self, callback: Callable[[], object]) -> None:
            raise KeyboardInterrupt

    hub.loop = Interrupted()  # type: ignore[assignment] # only its one method is used
    try:
        with pytest.raises(KeyboardInterrupt):
            hub.call_soon(done.set)
    finally:
        hub.loop = plain
    hub.call_soon(lambda: None)
    with anyio.fail_after(DEADLINE):
        await done.wait()


@pytest.mark.anyio
async def test_a_call_to_a_loop_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and so is every later one without another try."""
    hub = LoopHub(current_loop(), may_block=False)

    class Gone:
        def post(self, callback: Callable[[], object]) -> None:
            raise LoopGoneError

    hub.loop = Gone()  # type: ignore[assignment] # only its one method is used
    for _ in range(2):
        with pytest.raises(LoopGoneError):
            hub.call_soon(lambda: None)
    assert hub.is_gone()


@pytest.mark.anyio
async def test_a_fault_of_the_library_itself_is_a_failure_of_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is accounted for and everybody who waits is told, whatever goes wrong inside."""
    recorder = MetricsRecorder("x")
    recorder.register_metric(Count())

    def broken(*args: object) -> int:
        raise ArithmeticError

    monkeypatch.setattr(core_of(recorder).dispatcher, "dispatch", broken)
    recorder.register_event(Tick())
    flush = recorder.flush()
    result = await flush
    assert isinstance(result.error, RecorderUnexpectedError)
    assert isinstance(result.error.cause, ArithmeticError)
    assert recorder.get_status() is RecorderState.FAILURE
    assert balanced(recorder.statistics())


@pytest.mark.anyio
@pytest.mark.parametrize("home", ["loop", "runtime"])
@pytest.mark.parametrize("then", ["put off", "taken back"])
async def test_an_alarm_that_another_changes_when_both_are_due(home: str, then: str) -> None:
    """It is sounded when it was told last, and not as it would have been."""

    async def check(loop: EventLoop) -> None:
        too_early: list[bool] = []
        over = threading.Event()

        def begin() -> None:
            loop.alarm(loop.now() - 2, first)
            loop.alarm(loop.now() - 1, second)

        def first() -> None:
            told = loop.now() + 0.03
            due.append(told)
            if then == "put off":
                loop.alarm(told, second)
            else:
                loop.no_alarm(second)
            loop.alarm(told + 0.002, over.set)

        def second() -> None:
            too_early.append(loop.now() < due[0] - 0.002)  # uvloop's clock goes by the millisecond

        due: list[float] = []
        loop.post(begin)
        await auntil(over.is_set)
        assert too_early == ([False] if then == "put off" else [])

    here = current_loop()
    if home == "loop":
        hub_of(here)
        await check(here)
    else:
        async with MetricsRuntime(namespace="t", backend=here.backend) as runtime:
            await check(supervisor_of(runtime).engine_at_work().hub.loop)
