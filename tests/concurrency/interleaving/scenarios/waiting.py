"""Waiting for another thread: nobody oversleeps."""

from __future__ import annotations

from mvx.common.metrics._waiting import OneShot, ThreadWaiter
from tests.concurrency.interleaving.cases import Cases, Make
from tests.concurrency.interleaving.loop import ScriptedLoop
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body

CASES = Cases()


def _one_shot(*, threads: int, tasks: int) -> Make:
    """Nobody oversleeps, and whoever is awake sees the value."""

    def make(stage: Stage) -> Scenario:
        answer: OneShot[str] = OneShot()
        got: list[tuple[bool, str | None]] = []

        def note(done: bool) -> None:
            got.append((done, answer.peek() if done else None))

        def wait_in_thread() -> None:
            note(answer.wait(1.5, lambda: None))

        def wait_in_task() -> None:
            async def wait() -> None:
                note(await answer.wait_async(1.5, lambda: None))

            ScriptedLoop(stage).run_task(wait)

        def set_it() -> None:
            answer.set("first")
            answer.set("second")

        def check() -> None:
            assert len(got) == threads + tasks
            for done, value in got:
                assert (value == "first") is done
            assert not answer._waiters

        bodies: dict[str, Body] = {f"thread-{n}": wait_in_thread for n in range(threads)}
        bodies |= {f"task-{n}": wait_in_task for n in range(tasks)}
        return Scenario(threads={**bodies, "setter": set_it}, check=check)

    return make


CASES.add("one-shot: two threads", _one_shot(threads=2, tasks=0), short=1, long=3)
CASES.add("one-shot: a thread and a task", _one_shot(threads=1, tasks=1), short=1, long=2)
CASES.add("one-shot: time runs out", _one_shot(threads=2, tasks=0), short=1, long=2, time_passes=True)
CASES.add("one-shot: time runs out for a task", _one_shot(threads=1, tasks=1), short=1, long=2, time_passes=True)


@CASES.case("waiter: notified about the time-out", short=3, long=5, time_passes=True)
def _waiter(stage: Stage) -> Scenario:
    """Twice is once, and a wait that ran out takes no later one's notification."""
    waiter = ThreadWaiter()
    woken: list[bool] = []

    def check() -> None:
        assert woken[0] or waiter.wait(0)

    threads: dict[str, Body] = {"waiter": lambda: woken.append(waiter.wait(1))}
    return Scenario(threads={**threads, "one": waiter.notify, "two": waiter.notify}, check=check)
