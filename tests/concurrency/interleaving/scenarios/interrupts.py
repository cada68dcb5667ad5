"""Ctrl-C at every place of a call: the heartbeat heals what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mvx.common.metrics import OverflowPolicy, RecorderState
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.bench import Bench
from tests.concurrency.interleaving.stage import Stage
from tests.support import Tick, adds_up

CASES = Cases()


def _interrupted(act: Callable[[Bench], object], *, started: bool = True, **options: Any) -> Make:
    """Wherever it hits, the heartbeat heals it, and nothing accepted is forgotten."""

    def make(stage: Stage) -> Scenario:
        bench = Bench(stage, started=started, **options)

        def interrupted() -> None:
            try:
                act(bench)
            except KeyboardInterrupt:
                stage.go_on()

        def check() -> None:
            bench.heartbeat()
            if bench.recorder.get_status() is RecorderState.VIRGIN:
                # A start that was cut short has not been: what came in meanwhile waits for the next event.
                bench.emit(Tick(-3))()
                bench.heartbeat()
            statistics = bench.recorder.statistics()
            assert statistics.pending == 0, "an event lies unseen"
            assert adds_up(statistics)
            assert statistics.processed == len(bench.metric.events)
            assert statistics.rejected == len(bench.told) - len(bench.accepted)
            # The event of the interrupted call may have been accepted or not; every other one has been told.
            unseen = {*map(id, bench.accepted)} - {*map(id, bench.metric.events)}
            assert len(unseen) <= statistics.evicted + statistics.abandoned
            state = bench.recorder.get_status()
            if state is RecorderState.RUNNING:
                bench.emit(late := Tick(-1))()
                bench.loop.run_what_is_ready()
                assert bench.metric.events[-1] is late, "the heartbeat has not healed it"
                stopped = bench.recorder.stop()
                bench.loop.run_what_is_ready()
                assert stopped.done()
                state = bench.recorder.get_status()
            assert state is RecorderState.STOPPED
            bench.close()

        return Scenario(
            threads={"interrupted": interrupted, "emitter": bench.emit(Tick(7))},
            services={"loop": bench.loop.run},
            check=check,
            interruptible=frozenset({"interrupted"}),
        )

    return make


def _emit(bench: Bench) -> None:
    bench.emit(Tick(1))()


# Not at every instruction: without the interpreter lock, too, Ctrl-C comes only where the interpreter looks for it.
CASES.add("Ctrl-C in an emit", _interrupted(_emit), short=0, long=1, every=None)
CASES.add(
    "Ctrl-C in an emit that evicts",
    _interrupted(_emit, queue_max_size=1, queue_overflow_policy=OverflowPolicy.DROP_OLDEST),
    short=0,
    long=1,
    every=None,
)
CASES.add(
    "Ctrl-C in a flush", _interrupted(lambda bench: bench.wait(bench.recorder.flush())), short=0, long=0, every=None
)
CASES.add("Ctrl-C in a stop", _interrupted(lambda bench: bench.recorder.stop()), short=0, long=0, every=None)
CASES.add(
    "Ctrl-C in a start", _interrupted(lambda bench: bench.recorder.start(), started=False), short=0, long=0, every=None
)
CASES.add("Ctrl-C in the first event", _interrupted(_emit, started=False), short=0, long=0, every=None)
