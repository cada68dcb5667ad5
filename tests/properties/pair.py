"""A recorder and its model, made to do the same, and compared."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricsError,
    OverflowPolicy,
    RecorderOp,
    RecorderState,
    RecorderStatistics,
    RecorderWaitHandle,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._recorder import core_of
from tests.properties.model import (
    Event,
    Flush,
    Item,
    Model,
    Ping,
    Pong,
    Promise,
    Refused,
    Script,
    Subject,
    Terms,
    Trouble,
)
from tests.properties.stage import Acting, Player, Prop, Reacting, Stage
from tests.support import DEADLINE, until

S = RecorderState
Kind = tuple[type[Ping | Pong], int]


def attempt(function: Callable[[], object]) -> Trouble | None:
    """Return what it raises."""
    try:
        function()
    except Refused as refused:
        return refused.trouble
    except (MetricsError, ValueError, TypeError) as error:
        return Trouble.of(error)
    return None


async def aattempt(function: Callable[[], Awaitable[object]]) -> Trouble | None:
    """The same for what is awaited."""
    try:
        await function()
    except MetricsError as error:
        return Trouble.of(error)
    return None


class InLine:
    """Somebody who waits for room: a task, or a thread under BLOCK."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Trouble | str | None = None
        self.scope: anyio.CancelScope | None = None
        self.thread: threading.Thread | None = None

    def block(self, emit: Callable[[Event], object]) -> None:
        """The body of the thread."""
        self.outcome = attempt(partial(emit, self.item.event)) or "accepted"

    async def wait(self, emit: Callable[[Event], Awaitable[object]]) -> None:
        """The body of the task."""
        with anyio.CancelScope() as self.scope:
            self.outcome = await aattempt(partial(emit, self.item.event)) or "accepted"
        if self.scope.cancelled_caught:
            self.outcome = "given up"

    def give_up(self) -> None:
        """Cancel the task."""
        if self.scope is not None:
            self.scope.cancel()


