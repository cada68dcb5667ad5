"""A busy recorder gives its neighbours their turns: how much it does in between, counted in events and not in seconds.

The engine's clock stands still but for what an event is said to cost, so that a slice of time is a number of events.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mvx.common.metrics import Metric, MetricEvent, MetricsRecorder, OverflowPolicy
from mvx.common.metrics import _hub as hub
from mvx.common.metrics._hub import SLICE
from mvx.common.metrics._inbox import Inbox
from mvx.common.metrics._run import MAX_BATCH
from tests.conftest import Effort, Tally
from tests.faults.hostile import Stage, Theatre, every_home, theatre_for
from tests.support import DEADLINE, Count, Tick, auntil

TURNS = 3
"""Turns of a busy recorder until another task of the loop that was told to wake up has done so.

One in which the loop hears of it, one in which the task is woken, and one more because trio runs the tasks of a turn
in no particular order.
"""

FAST, MEDIUM, SLOW, GLACIAL = SLICE / 1000, SLICE / 10, SLICE * 5, SLICE * 5000


class Clock:
    """Stands in for the module ``time`` of the hub: only events take time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleep = time.sleep

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(hub, "time", clock)
    return clock


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


class Hog(Count):
    """Its events take their time."""

    def __init__(self, clock: Clock, cost: Callable[[int], float]) -> None:
        super().__init__("hog")
        self.clock, self.cost = clock, cost
        self.disturb: Callable[[], object] = lambda: None
        """Called in the midst of every event."""

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        self.clock.now += self.cost(self.total)
        self.disturb()
        return True


class Reacting(MetricsRecorder):
    """A recorder with a hook: its events take another path."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        pass


class Waiting(Reacting):
    """Its hook suspends itself."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await anyio.lowlevel.checkpoint()


KINDS = (MetricsRecorder, Reacting, Waiting)


def most_in_a_turn(cost: float) -> int:
    """Return how many events of that cost one turn may hold: a slice's worth, and the batch that crosses its end."""
    worth = math.ceil(SLICE / cost)
    return worth + min(worth, MAX_BATCH)


class Probe:
    """Emits to a neighbour in the midst of the hog's events, and counts those until the neighbour has handled it."""

    def __init__(self, neighbour: MetricsRecorder, hog: Hog, every: int) -> None:
        self.neighbour, self.hog, self.every = neighbour, hog, every
        self.emitted_at: int | None = None
        self.delays: list[int] = []
        probe = self

        class Listening(Count):
            def handle_event(self, event: MetricEvent) -> bool:
                if probe.emitted_at is not None:
                    probe.delays.append(hog.total - probe.emitted_at)
                    probe.emitted_at = None
                return super().handle_event(event)

        neighbour.register_metric(Listening("listening"))
        hog.disturb = self.disturb

    def disturb(self) -> None:
        if self.hog.total % self.every == 0 and self.emitted_at is None:
            self.emitted_at = self.hog.total
            self.neighbour.register_event(Tick())


