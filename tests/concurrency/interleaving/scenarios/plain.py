"""A recorder without hooks in a runtime: it has no task, and the hub looks into its inbox by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mvx.common.metrics import RecorderState, RecorderWaitHandle
from mvx.common.metrics._plain import PlainRun
from mvx.common.metrics._rounds import ROUND
from mvx.common.metrics._waiting import HEARTBEAT
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.bench import Bench
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import Tick

CASES = Cases()

HORIZON = 2.5 * HEARTBEAT
"""Seconds in which every round has been made, also behind a heartbeat that comes first."""


class PlainBench(Bench):
    """Such a recorder on a scripted loop; by default on the hub's roster, with ``linger=0`` not."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        super().__init__(stage, **{"plain": True, "linger": ROUND, **options})
        assert self.core._run is None or isinstance(self.core._run, PlainRun)

    def scenario(self, check: Callable[[], object] | None = None, **threads: Body) -> Scenario:
        made = super().scenario(check, **threads)
        made.horizon = HORIZON
        return made

    def check(self) -> None:
        """Nobody rests while events lie in the inbox."""
        if self.recorder.get_status() is RecorderState.RUNNING:
            assert not self.core.inbox.events, "an event lies unseen"
            assert self.core.home.hub().nap == [None], "nobody would wake the hub"
        super().check()


def _users(threads: Callable[[PlainBench], Mapping[str, Body]], **options: Any) -> Make:
    def make(stage: Stage) -> Scenario:
        bench = PlainBench(stage, **options)
        return bench.scenario(**threads(bench))

    return make


def _add(
    name: str, threads: Callable[[PlainBench], Mapping[str, Body]], *, short: int, long: int, **options: Any
) -> None:
    """On the roster and off it."""
    CASES.add(f"plain: {name}", _users(threads, **options), short=short, long=long, time_passes=True)
    CASES.add(f"plain, without linger: {name}", _users(threads, linger=0.0, **options), short=short, long=long)


_add("emit to a sleeper", lambda bench: {"emitter": bench.emit(Tick(1), Tick(2))}, short=1, long=2)
_add("emit to a busy one", lambda bench: {"emitter": bench.emit(Tick(1), Tick(2))}, busy=True, short=1, long=1)
_add("two emitters", lambda bench: {"one": bench.emit(Tick(1)), "two": bench.emit(Tick(2))}, short=1, long=1)
_add(
    "a burst",
    lambda bench: {"emitter": bench.emit(*map(Tick, range(6)))},
    queue_max_size=8,
    short=1,
    long=1,
)
_add(
    "stop against emit",
    lambda bench: {"emitter": bench.emit(Tick(1), Tick(2)), "stopper": bench.recorder.stop},
    short=1,
    long=1,
)
_add(
    "stop twice",
    lambda bench: {"one": lambda: bench.wait(bench.recorder.stop()), "two": lambda: bench.wait(bench.recorder.stop())},
    busy=True,
    short=0,
    long=1,
)
_add(
    "start against the first event",
    lambda bench: {"emitter": bench.emit(Tick(1)), "starter": bench.recorder.start},
    started=False,
    short=1,
    long=1,
)
_add(
    "two first events",
    lambda bench: {"one": bench.emit(Tick(1)), "two": bench.emit(Tick(2))},
    started=False,
    short=1,
    long=1,
)
_add(
    "start against stop",
    lambda bench: {"starter": bench.recorder.start, "stopper": bench.recorder.stop},
    started=False,
    short=1,
    long=1,
)


def _restart(**options: Any) -> Make:
    def make(stage: Stage) -> Scenario:
        bench = PlainBench(stage, **options)

        def restart() -> None:
            assert bench.wait(bench.recorder.stop()).success
            assert bench.wait(bench.recorder.start()).success

        return bench.scenario(emitter=bench.emit(Tick(1), Tick(2)), controller=restart)

    return make


CASES.add("plain: restart against emit", _restart(), short=0, long=1, time_passes=True)
CASES.add("plain, without linger: restart against emit", _restart(linger=0.0), short=0, long=1)


def _flush(**options: Any) -> Make:
    """Whatever was accepted before has been processed when a flush returns."""

    def make(stage: Stage) -> Scenario:
        bench = PlainBench(stage, **options)
        flushed: list[tuple[RecorderWaitHandle, Tick]] = []

        def flush() -> None:
            event = Tick(1)
            bench.emit(event)()
            handle = bench.recorder.flush()
            if event in bench.accepted:
                flushed.append((handle, event))
            bench.wait(handle)

        def always() -> None:
            for handle, event in flushed:
                if handle.done() and handle._outcome.peek() is None:
                    assert any(seen is event for seen in bench.metric.events), "flushed and not seen"

        scenario = bench.scenario(one=flush, other=bench.emit(Tick(2)))
        scenario.always = always
        return scenario

    return make


CASES.add("plain: flush against emit", _flush(), short=0, long=1, time_passes=True)
CASES.add("plain, without linger: flush against emit", _flush(linger=0.0), short=0, long=1)


def _two_recorders(stage: Stage) -> Scenario:
    """Of two on one roster the one that gets an event while the hub lies down is seen, whichever it is."""
    bench = PlainBench(stage)
    other = PlainBench(stage, hub=bench.core.home.hub())

    def check() -> None:
        other.offered, bench.offered = other.offered, bench.offered
        assert [len(one.metric.events) for one in (bench, other)] == [1, 1], "an event lies unseen"
        bench.check()

    return bench.scenario(check, one=bench.emit(Tick(1)), two=other.emit(Tick(2)))


CASES.add("plain: two on one roster", _two_recorders, short=1, long=1, time_passes=True)
