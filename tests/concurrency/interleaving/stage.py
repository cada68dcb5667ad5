"""Runs one schedule: real threads, of which exactly one runs at a time and hands the turn to the next.

Time stands still, but for waits that run out where a scenario says so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from tests.concurrency.interleaving.points import Points, innermost
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.schedule import Broken, Replay, Search
from tests.concurrency.interleaving.thread import Baton, State, Thread, baton
from tests.concurrency.interleaving.tracing import Tracing, see_instructions

PATIENCE: Final = 60.0
"""Seconds that one schedule may take before the explorer takes itself for broken."""
STEPS: Final = 20_000
"""Places where a thread could be preempted in one schedule; more of them mean that it does not end."""


class Unwound(BaseException):
    """Ends a thread whose schedule is over."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a chosen place."""


class _Does(Enum):
    """What may happen next, as the log of a schedule has it."""

    RUN = "{} runs"
    TIME_OUT = "time is up for {}"
    INTERRUPT = "Ctrl-C"


_Option = tuple[_Does, Thread, int]
"""What to do next: the kind, the thread, and how many preemptions it costs."""


class Stage:
    """Runs the schedules of one scenario; what the scenario's stand-ins need of it is public."""

    def __init__(self, *, preemptions: int, points: Points, time_passes: bool) -> None:
        """Make a stage.

        :param time_passes: whether a wait may run out, at the cost of a preemption while another thread
            could run; else a wait that could only run out is a deadlock
        """
        self.clock = 0.0
        """The time of the scenario, in seconds."""
        self.running: Thread | None = None
        """The thread whose turn it is; None while a scenario is being made or checked."""
        self.loops: dict[object, Any] = {}
        """The event loop that each thread runs; by what :attr:`running` is in it."""
        self.preempted = 0
        """How many preemptions there have been in this schedule."""
        self.over = True
        """Whether the schedule is; its threads are then unwound one after the other."""
        self.interrupted = False
        self.search = Search()
        self.tracing = Tracing(self, points)
        self._bound = preemptions
        self._time_passes = time_passes
        self._steps = self._turns_passed = 0
        self._threads: list[Thread] = []
        self._turns: list[Baton] = []
        self._workers: list[threading.Thread] = []
        self._closing = self._stuck = False
        self._ended = baton()
        self._failure: BaseException | str | None = None
        self._log: list[str] = []
        self._scenario = Scenario(threads={})

    # --- what the stand-ins call -----------------------------------------------------------------

    def wait(self, ready: Callable[[], object], timeout: float | None = None) -> bool:
        """Block the running thread until ``ready()``; return False if ``timeout`` seconds have passed instead."""
        if ready():
            return True
        me = self.running
        assert me is not None, "nobody else can run"
        if self.over:
            raise Unwound
        me.state, me.ready = State.WAITING, ready
        me.deadline = None if timeout is None else self.clock + max(timeout, 0.0)
        me.timed_out = False
        self._pass_on(me, "waits")
        me.state, me.ready, me.deadline = State.READY, bool, None
        return not me.timed_out

    def sleep(self, _seconds: float) -> None:
        """Let the others do something: ``time.sleep(0)`` in a loop."""
        me = self.running
        if me is None:
            return
        if self.over:
            raise Unwound
        self._count_step()
        alone = not any(thread.can_run(self._turns_passed) for thread in self._threads if thread is not me)
        if alone and me.seen < self._turns_passed:
            me.seen = self._turns_passed  # somebody has run since it looked: let it look once more
            return
        me.state, me.seen = State.SPINNING, self._turns_passed
        self._pass_on(me, "spins")
        me.state = State.READY

    def monotonic(self) -> float:
        """Return :attr:`clock`."""
        return self.clock

    def go_on(self) -> None:
        """Go on switching threads in the calling one, which has dealt with Ctrl-C."""
        self.tracing.begin()

    # --- one schedule ----------------------------------------------------------------------------

    def run(self, make: Callable[[Stage], Scenario]) -> None:
        """Run one schedule, as far as it is laid down by the search, else without preemptions.

        :raises Broken: if it goes wrong
        """
        self.clock, self.preempted, self.interrupted, self._steps, self._turns_passed = 0.0, 0, False, 0, 0
        self._failure, self._log = None, []
        shared = frozenset(self.tracing.shared)
        self.loops.clear()
        self.search.begin()
        self._scenario = scenario = make(self)
        self.tracing.whole = bool(scenario.interruptible)
        self._cast(scenario)
        self.over = False
        self._give(self._choose([(_Does.RUN, thread, 0) for thread in self._threads], None)[1])
        if not self._ended.acquire(timeout=PATIENCE):
            self._stuck = True
            msg = f"a schedule has got stuck outside of the explorer: {self._log}"
            raise RuntimeError(msg)
        self.running = None
        if self._failure is None:
            try:
                scenario.check()
            except Exception as exc:
                self._fail(exc)
        self._report(shared)

    def close(self) -> None:
        """End the threads."""
        self._closing = True
        for turn, worker in zip(self._turns, self._workers, strict=True):
            turn.release()
            worker.join(0 if self._stuck else PATIENCE)

    def _report(self, shared: frozenset[str]) -> None:
        """Raise :class:`Broken` if the schedule has gone wrong."""
        failure = self._failure
        if failure is None:
            return
        what = failure if isinstance(failure, str) else f"{type(failure).__name__}: {failure}"
        broken = Broken(what, self._log, Replay(self.search.choices, shared))
        raise broken from (None if isinstance(failure, str) else failure)

    def _cast(self, scenario: Scenario) -> None:
        """Assign each part of the scenario to a thread of the operating system."""
        parts = [*scenario.threads.items(), *scenario.services.items()]
        while len(self._workers) < len(parts):
            self._hire()
        self._threads = [
            Thread(
                number,
                name,
                body,
                self._turns[number],
                service=number >= len(scenario.threads),
                interruptible=name in scenario.interruptible,
            )
            for number, (name, body) in enumerate(parts)
        ]

    def _hire(self) -> None:
        turn = baton()
        worker = threading.Thread(target=self._work, args=(len(self._workers), turn), daemon=True)
        self._turns.append(turn)
        self._workers.append(worker)
        worker.start()
        # One at a time: what settrace() does to the code of all threads is not to meet a running one.
        self._ended.acquire()

    def _work(self, number: int, turn: Baton) -> None:
        before = sys.gettrace()
        self.tracing.begin()
        self._ended.release()
        while True:
            turn.acquire()
            if self._closing:
                break
            self.tracing.begin()
            me = self._threads[number]
            try:
                if not self.over:
                    me.body()
            except Unwound:
                pass
            except BaseException as exc:
                self._fail(exc)
            me.state = State.DONE
            self._pass_on(me, "has ended")
        sys.settrace(before)

    # --- whose turn it is ------------------------------------------------------------------------

    def may_preempt(self, me: Thread, frame: FrameType) -> None:
        """A place where the running thread may be preempted, or hit by Ctrl-C."""
        try:
            self._count_step()
            self._scenario.always()
        except Unwound as exc:
            _leave(frame, exc)
        except Exception as exc:
            self._log.append(f"{me.name} is at {_place(frame)}")
            self._fail(exc)
            _leave(frame, Unwound())
        spent = self.preempted == self._bound
        if spent and not me.interruptible:
            return
        stay: _Option = (_Does.RUN, me, 0)
        others = [] if spent else self._preempting(me)
        while True:
            interrupt = [(_Does.INTERRUPT, me, 0)] if me.interruptible and not self.interrupted else []
            options = [stay, *others, *interrupt]
            option = self._choose(options, (frame.f_code.co_name, frame.f_lasti)) if len(options) > 1 else stay
            if option is stay:
                return
            self._note(me, f"at {_place(frame)}", option)
            if option[0] is _Does.INTERRUPT:
                self.interrupted = True
                _leave(frame, Interrupted())
            try:
                self._hand_over(me, option)
            except Unwound as exc:
                _leave(frame, exc)
            others = []  # Ctrl-C may still come here, behind what the others did

    def _preempting(self, me: Thread) -> list[_Option]:
        others = [thread for thread in self._threads if thread is not me]
        options = [(_Does.RUN, thread, 1) for thread in others if thread.can_run(self._turns_passed)]
        if self._time_passes:
            options += [(_Does.TIME_OUT, thread, 1) for thread in others if thread.may_time_out()]
        return options

    def _pass_on(self, me: Thread, why: str) -> None:
        """The running thread cannot go on: choose another one."""
        if self.over:
            return self._unwind(me)
        others = [thread for thread in self._threads if thread is not me and thread.can_run(self._turns_passed)]
        # Who spins waits for one of the others; to let it look again and again is endless and tells nothing.
        busy = [thread for thread in others if thread.state is not State.SPINNING]
        options: list[_Option] = [(_Does.RUN, thread, 0) for thread in busy or others]
        at_rest = not options and all(thread.state is State.DONE or thread.service for thread in self._threads)
        if self._time_passes and not (at_rest and self.clock >= self._scenario.horizon):
            cost = 1 if options else 0
            options += [(_Does.TIME_OUT, thread, cost) for thread in self._threads if thread.may_time_out()]
        if not options:
            if not at_rest:
                states = ", ".join(f"{thread.name} {thread.state.name.lower()}" for thread in self._threads)
                self._fail(f"nobody can go on: {states}")
            self.over = True
            return self._unwind(me)
        option = self._choose(options, why)
        frame = innermost(sys._getframe(1))
        self._note(me, why if frame is None else f"{why} at {_place(frame)}", option)
        if option[1] is me:
            self._run_out(me)
            return None
        return self._hand_over(me, option)

    def _choose(self, options: list[_Option], where: object) -> _Option:
        affordable = [option for option in options if self.preempted + option[2] <= self._bound]
        chosen = affordable[self.search.choose(len(affordable), where)] if len(affordable) > 1 else affordable[0]
        self.preempted += chosen[2]
        return chosen

    def _hand_over(self, me: Thread, option: _Option) -> None:
        """Let another thread go on; return when it is this one's turn again."""
        does, thread, _ = option
        if does is _Does.TIME_OUT:
            self._run_out(thread)
        self._turns_passed += 1
        self._give(thread)
        if me.state is State.DONE:
            return
        me.turn.acquire()
        if self.over:
            raise Unwound
        if self.interrupted:
            see_instructions(sys._getframe(), on=True)

    def _give(self, thread: Thread) -> None:
        self.running = thread
        thread.turn.release()

    def _run_out(self, thread: Thread) -> None:
        assert thread.deadline is not None
        thread.timed_out = True
        self.clock = max(self.clock, thread.deadline)

    def _unwind(self, me: Thread) -> None:
        """The schedule is over: end the threads one after the other."""
        left = [thread for thread in self._threads if thread.state is not State.DONE]
        if me in left:
            raise Unwound
        if left:
            self._give(left[0])
        else:
            self._ended.release()

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > STEPS:
            self._fail("it does not end")
            raise Unwound

    def _fail(self, failure: BaseException | str) -> None:
        if self._failure is None:
            self._failure = failure
        self.over = True

    def _note(self, me: Thread, why: str, option: _Option) -> None:
        does, thread, _ = option
        self._log.append(f"{me.name} {why}: {does.value.format(thread.name)}")


def _leave(frame: FrameType, exc: BaseException) -> NoReturn:
    """Raise ``exc`` in the traced code."""
    # The interpreter then stops tracing this thread, and crashes (3.12) if a frame still asks for instructions.
    see_instructions(frame, on=False)
    raise exc


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
