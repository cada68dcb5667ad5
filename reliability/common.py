"""What the situations share; it runs with either library.

Nothing here goes beyond the interface that both document, but for three things, each asked for first: the
backend, the account that a recorder keeps, and shorter time limits for tests.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import itertools
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mvx.common.metrics import (
    AsyncioMetricsRecorder,
    AsyncioMetricsRecorderQueueOverflowError,
    AsyncioMetricsRecorderQueueOverflowPolicy,
    Metric,
    MetricEvent,
    MetricsRuntime,
)
from reliability.sheet import ACCEPTED, COUNTED, PROCESSED, TOLD, TRIED, Tally, open_sheet
from reliability.situation import BOTH

R = TypeVar("R", bound=AsyncioMetricsRecorder)

DROP = AsyncioMetricsRecorderQueueOverflowPolicy.DROP
RAISE_ERROR = AsyncioMetricsRecorderQueueOverflowPolicy.RAISE_ERROR

PATIENCE = 10.0
"""Seconds that a situation waits for what should be there long since."""

backend = "asyncio"
case = ""
_bounds: float | None = None
_recorders: list[AsyncioMetricsRecorder] = []


@dataclass(frozen=True, slots=True)
class Tick(MetricEvent):
    """An event with a number, and the name of its emitter."""

    n: int = 0
    emitter: str = ""

    @property
    def event_type(self) -> str:
        """As documented."""
        return "reliability.tick"


class Seen(Metric):
    """Counts what it sees."""

    def __init__(self, name: str = "seen", *, tally: bool = True) -> None:
        """With ``tally=False``, count only for the situation's own use."""
        self._name = name
        self._tally = Tally() if tally else None
        self.total = 0

    @property
    def metric_name(self) -> str:
        """As documented."""
        return self._name

    def handle_event(self, event: MetricEvent) -> bool:
        """Count the event."""
        self.total += 1
        if self._tally is not None:
            self._tally.add(PROCESSED)
        return True

    def snapshot(self) -> Mapping[str, Any]:
        """As documented."""
        return {"name": self._name, "dimensions": {"total": self.total}}


class Held(Seen):
    """Is held up at its first event, until it is let go."""

    def __init__(self, name: str = "held", *, tally: bool = True) -> None:
        """Make it; it holds from the beginning."""
        super().__init__(name, tally=tally)
        self.reached = threading.Event()
        self.go = threading.Event()

    def handle_event(self, event: MetricEvent) -> bool:
        """Wait, then count."""
        self.reached.set()
        self.go.wait()
        return super().handle_event(event)


class Slow(Seen):
    """Takes its time over every event."""

    def __init__(self, seconds: float, name: str = "slow") -> None:
        """Make it take ``seconds``."""
        super().__init__(name)
        self._pause = threading.Event()
        self._seconds = seconds

    def handle_event(self, event: MetricEvent) -> bool:
        """Wait, then count."""
        self._pause.wait(self._seconds)
        return super().handle_event(event)


class Emitter:
    """Emits to a recorder, in one thread, and counts what came of it."""

    def __init__(self, recorder: AsyncioMetricsRecorder, name: str = "") -> None:
        """Make an emitter that signs with ``name``."""
        self.recorder = recorder
        self._tally = Tally()
        self.name = name
        self.error: Exception | None = None
        """The last one that was raised to it."""

    def emit(self, n: int = 0) -> bool:
        """Emit one event; return whether that was accepted without an error."""
        self._tally.add(TRIED)
        try:
            self.recorder.register_event(event=Tick(n, self.name))
        except Exception as error:
            self._tally.add(TOLD)
            self.error = error
            return False
        self._tally.add(ACCEPTED)
        return True

    def emit_all(self, number: int) -> None:
        """Emit that many."""
        for n in range(number):
            self.emit(n)

    def emit_until_refused(self) -> None:
        """Emit until an error says that there is no point in it; where there is no room, wait a little."""
        pause = threading.Event()
        for n in itertools.count():
            if not self.emit(n):
                if not isinstance(self.error, AsyncioMetricsRecorderQueueOverflowError):
                    return
                pause.wait(0.001)


# --- either library ----------------------------------------------------------------------------------


def new_runtime() -> MetricsRuntime:
    """Return a runtime, started; on trio where that was asked for."""
    options: dict[str, Any] = {} if backend == "asyncio" else {"backend": backend}
    runtime = MetricsRuntime(namespace="reliability", **options)
    runtime.start()
    return runtime


def new_recorder(
    runtime: MetricsRuntime,
    name: str = "recorder",
    *,
    size: int = 100_000,
    policy: AsyncioMetricsRecorderQueueOverflowPolicy = RAISE_ERROR,
    is_known: bool = True,
) -> AsyncioMetricsRecorder:
    """Return a recorder of that runtime, with settings that both libraries have, all given."""
    recorder: AsyncioMetricsRecorder = runtime.create_recorder(
        name, queue_max_size=size, queue_overflow_policy=policy, **_drain()
    )
    if is_known:
        known(recorder)
    return recorder


