"""Which exception means what, and what an outcome is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import pickle
import subprocess
import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest

from mvx.common.metrics import MetricsEmitter, Outcome, OutcomeEvent, observe
from mvx.common.metrics.emitting._outcome import is_cancellation, outcome_of
from mvx.common.metrics.instruments import Counter, Summary
from tests.emitting.stage import Listener

trio = pytest.importorskip("trio")


class Panic(BaseException):
    """What a library raises that is neither an Exception nor a cancellation."""


class Stopped(asyncio.CancelledError):
    """A cancellation of somebody's own."""


class Spoilt(BaseExceptionGroup[BaseException]):
    """A group that says nothing of what is in it."""

    exceptions = ()


def nested(depth: int, leaf: BaseException) -> BaseException:
    group: BaseException = leaf
    for _ in range(depth):
        group = BaseExceptionGroup("g", [group])
    return group


def cancelled_by_trio() -> BaseException:
    """A genuine one: nobody else can make it."""
    caught: list[BaseException] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                caught.append(exc)
                raise

    trio.run(main)
    return caught[0]


CANCELLED = cancelled_by_trio()
CANCELLATIONS = [
    asyncio.CancelledError(),
    Stopped("why"),
    CANCELLED,
    GeneratorExit(),
    KeyboardInterrupt(),
    SystemExit(0),
    SystemExit("with a message"),
    BaseExceptionGroup("g", [asyncio.CancelledError(), CANCELLED]),
    BaseExceptionGroup("g", [BaseExceptionGroup("h", [CANCELLED]), KeyboardInterrupt()]),
    Spoilt("g", [CANCELLED]),
    nested(5000, CANCELLED),
]
ERRORS = [
    ValueError(),
    StopIteration(),
    TimeoutError(),
    concurrent.futures.CancelledError(),  # of something that was waited for in a thread
    Panic(),
    BaseException(),
    ExceptionGroup("g", [ValueError()]),
    BaseExceptionGroup("g", [CANCELLED, ValueError()]),
    BaseExceptionGroup("g", [BaseExceptionGroup("h", [CANCELLED, Panic()]), CANCELLED]),
    Spoilt("g", [CANCELLED, ValueError()]),
    nested(5000, Panic()),
]


@pytest.mark.parametrize("error", CANCELLATIONS, ids=lambda error: type(error).__name__)
def test_what_is_a_cancellation(error: BaseException) -> None:
    """Whatever says that the block is not wanted any more, and a group of nothing else; it has no error."""
    assert outcome_of(error, 1.5) == Outcome(status="cancelled", seconds=1.5, error=None)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_is_an_error(error: BaseException) -> None:
    """Everything else, a library's panic included; the class is that of the exception itself."""
    assert outcome_of(error, 1.5) == Outcome(status="error", seconds=1.5, error=type(error))


def test_no_exception_is_ok() -> None:
    """Then there is no class."""
    assert outcome_of(None, 0.0) == Outcome(status="ok", seconds=0.0, error=None)


def test_a_class_that_lies_about_itself_is_taken_for_what_it_is() -> None:
    """``__class__`` may be anything."""

    class Liar(Panic):
        __class__ = asyncio.CancelledError  # type: ignore[assignment] # because it lies

    assert not is_cancellation(Liar())


def test_a_greenlet_that_is_killed_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where greenlet is in use; a module of that name that is something else does no harm."""

    class GreenletExit(BaseException):
        pass

    assert not is_cancellation(GreenletExit())
    module: Any = types.ModuleType("greenlet")
    monkeypatch.setitem(sys.modules, "greenlet", module)
    assert not is_cancellation(GreenletExit())
    module.GreenletExit = "not a class"
    assert not is_cancellation(GreenletExit())
    module.GreenletExit = GreenletExit
    assert is_cancellation(GreenletExit())


def test_an_outcome_is_a_record() -> None:
    """Frozen, slotted, keyword-only, comparable, and it can be sent elsewhere."""
    outcome = Outcome(status="error", seconds=2.0, error=OSError)
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.seconds = 3.0  # type: ignore[misc] # because it is frozen
    assert not hasattr(outcome, "__dict__")
    with pytest.raises(TypeError):
        Outcome("ok", 1.0, None)  # type: ignore[call-arg] # because it takes keywords only
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert repr(outcome) == "Outcome(status='error', seconds=2.0, error=<class 'OSError'>)"


class Ended(OutcomeEvent):
    """An event that is nothing but an outcome."""

    event_type = "test.ended"


@dataclass(frozen=True, slots=True)
class Saved(OutcomeEvent):
    """An event with a field more."""

    event_type = "test.saved"
    size: int


@pytest.mark.parametrize("error", [None, OSError("disk"), asyncio.CancelledError()])
def test_an_outcome_event_tells_what_the_outcome_does(error: BaseException | None) -> None:
    """Under the same names, where metrics and instruments look for them; its subclasses as well."""
    outcome = outcome_of(error, 0.5)
    for event in (Ended(outcome), Saved(outcome, size=3)):
        assert (event.status, event.seconds, event.error) == (outcome.status, 0.5, outcome.error)
        assert event.outcome is outcome
        assert pickle.loads(pickle.dumps(event)) == event
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.outcome = outcome  # type: ignore[misc] # because it is frozen
    assert not hasattr(Saved(outcome, size=3), "__dict__")


def test_an_outcome_event_says_what_kind_it_is() -> None:
    """The base class says it of none, so it is no event by itself."""
    with pytest.raises(TypeError, match="event_type"):
        OutcomeEvent(outcome_of(None, 0.5))  # type: ignore[abstract] # because it does not say


def test_instruments_read_an_outcome_event() -> None:
    """How long, how it ended, and what was raised; a misspelt name is found when the instrument is made."""
    recorder = Listener()
    seconds = Summary("seconds", on=Ended, value="seconds", tags=("status",))
    errors = Counter("errors", on=Ended, when=lambda event: event.status == "error", tags=("error",))
    emitter = MetricsEmitter(recorder, (seconds, errors))
    for error in (None, LookupError(), KeyboardInterrupt()):
        with contextlib.suppress(LookupError, KeyboardInterrupt), observe(emitter, Ended):
            if error is not None:
                raise error
    for event in recorder.events:
        seconds.handle_event(event)
        errors.handle_event(event)
    assert [series["tags"]["status"] for series in seconds.snapshot()["series"]] == ["ok", "error", "cancelled"]
    assert [series["tags"] for series in errors.snapshot()["series"]] == [{"error": "LookupError"}]
    with pytest.raises(ValueError, match="Ended has no attribute 'second'; it has error, event_type, outcome, seconds"):
        Summary("seconds", on=Ended, value="second")


def test_telling_them_apart_imports_nothing() -> None:
    """A process without trio stays without it."""
    program = (
        "import sys; from mvx.common.metrics import observe, MetricsEmitter\n"
        "class R:\n"
        "    def register_metric(self, metric): pass\n"
        "    def register_event(self, event): print(event.status)\n"
        "try:\n"
        "    with observe(R(), lambda outcome: outcome): raise SystemExit\n"
        "except SystemExit: pass\n"
        "print('trio' in sys.modules, 'greenlet' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["cancelled", "False", "False"]
