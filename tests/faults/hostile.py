"""What goes wrong, where it goes wrong, and a stage on which it may go wrong beside a recorder of good conduct.

A ``Trouble`` is something to be raised; a metric, a hook or an event raises it at the place that a test is about.
The ``Stage`` runs the scene in a thread of its own: in the main thread a KeyboardInterrupt would be Ctrl-C.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import itertools
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsError,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeState,
    RecorderError,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderUnexpectedError,
)
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._log import logger
from mvx.common.metrics._recorder import core_of
from tests.conftest import BACKENDS, Effort
from tests.support import DEADLINE, HOMES, Count, Tick, balanced

R = TypeVar("R", bound=MetricsRecorder)
T = TypeVar("T")

POLICIES = tuple(FailurePolicy)
MAX_FAILURES = 10
"""Trials that may fail before the others are not held any more."""
HUGE = 1_000_000
"""Characters in the message of an exception that holds too much."""


# --- exceptions ----------------------------------------------------------------------------------


class OwnBaseError(BaseException):
    """No Exception and none of the interpreter's own."""


class OwnInterrupt(KeyboardInterrupt):
    """Ctrl-C by inheritance."""


class MuteError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no str()")

    def __repr__(self) -> str:
        raise ValueError("no repr()")


class DeadlyError(Exception):
    """Ends the program, or so it would like, when it is shown."""

    def __str__(self) -> str:
        raise SystemExit(3)

    def __repr__(self) -> str:
        raise SystemExit(3)


class InterruptingError(Exception):
    """Interrupts whoever shows it."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    def __repr__(self) -> str:
        raise KeyboardInterrupt


class EmptyError(Exception):
    """A collection of errors without any: false, as an empty list is."""

    def __len__(self) -> int:
        return 0


class UndecidedError(Exception):
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("no bool()")


class IncomparableError(Exception):
    """Can neither be compared nor hashed."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no ==")

    def __hash__(self) -> int:
        raise ValueError("no hash()")


class NotedError(Exception):
    """Its notes, which every formatter of tracebacks asks for, end the program."""

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override] # that is what is wrong with it
        raise SystemExit(3)


class _Nameless(type):
    """Makes classes that end the program when they are asked for their name."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__"):
            raise SystemExit(3)
        return super().__getattribute__(name)

    def __repr__(cls) -> str:
        raise SystemExit(3)


class NamelessError(Exception, metaclass=_Nameless):
    """Its class has no name."""


class IndivisibleGroup(BaseExceptionGroup[BaseException]):
    """An exception group that cannot be split."""

    def derive(self, excs: Any) -> Any:
        raise ValueError("no derive()")

    def split(self, condition: Any) -> Any:
        raise ValueError("no split()")

    def subgroup(self, condition: Any) -> Any:
        raise ValueError("no subgroup()")


# --- troubles ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trouble:
    """Something to be raised, anew each time."""

    name: str
    make: Callable[[], BaseException]
    kind: type[BaseException]
    """The class of what is raised."""

    def strike(self) -> NoReturn:
        """Raise it."""
        raise self.make()

    def is_described_by(self, description: Mapping[str, str]) -> bool:
        """Whether that is what a snapshot says of it: the class's name, if it has one, and something short."""
        try:
            said = description["type"] == self.kind.__qualname__
        except SystemExit:
            said = isinstance(description["type"], str)
        return said and len(description["message"]) < 1000

    def is_cause_of(self, error: BaseException | None) -> bool:
        """Whether ``error`` says, through its causes, that this was the reason."""
        return any(type(each) is self.kind for each in causes(error))


