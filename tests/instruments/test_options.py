"""The options that all instruments share, on each kind."""

from __future__ import annotations

import copy
import functools
import json
import operator
import pickle
import threading
from collections.abc import Callable
from dataclasses import InitVar, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import attrs
import pytest

from mvx.common.metrics import Metric, MetricEvent, instruments
from mvx.common.metrics.instruments import Counter, Sum, snapshot_delta
from tests.instruments.events import KINDS, MANY, MEASURING, Attempt, Begun, Clock, Ended, dimensions, feed, series

untyped: Any = instruments
"""What a type checker would refuse is tried all the same."""

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_an_instrument_is_a_metric_of_its_events(kind: str) -> None:
    """It has its name, and asks the recorder for the classes that ``on`` names."""
    metric = KINDS[kind](" saves ")
    assert isinstance(metric, Metric)
    assert metric.metric_name == "saves"
    assert metric.event_types == (Attempt,)
    assert KINDS[kind](on=(Attempt, Ended), **_by_function(kind)).event_types == (Attempt, Ended)
    assert type(metric).event_types is None


def _by_function(kind: str) -> dict[str, Any]:
    """Options that do for any event."""
    if kind in ("counter", "rate"):
        return {}
    return {"hit": lambda event: True} if kind == "ratio" else {"value": lambda event: 1}


@each_kind
def test_each_event_is_counted(kind: str) -> None:
    """Three attempts are three."""
    metric = KINDS[kind]()
    feed(metric, Attempt(), Attempt(), Attempt())
    assert dimensions(metric)[MANY[kind]] == 3


@each_kind
def test_the_shape_of_a_snapshot(kind: str) -> None:
    """It has the documented keys, the same for every kind, and is JSON, before and after the first event."""
    metric = KINDS[kind](unit="s", description="how long")
    for events in ((), (Attempt(),)):
        feed(metric, *events)
        shown = metric.snapshot()
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown
        assert list(shown) == [
            "name",
            "kind",
            "unit",
            "description",
            "started",
            "dimensions",
            "series",
            "invalid",
            "overflowed",
            "expired",
        ]
        assert (shown["name"], shown["unit"], shown["description"]) == ("x", "s", "how long")
        assert shown["kind"] == ("histogram" if kind == "exponential" else kind)
        assert len(shown["series"]) == 1
        assert shown["series"][0]["tags"] == {}
        for key, value in shown["dimensions"].items():
            assert value is None or type(value) in (int, float)
            assert kind == "summary" or shown["series"][0][key] == value or kind == "rate"


class Unit(StrEnum):
    """What a program may keep its units in."""

    SECONDS = "s"


class Half(float):
    """As numpy's floats are: a float, which shows itself in another way."""


@each_kind
def test_a_snapshot_shows_plain_values_whatever_the_options_were(kind: str) -> None:
    """Members of enums and subclasses of numbers are for the program, not for the readers of its snapshots."""
    options: dict[str, Any] = {"tags": {Unit.SECONDS: "backend"}, "unit": Unit.SECONDS, "description": Unit.SECONDS}
    if kind == "histogram":
        options["bounds"] = (Half(0.5), 1)
    if kind == "summary":
        options["quantiles"] = (Half(0.5),)
    if kind == "rate":
        options["windows"] = (Half(0.5),)
    metric = KINDS[kind](Unit.SECONDS, **options)
    feed(metric, Attempt())

    def check(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None))
        for item in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(item)

    check(metric.snapshot())
    check(snapshot_delta(metric.snapshot(), metric.snapshot()))


@each_kind
def test_the_shape_of_a_snapshot_with_tags(kind: str) -> None:
    """There is a series for each tag value, and ``overall`` has all values over them."""
    metric = KINDS[kind](tags=("backend",), clock=Clock())
    feed(metric, Attempt(backend="a"), Attempt(backend="b"), Attempt(backend="b"))
    shown = metric.snapshot()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert series(metric, MANY[kind]) == {("a",): 1, ("b",): 2}
    assert shown["dimensions"][MANY[kind]] == shown["overall"][MANY[kind]] == 3
    assert set(shown["overall"]) | {"tags", "started"} == set(shown["series"][0])


