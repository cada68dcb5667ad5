"""What a type checker infers of emitters, observations and what these decorate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal, assert_type

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsEmitter,
    MetricsRecorder,
    MetricsRecorderProto,
    Outcome,
    OutcomeEvent,
    observe,
)
from mvx.common.metrics.emitting import MethodObservation, Observation, OutcomeStatus


@dataclass(frozen=True, slots=True)
class Saved(MetricEvent):
    """An event that takes an outcome."""

    outcome: Outcome
    size: int = 0

    @property
    def event_type(self) -> str:
        return "saved"


class Ended(OutcomeEvent):
    """An event that is nothing but an outcome."""

    event_type = "ended"


def make(recorder: MetricsRecorderProto, real: MetricsRecorder, metrics: tuple[Metric, ...]) -> None:
    """What an emitter is made of."""
    emitter = MetricsEmitter(None)
    assert_type(emitter, MetricsEmitter)
    MetricsEmitter(recorder, metrics)
    MetricsEmitter(real, (metric for metric in metrics))
    assert_type(emitter.recorder, MetricsRecorderProto | None)
    assert_type(emitter.enabled, bool)
    assert_type(emitter.swallowed, int)
    MetricsEmitter()  # type: ignore[call-arg] # because a component says where its recorder comes from
    MetricsEmitter(3)  # type: ignore[arg-type] # because an int is no recorder
    MetricsEmitter(recorder, metrics[0])  # type: ignore[arg-type] # because the comma is missing
    MetricsEmitter(recorder, (Saved,))  # type: ignore[arg-type] # because an event is no metric
    emitter.swallowed = 3  # type: ignore[misc] # because it is counted


async def emit(emitter: MetricsEmitter, outcome: Outcome) -> None:
    """The ways of emitting."""
    emitter.emit(Saved(outcome))
    emitter.emit_lazily(Saved, outcome, size=3)
    emitter.emit_lazily(lambda: None)
    await emitter.aemit(Saved(outcome))
    emitter.emit("saved")  # type: ignore[arg-type] # because a str is no event
    emitter.emit_lazily(Saved)  # type: ignore[call-arg] # because it needs an outcome
    emitter.emit_lazily(Saved, outcome, size="3")  # type: ignore[arg-type] # because a size is an int
    emitter.emit_lazily(len, "abc")  # type: ignore[arg-type] # because an int is no event
    await emitter.aemit(None)  # type: ignore[arg-type] # because None is no event


def outcomes(outcome: Outcome) -> None:
    """What an outcome tells."""
    assert_type(outcome.status, Literal["ok", "error", "cancelled"])
    assert_type(outcome.status, OutcomeStatus)
    assert_type(outcome.seconds, float)
    assert_type(outcome.error, type[BaseException] | None)
    outcome.seconds = 3.0  # type: ignore[misc] # because it is frozen
    Outcome(status="failed", seconds=0.0, error=None)  # type: ignore[arg-type] # because there is no such status


def events(emitter: MetricsEmitter, outcome: Outcome) -> None:
    """What an event made of an outcome tells."""
    event = Ended(outcome)
    assert_type(event.outcome, Outcome)
    assert_type(event.status, OutcomeStatus)
    assert_type(event.seconds, float)
    assert_type(event.error, type[BaseException] | None)
    assert_type(observe(emitter, Ended), Observation)
    event.outcome = outcome  # type: ignore[misc] # because it is frozen
    OutcomeEvent(outcome)  # type: ignore[abstract] # because it does not say what kind of event it is


async def blocks(emitter: MetricsEmitter, recorder: MetricsRecorderProto) -> int:
    """As a context manager of either kind; a block cannot be left without a return."""
    timed = observe(emitter, Saved)
    assert_type(timed, Observation)
    assert_type(observe(None, Saved), Observation)
    assert_type(observe(recorder, lambda outcome: None, clock=lambda: 1.0), Observation)
    assert_type(observe("_metrics", Saved), MethodObservation)
    async with timed:
        pass
    with observe("_metrics", Saved):  # type: ignore[attr-defined] # because a block has no instance to look at
        pass
    with timed as nothing:
        assert_type(nothing, None)
        # A block that might swallow an exception could be left without a return.
        return 3


def mistakes(emitter: MetricsEmitter) -> None:
    """What cannot be observed, and what makes no event."""
    observe(emitter)  # type: ignore[call-overload] # because there is nothing to emit
    observe(3, Saved)  # type: ignore[call-overload] # because an int is no emitter
    observe(emitter, len)  # type: ignore[arg-type] # because an int is no event
    observe(emitter, Saved, clock=str)  # type: ignore[arg-type] # because a str tells no seconds
    observe(emitter, Saved)(3)  # type: ignore[type-var] # because 3 is no function


timed = observe(None, Saved)


@timed
def function(one: int, *, other: str = "") -> float:
    """A function."""
    return one / 2


@timed
async def coroutine_function(one: int) -> float:
    """A coroutine function."""
    return one / 2


@timed
def generator_function(one: int) -> Generator[int, str, float]:
    """A generator function."""
    yield one
    return one / 2


@timed
async def async_generator_function(one: int) -> AsyncIterator[int]:
    """An async generator function."""
    yield one


class Storage:
    """Methods."""

    def __init__(self, recorder: MetricsRecorderProto | None = None) -> None:
        self._metrics = MetricsEmitter(recorder)

    @observe("_metrics", Saved)
    def save(self, one: int) -> str:
        """A method."""
        return str(one)

    @observe("_metrics", Saved)
    async def asave(self, one: int) -> str:
        """A coroutine method."""
        return str(one)

    @classmethod
    @observe("_metrics", Saved)
    def below(cls, one: int) -> str:
        """A class method, decorated below."""
        return str(one)

    @observe("_metrics", Saved)
    @classmethod
    def above(cls, one: int) -> str:
        """A class method, decorated above."""
        return str(one)

    @staticmethod
    @timed
    def static(one: int) -> str:
        """A static method."""
        return str(one)

    @property
    @observe("_metrics", Saved)
    def size(self) -> int:
        """A property."""
        return 3


async def decorated(storage: Storage) -> None:
    """Whatever is decorated keeps its type, the names of its parameters included."""
    assert_type(function(1, other="x"), float)
    assert_type(await coroutine_function(one=1), float)
    assert_type(generator_function(1), Generator[int, str, float])
    assert_type(async_generator_function(1), AsyncIterator[int])
    assert_type(storage.save(1), str)
    assert_type(await storage.asave(one=1), str)
    assert_type(storage.below(1), str)
    assert_type(Storage.above(1), str)
    assert_type(Storage.static(1), str)
    assert_type(storage.size, int)
    function("1")  # type: ignore[arg-type] # because it takes an int
    function(1, another="x")  # type: ignore[call-arg] # because there is no such parameter
    storage.save("1")  # type: ignore[arg-type] # because it takes an int
    await coroutine_function()  # type: ignore[call-arg] # because it needs an argument


def partly(rows: Callable[[int], Iterator[int]]) -> None:
    """A function that is a value keeps its type as well."""
    assert_type(timed(rows), Callable[[int], Iterator[int]])
