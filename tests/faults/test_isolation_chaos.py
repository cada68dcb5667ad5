"""All at once, at random: recorders with culprits of every kind in one runtime, threads that emit, and neighbours.

Whatever the mixture: production sees documented errors only, each ledger balances, neighbours lose nothing, and the
runtime ends, naming just those recorders that have not stopped well.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderTimeoutError,
)
from tests.conftest import Effort, Tally
from tests.faults.hostile import TROUBLES, Theatre, Trouble, causes, every_home, in_thread, theatre_for, told
from tests.support import DEADLINE, Count, Seen, Tick, balanced, run_threads

DOCUMENTED = (RecorderInvalidStateError, RecorderQueueOverflowError, RecorderTimeoutError)
HOOKS = ("", "", "", "_on_starting", "_on_metric_changed", "_on_stopped")
CULPRITS = 8
EVENTS = 60
"""Events of each thread for each recorder."""


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@dataclass
class Plan:
    """What a culprit does, drawn from a seed."""

    rng: random.Random
    trouble: Trouble = field(init=False)
    hook: str = field(init=False)
    places: list[str] = field(init=False)
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        rng = self.rng
        self.trouble = rng.choice(TROUBLES)
        self.hook = rng.choice(HOOKS)
        self.places = rng.sample(("handle_event", "snapshot", "replace", "feed", "feed others", "stop", "recurse"), 3)
        self.options = {
            "failure_policy": rng.choice(tuple(FailurePolicy)),
            "queue_overflow_policy": rng.choice(tuple(OverflowPolicy)),
            "queue_max_size": rng.choice((1, 2, 10, 1000)),
            "quarantine_after": rng.choice((1, 3)),
            "linger": rng.choice((0, 0.001, 0.02)),
            "block_timeout": 0.001,
            "drain_timeout": rng.choice((0.1, DEADLINE)),
        }

    def now(self, place: str) -> bool:
        """Whether to do it this time."""
        return place in self.places and self.rng.random() < 0.2


class Culprit(MetricsRecorder):
    """Follows its plan."""

    def __init__(self, entity_id: str, *, plan: Plan, others: list[MetricsRecorder], **options: Any) -> None:
        super().__init__(entity_id, **options)
        self.plan, self.others = plan, others
        self.register_metric(Seen("before"))
        self.register_metric(CulpritMetric(self))
        self.register_metric(Seen("after"))

    async def _on_starting(self) -> None:
        self._hook("_on_starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self._hook("_on_metric_changed")

    async def _on_stopped(self) -> None:
        self._hook("_on_stopped")

    def _hook(self, name: str) -> None:
        if self.plan.hook == name and (name != "_on_metric_changed" or self.plan.rng.random() < 0.3):
            self.plan.trouble.strike()


class CulpritUnhooked(Culprit):
    """Likewise without ``_on_metric_changed``."""

    _on_metric_changed = MetricsRecorder._on_metric_changed


class CulpritMetric(Count):
    """Follows the plan, too."""

    def __init__(self, recorder: Culprit) -> None:
        super().__init__("culprit")
        self.recorder, self.plan = recorder, recorder.plan

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        if self.plan.now("feed"):
            self.recorder.register_event(Tick())
        if self.plan.now("feed others"):
            self.plan.rng.choice(self.recorder.others).register_event(Tick())
        if self.plan.now("replace"):
            self.recorder.register_metric(CulpritMetric(self.recorder))
        if self.plan.now("recurse"):
            self.handle_event(event)
        if self.plan.now("stop") and self.total > EVENTS:
            self.recorder.stop()
        if self.plan.now("handle_event"):
            self.plan.trouble.strike()
        return True

    def snapshot(self) -> Any:
        if self.plan.now("snapshot"):
            self.plan.trouble.strike()
        return super().snapshot()


@pytest.mark.parametrize("block", range(4))
def test_chaos(theatre: Theatre, block: int, tally: Tally) -> None:
    """Nobody but the culprits has anything to suffer, whatever they do."""
    rounds = 100 if theatre.long else 2
    for number in range(rounds):
        in_thread(lambda: one_round(theatre, seed=1000 * block + number))
    tally("recorders that misbehave at random, side by side", CULPRITS * rounds)


def one_round(theatre: Theatre, *, seed: int) -> None:
    rng = random.Random(seed)
    runtime = MetricsRuntime(namespace="t", **theatre.keywords)
    runtime.start()
    neighbours: list[MetricsRecorder] = []
    counts = [Count(), Count()]
    for n, count in enumerate(counts):
        neighbours.append(runtime.create_recorder(f"neighbour {n}", queue_max_size=1_000_000))
        neighbours[n].register_metric(count)
    culprits = let_in(runtime, neighbours, rng)
    run_threads(*[lambda: produce(culprits, neighbours, random.Random(seed))] * 3)
    for neighbour in neighbours:
        assert neighbour.flush().wait(DEADLINE).success
        assert neighbour.get_status() is RecorderState.RUNNING
    check_shutdown(runtime, culprits)
    for neighbour, count in zip(neighbours, counts, strict=True):
        statistics = neighbour.statistics()
        assert neighbour.get_status() is RecorderState.STOPPED
        assert balanced(statistics)
        assert statistics.processed == statistics.accepted == count.total >= 3 * EVENTS
        assert statistics.dropped == statistics.abandoned == statistics.metric_errors == 0
    for recorder in culprits.values():
        assert balanced(recorder.statistics()), recorder
        assert recorder.get_status() in (RecorderState.STOPPED, RecorderState.FAILURE)


def let_in(runtime: MetricsRuntime, neighbours: list[MetricsRecorder], rng: random.Random) -> dict[str, Culprit]:
    """Create the culprits, as far as they can be created."""
    culprits: dict[str, Culprit] = {}
    for n in range(CULPRITS):
        plan = Plan(random.Random(rng.random()))
        kind = rng.choice((Culprit, CulpritUnhooked))
        others = [*neighbours, *culprits.values()]
        refused = told(
            lambda: culprits.setdefault(
                f"{n}", runtime.create_recorder(f"{n}", factory=kind, plan=plan, others=others, **plan.options)
            ),
            MetricsRuntimeRecorderStartupError,
        )
        assert (refused is not None) is (plan.hook == "_on_starting")
        assert refused is None or plan.trouble.is_cause_of(refused)
    return culprits


def produce(culprits: dict[str, Culprit], neighbours: list[MetricsRecorder], rng: random.Random) -> None:
    """Do in one thread what production does: only what is documented may come of it."""
    for n in range(EVENTS):
        for recorder in culprits.values():
            told(lambda: recorder.register_event(Tick(n)), *DOCUMENTED)
        for neighbour in neighbours:
            neighbour.register_event(Tick(n))
        if rng.random() < 0.1:
            someone = rng.choice([*culprits.values(), *neighbours])
            told(someone.get_metric_snapshots, *DOCUMENTED)
            assert someone.flush().wait(DEADLINE) is not None


def check_shutdown(runtime: MetricsRuntime, culprits: dict[str, Culprit]) -> None:
    """Shut down, and check that it names just those that have not stopped well."""
    failed: dict[str, BaseException] = {}
    try:
        runtime.shutdown()
    except MetricsRuntimeShutdownError as exc:
        failed = exc.details["recorder_errors"]
    assert runtime.get_status() is (MetricsRuntimeState.FAILURE if failed else MetricsRuntimeState.CLOSED)
    assert set(failed) <= set(culprits)
    for name, recorder in culprits.items():
        if recorder.get_status() is RecorderState.FAILURE:
            assert name in failed
        elif name in failed:
            # Its drain ran out of time.
            assert any(type(cause).__name__ == "RecorderDrainTimeoutError" for cause in causes(failed[name])), failed
