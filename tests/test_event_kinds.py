"""Every kind of class that an event may be works as one: the kinds that ``python -m benchmarks --only events`` measures."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
from abc import ABCMeta
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.bench_events import CONTENDERS
from benchmarks.event_kinds import EVENT_TYPE, KINDS
from mvx.common.metrics import Metric, MetricEvent, MetricsEmitter, MetricsRecorder, MetricsRuntime, Outcome, observe
from tests.support import Seen, Tock

HAS_MSGSPEC = importlib.util.find_spec("msgspec") is not None
MUTABLE = ("dataclass-mutable", "attrs-define", "slotted-class")
VIRTUAL = "msgspec-registered"


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=pytest.mark.skipif(name.startswith("msgspec") and not HAS_MSGSPEC, reason="msgspec is not installed"),
        )
        for name in KINDS
    ]
)
def kind_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kind(kind_name: str) -> Iterator[type[Any]]:
    """A class of this kind that pickle can find."""
    made = KINDS[kind_name]()
    made.__qualname__ = "EventOfAKind"
    made.__module__ = __name__
    module = sys.modules[__name__]
    module.EventOfAKind = made  # type: ignore[attr-defined] # because it is there for the time of a test
    yield made
    del module.EventOfAKind


class Seconds(Metric):
    """Adds the seconds of the events of one class up."""

    metric_name = "seconds"

    def __init__(self, *kinds: type[Any]) -> None:
        self.event_types = kinds  # type: ignore[misc] # because each test has a class of its own
        self.total = 0.0

    def handle_event(self, event: MetricEvent) -> bool:
        self.total += vars_of(event)["seconds"]
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self.metric_name, "dimensions": {"total": self.total}}


def vars_of(event: Any) -> dict[str, Any]:
    return {"outcome": event.outcome, "seconds": event.seconds}


def test_the_kinds_are_those_that_are_measured() -> None:
    """In their order."""
    assert tuple(KINDS) == CONTENDERS


def test_it_is_an_event(kind: type[Any]) -> None:
    """By isinstance, with its type and its fields."""
    event = kind(outcome="ok", seconds=0.5)
    assert issubclass(kind, MetricEvent)
    assert isinstance(event, MetricEvent)
    assert event.event_type == EVENT_TYPE
    assert vars_of(event) == {"outcome": "ok", "seconds": 0.5}


def test_a_runtimes_recorder_takes_it(kind: type[Any], backend: dict[str, Any]) -> None:
    """On every backend, from another thread; only the metrics that want its class see it."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        wanting, other, every = Seconds(kind), Seen("other"), Seen("every")
        other.event_types = (Tock,)  # type: ignore[misc] # because this one wants something else
        emitter = MetricsEmitter(recorder, (wanting, other, every))
        for _ in range(3):
            emitter.emit(kind(outcome="ok", seconds=0.5))
        emitter.emit_lazily(kind, outcome="error", seconds=0.25)
        assert recorder.get_metric_snapshots()["seconds"]["dimensions"] == {"total": 1.75}
        assert (len(every.events), len(other.events), emitter.swallowed) == (4, 0, 0)
        assert recorder.statistics().unmatched == 0


@pytest.mark.anyio
async def test_a_recorder_on_a_loop_takes_it(kind: type[Any]) -> None:
    """And its hooks see the very object."""
    seen = []

    class Hooked(MetricsRecorder):
        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            seen.append(event)

    event = kind(outcome="ok", seconds=0.5)
    async with Hooked("x") as recorder:
        recorder.register_metric(Seconds(kind))
        recorder.register_event(event)
        await recorder.aregister_event(event)
        await recorder.flush()
    assert [one is event for one in seen] == [True, True]


def test_an_event_of_a_subclass_is_wanted_too(kind: type[Any], kind_name: str, backend: dict[str, Any]) -> None:
    """``event_types`` include subclasses, virtual ones as well."""
    metaclass: Any = type(kind)
    special = metaclass("Special", (kind,), {"__slots__": ()} if not kind_name.startswith("msgspec") else {})
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        recorder.register_metric(Seconds(kind))
        recorder.register_event(special(outcome="ok", seconds=0.5))
        assert recorder.get_metric_snapshots()["seconds"]["dimensions"] == {"total": 0.5}


def test_it_is_made_of_an_outcome(kind: type[Any], backend: dict[str, Any]) -> None:
    """By observe()."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        emitter = MetricsEmitter(recorder, (Seconds(kind),))

        def make(outcome: Outcome) -> MetricEvent:
            event: MetricEvent = kind(outcome=outcome.status, seconds=outcome.seconds)
            return event

        times = iter((1.0, 3.5))
        with observe(emitter, make, clock=lambda: next(times)):
            pass
        assert recorder.get_metric_snapshots()["seconds"]["dimensions"] == {"total": 2.5}


def test_it_is_immutable_or_says_that_it_is_not(kind: type[Any], kind_name: str) -> None:
    """A class that is not frozen is immutable by agreement only."""
    event = kind(outcome="ok", seconds=0.5)
    if kind_name in MUTABLE:
        event.outcome = "error"
        return
    with pytest.raises(AttributeError):
        event.outcome = "error"


def test_it_can_be_sent_elsewhere(kind: type[Any]) -> None:
    """pickle gives its fields back."""
    there = pickle.loads(pickle.dumps(kind(outcome="ok", seconds=0.5)))
    assert type(there) is kind
    assert vars_of(there) == {"outcome": "ok", "seconds": 0.5}


def test_a_class_without_an_event_type_cannot_be_made(kind_name: str) -> None:
    """Whoever derives from MetricEvent is told so; a virtual subclass is refused by the recorder instead."""
    if kind_name == VIRTUAL:
        pytest.skip("a virtual subclass is nobody's business before it is emitted")
    for base in KINDS[kind_name]().__mro__[1:]:
        if issubclass(base, MetricEvent) and inspect.isabstract(base):
            metaclass: Any = type(base)
            nameless = metaclass("Nameless", (base,), {})
            with pytest.raises(TypeError, match="abstract"):
                nameless()
            return
    raise AssertionError("there is no abstract base")


@pytest.mark.skipif(not HAS_MSGSPEC, reason="msgspec is not installed")
def test_a_virtual_event_without_a_type_is_refused(backend: dict[str, Any]) -> None:
    """At its first event."""
    import msgspec  # noqa: PLC0415 — only where it is installed

    @MetricEvent.register
    class Nameless(msgspec.Struct, frozen=True):
        pass

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        nameless: Any = Nameless()
        with pytest.raises(ValueError, match=r"Nameless\.event_type raised"):
            recorder.register_event(nameless)


@pytest.mark.skipif(not HAS_MSGSPEC, reason="msgspec is not installed")
def test_a_struct_needs_the_metaclass() -> None:
    """Two metaclasses do not mix by themselves: that is Python's rule, and the reason for the recipe."""
    import msgspec  # noqa: PLC0415 — only where it is installed

    with pytest.raises(TypeError, match="metaclass conflict"):

        class Saved(msgspec.Struct, MetricEvent):  # type: ignore[metaclass] # because that is the point
            pass

    assert type(MetricEvent) is ABCMeta
