"""Calls into an event loop: none is lost."""

from __future__ import annotations

from mvx.common.metrics._hub import LoopHub
from tests.concurrency.interleaving.cases import Cases
from tests.concurrency.interleaving.loop import ScriptedLoop
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.stage import Stage
from tests.concurrency.interleaving.thread import Body

CASES = Cases()


class Calls:
    """A hub on a scripted loop, and the callbacks that ran."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.loop = ScriptedLoop(stage)
        self.hub = LoopHub(self.loop, may_block=True)
        self.ran: list[str] = []
        self.asked: list[str] = []

    def call(self, *names: str) -> Body:
        def body() -> None:
            for name in names:
                self.asked.append(name)
                self.hub.call_soon(lambda name=name: self.ran.append(name))  # type: ignore[misc] # bound now

        return body

    def check(self) -> None:
        assert sorted(self.ran) == sorted(self.asked), "a call was lost"
        for who in "ab":
            mine = [name for name in self.ran if name[0] == who]
            assert mine == sorted(mine)
        self.call("a9")()
        self.loop.run_what_is_ready()
        assert self.ran[-1] == "a9", "no later call will get through"


@CASES.case("hub: two threads call", short=1, long=3)
def _two_call(stage: Stage) -> Scenario:
    calls = Calls(stage)
    threads = {"one": calls.call("a1", "a2"), "two": calls.call("b1")}
    return Scenario(threads=threads, services={"loop": calls.loop.run}, check=calls.check)


@CASES.case("hub: a callback calls", short=1, long=2)
def _callback_calls(stage: Stage) -> Scenario:
    calls = Calls(stage)

    def run() -> None:
        calls.ran.append("a1")
        calls.call("a2")()

    def call_twice() -> None:
        calls.asked.append("a1")
        calls.hub.call_soon(run)

    threads: dict[str, Body] = {"one": call_twice, "two": calls.call("b1", "b2")}
    return Scenario(threads=threads, services={"loop": calls.loop.run}, check=calls.check)


@CASES.case("hub: Ctrl-C in a call", short=1, long=2, every=None)
def _interrupted_call(stage: Stage) -> Scenario:
    """The next call, or the heartbeat, makes up for it; no other call is held up for longer."""
    calls = Calls(stage)

    def interrupted() -> None:
        try:
            calls.call("a1")()
        except KeyboardInterrupt:
            calls.asked.remove("a1")
            stage.go_on()

    def check() -> None:
        calls.hub._heartbeat()
        calls.loop.run_what_is_ready()
        if "a1" in calls.ran and "a1" not in calls.asked:
            calls.ran.remove("a1")  # it was cut short after it had got through
        calls.check()

    threads = {"interrupted": interrupted, "two": calls.call("b1")}
    return Scenario(
        threads=threads,
        services={"loop": calls.loop.run},
        check=check,
        interruptible=frozenset({"interrupted"}),
    )


@CASES.case("hub: the loop ends", short=2, long=3)
def _loop_ends(stage: Stage) -> Scenario:
    """Whoever was not told that the loop is gone may have his call lost near its end, and nobody later."""
    calls = Calls(stage)
    told: list[str] = []

    def call(name: str) -> None:
        try:
            calls.call(name)()
        except Exception as exc:
            told.append(type(exc).__name__)

    def end() -> None:
        calls.loop.gone = True

    def check() -> None:
        assert set(told) <= {"LoopGoneError"}
        assert calls.hub.is_gone()
        call("a3")
        assert told

    threads: dict[str, Body] = {"one": lambda: call("a1"), "two": lambda: call("b1"), "loop": end}
    return Scenario(threads=threads, check=check)