@each_kind
def test_the_values_over_all_series_are_those_of_an_untagged_instrument(kind: str) -> None:
    """Tags change nothing in the dimensions."""
    clock = Clock()
    tagged, plain = KINDS[kind](tags=("backend",), clock=clock), KINDS[kind](clock=clock)
    for second, backend in enumerate("abacbbca"):
        clock.now += 0.7 * second
        event = Attempt(seconds=second + 0.5, backend=backend, ok=second % 3 == 0)
        feed(tagged, event)
        feed(plain, event)
    assert dimensions(tagged) == pytest.approx(dimensions(plain))


@each_kind
def test_reading_changes_nothing(kind: str) -> None:
    """Two readings are the same, and what a reader does to one is not seen by the next."""
    clock = Clock()
    metric = KINDS[kind](tags=("backend",), clock=clock, expire_after=5)
    feed(metric, Attempt(backend="a"), Attempt(backend="b"))
    clock.now += 3
    feed(metric, Attempt(backend="b"))
    clock.now += 3
    first = metric.snapshot()
    before = json.dumps(first)
    clock.now += 1000
    metric.snapshot()
    clock.now -= 1000
    assert json.dumps(metric.snapshot()) == before
    for part in (first, first["dimensions"], first["series"][0], first["series"][0]["tags"], first["overall"]):
        for value in part.values():
            if isinstance(value, list):
                value.clear()
        part.clear()
    assert json.dumps(metric.snapshot()) == before


@each_kind
def test_when_keeps_the_events_that_are_meant(kind: str) -> None:
    """An event for which it is false changes nothing, and ``handle_event`` says so."""
    metric = KINDS[kind](when=lambda event: event.ok, clock=Clock())
    before = metric.snapshot()
    assert metric.handle_event(Attempt(ok=False)) is False
    assert metric.snapshot() == before
    assert metric.handle_event(Attempt(ok=True)) is True
    assert dimensions(metric)[MANY[kind]] == 1


@each_kind
def test_tags_by_function(kind: str) -> None:
    """A mapping names a tag and tells where its value comes from."""
    metric = KINDS[kind](tags={"where": "backend", "result": lambda event: "ok" if event.ok else "failed"})
    feed(metric, Attempt(), Attempt(ok=False), Attempt())
    assert series(metric, MANY[kind]) == {("disk", "ok"): 2, ("disk", "failed"): 1}
    assert metric.snapshot()["series"][0]["tags"] == {"where": "disk", "result": "ok"}


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((kind, option) for kind in KINDS for option in ("when", "tags")),
        *((kind, "value") for kind in MEASURING),
        ("ratio", "hit"),
    ],
)
def test_what_a_function_raises_goes_out_and_has_changed_nothing(kind: str, option: str) -> None:
    """The recorder's FailurePolicy decides; the snapshot is as before."""
    failing: Any = lambda event: 1 / 0  # noqa: E731 — a function as a user writes it
    metric = KINDS[kind](**{option: {"t": failing} if option == "tags" else failing, "clock": Clock()})
    before = metric.snapshot()
    with pytest.raises(ZeroDivisionError):
        metric.handle_event(Attempt())
    assert metric.snapshot() == before


@each_kind
def test_a_subclass_may_handle_events_in_its_own_way(kind: str) -> None:
    """An override of ``handle_event`` is called, and ``super()`` measures."""
    base = type(KINDS[kind]())

    class Twice(base):  # type: ignore[misc, valid-type] # because the base is a variable
        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            return bool(super().handle_event(event))

    options = {"on": Attempt, **({"hit": "ok"} if kind == "ratio" else {})}
    if kind in MEASURING:
        options["value"] = "seconds"
    metric = Twice("x", **options)
    feed(metric, Attempt())
    assert dimensions(metric)[MANY[kind]] == 2


# --- copies ------------------------------------------------------------------------------------


def now() -> float:
    """A clock that stands still, and can be pickled."""
    return 1000.0


@each_kind
@pytest.mark.parametrize("tags", [(), ("backend",), {"backend": "backend", "good": operator.attrgetter("ok")}])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_a_copy_is_an_instrument_of_its_own(kind: str, tags: Any, way: Callable[[Any], Any]) -> None:
    """It goes on from what was measured; what either measures then, the other does not see."""
    metric = KINDS[kind](tags=tags, clock=now, **({"expire_after": 60} if tags else {}))
    feed(metric, Attempt(), Attempt(backend="s3"))
    copied = way(metric)
    assert copied.snapshot() == metric.snapshot()
    assert copied.event_types == metric.event_types
    before = metric.snapshot()
    feed(copied, Attempt(), Attempt(backend="tape"))
    assert metric.snapshot() == before
    feed(metric, Attempt(), Attempt(backend="tape"))
    told = [[{**entry, "started": 0} for entry in shown.snapshot()["series"]] for shown in (metric, copied)]
    assert told[0] == told[1]
    assert dimensions(copied)[MANY[kind]] == 4


