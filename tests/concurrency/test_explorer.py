"""The explorer of interleavings finds what it is there to find, and rests on what the interpreter really does."""

from __future__ import annotations

import contextlib
import dis
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from types import CodeType, FrameType

import pytest

from tests.concurrency.interleaving.explore import explore
from tests.concurrency.interleaving.locks import StageLock
from tests.concurrency.interleaving.points import Points, interleaved
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.schedule import Broken
from tests.concurrency.interleaving.stage import Stage
from tests.support import DEADLINE


class Sample:
    """Some of each kind of code, to be interrupted."""

    __slots__ = ("_items", "_number")

    def __init__(self) -> None:
        self._number = 1
        self._items: deque[int] = deque()

    @property
    def number(self) -> int:
        return self._number

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._number = 2

    def run(self) -> bool:
        if self.number and len(self._items) < 5:
            self._items.append(2)
        for n in range(3):
            self.step(n)
        while True:
            if self._number == 77:
                return False
            try:
                self._items.popleft()
            except IndexError:
                break
        with self.scope():
            several = [1, 2, 3]
            _ = {1: (several, several)}
        if self._items:
            return False
        return any(item is None for item in Sample().items())

    def step(self, n: int) -> None:
        self._number = n

    def items(self) -> list[int]:
        return [*self._items, 3]


def _instruction_at(code: CodeType, offset: int) -> str:
    """The instruction at an offset, or of whose inline cache it is."""
    return [i.opname for i in dis.get_instructions(code) if i.offset <= offset][-1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer to interrupt with")
def test_where_the_interpreter_changes_threads() -> None:
    """It runs signal handlers where it lets other threads in: at a function's entry, a backward jump and after a call."""
    seen: Counter[tuple[CodeType, int]] = Counter()

    def handler(number: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == __file__:
            seen[frame.f_code, frame.f_lasti] += 1

    before = signal.signal(signal.SIGALRM, handler)
    deadline = time.monotonic() + DEADLINE
    try:
        # Not much oftener: a slow machine would do nothing but run handlers.
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while seen.total() < 300 and time.monotonic() < deadline:
            Sample().run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen
    # In 3.11 a call is two instructions, of which a specialised first one may do the work of both.
    where = {_instruction_at(code, offset) for code, offset in seen}
    assert not [name for name in where if not re.match(r"RESUME|(PRE)?CALL|(POP_)?JUMP_BACKWARD", name)]


class Shared:
    """A number that is counted up in two steps, with a call between them."""

    def __init__(self) -> None:
        self.number = 0
        self.names: list[str] = []

    @interleaved
    def count(self) -> None:
        number = self.number
        self.names.append("here")
        self.number = number + 1

    def scenario(self, stage: Stage) -> Scenario:
        self.__init__()  # type: ignore[misc] # each schedule begins anew

        def check() -> None:
            assert self.number == 2

        return Scenario(threads={"one": self.count, "two": self.count}, check=check)


def test_a_lost_update_takes_one_preemption() -> None:
    """And is reported with its schedule, which can be run again."""
    make = Shared().scenario
    # Two, and one more since the first has shown what is shared.
    assert explore(make, preemptions=0) == 3
    with pytest.raises(Broken, match=r"at test_explorer\.py:") as found:
        explore(make, preemptions=1)
    with pytest.raises(Broken) as again:
        explore(make, preemptions=1, only=found.value.replay)
    assert again.value.log == found.value.log
    assert len(again.value.log) == 2


def test_at_every_instruction_is_finer() -> None:
    """An update in one step for the interpreter is two instructions."""

    class Short(Shared):
        @interleaved
        def count(self) -> None:
            self.number += 1

    explore(Short().scenario, preemptions=3)
    with pytest.raises(Broken):
        explore(Short().scenario, preemptions=1, points=Points.EVERY)


def test_a_deadlock_is_found() -> None:
    """Two locks in two orders."""

    def make(stage: Stage) -> Scenario:
        first, second = StageLock(stage), StageLock(stage)

        @interleaved
        def take(one: StageLock, other: StageLock) -> None:
            with one, other:
                pass

        return Scenario(threads={"a": lambda: take(first, second), "b": lambda: take(second, first)})

    explore(make, preemptions=0)
    with pytest.raises(Broken, match="nobody can go on: a waiting, b waiting"):
        explore(make, preemptions=1)


def test_waiting_in_vain_is_found() -> None:
    """Spinning for what nobody will do."""

    def make(stage: Stage) -> Scenario:
        def spin() -> None:
            while True:
                stage.sleep(0)

        return Scenario(threads={"one": spin, "two": lambda: None})

    with pytest.raises(Broken, match="nobody can go on: one spinning, two done"):
        explore(make, preemptions=1)


def test_what_spins_lets_the_others_go_on() -> None:
    """And looks again when they have."""

    def make(stage: Stage) -> Scenario:
        done: list[int] = []

        def spin() -> None:
            while not done:
                stage.sleep(0)

        @interleaved
        def do() -> None:
            done.append(1)

        return Scenario(threads={"one": spin, "two": spin, "three": do})

    assert explore(make, preemptions=2) > 3


def test_a_wait_may_run_out() -> None:
    """Where time passes; elsewhere it is a deadlock."""

    def make(stage: Stage) -> Scenario:
        return Scenario(threads={"one": lambda: stage.wait(bool, 5)}, check=lambda: stage.clock / (stage.clock == 5))

    explore(make, preemptions=0, time_passes=True)
    with pytest.raises(Broken, match="one waiting"):
        explore(make, preemptions=0)


def test_ctrl_c_comes_everywhere_once() -> None:
    """At the entry, after each call, and not at all."""
    outcomes: set[str] = set()

    def make(stage: Stage) -> Scenario:
        steps: list[str] = []

        @interleaved
        def act() -> None:
            steps.append("1")
            steps.append("2")

        def body() -> None:
            try:
                act()
            except KeyboardInterrupt:
                steps.append("C")
                stage.go_on()

        threads = {"one": body}
        return Scenario(threads=threads, check=lambda: outcomes.add("".join(steps)), interruptible=frozenset(threads))

    assert explore(make, preemptions=0) == 4
    assert outcomes == {"12", "C", "1C", "12C"}