async def saturate(recorder: MetricsRecorder, events: int) -> None:
    for n in range(events):
        recorder.register_event(Tick(n))
    with anyio.fail_after(3 * DEADLINE):
        assert (await recorder.flush()).success


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_gets_its_turn_among_slow_events(
    theatre: Theatre, home: str, clock: Clock, kind: type[MetricsRecorder], tally: Tally
) -> None:
    """However long the backlog is and whatever an event costs: a few turns, each of a slice or of a single event."""
    events = 2000 if theatre.long else 100

    async def scene(stage: Stage) -> None:
        for cost in (MEDIUM, SLOW, GLACIAL) if theatre.long else (MEDIUM, GLACIAL):
            with stage.trial(cost):
                await try_at(stage, cost)

    async def try_at(stage: Stage, cost: float) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            hog = Hog(clock, lambda _: cost)
            recorder.register_metric(hog)
            probe = Probe(stage.neighbour, hog, every=10)
            await saturate(recorder, events)
            await auntil(lambda: probe.emitted_at is None)
            assert len(probe.delays) >= events // (10 * most_in_a_turn(cost))
            assert max(probe.delays) <= TURNS * (1 if cost >= SLICE else most_in_a_turn(cost))

        assert (await stage.play(kind, act, linger=0)).spoilt is None

    tally("neighbours of a busy recorder", theatre.show(home, scene, linger=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_gets_its_turn_when_events_become_slow(
    theatre: Theatre, home: str, clock: Clock, kind: type[MetricsRecorder]
) -> None:
    """Fast events are taken in batches: when they turn slow all of a sudden, one batch is what it costs, and once."""

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            hog = Hog(clock, lambda n: SLOW if n > 300 else FAST)
            recorder.register_metric(hog)
            probe = Probe(stage.neighbour, hog, every=1)
            await saturate(recorder, 500)
            await auntil(lambda: probe.emitted_at is None)
            assert max(probe.delays) <= TURNS * most_in_a_turn(FAST)
            slow = [delay for delay in probe.delays if delay <= 2 * MAX_BATCH]
            assert len(slow) > 50
            # The first may have met the batch in which it happened; from then on a turn is an event.
            assert max(slow[-50:]) <= TURNS

        assert (await stage.play(kind, act, linger=0)).spoilt is None

    theatre.show(home, scene, linger=0)


@pytest.mark.parametrize("hogs", [3])
def test_several_busy_recorders_share_the_loop(theatre: Theatre, home: str, clock: Clock, hogs: int) -> None:
    """A neighbour waits for a few turns of each; so does each of them for the others."""
    handled: list[int] = []

    async def scene(stage: Stage) -> None:
        hog_metrics = [Hog(clock, lambda _: SLOW) for _ in range(hogs)]
        for number, hog in enumerate(hog_metrics):
            hog.disturb = lambda number=number: handled.append(number)  # type: ignore[misc] # bound now

        async def nest(left: list[Hog]) -> None:
            if not left:
                probe = Probe(stage.neighbour, hog_metrics[0], every=5)
                hog_metrics[0].disturb = lambda: (handled.append(0), probe.disturb())  # type: ignore[func-returns-value] # both are called
                async with anyio.create_task_group() as group:
                    for recorder in recorders:
                        group.start_soon(saturate, recorder, 100)
                await auntil(lambda: probe.emitted_at is None)
                assert len(probe.delays) > 10
                # Counted in events of the first hog: the others do as much meanwhile.
                assert max(probe.delays) <= TURNS
                return

            async def act(recorder: MetricsRecorder) -> None:
                recorder.register_metric(left[0])
                recorders.append(recorder)
                await nest(left[1:])

            assert (await stage.play(MetricsRecorder, act, linger=0)).spoilt is None

        recorders: list[MetricsRecorder] = []
        await nest(hog_metrics)

    theatre.show(home, scene, linger=0)
    # Between two events of one hog, while all have some, none of the others has more than a few.
    busy = handled[: 100 * hogs // 2]
    for number in range(hogs):
        places = [place for place, each in enumerate(busy) if each == number]
        gaps = [after - before - 1 for before, after in itertools.pairwise(places)]
        assert max(gaps) <= (hogs - 1) * TURNS


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_gets_its_turn_beside_endless_feedback(
    theatre: Theatre, home: str, clock: Clock, kind: type[MetricsRecorder]
) -> None:
    """A recorder that is never done since it feeds itself counts as any busy one."""

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            hog = Hog(clock, lambda _: MEDIUM)
            recorder.register_metric(hog)
            probe = Probe(stage.neighbour, hog, every=10)

            def feed() -> None:
                probe.disturb()
                if hog.total < 1000:
                    for n in range(2):
                        recorder.register_event(Tick(n))

            hog.disturb = feed
            recorder.register_event(Tick())
            await auntil(lambda: len(probe.delays) >= 10)
            await auntil(lambda: recorder.statistics().pending == 0)
            await auntil(lambda: probe.emitted_at is None)
            assert max(probe.delays) <= TURNS * most_in_a_turn(MEDIUM)

        part = await stage.play(
            kind, act, linger=0, queue_max_size=16, queue_overflow_policy=OverflowPolicy.DROP_OLDEST
        )
        assert part.spoilt is None

    theatre.show(home, scene, linger=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("home", ["loop", "group"])
def test_the_users_own_tasks_get_their_turns(
    theatre: Theatre, home: str, clock: Clock, kind: type[MetricsRecorder]
) -> None:
    """On a loop of the user's a busy recorder is one task among others: between two of its turns all others run."""

    async def scene(stage: Stage) -> None:
        hog = Hog(clock, lambda _: SLOW)
        gaps: list[int] = []

        async def live() -> None:
            before = hog.total
            while hog.total < 200:
                await anyio.sleep(0)
                gaps.append(hog.total - before)
                before = hog.total

        async def act(recorder: MetricsRecorder) -> None:
            recorder.register_metric(hog)
            async with anyio.create_task_group() as group:
                group.start_soon(live)
                await saturate(recorder, 200)

        assert (await stage.play(kind, act, linger=0)).spoilt is None
        # trio runs the tasks of a turn in no particular order: once last and once first makes two.
        assert max(gaps) <= (2 if theatre.backend == "trio" else 1)

    theatre.show(home, scene)


def test_a_runtime_answers_while_a_recorder_is_busy(theatre: Theatre, clock: Clock) -> None:
    """Recorders are made, asked and removed between two events of a busy one, and not behind its backlog."""
    events = 3000

    async def scene(stage: Stage) -> None:
        runtime = stage.runtime
        assert runtime is not None
        done: list[tuple[str, int]] = []

        async def act(recorder: MetricsRecorder) -> None:
            hog = Hog(clock, lambda _: SLOW)
            recorder.register_metric(hog)
            for n in range(events):
                recorder.register_event(Tick(n))
            for call in (ask, create, remove):
                await call()
                done.append((call.__name__, hog.total))
            assert all(total < events for _, total in done), done
            assert (await recorder.flush()).success

        async def ask() -> None:
            await stage.neighbour_is_well()

        async def create() -> None:
            other = await runtime.acreate_recorder("other")
            other.register_event(Tick())
            assert (await other.flush()).success

        async def remove() -> None:
            await anyio.to_thread.run_sync(runtime.stop_and_remove_recorder, "other")

        assert (await stage.play(MetricsRecorder, act)).spoilt is None

    theatre.show("runtime", scene)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lingering_neighbour_is_looked_at_while_another_is_busy(
    theatre: Theatre, home: str, clock: Clock, kind: type[MetricsRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a linger, or the next round, is not put off by a backlog either: not by one that never ends."""
    monkeypatch.setattr(Inbox, "heal", lambda _: None)  # the heartbeat would look, too

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            hog = Hog(clock, lambda _: SLOW)
            recorder.register_metric(hog)
            probe = Probe(stage.neighbour, hog, every=1)

            def feed() -> None:
                probe.disturb()
                if len(probe.delays) < 3:
                    recorder.register_event(Tick())

            hog.disturb = feed
            for n in range(100):
                recorder.register_event(Tick(n))
            await auntil(lambda: len(probe.delays) >= 3)
            hog.cost = lambda _: 0.0
            assert (await recorder.flush()).success
            await auntil(lambda: probe.emitted_at is None)

        assert (await stage.play(kind, act)).spoilt is None

    theatre.show(home, scene)