class Component:
    """Has the functions of an instrument as methods, and what cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clock = Clock()

    def one(self, event: MetricEvent) -> int:
        return 1


@each_kind
@pytest.mark.parametrize("tags", [False, True], ids=["untagged", "tagged"])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_a_copy_has_the_clock_and_the_functions_of_the_other(kind: str, tags: bool, way: Callable[[Any], Any]) -> None:
    """They are not the instrument's to copy: a clock of its own would stand still, and a component be there twice."""
    component = Component()
    options = dict.fromkeys(_by_function(kind), component.one) | {"when": component.one, "clock": component.clock}
    if tags:
        options |= {"tags": {"one": component.one}, "expire_after": 10}
    metric = KINDS[kind](**options)
    feed(metric, Attempt())
    copied = way(metric)
    for _ in range(30):
        component.clock.now += 1
        assert copied.snapshot() == metric.snapshot()
    for one in (metric, copied):
        feed(one, Attempt())
    assert dimensions(copied)[MANY[kind]] == 2
    assert dimensions(copied) == dimensions(metric)


# --- misuse ------------------------------------------------------------------------------------


async def later(*_: object) -> bool:
    """An answer that nobody waits for; as a predicate it would always be true."""
    return False


@each_kind
@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("name", None, ValueError, "argument 'name' must be a str, got None"),
        ("name", 3, TypeError, "argument 'name' must be a str, got 3"),
        ("name", " ", ValueError, "argument 'name' must be a str that is not blank, got ' '"),
        ("on", int, TypeError, "argument 'on' must be a MetricEvent class or a tuple of them, got <class 'int'>"),
        ("on", (), ValueError, "argument 'on' must name an event class at least, got ()"),
        ("on", (Attempt, 1), TypeError, "argument 'on' must be a MetricEvent class or a tuple of them, got 1"),
        ("tags", "backend", TypeError, "got 'backend'; write ('backend',) for one tag"),
        ("tags", 3, TypeError, "argument 'tags' must be a sequence of names or a mapping, got 3"),
        ("tags", (3,), TypeError, "argument 'tags' must hold names of attributes, got 3"),
        ("tags", (["ok"],), TypeError, "argument 'tags' must hold names of attributes, got ['ok']; a mapping gives"),
        ("tags", {3: "ok"}, TypeError, "argument 'tags' must be a str, got 3"),
        ("tags", {"a": "ok", " a": "region"}, ValueError, "argument 'tags' must not repeat a name, got {'a': 'ok',"),
        ("tags", ("ok", "ok"), ValueError, "argument 'tags' must not repeat a name, got ('ok', 'ok')"),
        ("tags", {"a": 3}, TypeError, "argument 'tags' must be an attribute's name or a callable, got 3"),
        ("tags", {" ": "ok"}, ValueError, "argument 'tags' must be a str that is not blank"),
        (
            "tags",
            ("bakend",),
            ValueError,
            "argument 'tags': Attempt has no attribute 'bakend'; it has backend, event_type, ok, region, seconds",
        ),
        ("when", 3, TypeError, "argument 'when' must be callable, got 3"),
        ("unit", 3, TypeError, "argument 'unit' must be a str, got 3"),
        ("description", 3, TypeError, "argument 'description' must be a str, got 3"),
        ("max_series", 0, ValueError, "argument 'max_series' must be an int above zero, got 0"),
        ("max_series", True, TypeError, "argument 'max_series' must be an int, got True"),
        ("expire_after", 1, ValueError, "argument 'expire_after' needs tags"),
        ("expire_after", 0, ValueError, "argument 'expire_after' must be above zero seconds, got 0.0"),
        ("expire_after", "1", TypeError, "argument 'expire_after' must be a number of seconds, got '1'"),
        ("clock", 3, TypeError, "argument 'clock' must be callable, got 3"),
        ("when", later, TypeError, "argument 'when' must return an answer, not a coroutine: got <function later"),
        ("clock", later, TypeError, "argument 'clock' must return an answer, not a coroutine: got <function later"),
        (
            "tags",
            {"a": later},
            TypeError,
            "argument 'tags' must return an answer, not a coroutine: got <function later",
        ),
    ],
)
def test_a_wrong_option_is_refused(kind: str, option: str, value: object, error: type[Exception], message: str) -> None:
    """The error names the argument and the value."""
    with pytest.raises(error) as caught:
        KINDS[kind](**{option: value})
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["sum", "updown", "gauge", "histogram", "summary"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (3, TypeError, "argument 'value' must be an attribute's name or a callable, got 3"),
        ("secnds", ValueError, "argument 'value': Attempt has no attribute 'secnds'; it has backend,"),
        ("describe", ValueError, "argument 'value': Attempt.describe is a method; pass a callable that calls it"),
        (later, TypeError, "argument 'value' must return an answer, not a coroutine: got <function later"),
        ("a b", ValueError, "argument 'value' must be the name of an attribute, got 'a b'"),
        ("", ValueError, "argument 'value' must be the name of an attribute, got ''"),
    ],
)
def test_a_wrong_value_is_refused(kind: str, value: object, error: type[Exception], message: str) -> None:
    """So is what does not say what to measure."""
    with pytest.raises(error) as caught:
        KINDS[kind](value=value)
    assert message in str(caught.value)