@dataclass(frozen=True)
class Dive(Trouble):
    """A recursion that does not end by itself."""

    def strike(self) -> NoReturn:
        self.strike()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return ``error``, its cause, the cause of that, and so on."""
    seen: list[BaseException] = []
    while error is not None and not any(error is each for each in seen):
        seen.append(error)
        yield error
        error = error.cause if isinstance(error, MetricsError) else error.__cause__


def _cyclic() -> BaseException:
    error = ValueError("a cause of itself")
    error.__cause__ = error.__context__ = error
    error.args = (error,)
    return error


def _nested() -> BaseException:
    error: Exception = ValueError("in the depth")
    for _ in range(3000):
        error = ExceptionGroup("one in another", [error])
    return error


def _of(kind: type[BaseException], *args: object) -> Trouble:
    return Trouble(kind.__name__, lambda: kind(*args), kind)


@functools.cache
def stray_cancellation(backend: str) -> BaseException:
    """Return what ``backend`` raises in a cancelled task, kept from one; trio's class cannot be called."""
    kept: list[BaseException] = []

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.lowlevel.checkpoint()
            except BaseException as exc:
                kept.append(exc)
                raise

    anyio.run(cancelled, backend=backend)
    return kept[0]


def _stray(backend: str) -> Trouble:
    # Raised again and again, it would keep everything alive that it has met.
    make = lambda: stray_cancellation(backend).with_traceback(None)  # noqa: E731 — as short as those below
    return Trouble(f"stray {backend} cancellation", make, type(stray_cancellation(backend)))


BUILT_IN = (
    _of(Exception, "no"),
    _of(KeyboardInterrupt),
    _of(SystemExit, 3),
    _of(GeneratorExit),
    _of(MemoryError),
    Dive("RecursionError", RecursionError, RecursionError),
    _of(StopIteration, 1),
    _of(StopAsyncIteration),
    # What the engine itself catches for reasons of its own must not be taken for that when a metric raises it.
    _of(IndexError),
    _of(KeyError, "no"),
    _of(AttributeError, "no"),
    _of(RuntimeError, "no"),
    _of(TimeoutError),
    _of(asyncio.CancelledError),
    _of(asyncio.InvalidStateError),
    *(_stray(name) for name in ("trio",) if importlib.util.find_spec(name)),
    _of(anyio.WouldBlock),
    _of(anyio.EndOfStream),
    _of(LoopGoneError),
    Trouble("RecorderQueueOverflowError", lambda: RecorderQueueOverflowError(1), RecorderQueueOverflowError),
    Trouble("RecorderUnexpectedError", lambda: RecorderUnexpectedError(OSError(), "x"), RecorderUnexpectedError),
    Trouble(
        "BaseExceptionGroup",
        lambda: BaseExceptionGroup("several", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]),
        BaseExceptionGroup,
    ),
)
"""What a metric or a hook may raise by accident."""

OUTLANDISH = (
    _of(OwnBaseError),
    _of(OwnInterrupt),
    _of(MuteError),
    _of(DeadlyError),
    _of(InterruptingError),
    _of(EmptyError),
    _of(UndecidedError),
    _of(IncomparableError),
    _of(NotedError),
    Trouble("huge", lambda: ValueError("x" * HUGE), ValueError),
    Trouble("cyclic", _cyclic, ValueError),
    Trouble("nested", _nested, ExceptionGroup),
    Trouble("NamelessError", NamelessError, NamelessError),
    Trouble("IndivisibleGroup", lambda: IndivisibleGroup("several", [asyncio.CancelledError()]), IndivisibleGroup),
)
"""Exceptions that do harm when they are looked at."""

TROUBLES = (*BUILT_IN, *OUTLANDISH)

RAISES = pytest.mark.parametrize("troubles", [BUILT_IN, OUTLANDISH], ids=["built-in", "outlandish"])


# --- those who raise it --------------------------------------------------------------------------


