"""Series by tag values: normalisation, the bound on their number, the end of idle ones."""

from __future__ import annotations

import json
import logging
import sys
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import OVERFLOW, Counter, Gauge, Summary, UpDownCounter, label_of
from mvx.common.metrics.instruments._tags import MAX_LABEL
from tests.instruments.events import KINDS, MANY, Attempt, Begun, Clock, Ended, dimensions, feed, series

each_kind = pytest.mark.parametrize("kind", KINDS)


make_enum: Any = Enum
"""The functional form, with a name that the type checker need not know."""


class Outcome(StrEnum):
    SUCCESS = "success"


class Colour(Enum):
    RED = auto()
    BLUE = "blue"


class Level(IntEnum):
    ONE = 1


class Told(Enum):
    """Its values are texts of somebody's own."""

    WELL = "well"


Told.WELL._value_ = type("Loud", (str,), {"__str__": lambda self: "loud"})("well")  # as a __new__ of its own could


class Access(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    ONE = 1


class Coded(str, Enum):  # noqa: UP042 — because a StrEnum does not let its value be a number
    """Members are texts; what they call their value is a number."""

    LOW = "low", 1

    def __new__(cls, text: str, code: int) -> Coded:
        member = str.__new__(cls, text)
        member._value_ = code
        return member

    def __repr__(self) -> str:
        return "Coded"


class Text(str):
    """A str of somebody's own."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Number(int):
    """An int of somebody's own."""


class Awkward:
    """Cannot be a key of a dict."""

    __hash__ = None  # type: ignore[assignment] # because that is what makes it so

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be asked")

    def __str__(self) -> str:
        return "awkward"


class Spoken:
    """Is called by a text of somebody's own."""

    def __str__(self) -> str:
        return Text("spoken")


NORMALISED = [
    ("text", "text"),
    ("", ""),
    (Text("mine"), "mine"),
    (3, 3),
    (Number(3), 3),
    (-3, -3),
    (True, True),
    (False, False),
    (None, None),
    (Outcome.SUCCESS, "success"),
    (Colour.RED, "RED"),
    (Colour.BLUE, "blue"),
    (Level.ONE, "ONE"),
    (Access.READ | Access.WRITE, "READ|WRITE"),
    (Access(0), "Access(0)"),
    (Bits(0), "0"),
    (Coded.LOW, "low"),
    (Told.WELL, "well"),
    (Spoken(), "spoken"),
    (ValueError, "ValueError"),
    (Awkward, "Awkward"),
    (Awkward(), "awkward"),
    (1.0, "1.0"),
    (float("nan"), "nan"),
    (Decimal("1.50"), "1.50"),
    (PurePosixPath("/a/b"), "/a/b"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ([1, 2], "[1, 2]"),
    (b"raw", "b'raw'"),
    (10**5000, "an int of 16610 bits"),
    ("x" * MAX_LABEL, "x" * MAX_LABEL),
    ("x" * (MAX_LABEL + 1), "x" * (MAX_LABEL - 1) + "…"),
    ("a\ud800b", "a\\ud800b"),
]


@pytest.mark.parametrize(("value", "label"), NORMALISED, ids=[repr(label)[:20] for _, label in NORMALISED])
def test_a_tag_value_becomes_a_label(value: object, label: object) -> None:
    """The label is a plain str, int, bool or None, the same whenever the value comes, alone or with others."""
    assert (label_of(value), type(label_of(value))) == (label, type(label))
    for tags in (("backend",), ("backend", "region")):
        metric = Counter("x", on=Attempt, tags=tags)
        feed(metric, *[Attempt(backend=value)] * 3)
        (entry,) = metric.snapshot()["series"]
        assert entry["total"] == 3
        assert (entry["tags"]["backend"], type(entry["tags"]["backend"])) == (label, type(label))
        json.dumps(metric.snapshot(), allow_nan=False, ensure_ascii=False).encode()


def test_equal_values_of_different_kinds_are_different_labels() -> None:
    """``True == 1 == 1.0 == Level.ONE``, and each has a series of its own, in whatever order they come."""
    values = [True, 1, 1.0, Level.ONE, "1", False, 0, None, "None"]
    for order in (values, values[::-1]):
        for tags in (("backend",), ("backend", "region")):
            metric = Counter("x", on=Attempt, tags=tags)
            feed(metric, *map(Attempt, [1.0] * 9, order), *map(Attempt, [1.0] * 9, order))
            found = [(entry["tags"]["backend"], entry["total"]) for entry in metric.snapshot()["series"]]
            assert [(type(label), label, total) for label, total in found] == [
                (type(label_of(value)), label_of(value), 2) for value in order
            ]


def test_values_with_one_label_share_a_series() -> None:
    """A member of a StrEnum, its text, and an object with the same ``str()``."""
    metric = Counter("x", on=Attempt, tags=("backend",))
    feed(metric, *(Attempt(backend=v) for v in (Outcome.SUCCESS, "success", Text("success"), PurePosixPath("success"))))
    assert series(metric, "total") == {("success",): 4}
    for values in ((Coded.LOW, "low"), ("low", Coded.LOW), ("spoken", Spoken())):
        metric = Counter("x", on=Attempt, tags=("backend",))
        feed(metric, *map(Attempt, [1.0] * 4, values * 2))
        assert list(series(metric, "total").values()) == [4]


@given(st.lists(st.tuples(*[st.sampled_from([v for v, _ in NORMALISED])] * 2), max_size=40))
def test_series_are_told_apart_by_their_labels(events: list[tuple[Any, Any]]) -> None:
    """Whatever comes in whatever order, each combination of labels has exactly its own events."""
    metric = Counter("x", on=Attempt, tags=("backend", "region"))
    model: dict[str, int] = {}
    for backend, region in events:
        feed(metric, Attempt(backend=backend, region=region))
        key = json.dumps([label_of(backend), label_of(region)])
        model[key] = model.get(key, 0) + 1
    shown = metric.snapshot()["series"]
    assert {json.dumps(list(entry["tags"].values())): entry["total"] for entry in shown} == model
    assert len(shown) == len(model)


# --- the bound ---------------------------------------------------------------------------------


@each_kind
def test_what_has_no_room_goes_to_one_series_more(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, known series go on, and the log tells once of the tag that is to blame."""
    metric = KINDS[kind](tags=("region", "backend"), max_series=3)
    with caplog.at_level(logging.WARNING, logger="mvx.common.metrics"):
        feed(metric, *(Attempt(backend=f"b{i}") for i in range(10)))
        feed(metric, *(Attempt(backend=f"b{i}") for i in range(10)))
    assert series(metric, MANY[kind]) == {
        ("eu", "b0"): 2,
        ("eu", "b1"): 2,
        ("eu", "b2"): 2,
        (OVERFLOW, OVERFLOW): 14,
    }
    assert metric.snapshot()["overflowed"] == 14
    assert dimensions(metric)[MANY[kind]] == 20
    (record,) = caplog.records
    assert record.getMessage() == (
        "instrument 'x' has 3 series and takes no more: tag 'backend' has 3 values, and now came 'b3'; "
        "what has no series goes to '__overflow__'"
    )
    assert vars(record)["metric_name"] == "x"
    assert vars(record)["tag"] == "backend"
    assert vars(record)["tag_value"] == "b3"


def test_a_value_that_is_called_like_the_overflow_series_goes_there() -> None:
    """There are never two series with the same tags."""
    metric = Counter("x", on=Attempt, tags=("backend",), max_series=1)
    feed(metric, Attempt(backend=OVERFLOW), Attempt(backend="a"), Attempt(backend="b"), Attempt(backend=OVERFLOW))
    assert series(metric, "total") == {("a",): 1, (OVERFLOW,): 3}
    assert len(metric.snapshot()["series"]) == 2


@each_kind
def test_the_default_bound_is_a_thousand(kind: str) -> None:
    """It holds without being asked for."""
    metric = KINDS[kind](tags=("backend",))
    feed(metric, *(Attempt(backend=i) for i in range(1500)))
    assert len(metric.snapshot()["series"]) == 1001
    assert metric.snapshot()["overflowed"] == 500


# --- idle expiry -------------------------------------------------------------------------------


@each_kind
def test_an_idle_series_ends(kind: str) -> None:
    """It is gone from the moment at which it has been idle for so long, and counted; the totals keep it."""
    clock = Clock()
    metric = KINDS[kind](tags=("backend",), expire_after=10, clock=clock)
    # One second up and one down: what is in flight would not end.
    events = [Attempt(backend="a"), Attempt(backend="a", seconds=-1)] if kind == "updown" else [Attempt(backend="a")]
    feed(metric, *events)
    clock.now += 6
    feed(metric, Attempt(backend="b"))
    clock.now += 3.99
    assert set(series(metric, MANY[kind])) == {("a",), ("b",)}
    assert metric.snapshot()["expired"] == 0
    clock.now += 0.01
    assert set(series(metric, MANY[kind])) == {("b",)}
    assert metric.snapshot()["expired"] == 1
    assert dimensions(metric)[MANY[kind]] == 2
    feed(metric, Attempt(backend="a"))
    assert series(metric, MANY[kind]) == {("b",): 1, ("a",): 1}
    assert metric.snapshot()["expired"] == 1
    assert dimensions(metric)[MANY[kind]] == 3


def test_a_series_that_comes_back_says_that_it_began_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ``started`` is another one, and later by the calendar, so that a fallen count is understood."""
    clock = Clock()
    monkeypatch.setattr("mvx.common.metrics.instruments._state.time", SimpleNamespace(time=lambda: 1e9 + clock.now))
    metric = Counter("x", on=Attempt, tags=("backend",), expire_after=10, clock=clock)
    feed(metric, Attempt())
    before = metric.snapshot()["series"][0]["started"]
    clock.now += 10
    feed(metric, Attempt())
    assert metric.snapshot()["series"][0]["started"] - before == pytest.approx(10, abs=0.001)


def test_an_expired_series_makes_room() -> None:
    """A full table takes new tag values again, and the overflow series ends as any other."""
    clock = Clock()
    metric = Counter("x", on=Attempt, tags=("backend",), expire_after=10, clock=clock, max_series=2)
    feed(metric, Attempt(backend="a"), Attempt(backend="b"), Attempt(backend="c"))
    clock.now += 5
    feed(metric, Attempt(backend="a"))
    clock.now += 5
    assert series(metric, "total") == {("a",): 2}
    assert metric.snapshot()["expired"] == 2
    feed(metric, Attempt(backend="d"), Attempt(backend="e"))
    assert series(metric, "total") == {("a",): 2, ("d",): 1, (OVERFLOW,): 1}
    assert dimensions(metric)["total"] == 6


def test_what_is_in_flight_does_not_expire() -> None:
    """Otherwise its end would take the level below zero."""
    clock = Clock()
    metric = UpDownCounter("x", up=Begun, down=Ended, tags=("backend",), expire_after=10, clock=clock, max_series=1)
    feed(metric, Begun(), Begun(backend="other"))
    clock.now += 1000
    feed(metric, Begun(backend="another"))
    assert series(metric, "value") == {("disk",): 1, (OVERFLOW,): 2}
    feed(metric, Ended())
    assert series(metric, "value") == {("disk",): 0, (OVERFLOW,): 2}
    clock.now += 10
    assert series(metric, "value") == {(OVERFLOW,): 2}


@pytest.mark.parametrize("start", [-1e6, 0.0, 1e9])
def test_expiry_does_not_depend_on_where_the_clock_begins(start: float) -> None:
    """Nor on its running backwards once: a series that was idle for so long is counted as expired."""
    clock = Clock(start)
    metric = Counter("x", on=Attempt, tags=("backend",), expire_after=10, clock=clock)
    feed(metric, Attempt(backend="a"), Attempt(backend="b"))
    clock.now += 10
    feed(metric, Attempt(backend="a"))
    assert metric.snapshot()["expired"] == 2
    clock.now -= 1000
    feed(metric, Attempt(backend="c"))
    clock.now += 10
    feed(metric, Attempt(backend="c"))
    assert metric.snapshot()["expired"] == 3
    assert dimensions(metric)["total"] == 5


class Model:
    """What expiry and the bound mean, without any cleverness."""

    def __init__(self, max_series: int, expire_after: float) -> None:
        self.max_series = max_series
        self.expire_after = expire_after
        self.series: dict[Any, list[float]] = {}  # total, last event
        self.expired = self.overflowed = self.total = 0

    def expire(self, now: float) -> None:
        for key, (_, touched) in list(self.series.items()):
            if now - touched >= self.expire_after:
                del self.series[key]
                self.expired += 1

    def event(self, key: Any, now: float) -> None:
        self.expire(now)
        if key not in self.series and len(self.series.keys() - {OVERFLOW}) >= self.max_series:
            key = OVERFLOW
        if key == OVERFLOW:
            self.overflowed += 1
        found = self.series.setdefault(key, [0, now])
        found[0] += 1
        found[1] = now
        self.total += 1


@given(
    steps=st.lists(st.tuples(st.sampled_from([*"abcde", 1, 2, Outcome.SUCCESS]), st.integers(0, 7)), max_size=80),
    max_series=st.integers(1, 4),
    reads=st.booleans(),
)
def test_expiry_and_bound_are_those_of_the_model(steps: list[tuple[Any, int]], max_series: int, reads: bool) -> None:
    """After every step the snapshot is the model's, whether or not somebody reads in between."""
    clock, model = Clock(), Model(max_series, 10)
    metric = Counter("x", on=Attempt, tags=("backend",), expire_after=10, clock=clock, max_series=max_series)
    for key, passed in steps:
        clock.now += passed
        feed(metric, Attempt(backend=key))
        model.event(key, clock.now)
        if reads:
            _compare(metric, model)
    clock.now += 4
    model.expire(clock.now)
    _compare(metric, model)


def _compare(metric: Counter[Attempt], model: Model) -> None:
    shown = metric.snapshot()
    assert {entry["tags"]["backend"]: entry["total"] for entry in shown["series"]} == {
        label_of(key): total for key, (total, _) in model.series.items()
    }
    assert shown["dimensions"]["total"] == model.total
    assert shown["expired"] == model.expired
    assert shown["overflowed"] == model.overflowed


def test_series_are_made_by_valid_values_only() -> None:
    """An invalid value uses up no series."""
    metric = Gauge("x", on=Attempt, value="seconds", tags=("backend",))
    feed(metric, Attempt(seconds="soon", backend="a"))
    assert metric.snapshot()["series"] == []
    assert metric.snapshot()["invalid"] == 1


def test_raw_values_are_remembered_within_bounds() -> None:
    """Neither objects without end, nor texts without end, nor those of expired series are kept."""
    clock = Clock()
    metric = Summary("x", on=Attempt, value="seconds", tags=("backend",), max_series=5, expire_after=10, clock=clock)
    remembered = metric._table
    assert remembered is not None
    for i in range(100):
        feed(metric, Attempt(backend=f"b{i}"), Attempt(backend=UUID(int=i)), Attempt(backend="x" * 1000 + str(i)))
        clock.now += 4
        assert len(remembered._known) <= 10
        assert len(remembered._series) <= 5
    for i in range(100):  # enum members without end, all with one label
        members: Any = make_enum(f"E{i}", {"A": "a"})
        feed(metric, Attempt(backend=members.A))
    assert len(remembered._known) <= 10
    value = "once" * 3
    before = sys.getrefcount(value)
    feed(metric, Attempt(backend=[value]))
    assert sys.getrefcount(value) == before