def test_an_attribute_must_be_in_every_class() -> None:
    """Of several classes, the one that lacks it is named."""
    with pytest.raises(ValueError, match="'value': Begun has no attribute 'seconds'; it has backend, event_type, size"):
        Sum[Any]("x", on=(Attempt, Begun), value="seconds")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: untyped.UpDownCounter("x"), TypeError, "either arguments 'up' and 'down', or 'on' and 'value'"),
        (
            lambda: untyped.UpDownCounter("x", up=Begun),
            TypeError,
            "either arguments 'up' and 'down', or 'on' and 'value'",
        ),
        (lambda: untyped.UpDownCounter("x", on=Begun), TypeError, "argument 'value' must say what an event of"),
        (lambda: untyped.UpDownCounter("x", on=Begun, up=Begun), TypeError, "argument 'on' excludes 'up' and 'down'"),
        (lambda: untyped.UpDownCounter("x", up=3, down=Ended), TypeError, "argument 'up' must be a MetricEvent class"),
        (
            lambda: untyped.UpDownCounter("x", up=(Begun,), down=(Begun, Ended)),
            ValueError,
            "argument 'up' must name an event that 'down' does not mean as well, got (<class",
        ),
        (
            lambda: untyped.UpDownCounter("x", up=Begun, down=3),
            TypeError,
            "argument 'down' must be a MetricEvent class",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=3),
            TypeError,
            "'bounds' must be a sequence of numbers",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=()),
            ValueError,
            "'bounds' must hold 1 to 1000 numbers",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=(2, 1)),
            ValueError,
            "'bounds' must ascend, got (2, 1)",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=(1, 1)),
            ValueError,
            "'bounds' must ascend, got (1, 1)",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=("1",)),
            TypeError,
            "must hold numbers, got '1'",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=(float("inf"),)),
            ValueError,
            "'bounds' must hold finite numbers, got inf",
        ),
        (
            lambda: untyped.Summary("x", on=Begun, value="size", quantiles=0.5),
            TypeError,
            "'quantiles' must be a sequence",
        ),
        (
            lambda: untyped.Summary("x", on=Begun, value="size", quantiles=("a",)),
            TypeError,
            "must hold numbers, got 'a'",
        ),
        (
            lambda: untyped.Summary("x", on=Begun, value="size", quantiles=(50,)),
            ValueError,
            "numbers from 0 to 1, got 50",
        ),
        (lambda: untyped.Summary("x", on=Begun, value="size", quantiles=(0.5, 0.5)), ValueError, "must not repeat one"),
        (
            lambda: untyped.Rate("x", on=Begun, windows=10),
            TypeError,
            "argument 'windows' must be a sequence of seconds, got 10",
        ),
        (lambda: untyped.Rate("x", on=Begun, windows=()), ValueError, "argument 'windows' must hold different numbers"),
        (
            lambda: untyped.Rate("x", on=Begun, windows=(1, 1.0)),
            ValueError,
            "argument 'windows' must hold different numbers",
        ),
        (
            lambda: untyped.Rate("x", on=Begun, windows=(-1,)),
            ValueError,
            "argument 'windows' must be a finite number of seconds",
        ),
        (
            lambda: untyped.Rate("x", on=Begun, windows=(1, 0)),
            ValueError,
            "argument 'windows' must be at least 1e-06 seconds, got 0",
        ),
        (
            lambda: untyped.Rate("x", on=Begun, windows=(1, 10_000)),
            ValueError,
            "windows of at most 1000 seconds beside the",
        ),
        (
            lambda: untyped.Histogram("x", on=Begun, value="size", bounds=b"ab"),
            TypeError,
            "argument 'bounds' must be a sequence of numbers, got b'ab'",
        ),
        (
            lambda: untyped.Rate("x", on=Begun, windows=(1, 1e-9)),
            ValueError,
            "argument 'windows' must be at least 1e-06 seconds, got 1e-09",
        ),
        (
            lambda: untyped.Ratio("x", on=Begun, hit="size", window=5e-324),
            ValueError,
            "argument 'window' must be at least 1e-06 seconds, got 5e-324",
        ),
        (
            lambda: untyped.Ratio("x", on=Begun, hit=later),
            TypeError,
            "argument 'hit' must return an answer, not a coroutine: got <function later",
        ),
        (
            lambda: untyped.Ratio("x", on=Begun, hit=3),
            TypeError,
            "argument 'hit' must be an attribute's name or a callable",
        ),
        (lambda: untyped.Ratio("x", on=Begun, hit="good"), ValueError, "argument 'hit': Begun has no attribute 'good'"),
        (
            lambda: untyped.Ratio("x", on=Begun, hit="size", window=0),
            ValueError,
            "argument 'window' must be at least 1e-06 seconds, got 0",
        ),
    ],
)
def test_an_option_of_one_kind_is_checked_as_well(make: Any, error: type[Exception], message: str) -> None:
    """The error names the argument and the value."""
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)