class Moody(Count):
    """Counts, and raises at the given place once it has been told to."""

    PLACES = ("handle_event", "snapshot", "event_types", "subclass check", "truth", "metric_name")

    def __init__(self, place: str, trouble: Trouble, name: str = "moody") -> None:
        super().__init__(name)
        assert place in self.PLACES
        self.place, self.trouble = place, trouble
        self.armed = False
        self.calls = 0
        """How often ``handle_event`` was called."""

    @property
    def metric_name(self) -> str:
        self._strike("metric_name")
        return super().metric_name

    @property
    def event_types(self) -> tuple[type[MetricEvent], ...] | None:  # type: ignore[override] # an instance may narrow its class's answer
        self._strike("event_types")
        if self.place == "subclass check":
            return (self.judge,)
        return None

    @functools.cached_property
    def judge(self) -> type[MetricEvent]:
        metric = self

        class Judge(MetricEvent):
            """Is asked whether other events' classes are subclasses of it."""

            @classmethod
            def __subclasshook__(cls, other: type) -> bool:
                # MetricEvent asks all its subclasses about what is no event, also for other tests.
                if MetricEvent not in other.__mro__:
                    return False
                metric._strike("subclass check")
                return True

        return Judge

    def handle_event(self, event: MetricEvent) -> bool:
        self.calls += 1
        self._strike("handle_event")
        super().handle_event(event)
        return True if self.place != "truth" else Untrue(self)  # type: ignore[return-value] # so it is

    def snapshot(self) -> Mapping[str, Any]:
        self._strike("snapshot")
        return super().snapshot()

    def _strike(self, place: str) -> None:
        if self.place == place and self.armed:
            self.trouble.strike()


class Untrue:
    """An answer that raises when it is asked whether it is true."""

    def __init__(self, metric: Moody) -> None:
        self._metric = metric

    def __bool__(self) -> bool:
        self._metric._strike("truth")
        return True