class Pair:
    """Each method does one thing with both and compares what comes of it.

    ``foreign`` says from where: from this thread, while the recorder's loop stands still, or from a
    task of that loop, in which nothing else runs meanwhile.
    """

    def __init__(self, stage: Stage, terms: Terms, entity_id: str = "model") -> None:
        self.stage = stage
        self.prop = Prop(stage)
        self.model = Model(terms)
        self.in_line: InLine | None = None
        self.in_block = False
        self.players: list[tuple[Subject, Player]] = []
        self._handles: list[tuple[RecorderWaitHandle, Promise | Flush]] = []
        self._serials = 0
        self._id = entity_id
        options: dict[str, Any] = {
            "prop": self.prop,
            "antics": terms.antics,
            "hook_error": terms.hook_error,
            "queue_max_size": terms.capacity,
            "queue_overflow_policy": terms.overflow,
            "failure_policy": terms.failures,
            "quarantine_after": terms.quarantine_after,
            "drain_timeout": terms.drain_timeout,
            "block_timeout": terms.block_timeout,
            "linger": terms.linger,
        }
        kind: type[Acting] = Reacting if terms.reacting else Acting
        runtime = stage.runtime
        if runtime is None:
            self.recorder = stage.at_once(lambda: kind(entity_id, **options))
        else:
            self.recorder = stage.meanwhile(lambda: runtime.create_recorder(entity_id, factory=kind, **options))
            self.model.start()
            self.model.advance()
        self._core = core_of(self.recorder)

    # --- what can be done now --------------------------------------------------------------------

    @property
    def plays(self) -> bool:
        """Whether the loop can be told to do something."""
        return not (self.stage.paused or self.stage.ended)

    @property
    def is_free(self) -> bool:
        """Whether it will not be held up as a whole by that, and nothing else goes on there."""
        return self.plays and "metric" not in self.model.held and self.in_line is None

    @property
    def can_wait_in_line(self) -> bool:
        """Whether it can be told when somebody who waits will get room."""
        return self.is_free and self.model.is_open and self._is_straightforward

    @property
    def _is_straightforward(self) -> bool:
        """Whether nothing is emitted and nothing ends the run in the midst of the actor's work."""
        model = self.model
        return (
            not model.terms.antics
            and model.terms.failures is not FailurePolicy.FAIL
            and not any(slot.subject.script.emits for slot in model.slots.values())
        )

    @property
    def unkept(self) -> list[RecorderWaitHandle]:
        """The handles that cannot be done yet."""
        return [
            handle
            for handle, promise in self._handles
            if not (promise.done if isinstance(promise, Promise) else promise.may_be_done)
        ]

    # --- comparing -------------------------------------------------------------------------------

    def compare(self) -> None:
        """Look whether everything that can be seen at any time is what the model says."""
        model = self.model
        assert self.prop.journal == model.journal
        assert self.recorder.get_status() is model.state
        metrics = [metric.key for metric in self.recorder.iter_metrics() if isinstance(metric, Player)]
        assert metrics == [slot.subject.key for slot in model.slots.values()]
        for handle, promise in self._handles:
            if handle.done():
                self._compare_result(handle, promise)
            elif isinstance(promise, Promise):
                assert not promise.done

    def _compare_result(self, handle: RecorderWaitHandle, promise: Promise | Flush) -> None:
        result = handle.wait()
        assert result.success is (result.error is None)
        error = None if result.error is None else Trouble.of(result.error)
        assert error is None or handle.wait().error is not result.error, "one instance for two waiters"
        if isinstance(promise, Promise):
            assert promise.done
            assert (result.op_name, error) == (promise.op, promise.error)
        else:
            assert promise.may_be_done
            assert (result.op_name, error is not None) == (RecorderOp.FLUSH, promise.lost)

    def settle(self, after: int = 5) -> None:
        """Let the recorder work until it is held up or has nothing to do, and look whether it has done what it should."""
        self.model.advance()
        if self.plays:
            self.stage.play(partial(self.stage.rest, self._agrees, self._moved, after=after))
        self._check()

    def _check(self) -> None:
        self.compare()
        assert self._agrees(), f"{self._moved()}, {self.prop.standing}; the model: {self.model.standing}"
        if self.in_line is not None and self.in_line.outcome is not None:
            self._check_in_line(self.in_line)
            self.in_line = None

    def _moved(self) -> object:
        """What changes as the recorder works."""
        ledger = self._core.ledger  # not statistics(): reading those counts as having looked
        return self.recorder.get_status(), len(self.prop.journal), ledger.processed, ledger.abandoned

    def _agrees(self) -> bool:
        """Whether the recorder has come to where the model is."""
        model, in_line = self.model, self.in_line
        return (
            self._moved() == (model.state, len(model.journal), model.processed, model.abandoned)
            and self.prop.standing == model.standing
            and (in_line is None or (in_line.outcome is None) is (model.in_line is in_line.item))
            and all(handle.done() or not self._must_be_done(promise) for handle, promise in self._handles)
        )

    def _must_be_done(self, promise: Promise | Flush) -> bool:
        if isinstance(promise, Promise):
            return promise.done
        # With another event under way, or in the midst of its end, the recorder may not have got to it.
        return promise.may_be_done and self.model.pending == 0 and self.model.standing != "stopped"

    def _check_in_line(self, in_line: InLine) -> None:
        if in_line.thread is not None:
            in_line.thread.join(DEADLINE)
        if in_line.item.fate == "refused":
            # In which of the last states it was told so is a matter of threads.
            assert isinstance(in_line.outcome, Trouble)
            assert in_line.outcome.kind == "RecorderInvalidStateError"
        else:
            assert in_line.outcome == "accepted"

    def _on_own_loop(self, foreign: bool) -> bool:
        return self.plays and not foreign

    def _call(self, foreign: bool, function: Callable[[], Any]) -> Any:
        return self.stage.at_once(function) if self._on_own_loop(foreign) else function()

    # --- events ----------------------------------------------------------------------------------

    def emit(self, kinds: list[Kind], *, foreign: bool) -> None:
        own = self._on_own_loop(foreign)
        events: list[Event] = []
        expected: list[Trouble | None] = []
        for kind in kinds:
            if own or not self._would_block():
                event = self._event(kind)
                events.append(event)
                expected.append(attempt(partial(self.model.offer, event, on_own_loop=own)))
        register = self.recorder.register_event
        assert self._call(foreign, lambda: [attempt(partial(register, event)) for event in events]) == expected

    def _event(self, kind: Kind) -> Event:
        self._serials += 1
        return kind[0](f"e{self._serials}", kind[1])

    def _would_block(self) -> bool:
        """Whether a thread would wait for room until the loop, which stands still, makes some."""
        terms, model = self.model.terms, self.model
        full = model.is_open and model.pending >= terms.capacity
        return full and terms.overflow is OverflowPolicy.BLOCK and terms.block_timeout == DEADLINE

    def emit_bad_input(self, event: Any, *, foreign: bool) -> None:
        trouble = self._call(foreign, lambda: attempt(lambda: self.recorder.register_event(event)))
        assert trouble.kind == ("ValueError" if event is None else "TypeError")

    def emit_when_room(self, kind: Kind, *, thread: bool) -> None:
        """Emit and wait for room: in a task, or, where that can be, in a thread."""
        self.settle()
        model, event = self.model, self._event(kind)
        if not model.is_open:
            return
        if model.pending < model.terms.capacity:
            model.offer(event, on_own_loop=True)
            self.stage.play(partial(self.recorder.aregister_event, event))
        else:
            thread = thread and self._would_block()
            model.in_line = Item(event)
            self.in_line = in_line = InLine(model.in_line)
            if thread:
                model.notice_full()
                in_line.thread = threading.Thread(target=in_line.block, args=(self.recorder.register_event,))
                in_line.thread.start()
                until(lambda: self._core.inbox.line)
            else:
                group = self.stage.group
                self.stage.at_once(lambda: group.start_soon(in_line.wait, self.recorder.aregister_event))
        self.settle()

    def give_up_waiting(self) -> None:
        in_line, self.in_line = self.in_line, None
        assert in_line is not None
        self.model.in_line = None
        self.stage.at_once(in_line.give_up)
        self.settle()
        assert in_line.outcome == "given up"

    # --- life ------------------------------------------------------------------------------------

    def start(self, *, foreign: bool) -> None:
        self._handles.append((self._call(foreign, self.recorder.start), self.model.start()))

    def stop(self, *, foreign: bool) -> None:
        self._handles.append((self._call(foreign, self.recorder.stop), self.model.stop()))
        if self.in_line is not None:
            # Whoever waits is turned away, a thread at once.
            if self.in_line.thread is not None:
                self.in_line.thread.join(DEADLINE)
            self.settle()

    def flush(self, *, foreign: bool) -> None:
        promise = self.model.flush()
        self._handles.append((self._call(foreign, self.recorder.flush), promise))

    def wait_in_vain(self, handle: RecorderWaitHandle) -> None:
        """Wait for what cannot end, as the loop stands still."""
        with pytest.raises(TimeoutError):
            handle.wait(0)
        with pytest.raises(RecorderWouldDeadlockError):
            self.stage.at_once(handle.wait)

    def pass_time(self, seconds: float) -> None:
        self.settle()
        self.model.pass_time(seconds)
        self.stage.at_once(lambda: self.stage.skip(seconds))
        self.settle()

    def enter_block(self) -> None:
        promise = self.model.enter_block()
        self.model.advance()
        trouble = self.stage.play(partial(aattempt, self.recorder.__aenter__))
        self.in_block = trouble is None
        assert trouble == promise.error
        self.settle()

    def leave_block(self, error: BaseException | None = None) -> None:
        expected = self.model.leave_block()
        leave = partial(self.recorder.__aexit__, None if error is None else type(error), error, None)
        trouble = self.stage.play(partial(aattempt, leave))
        self.in_block = False
        assert trouble == (expected if error is None else None)
        self.settle()

    def end_loop(self) -> None:
        """End the loop, with whatever waits for it."""
        self.release()
        if self.model.state is S.STARTING or (self.model.pending and not self._is_straightforward):
            # Whether the actor takes one more step before it is cancelled is the backend's business.
            self.settle()
        self.model.end_loop()
        self.stage.end()
        self._check()

    # --- metrics ---------------------------------------------------------------------------------

    def register(self, script: Script, *, foreign: bool) -> None:
        subject = Subject(len(self.players), script)
        player = Player(subject, self.prop, self.recorder)
        self.players.append((subject, player))
        self.register_player(subject, player, foreign=foreign)

    def register_player(self, subject: Subject, player: Player, *, foreign: bool) -> None:
        if subject.script.emits and self.in_line is not None:
            return
        expected = attempt(lambda: self.model.register(subject))
        assert self._call(foreign, lambda: attempt(lambda: self.recorder.register_metric(player))) == expected

    # --- hooks, and what holds the actor up ------------------------------------------------------

    def hold(self, *points: str) -> None:
        """From now on, hold the actor up wherever it comes to one of ``points``."""
        for point in points:
            if not (point == "metric" and self.in_line is not None):
                self.model.held.add(point)
                self.prop.held.add(point)

    def release(self, *points: str) -> None:
        """No longer, and let it go on if it stands there; at all points if none is given."""
        stands = self.model.standing
        gone = set(points) or set(self.model.held)
        self.model.held -= gone
        self.prop.held -= gone
        if stands in gone:
            self.model.advance()
            self._go_on()

    def let_pass(self) -> None:
        """Let the actor go on from where it stands, this once."""
        self.model.let_pass()
        self._go_on()

    def _go_on(self) -> None:
        if self.stage.paused:
            self.stage.go_on()
            self._check()
        else:
            self.stage.at_once(self.prop.go_on)
            self.settle()

    def break_or_mend(self, *hooks: str) -> None:
        self.model.broken ^= set(hooks)
        self.prop.broken ^= set(hooks)

    # --- reading ---------------------------------------------------------------------------------

    def read_statistics(self, *, foreign: bool) -> None:
        found: RecorderStatistics = self._call(foreign, self.recorder.statistics)
        model = self.model
        expected = model.statistics()
        expected["metric_errors"] += self.prop.snapshots_failed
        assert {name: getattr(found, name) for name in expected} == expected
        assert found.offered == found.accepted + found.dropped + found.rejected
        assert found.accepted == found.processed + found.pending + found.evicted + found.abandoned
        assert model.noticed <= found.high_water <= max(model.noticed, model.peak)

    def read_snapshots_so_far(self) -> None:
        found = self.stage.at_once(self.recorder.get_metric_snapshots)
        assert plain(found) == self.model.snapshots()

    def read_snapshots(self, *, foreign: bool) -> None:
        """Read them with every event accepted before; where that cannot be, see that it is waited for."""
        model = self.model
        before = () if model.run is None else tuple(model.run.items)
        model.advance()
        in_time = model.pending == 0
        found: Mapping[str, Mapping[str, Any]] | None
        if self.stage.ended:
            found = self.recorder.get_metric_snapshots()
        elif foreign and in_time:
            found = self._read_in_a_thread()
        else:
            found = self.stage.play(partial(self._read_until_it_rests, in_time=in_time))
        if found is None:
            assert not in_time
        else:
            # What a hook has emitted since need not have been waited for.
            assert all(item.fate is not None for item in before)
        self.settle()
        if found is None:
            return
        if model.run is None or len(model.run.items) == len(before):
            assert plain(found) == model.snapshots()
        else:
            self._compare_snapshots(found, {item.event.serial for item in before if item.fate == "processed"})

    def _compare_snapshots(self, found: Mapping[str, Mapping[str, Any]], needed: set[str]) -> None:
        """Of what was emitted in the midst of the work they may show as much as they like, but in order."""
        assert list(found) == list(self.model.slots)
        for name, snapshot in found.items():
            if "seen" in snapshot["dimensions"]:
                seen, all_seen = snapshot["dimensions"]["seen"], self.model.slots[name].subject.seen
                assert list(seen) == all_seen[: len(seen)]
                assert needed.isdisjoint(all_seen[len(seen) :])

    def _read_in_a_thread(self) -> Mapping[str, Mapping[str, Any]]:
        answers: list[Mapping[str, Mapping[str, Any]]] = []
        thread = threading.Thread(target=lambda: answers.append(self.recorder.get_metric_snapshots()))
        thread.start()
        # Only now, when it has asked, is the loop let go on.
        until(lambda: answers or self._core.inbox.requests)
        self.stage.play(partial(self.stage.rest, lambda: bool(answers), self._moved, after=0))
        thread.join(DEADLINE)
        return answers[0]

    async def _read_until_it_rests(self, *, in_time: bool) -> Mapping[str, Mapping[str, Any]] | None:
        answers: list[Mapping[str, Mapping[str, Any]]] = []

        async def read() -> None:
            answers.append(await self.recorder.aget_metric_snapshots())

        def agrees() -> bool:
            return self._agrees() and (bool(answers) or not in_time)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await self.stage.rest(agrees, lambda: (self._moved(), len(answers)), after=5)
            group.cancel_scope.cancel()
        return answers[0] if answers else None

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Bring the recorder to its end, and look at everything once more."""
        self.release()
        if self.in_line is not None and self.in_line.thread is None:
            self.give_up_waiting()
        self.settle()
        if self.in_block:
            self.leave_block()
        self.stop(foreign=True)
        self.settle()
        self.read_statistics(foreign=True)
        self.read_snapshots(foreign=True)
        runtime = self.stage.runtime
        if runtime is not None:
            trouble = self.stage.meanwhile(lambda: attempt(lambda: runtime.stop_and_remove_recorder(self._id)))
            assert (trouble is None) is (self.model.state is S.STOPPED)

    def clear_the_stage(self) -> None:
        """Something has failed, and nobody knows in what state all is: leave it behind in good order, if that can be."""
        stage, recorder = self.stage, self.recorder
        self.prop.held.clear()
        try:
            if stage.paused:
                stage.go_on()
            if not stage.ended:
                stage.at_once(self.prop.go_on)
                if self.in_line is not None:
                    stage.at_once(self.in_line.give_up)
                if self.in_block:
                    stage.play(partial(aattempt, partial(recorder.__aexit__, None, None, None)))
                stage.meanwhile(lambda: recorder.stop().wait(DEADLINE))
                attempt(stage.end)
        except (AssertionError, TimeoutError):
            stage.ended = True


def plain(snapshots: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the snapshots without the wording of the library's own errors."""
    result = {name: dict(snapshot) for name, snapshot in snapshots.items()}
    for snapshot in result.values():
        error = snapshot.get("quarantined", {}).get("error", {})
        if error.get("type", "").startswith("Recorder"):
            snapshot["quarantined"] = {**snapshot["quarantined"], "error": {**error, "message": None}}
    return result