def hand_made(kind: type[R], *, size: int = 100_000, name: str = "recorder") -> R:
    """Return a recorder of a class that lives on the running loop."""
    return known(kind(name, queue_max_size=size, queue_overflow_policy=RAISE_ERROR, **_drain()))


class Pausing(AsyncioMetricsRecorder):
    """Takes its time over every event, without holding up its loop."""

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await sleep(0.001)


def _drain() -> dict[str, Any]:
    return {} if _bounds is None else {"drain_timeout": _bounds}


def known(recorder: R) -> R:
    """Have the recorder's own account looked at in the end."""
    _recorders.append(recorder)
    return recorder


def look(*, pending: bool = True) -> None:
    """Look at the accounts of the recorders so far, if they keep one, and forget the recorders."""
    while _recorders:
        recorder = _recorders.pop()
        statistics = getattr(recorder, "statistics", None)
        if statistics is not None:
            account = statistics()
            counted = account.dropped + account.evicted + account.abandoned
            Tally().add(COUNTED, counted + account.pending if pending else counted)


def scaled(number: int) -> int:
    """Return a large number, or, in a test that has no time, a hundredth of it."""
    return number if _bounds is None else max(1, number // 100)


def current_case() -> str:
    """Return which of its cases the situation is run in."""
    return case


@atexit.register
def _look_last() -> None:
    # What is pending now, nobody will be able to look at.
    look(pending=False)


def run_in_loop(main: Callable[[], Awaitable[None]]) -> None:
    """Run ``main()`` as an application would."""
    if backend == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        trio.run(main)
        return

    async def body() -> None:
        await main()

    asyncio.run(body())


async def state_in_the_end(recorder: AsyncioMetricsRecorder) -> str:
    """Let the loop run until the recorder has ended, or five seconds; return its state."""
    for _ in range(1_000):
        if recorder.get_status().value not in ("STARTING", "RUNNING", "STOPPING"):
            break
        await sleep(0.005)
    return recorder.get_status().value


async def sleep(seconds: float) -> None:
    """Sleep on whichever loop runs."""
    if backend == "trio":
        import trio  # noqa: PLC0415 — only where it is asked for

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def in_threads(*bodies: Callable[[], object]) -> list[threading.Thread]:
    """Run each body in a thread of its own, without waiting for it."""
    threads = [threading.Thread(target=body) for body in bodies]
    for thread in threads:
        thread.start()
    return threads


def join(threads: Iterable[threading.Thread]) -> None:
    """Wait for threads."""
    for thread in threads:
        thread.join()


def until(condition: Callable[[], object], *, limit: float = PATIENCE) -> bool:
    """Wait for something of which nobody tells; return whether it came in time."""
    pause = threading.Event()
    for _ in range(int(limit / 0.001)):
        if condition():
            return True
        pause.wait(0.001)
    return bool(condition())


# --- what the harness reads --------------------------------------------------------------------------


def tell(text: str) -> None:
    """Say in words what was seen; equal notes are counted."""
    _print({"note": text})


def figure(name: str, value: float) -> None:
    """Say in numbers what was seen; of several, the largest is shown."""
    _print({"figure": name, "value": value})


def fault(name: str, number: int) -> None:
    """Say how often something was seen that should not be; all are added up, and zero is worth saying."""
    _print({"fault": name, "number": number})


def short(error: BaseException | None) -> str:
    """Return the class of an error, without the prefix by which the spellings of the two libraries differ."""
    if error is None:
        return "no error"
    name = type(error).__name__.removeprefix("AsyncioMetrics")
    return name if name.startswith("Metrics") else name.removeprefix("Metrics")


def tell_errors(emitters: Iterable[Emitter]) -> None:
    """Say what was raised to emitters."""
    names = sorted({short(emitter.error) for emitter in emitters})
    tell(f"emitters get {', '.join(names)}")


def _shorten_bounds(seconds: float) -> None:
    """Replace what this library's generous bounds are, for a test that has no time to run into them."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("mvx.common.metrics."):
            for bound in ("GRACE", "MIN_STOPPED_HOOK_TIMEOUT", "EXIT_TIMEOUT"):
                if hasattr(module, bound):
                    setattr(module, bound, seconds)


def _print(line: Mapping[str, object]) -> None:
    # By one system call: it works at any moment of a process's end, and never mixes with a child's.
    os.write(1, (json.dumps(line) + "\n").encode())


def perform(once: Callable[[], None]) -> None:
    """Run a situation as often as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", choices=BOTH)
    parser.add_argument("times", type=int)
    parser.add_argument("--case", default="")
    parser.add_argument("--sheets", type=Path, required=True, help="a directory for the counts of each process")
    parser.add_argument("--bounds", type=float, help="seconds in place of this library's generous bounds")
    arguments = parser.parse_args()
    global backend, case, _bounds
    backend, case, _bounds = arguments.backend, arguments.case, arguments.bounds
    open_sheet(arguments.sheets)
    if _bounds is not None:
        _shorten_bounds(_bounds)
    for _ in range(arguments.times):
        look()
        _print({"begun": 1})
        once()