class Afflicted(MetricsRecorder):
    """Its hooks are counted, and one of them raises."""

    def __init__(self, entity_id: str, *, place: str = "", trouble: Trouble | None = None, **options: Any) -> None:
        self.place, self.trouble = place, trouble
        self.called: dict[str, int] = {}
        """How often each hook was called."""
        self._hook("__init__")
        super().__init__(entity_id, **options)

    async def _on_starting(self) -> None:
        self._hook("_on_starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        self._hook("_on_metric_changed")

    async def _on_stopped(self) -> None:
        self._hook("_on_stopped")

    def _hook(self, place: str) -> None:
        self.called[place] = self.called.get(place, 0) + 1
        if self.place == place and self.trouble is not None:
            self.trouble.strike()


class Unhooked(Afflicted):
    """Likewise without ``_on_metric_changed``: events take the path without suspensions."""

    _on_metric_changed = MetricsRecorder._on_metric_changed


KINDS: tuple[type[Afflicted], ...] = (Afflicted, Unhooked)
"""With and without ``_on_metric_changed``: two paths through the dispatcher."""


@contextmanager
def held_up(recorder: MetricsRecorder) -> Iterator[None]:
    """Keep the recorder's event loop from every further step: what is emitted meanwhile is handled afterwards.

    The block must not suspend itself: where the loop is that of the caller, it is the block that holds it up.
    """
    home = core_of(recorder).home
    if home.on_own_loop():
        yield
        return
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(DEADLINE)

    home.hub().call_soon(hold)
    assert held.wait(DEADLINE)
    try:
        yield
    finally:
        release.set()


# --- the stage -----------------------------------------------------------------------------------


def every_home(metafunc: pytest.Metafunc) -> None:
    """Parametrise a test over backends, and over homes if it has one: a module's ``pytest_generate_tests``.

    uvloop is asyncio to the engine: in the short profile it is tried in one home, by the modules that are ``WITH_UVLOOP``.
    """
    by_hand = {name for mark in metafunc.definition.iter_markers("parametrize") for name in mark.args[0].split(",")}
    chosen = [name for name in ("anyio_backend", "home") if name in metafunc.fixturenames]
    if "anyio_backend" not in chosen or by_hand & set(chosen):
        return
    long, with_uvloop = metafunc.config.getoption("--long"), getattr(metafunc.module, "WITH_UVLOOP", False)
    homes: list[list[str]] = [[each] for each in HOMES] if "home" in chosen else [[]]
    cases = [
        pytest.param(*backend.values, *home, id="-".join([str(backend.id), *home]), marks=backend.marks)
        for backend in BACKENDS
        for home in homes
        if long or backend.id != "uvloop" or (with_uvloop and home in ([], ["runtime"]))
    ]
    metafunc.parametrize(chosen, cases)


@dataclass
class Part:
    """How a recorder fared on the stage."""

    recorder: Any = None
    """None if it could not even be made."""
    refused: BaseException | None = None
    """Why it could not be started."""
    spoilt: BaseException | None = None
    """Why it did not stop well."""


@dataclass
class Stage:
    """A home, and in it a neighbour that must never notice anything."""

    home: str
    runtime: MetricsRuntime | None
    neighbour: MetricsRecorder
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    _count: Count = field(default_factory=Count)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000_000)))

    @contextmanager
    def trial(self, *of: object) -> Iterator[None]:
        """One of many trials of a test: the next ones are held even if this one fails."""
        self.tried += 1
        try:
            yield
        except (Exception, SystemExit, KeyboardInterrupt) as exc:
            self.failures.append(f"tried: {', '.join(map(str, of))}\n{described(exc)}")
            if isinstance(exc, TimeoutError) or len(self.failures) == MAX_FAILURES:
                self.verdict()

    def verdict(self) -> None:
        """Fail if a trial has failed; in words, because pytest itself would not survive some of the exceptions."""
        if self.failures:
            pytest.fail(
                "\n\n".join((f"{len(self.failures)} of {self.tried} trials failed", *self.failures)), pytrace=False
            )

    async def neighbour_is_well(self) -> None:
        """Check that the neighbour handles an event, and shows it."""
        assert self.neighbour.get_status() is RecorderState.RUNNING
        if self.runtime is not None:
            assert self.runtime.get_status() is MetricsRuntimeState.RUNNING
        total = self._count.total + 1
        self.neighbour.register_event(Tick())
        with anyio.fail_after(DEADLINE):
            assert (await self.neighbour.flush()).success
            snapshots = await self.neighbour.aget_metric_snapshots()
        assert snapshots["count"]["dimensions"] == {"total": total}

    async def play(self, kind: Callable[..., R], act: Callable[[R], Awaitable[None]], **options: Any) -> Part:
        """Start a recorder, let ``act`` do what it likes, and stop the recorder.

        Only the documented errors may come out of its start and its stop; anything else fails the test.
        """
        part = Part()
        entity_id = f"part-{next(self._numbers)}"
        with anyio.fail_after(DEADLINE):
            if self.runtime is not None:
                await self._play_in_runtime(self.runtime, part, entity_id, kind, act, options)
            elif self.home == "group":
                await self._play_in_group(part, kind(entity_id, **options), act)
            else:
                await self._play_on_loop(part, kind(entity_id, **options), act)
        return part

    async def _play_in_runtime(
        self, runtime: MetricsRuntime, part: Part, entity_id: str, kind: Any, act: Any, options: dict[str, Any]
    ) -> None:
        try:
            part.recorder = await runtime.acreate_recorder(entity_id, factory=kind, **options)
        except MetricsRuntimeRecorderStartupError as exc:
            part.refused = exc
            assert runtime.try_get_recorder(entity_id) is None
            return
        await act(part.recorder)
        try:
            await anyio.to_thread.run_sync(runtime.stop_and_remove_recorder, entity_id)
        except MetricsRuntimeRecorderStopError as exc:
            part.spoilt = exc

    async def _play_in_group(self, part: Part, recorder: Any, act: Any) -> None:
        part.recorder = recorder
        entered = False
        try:
            async with recorder:
                entered = True
                await act(recorder)
        except RecorderError as exc:
            if entered:
                part.spoilt = exc
            else:
                part.refused = exc

    async def _play_on_loop(self, part: Part, recorder: Any, act: Any) -> None:
        part.recorder = recorder
        part.refused = (await recorder.start()).error
        if part.refused is None:
            await act(recorder)
            part.spoilt = (await recorder.stop()).error