# --- what attributes a class has ---------------------------------------------------------------


class _Named(MetricEvent):
    @property
    def event_type(self) -> str:
        return "named"


class Slotted(_Named):
    """Says itself what it has; only with slots all the way can that be all."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Plain(_Named):
    """Its constructor may set anything."""

    def __init__(self, size: int) -> None:
        self.size = size


class Asked(_Named):
    """Answers for any name."""

    __slots__ = ()

    def __getattr__(self, name: str) -> int:
        return 3


@dataclass(frozen=True)
class Data(_Named):
    """A dataclass without slots."""

    size: int
    seed: InitVar[int] = 0


class SubData(Data):
    """A subclass that brings nothing of its own."""


@dataclass
class Derived(_Named):
    """A dataclass that works something out."""

    size: int

    def __post_init__(self) -> None:
        self.twice = 2 * self.size


@dataclass(init=False)
class DataByHand(_Named):
    """A dataclass that leaves its constructor to somebody."""

    size: int

    def __init__(self, size: int) -> None:
        self.size, self.twice = size, 2 * size


@attrs.define(slots=False)
class AttrDerived(_Named):
    """Likewise with attrs."""

    size: int

    def __attrs_post_init__(self) -> None:
        self.twice = 2 * self.size


@attrs.define(slots=False)
class AttrByHand(_Named):
    """Likewise; attrs leaves a constructor alone that is there."""

    size: int

    def __init__(self, size: int) -> None:
        self.size, self.twice = size, 2 * size


@attrs.frozen
class Attr(_Named):
    """An event of attrs."""

    size: int


@attrs.frozen(slots=False)
class AttrDict(_Named):
    """Likewise, without slots."""

    size: int


class _Bare(MetricEvent):
    __slots__ = ()

    @property
    def event_type(self) -> str:
        return "bare"


class _Fields(NamedTuple):
    size: int


class Tuple(_Fields, _Bare):
    """The fields of a NamedTuple, which has methods written in C."""

    __slots__ = ()


class AllSlots(_Bare):
    """Slots all the way."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class Callers(AllSlots):
    """Slots, and methods made of other methods."""

    __slots__ = ()

    def count(self, more: int) -> int:
        return self.size + more

    partial = functools.partialmethod(count, 1)


