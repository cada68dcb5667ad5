"""A recorder does what a plain sequential model of it does, in whatever order its calls are made."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mvx.common.metrics import FailurePolicy, MetricEvent, OverflowPolicy, RecorderState
from tests.conftest import Effort, Tally
from tests.properties.model import LoudPing, Ping, Pong, Script, Terms
from tests.properties.pair import Kind, Pair
from tests.properties.stage import Stage
from tests.support import DEADLINE

S = RecorderState

WITHIN, BEYOND = 1.0, 100.0
"""Seconds that no time limit minds, and seconds that outrun every one but the longest."""
MOST = 8
"""How often either may pass without adding up to more than that."""

# Also what the engine might take for its own: the end of a take, of a coroutine, of a task, of the program.
ERRORS: list[type[BaseException]] = [
    ValueError,
    IndexError,
    StopIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
]
SCRIPTS = st.builds(
    Script,
    name=st.sampled_from("ab"),
    wants=st.sampled_from([None, None, (Ping,), (Ping,), (LoudPing,), (Pong, LoudPing), (MetricEvent,), ()]),
    fails=st.sampled_from([(), (), (0,), (1,), (1, 2), (0, 1, 2, 3)]),
    error=st.sampled_from(ERRORS),
    refuses=st.sampled_from([(), (), (), (0,), (0, 1, 2, 3)]),
    emits=st.sampled_from([(), (), (), (), (), (), (1,), (2, 3)]),
    holds=st.sampled_from([(0, 1, 2, 3), (0,), (1, 3), ()]),
    snapshot_fails=st.sampled_from([False, False, False, True]),
)
ANTICS: list[dict[int | str, str]] = [
    {},
    {},
    {},
    {1: "replace"},
    {1: "emit", 2: "await room", "starting": "emit"},
    {1: "await room", 2: "await flush", 3: "stop", "starting": "await room"},
    {1: "emit", 2: "await snapshots", 3: "stop", "stopped": "emit"},
    {2: "replace", "starting": "stop", "stopped": "replace"},
]
TERMS = st.builds(
    Terms,
    capacity=st.integers(1, 4),
    overflow=st.sampled_from(OverflowPolicy),
    block_timeout=st.sampled_from([0.0, 0.001, DEADLINE, DEADLINE]),
    failures=st.sampled_from([*FailurePolicy, FailurePolicy.QUARANTINE]),
    quarantine_after=st.sampled_from([1, 2, 2, 3]),
    drain_timeout=st.sampled_from([30.0, 30.0, 1000.0, None]),
    linger=st.sampled_from([0.0, 0.02]),
    reacting=st.sampled_from([True, True, False]),
    antics=st.sampled_from(ANTICS),
    # A coroutine cannot raise StopIteration.
    hook_error=st.sampled_from([error for error in ERRORS if error is not StopIteration]),
)
HOLDS = st.sampled_from([(), (), ("changed",), ("changed",), ("metric",), ("changed", "stopped"), ("starting",)])
BREAKS = st.sampled_from([(), (), (), ("changed",), ("starting",), ("stopped",)])
POINTS = st.sampled_from(["changed", "changed", "metric", "stopped", "starting"])
KINDS = st.tuples(st.sampled_from([Ping, Ping, LoudPing, Pong]), st.integers(0, 3))
EVENTS = st.lists(KINDS, min_size=1, max_size=8)
WHERE = st.booleans()
ROUNDS = st.sampled_from([5, 0])
"""How often the loop goes round once more when all is done: far enough to sleep, or not."""


class Stages:
    """The stages of one test: kept from one example to the next, and replaced when they have ended."""

    def __init__(self, backend: str, options: dict[str, Any]) -> None:
        self.name = f"{backend} {options}"
        self._backend, self._options = backend, options
        self._stages: dict[str, Stage] = {}
        self.examples = 0

    def __getitem__(self, home: str) -> Stage:
        stage = self._stages.get(home)
        if stage is None or stage.ended:
            in_a_runtime = home == "runtime"
            stage = self._stages[home] = Stage(self._backend, self._options, in_a_runtime=in_a_runtime)
        return stage

    def end(self) -> None:
        for stage in self._stages.values():
            if not stage.ended:
                stage.end()


Condition = Callable[["RecorderMachine"], bool]


def when(condition: Condition) -> Callable[[Any], Any]:
    """Allow a rule only under ``condition``."""
    return precondition(condition)


class RecorderMachine(RuleBasedStateMachine):
    """Calls whatever can be called."""

    stages: Stages
    pair: Pair

    @initialize(
        home=st.sampled_from(["loop", "runtime", "block", "loop that ends"]),
        terms=TERMS,
        scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
        held=HOLDS,
        broken=BREAKS,
        started=st.sampled_from([True, True, False]),
    )
    def make(
        self,
        home: str,
        terms: Terms,
        scripts: list[Script],
        held: tuple[str, ...],
        broken: tuple[str, ...],
        started: bool,
    ) -> None:
        self.pair = pair = Pair(self.stages["runtime" if home == "runtime" else "loop"], terms)
        self.loop_may_end = home == "loop that ends"
        self.passed = {WITHIN: 0, BEYOND: 0}
        pair.break_or_mend(*broken)
        for script in scripts:
            if pair.model.is_open:
                pair.register(script, foreign=True)
        if home == "block":
            self.enter_block()
        pair.hold(*held)
        if home != "block" and started:
            pair.start(foreign=True)
            pair.settle()

    @when(lambda self: self.pair.model.state in (S.FAILURE, S.CANCELLED) or self.pair.stage.ended)
    @rule(
        home=st.sampled_from(["loop", "runtime", "block"]),
        terms=TERMS,
        scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
        held=HOLDS,
    )
    def make_another(self, home: str, terms: Terms, scripts: list[Script], held: tuple[str, ...]) -> None:
        self.pair.finish()
        self.make(home, terms, scripts, held, (), True)

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        try:
            if sys.exc_info()[0] is None:
                self.pair.finish()
                self.stages.examples += 1
        finally:
            if sys.exc_info()[0] is not None:
                self.pair.clear_the_stage()

    @invariant()
    def compare(self) -> None:
        self.pair.compare()

    # --- events ----------------------------------------------------------------------------------

    @rule(kinds=EVENTS, foreign=WHERE)
    def emit(self, kinds: list[Kind], foreign: bool) -> None:
        self.pair.emit(kinds, foreign=foreign)

    @when(lambda self: self.pair.plays and self.pair.model.is_open)
    @rule(kinds=EVENTS, foreign=WHERE, after=ROUNDS)
    def emit_and_settle(self, kinds: list[Kind], foreign: bool, after: int) -> None:
        self.pair.emit(kinds, foreign=foreign)
        self.pair.settle(after)

    def hold_up(self, point: str, kinds: list[Kind], foreign: bool) -> None:
        """Hold the actor up in the midst of an event."""
        pair = self.pair
        if pair.model.is_open and "c" not in pair.model.slots:
            pair.register(Script("c", holds=(0, 1, 2, 3)), foreign=foreign)
        pair.hold(point)
        pair.emit(kinds, foreign=foreign)
        pair.settle()

    @when(lambda self: self.pair.is_free)
    @rule(point=st.sampled_from(["metric", "changed"]), kinds=EVENTS, more=EVENTS, foreign=WHERE)
    def emit_in_the_midst(self, point: str, kinds: list[Kind], more: list[Kind], foreign: bool) -> None:
        self.hold_up(point, kinds, foreign)
        self.pair.emit(more, foreign=foreign)

    @when(lambda self: self.pair.can_wait_in_line and self.pair.model.terms.reacting)
    @rule(kind=KINDS, thread=st.sampled_from([True, True, False]))
    def fill_and_wait_for_room(self, kind: Kind, thread: bool) -> None:
        self.hold_up("changed", [kind], foreign=True)
        pair, model = self.pair, self.pair.model
        if model.is_open:
            pair.emit([kind] * (model.terms.capacity - model.pending), foreign=True)
            pair.emit_when_room(kind, thread=thread)

    @when(lambda self: self.pair.can_wait_in_line)
    @rule(kind=KINDS)
    def emit_when_room(self, kind: Kind) -> None:
        self.pair.emit_when_room(kind, thread=False)

    @when(lambda self: self.pair.plays and self.pair.in_line is not None and self.pair.in_line.thread is None)
    @rule()
    def give_up_waiting(self) -> None:
        self.pair.give_up_waiting()

    # --- life ------------------------------------------------------------------------------------

    @when(lambda self: self.pair.model.state in (S.VIRGIN, S.STARTING, S.STOPPED))
    @rule(foreign=WHERE)
    def start(self, foreign: bool) -> None:
        self.pair.start(foreign=foreign)

    @when(lambda self: self.pair.model.state in (S.RUNNING, S.STOPPING))
    @rule(foreign=WHERE)
    def stop(self, foreign: bool) -> None:
        self.pair.stop(foreign=foreign)

    @rule(event=st.sampled_from([None, "event", 1, Ping]), foreign=WHERE)
    def misuse(self, event: object, foreign: bool) -> None:
        self.pair.emit_bad_input(event, foreign=foreign)
        if self.pair.model.state in (S.RUNNING, S.STOPPING):
            self.pair.start(foreign=foreign)
        else:
            self.pair.stop(foreign=foreign)

    @rule(foreign=WHERE)
    def flush(self, foreign: bool) -> None:
        self.pair.flush(foreign=foreign)

    @when(lambda self: self.pair.plays)
    @rule(after=ROUNDS)
    def settle(self, after: int) -> None:
        self.pair.settle(after)

    @when(lambda self: self.pair.plays and bool(self.pair.unkept))
    @rule()
    def wait_in_vain(self) -> None:
        self.pair.wait_in_vain(self.pair.unkept[-1])

    @when(lambda self: self.pair.is_free and self.pair.stage.can_skip)
    @when(lambda self: self.pair.model.standing in ("changed", "stopped") or self.pair.model.terms.linger > 0)
    @rule(seconds=st.sampled_from([BEYOND, WITHIN]))
    def let_time_pass(self, seconds: float) -> None:
        self.pass_time(seconds)

    @when(lambda self: self.pair.is_free and self.pair.stage.can_skip and self.pair.model.terms.reacting)
    @rule(kinds=EVENTS, more=EVENTS, foreign=WHERE)
    def run_out_of_time(self, kinds: list[Kind], more: list[Kind], foreign: bool) -> None:
        self.hold_up("changed", kinds, foreign)
        self.pair.emit(more, foreign=foreign)
        self.pair.stop(foreign=foreign)
        self.pass_time(BEYOND)

    def pass_time(self, seconds: float) -> None:
        if self.passed[seconds] < MOST:
            self.passed[seconds] += 1
            self.pair.pass_time(seconds)

    @when(lambda self: self.pair.is_free and not self.pair.in_block and self.pair.stage.runtime is None)
    @rule()
    def enter_block(self) -> None:
        self.pair.release("starting")
        self.pair.enter_block()

    @when(lambda self: self.pair.is_free and self.pair.in_block)
    @rule(error=st.sampled_from([None, None, ValueError("the block's own")]))
    def leave_block(self, error: ValueError | None) -> None:
        self.pair.release()
        self.pair.leave_block(error)

    @when(lambda self: self.pair.is_free and self.loop_may_end and not self.pair.in_block)
    @rule()
    def end_loop(self) -> None:
        self.pair.end_loop()

    # --- metrics ---------------------------------------------------------------------------------

    @rule(script=st.none() | SCRIPTS, which=st.integers(0, 100), foreign=WHERE)
    def register(self, script: Script | None, which: int, foreign: bool) -> None:
        """A new metric, or one that was registered before."""
        pair = self.pair
        if script is not None:
            pair.register(script, foreign=foreign)
        elif pair.players:
            pair.register_player(*pair.players[which % len(pair.players)], foreign=foreign)

    # --- hooks, and what holds the actor up ------------------------------------------------------

    @rule(point=POINTS, breaks=st.sampled_from([False, False, True]))
    def hold_or_break(self, point: str, breaks: bool) -> None:
        """Hold the actor up there from now on, or let the hook raise from now on, or no longer."""
        if breaks:
            self.pair.break_or_mend(point)
        else:
            self.pair.hold(point)

    @when(lambda self: bool(self.pair.model.held))
    @rule(which=st.integers(0, 100))
    def release(self, which: int) -> None:
        held = sorted(self.pair.model.held)
        self.pair.release(held[which % len(held)])

    @when(lambda self: self.pair.model.standing is not None)
    @rule(times=st.integers(1, 3))
    def let_pass(self, times: int) -> None:
        for _ in range(times):
            if self.pair.model.standing is not None:
                self.pair.let_pass()

    # --- reading ---------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["statistics", "snapshots", "snapshots so far"]), foreign=WHERE)
    def read(self, what: str, foreign: bool) -> None:
        pair = self.pair
        if what == "statistics":
            pair.read_statistics(foreign=foreign)
        elif what == "snapshots" and (pair.is_free or pair.stage.ended):
            pair.read_snapshots(foreign=foreign)
        elif pair.plays:
            pair.read_snapshots_so_far()


@pytest.fixture
def stages(anyio_backend: tuple[str, dict[str, Any]], caplog: pytest.LogCaptureFixture) -> Iterator[Stages]:
    name, options = anyio_backend
    stages = Stages(name, {key: value for key, value in options.items() if key != "debug"})
    # What fails here fails on purpose; pytest would show the traceback of each.
    with caplog.at_level(logging.CRITICAL, "mvx.common.metrics"):
        yield stages
        stages.end()


def test_a_recorder_does_what_the_model_does(stages: Stages, effort: Effort, tally: Tally) -> None:
    """State, results, order, hooks, snapshots and every counter, whatever is called when and where."""

    class Machine(RecorderMachine):
        pass

    Machine.stages = stages
    # Without a clock that can be put forward there is less to try.
    most = 10_000 if stages["loop"].can_skip else 2_500
    settings = hypothesis.settings(max_examples=effort(150, most), stateful_step_count=25)
    if settings.derandomize:
        hypothesis.seed(stages.name)(Machine)  # not the same sequences on each backend
    run_state_machine_as_test(Machine, settings=settings)
    tally("sequences of calls compared with the model of a recorder", stages.examples)


# --- sequences that once went wrong --------------------------------------------------------------


PLAIN = Terms(
    capacity=4,
    overflow=OverflowPolicy.RAISE_ERROR,
    block_timeout=0.0,
    failures=FailurePolicy.ISOLATE,
    quarantine_after=1,
    drain_timeout=30.0,
    linger=0.0,
    reacting=True,
    antics={},
    hook_error=ValueError,
)
ALL = (0, 1, 2, 3)
MANY: list[Kind] = [(Ping, 1), (LoudPing, 2), (Pong, 3)]


@pytest.fixture
def play(stages: Stages) -> Iterator[Callable[..., Pair]]:
    """Make a recorder with its model on the loop, by options that differ from the plain ones."""
    pairs: list[Pair] = []

    def make(*scripts: Script, **options: Any) -> Pair:
        pair = Pair(stages["loop"], replace(PLAIN, **options))
        for script in scripts:
            pair.register(script, foreign=True)
        pairs.append(pair)
        return pair

    yield make
    for pair in pairs:
        if not pair.stage.ended:
            pair.finish()


Play = Callable[..., Pair]


def test_a_block_is_left_while_its_recorder_starts_again(play: Play) -> None:
    """Leaving the block stops the recorder, in whatever state it is."""
    pair = play()
    pair.enter_block()
    pair.stop(foreign=False)
    pair.settle()
    pair.start(foreign=False)
    pair.leave_block()
    assert pair.model.state is S.STOPPED


def test_a_block_does_not_report_what_a_stop_in_it_has_reported(play: Play) -> None:
    """Also if the recorder has failed by that stop."""
    pair = play()
    pair.break_or_mend("stopped")
    pair.enter_block()
    pair.stop(foreign=False)
    pair.settle()
    assert pair.model.state is S.FAILURE
    pair.leave_block()


def test_a_flush_answers_for_what_was_accepted_before(play: Play) -> None:
    """It succeeds if only later events were abandoned."""
    pair = play(Script("a", fails=ALL), failures=FailurePolicy.FAIL)
    pair.start(foreign=False)
    pair.settle()
    pair.flush(foreign=False)
    pair.emit(MANY[:1], foreign=False)
    pair.flush(foreign=False)
    pair.emit(MANY, foreign=False)
    pair.flush(foreign=False)
    pair.settle()
    assert pair.model.abandoned == 3


def test_a_quarantined_metric_that_cannot_be_read_says_both(play: Play) -> None:
    """Its snapshot has an error and the quarantine."""
    pair = play(Script("a", fails=ALL, snapshot_fails=True), failures=FailurePolicy.QUARANTINE)
    pair.emit(MANY, foreign=False)
    pair.settle()
    assert {"error", "quarantined"} <= pair.model.snapshots()["a"].keys()
    pair.read_snapshots_so_far()


def test_snapshots_do_not_wait_for_the_last_hook_of_a_run_with_losses(play: Play) -> None:
    """Nothing is pending any more."""
    pair = play(Script("a", fails=ALL), failures=FailurePolicy.FAIL)
    pair.hold("stopped")
    pair.emit(MANY, foreign=False)
    pair.settle()
    assert (pair.model.standing, pair.model.state, pair.model.abandoned) == ("stopped", S.STOPPING, 2)
    pair.read_snapshots(foreign=False)
    pair.read_snapshots(foreign=True)
    pair.emit(MANY, foreign=True)


@pytest.mark.parametrize("foreign", [True, False])
def test_events_are_evicted_without_being_compared(play: Play, foreign: bool) -> None:
    """Their own code is not called."""
    pair = play(Script("a"), overflow=OverflowPolicy.DROP_OLDEST, capacity=2)
    pair.emit([(Pong, 0)] * 5, foreign=foreign)
    pair.settle()
    pair.read_statistics(foreign=foreign)
    assert (pair.model.evicted, pair.model.processed) == (3, 2)