@contextmanager
def theatre_for(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    """Yield a theatre on the backend of the test; thousands of failures that are meant are not logged meanwhile."""
    backend, options = anyio_backend
    if not effort.long:
        # It makes these tests ten times slower.
        options = {name: value for name, value in options.items() if name != "debug"}
    logger.disabled = True
    try:
        yield Theatre({"backend": backend, "backend_options": options}, effort.long)
    finally:
        logger.disabled = False


@dataclass(frozen=True)
class Theatre:
    """Puts scenes on stage; what a test asks for."""

    keywords: dict[str, Any]
    """The backend, for MetricsRuntime and for ``anyio.run``."""
    long: bool

    def mixed(self, first: Sequence[Any], *others: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Return every combination, or in the short profile each of some with each of the longest of the others."""
        if self.long:
            yield from itertools.product(first, *others)
            return
        for index, each in enumerate(self.some(first)):
            for turn in range(max(map(len, others))):
                yield each, *(other[(index + turn) % len(other)] for other in others)

    @property
    def backend(self) -> str:
        """The backend's name."""
        name: str = self.keywords["backend"]
        return name

    def some(self, of: Sequence[T]) -> Sequence[T]:
        """Return all of them, or in the short profile one half on asyncio and the other on trio."""
        return of if self.long else of[self.backend == "trio" :: 2]

    def show(
        self, home: str, scene: Callable[[Stage], Awaitable[None]], *, linger: float | None = None, **options: Any
    ) -> int:
        """Run ``scene`` in a thread and a loop of its own; return how many trials it held.

        The neighbour lives to the end and stops well.  In a runtime so does the runtime, to which
        ``options`` are given.

        :param linger: the neighbour's, in seconds; the default is that of every recorder
        """

        async def main() -> None:
            async with self._stage(home, linger, options) as stage:
                await stage.neighbour_is_well()
                await scene(stage)
                stage.verdict()
                tried.append(stage.tried)

        tried: list[int] = []
        in_thread(lambda: anyio.run(main, **self.keywords))
        return tried[0]

    @asynccontextmanager
    async def _stage(self, home: str, linger: float | None, options: dict[str, Any]) -> AsyncIterator[Stage]:
        if home == "runtime":
            async with MetricsRuntime(namespace="t", **self.keywords, **options) as runtime:
                stage = Stage(home, runtime, await runtime.acreate_recorder("neighbour", linger=linger))
                async with self._neighbour(stage):
                    yield stage
            return
        recorder = MetricsRecorder("neighbour", linger=linger)
        if home == "group":
            async with recorder:
                stage = Stage(home, None, recorder)
                async with self._neighbour(stage):
                    yield stage
            return
        await recorder.start()
        stage = Stage(home, None, recorder)
        async with self._neighbour(stage):
            yield stage

    @asynccontextmanager
    async def _neighbour(self, stage: Stage) -> AsyncIterator[None]:
        stage.neighbour.register_metric(stage._count)
        yield
        await stage.neighbour_is_well()
        assert (await stage.neighbour.stop()).success
        assert balanced(stage.neighbour.statistics())
        assert stage.neighbour.statistics().processed == stage._count.total


def in_thread(body: Callable[[], object], deadline: float = 3 * DEADLINE) -> None:
    """Run ``body`` in a thread that is not the main one; the test fails with what it raises."""
    errors: list[str] = []

    def run() -> None:
        try:
            body()
        except BaseException as exc:
            errors.append(described(exc))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(deadline)
    if thread.is_alive():
        pytest.fail("the scene does not come to its end")
    if errors:
        pytest.fail(errors[0], pytrace=False)


def described(error: BaseException) -> str:
    """Return the traceback of what may not want to be shown."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return f"an exception of class {type(error)} that cannot be shown"


def told(emit: Callable[[], object], *documented: type[MetricsError]) -> MetricsError | None:
    """Call ``emit`` as production would, and return the documented error that it raised, if it did."""
    try:
        emit()
    except documented as exc:
        return exc
    return None
