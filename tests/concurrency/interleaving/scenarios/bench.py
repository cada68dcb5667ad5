"""A recorder on a scripted loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from mvx.common.metrics import (
    MetricsRecorder,
    RecorderInvalidStateError,
    RecorderOpResult,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderWaitHandle,
)
from mvx.common.metrics._hosting import BIRTH, Birth, LoopHome
from mvx.common.metrics._hub import LoopHub
from mvx.common.metrics._inbox import SEALED
from mvx.common.metrics._recorder import core_of
from tests.concurrency.interleaving.loop import ScriptedLoop
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.scenarios.station import same
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body
from tests.support import Seen, Tick, balanced


class Bench:
    """A recorder on a scripted loop, and what its users were told."""

    def __init__(
        self,
        stage: Stage,
        *,
        started: bool = True,
        busy: bool = False,
        plain: bool = False,
        hub: LoopHub | None = None,
        **options: Any,
    ) -> None:
        self.stage = stage
        self.loop = ScriptedLoop(stage) if hub is None else cast("ScriptedLoop", hub.loop)
        home = LoopHome(LoopHub(self.loop, may_block=True) if hub is None else hub)
        home.gives_turns = plain
        token = BIRTH.set(Birth(home=home, options={}))
        try:
            self.recorder = MetricsRecorder("x", **{"drain_timeout": None, "linger": 0.0, **options})
        finally:
            BIRTH.reset(token)
        self.core = core_of(self.recorder)
        self.core.home.known.add(Tick)
        self.metric = Seen()
        self.recorder.register_metric(self.metric)
        self.offered = 0
        self.told: list[tuple[Tick, type[BaseException] | None]] = []
        self.results: list[RecorderOpResult] = []
        if started:
            self.recorder.start()
            self.loop.run_what_is_ready()
            assert self.recorder.get_status() is RecorderState.RUNNING, self.core.error
        if busy:
            self.emit(Tick(100))()

    def emit(self, *events: Tick) -> Body:
        def body() -> None:
            for event in events:
                self.offered += 1
                try:
                    self.recorder.register_event(event)
                except (RecorderInvalidStateError, RecorderQueueOverflowError) as exc:
                    self.told.append((event, type(exc)))
                else:
                    self.told.append((event, None))

        return body

    def wait(self, handle: RecorderWaitHandle) -> RecorderOpResult:
        result = handle.wait()
        self.results.append(result)
        return result

    @property
    def accepted(self) -> list[Tick]:
        return [event for event, error in self.told if error is None]

    def scenario(self, check: Callable[[], object] | None = None, **threads: Body) -> Scenario:
        names = {name.replace("_", "-"): body for name, body in threads.items()}
        return Scenario(threads=names, services={"loop": self.loop.run}, check=check or self.check)

    def check(self) -> None:
        """Nothing is left, everything is accounted for, and the recorder still works or says that it does not."""
        statistics = self.recorder.statistics()
        assert balanced(statistics), f"{statistics}"
        assert statistics.offered == self.offered
        assert statistics.rejected == self.offered - len(self.accepted)
        assert statistics.processed == len(self.metric.events)
        if not statistics.abandoned:
            assert same(self.metric.events, self.accepted)
        run, state = self.core._run, self.recorder.get_status()
        if run is not None:
            assert run.starting.done() is (state is not RecorderState.STARTING)
            assert run.stopping.done() is (state not in (RecorderState.STARTING, RecorderState.RUNNING))
        if state is RecorderState.RUNNING:
            self.emit(late := Tick(-1))()
            flushed = self.recorder.flush()
            self.loop.run_what_is_ready()
            assert self.metric.events[-1] is late, "it would not wake up any more"
            assert flushed.done()
        else:
            inbox = self.core.inbox
            assert not inbox.requests
            assert state is RecorderState.VIRGIN or inbox.nap is SEALED
            assert self.recorder.flush().done()
        self.close()

    def heartbeat(self) -> None:
        """Run what is ready, and what the hub does once a second."""
        self.loop.run_what_is_ready()
        hub = self.core.home.hub()
        hub._heartbeat()
        self.loop.run_what_is_ready()

    def close(self) -> None:
        self.core.conclude()
        self.core.inbox.abandon()
        self.loop.close()
