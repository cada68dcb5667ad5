"""A recorder and its users; the actor is the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mvx.common.metrics import RecorderState, RecorderStatistics, RecorderWaitHandle
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.bench import Bench
from tests.concurrency.interleaving.scenarios.closing import UNHEARD
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import GROWING, Tick, adds_up

CASES = Cases()


def _users(threads: Callable[[Bench], Mapping[str, Body]], **options: Any) -> Make:
    """Some users of a recorder, which must be all right afterwards."""

    def make(stage: Stage) -> Scenario:
        bench = Bench(stage, **options)
        return bench.scenario(**threads(bench))

    return make


CASES.add(
    "recorder: emit to a sleeper",
    _users(lambda bench: {"emitter": bench.emit(Tick(1), Tick(2))}),
    short=1,
    long=3,
)
CASES.add(
    "recorder: emit to a busy one",
    _users(lambda bench: {"emitter": bench.emit(Tick(1), Tick(2))}, busy=True),
    short=1,
    long=2,
)
CASES.add(
    "recorder: two emitters",
    _users(lambda bench: {"one": bench.emit(Tick(1)), "two": bench.emit(Tick(2))}),
    short=0,
    long=1,
)
CASES.add(
    "recorder: stop against emit",
    _users(lambda bench: {"emitter": bench.emit(Tick(1), Tick(2)), "stopper": bench.recorder.stop}),
    short=1,
    long=2,
)
CASES.add(
    "recorder: stop a busy one against emit",
    _users(lambda bench: {"emitter": bench.emit(Tick(1)), "stopper": bench.recorder.stop}, busy=True),
    short=0,
    long=1,
)
CASES.add(
    "recorder: stop twice",
    _users(
        lambda bench: {
            "one": lambda: bench.wait(bench.recorder.stop()),
            "two": lambda: bench.wait(bench.recorder.stop()),
        },
        busy=True,
    ),
    short=0,
    long=1,
)
CASES.add(
    "recorder: start against the first event",
    _users(lambda bench: {"emitter": bench.emit(Tick(1)), "starter": bench.recorder.start}, started=False),
    short=0,
    long=1,
)
CASES.add(
    "recorder: two first events",
    _users(lambda bench: {"one": bench.emit(Tick(1)), "two": bench.emit(Tick(2))}, started=False),
    short=0,
    long=1,
)
CASES.add(
    "recorder: start against stop",
    _users(
        lambda bench: {"starter": lambda: bench.wait(bench.recorder.start()), "stopper": bench.recorder.stop},
        started=False,
    ),
    short=0,
    long=1,
)


@CASES.case("recorder: restart against emit", short=0, long=1, every=0)
def _restart(stage: Stage) -> Scenario:
    bench = Bench(stage)

    def restart() -> None:
        assert bench.wait(bench.recorder.stop()).success
        assert bench.wait(bench.recorder.start()).success

    return bench.scenario(emitter=bench.emit(Tick(1), Tick(2)), controller=restart)


@CASES.case("recorder: first event against start and stop", short=0, long=1, every=0)
def _no_late_start(stage: Stage) -> Scenario:
    """An emitter that was held up does not start what has been stopped meanwhile."""
    bench = Bench(stage, started=False)

    def control() -> None:
        bench.wait(bench.recorder.start())
        bench.wait(bench.recorder.stop())

    def check() -> None:
        assert bench.recorder.get_status() is RecorderState.STOPPED
        bench.check()

    return bench.scenario(check, emitter=bench.emit(Tick(1)), controller=control)


def _flush(*, against: str, busy: bool = False) -> Make:
    """Whatever was accepted before has been processed when a flush returns."""

    def make(stage: Stage) -> Scenario:
        bench = Bench(stage, busy=busy)
        flushed: list[tuple[RecorderWaitHandle, Tick]] = []

        def flush() -> None:
            event = Tick(1)
            bench.emit(event)()
            handle = bench.recorder.flush()
            if event in bench.accepted:
                flushed.append((handle, event))
            bench.wait(handle)

        def always() -> None:
            # At once, and not when the flusher gets to look: by then the actor may have made up for it.
            for handle, event in flushed:
                if handle.done() and handle._outcome.peek() is None:
                    assert any(seen is event for seen in bench.metric.events), "flushed and not seen"

        others: dict[str, Body] = {
            "stop": bench.recorder.stop,
            "emitter": bench.emit(Tick(2)),
            "flusher": lambda: bench.wait(bench.recorder.flush()),
        }
        scenario = bench.scenario(**{"one": flush, against: others[against]})
        scenario.always = always
        return scenario

    return make


CASES.add("recorder: flush against stop", _flush(against="stop"), short=0, long=1)
CASES.add("recorder: two flush", _flush(against="flusher"), short=0, long=1)
CASES.add("recorder: flush a busy one", _flush(against="emitter", busy=True), short=0, long=1)


@CASES.case("recorder: look against stop", short=0, long=1)
def _look(stage: Stage) -> Scenario:
    bench = Bench(stage)

    def look() -> None:
        event = Tick(2)
        bench.emit(event)()
        total = bench.recorder.get_metric_snapshots()["seen"]["dimensions"]["total"]
        if event in bench.accepted:
            assert any(seen is event for seen in bench.metric.events[:total]), "not in the snapshot"

    return bench.scenario(reader=look, stopper=bench.recorder.stop)


@CASES.case("recorder: statistics of a busy one", short=0, long=1, every=0)
def _statistics(stage: Stage) -> Scenario:
    bench = Bench(stage)

    def read() -> None:
        earlier: RecorderStatistics | None = None
        for _ in range(2):
            now = bench.recorder.statistics()
            assert adds_up(now)
            if earlier is not None:
                assert not [name for name in GROWING if getattr(now, name) < getattr(earlier, name)]
            earlier = now

    return bench.scenario(emitter=bench.emit(Tick(1)), reader=read, stopper=bench.recorder.stop)


def _recorder_loop_gone(*, started: bool) -> Make:
    """The loop has ended without a word; several find out at once, and each event has one fate."""

    def make(stage: Stage) -> Scenario:
        bench = Bench(stage, started=started)
        bench.loop.gone = True

        def check() -> None:
            assert bench.recorder.get_status() is RecorderState.FAILURE
            bench.check()

        end: Body = bench.recorder.stop if started else bench.recorder.start
        scenario = bench.scenario(one=bench.emit(Tick(1)), two=bench.emit(Tick(2)), controller=end)
        return Scenario(threads=scenario.threads, check=check)

    return make


CASES.add(
    "recorder: the loop of a sleeper has ended",
    _recorder_loop_gone(started=True),
    short=0,
    long=1,
    needs_the_lock=UNHEARD,
)
CASES.add(
    "recorder: the loop ended before a start",
    _recorder_loop_gone(started=False),
    short=0,
    long=1,
    needs_the_lock=UNHEARD,
)


@CASES.case("recorder: the loop ended at rest", short=0, long=1, needs_the_lock=UNHEARD)
def _ended_at_rest(stage: Stage) -> Scenario:
    """There has never been a run, and a wait handle's owner looks after the loop as well."""
    bench = Bench(stage, started=False)
    bench.loop.gone = True
    scenario = bench.scenario(one=bench.emit(Tick(1)), two=bench.emit(Tick(2)), waiter=bench.core.check_loop)
    return Scenario(threads=scenario.threads, check=bench.check)


@CASES.case("recorder: a waiter finds the loop gone", short=0, long=1, needs_the_lock=UNHEARD, time_passes=True)
def _waiter_finds_out(stage: Stage) -> Scenario:
    """The loop has accepted the wake-up and will never run it."""
    bench = Bench(stage)

    def flush() -> None:
        bench.emit(Tick(1))()
        bench.wait(bench.recorder.flush())

    def end() -> None:
        bench.loop.gone = True

    def check() -> None:
        assert len(bench.results) == 2, "somebody waits for ever"
        assert bench.recorder.get_status() is RecorderState.FAILURE
        bench.check()

    threads: dict[str, Body] = {"one": flush, "two": flush, "loop": end}
    return Scenario(threads=threads, check=check)