@pytest.mark.parametrize(
    "event", [Slotted(3), Plain(3), Asked(), Data(3), SubData(3), Attr(3), AttrDict(3), Tuple(3), AllSlots(3)]
)
def test_every_kind_of_class_has_its_attributes(event: Any) -> None:
    """What is there is accepted, and read."""
    metric = Sum[Any]("x", on=type(event), value="size")
    feed(metric, event)
    assert dimensions(metric) == {"total": 3, "count": 1}


@pytest.mark.parametrize("event", [Data, SubData, Attr, AttrDict, Tuple, AllSlots])
@pytest.mark.parametrize("name", ["sise", "seed"])
def test_a_misspelt_attribute_is_found(event: Any, name: str) -> None:
    """A class that declares its fields, or has nothing but slots, is known in full."""
    if event in (Data, SubData) and name == "seed":
        name = "sead"  # a class attribute, the default of the InitVar
    with pytest.raises(ValueError, match=rf"{event.__name__} has no attribute '{name}'; it has event_type, .*size"):
        Sum[Any]("x", on=event, value=name)


@pytest.mark.parametrize("event", [Tuple, Callers])
@pytest.mark.parametrize("name", ["count", "partial"])
def test_every_kind_of_method_is_refused(event: Any, name: str) -> None:
    """Those written in C, and partial ones; none is named among the attributes either."""
    if name == "partial" and event is Tuple:
        name = "index"
    with pytest.raises(ValueError, match=rf"{event.__name__}\.{name} is a method; pass a callable that calls it"):
        Sum[Any]("x", on=event, value=name)
    with pytest.raises(ValueError, match=r"has no attribute 'sise'; it has event_type, size$"):
        Sum[Any]("x", on=event, value="sise")


@pytest.mark.parametrize("event", [Slotted, Plain, Asked])
def test_a_class_that_may_have_more_is_believed(event: Any) -> None:
    """What cannot be known from outside is not refused; a missing attribute shows when an event comes."""
    metric = Sum[Any]("x", on=event, value="wight")
    if event is not Asked:
        with pytest.raises(AttributeError, match="wight"):
            metric.handle_event(event(3))


@pytest.mark.parametrize("event", [Derived, DataByHand, AttrDerived, AttrByHand])
def test_what_a_constructor_adds_is_believed(event: Any) -> None:
    """Fields are declared, and code of the user's may set more."""
    metric = Sum[Any]("x", on=event, value="twice")
    feed(metric, event(3))
    assert dimensions(metric) == {"total": 6, "count": 1}


def test_a_struct_of_msgspec_is_known() -> None:
    """Its fields are declared as well."""
    msgspec = pytest.importorskip("msgspec")
    struct: Any = msgspec.defstruct(
        "Struct", [("size", int)], namespace={"event_type": "x", "__module__": __name__}, frozen=True
    )
    struct_event: Any = type(struct)("StructEvent", (struct,), {})
    MetricEvent.register(struct_event)
    metric = Sum[Any]("x", on=struct_event, value="size")
    feed(metric, struct_event(size=3))
    assert dimensions(metric)["total"] == 3
    with pytest.raises(ValueError, match=r"StructEvent has no attribute 'sise'; it has .*size"):
        Sum[Any]("x", on=struct_event, value="sise")


def test_a_dotted_name_goes_into_the_attribute() -> None:
    """``value="begun.size"`` reads the size of what is in it; only the first name is checked at once."""

    @dataclass(frozen=True, slots=True)
    class Outer(_Bare):
        begun: Begun

    metric = Sum("x", on=Outer, value="begun.size", tags={"backend": "begun.backend"})
    feed(metric, Outer(Begun(size=4)))
    assert series(metric, "total") == {("disk",): 4}
    with pytest.raises(ValueError, match="Outer has no attribute 'begin'"):
        Sum("x", on=Outer, value="begin.size")


def test_a_property_and_a_class_attribute_count() -> None:
    """Both can be read from an event."""
    metric = Counter("x", on=Attempt, tags=("event_type",))
    feed(metric, Attempt())
    assert series(metric, "total") == {("test.attempt",): 1}


def test_a_repr_names_kind_and_instrument() -> None:
    """So that a debugger shows which it is."""
    assert repr(Counter("saves", on=Attempt)) == "<Counter 'saves'>"
