"""What each kind measures."""

from __future__ import annotations

import json
import logging
import math
import random
import statistics
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import Counter, Gauge, Histogram, Ratio, Sum, Summary, UpDownCounter, snapshot_delta
from tests.instruments.events import KINDS, MEASURING, Attempt, Begun, Clock, Ended, dimensions, feed

each_measuring = pytest.mark.parametrize("kind", MEASURING)
numbers = st.floats(-1e150, 1e150) | st.integers(-(10**20), 10**20)
LARGE = 1.7e308


def attempts(values: Any) -> list[Attempt]:
    return [Attempt(seconds=value) for value in values]


# --- invalid values ----------------------------------------------------------------------------


@each_measuring
@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        (-math.inf, "not finite"),
        (10**400, "not finite"),
        (Decimal("NaN"), "not finite"),
        (Decimal("sNaN"), "not finite"),
        (Fraction(10**400), "not finite"),
        (1j, "not a number"),
        (None, "not a number"),
        (True, "not a number"),
        ("1", "not a number"),
        ([1], "not a number"),
    ],
    ids=repr,
)
def test_what_is_no_number_is_invalid(
    kind: str, tags: tuple[str, ...], value: object, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, the first is logged, and nothing else changes."""
    metric = KINDS[kind](tags=tags, clock=Clock())
    feed(metric, Attempt(seconds=1))
    before = metric.snapshot()
    with caplog.at_level(logging.WARNING, logger="mvx.common.metrics"):
        assert metric.handle_event(Attempt(seconds=value)) is True
        feed(metric, *attempts([value, value]))
    assert metric.snapshot() == {**before, "invalid": 3}
    (record,) = caplog.records
    assert record.getMessage().startswith("instrument 'x': ")
    assert f" is {fault}; it is counted as invalid" in record.getMessage()
    json.dumps(metric.snapshot(), allow_nan=False)


@each_measuring
@pytest.mark.parametrize("value", [2, 2.0, Decimal("2.0"), Fraction(4, 2)], ids=repr)
def test_every_kind_of_number_is_taken(kind: str, value: Any) -> None:
    """A number is measured as an int or a float, whatever it came as; the snapshot is JSON."""
    metric = KINDS[kind]()
    feed(metric, Attempt(seconds=value))
    assert metric.snapshot()["invalid"] == 0
    json.dumps(metric.snapshot(), allow_nan=False)


def test_a_number_of_numpy_is_taken() -> None:
    """Its scalars are numbers, its booleans are not."""
    np = pytest.importorskip("numpy")
    metric = Sum("x", on=Attempt, value="seconds")
    feed(metric, *attempts([np.float64(1), np.float32(1), np.int64(1), np.uint8(1)]), *attempts([np.True_]))
    assert dimensions(metric) == {"total": 4, "count": 4}
    assert metric.snapshot()["invalid"] == 1
    json.dumps(metric.snapshot(), allow_nan=False)
    exact = Sum("x", on=Attempt, value="seconds")
    feed(exact, *attempts([np.int64(2**62), np.int64(1)]))
    assert exact.snapshot()["dimensions"] == {"total": 2**62 + 1, "count": 2}
    assert type(dimensions(exact)["total"]) is int


@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
def test_a_sum_takes_nothing_negative(tags: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """It only grows."""
    metric = Sum("x", on=Attempt, value="seconds", tags=tags)
    with caplog.at_level(logging.WARNING, logger="mvx.common.metrics"):
        feed(metric, *attempts([1, -1, -0.5, 2, 0, -0.0]))
    assert dimensions(metric) == {"total": 3, "count": 4}
    assert metric.snapshot()["invalid"] == 2
    assert [record.getMessage() for record in caplog.records] == [
        "instrument 'x': -1 is negative; it is counted as invalid and not measured, and so is what follows like it"
    ]


@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
def test_a_sum_stays_in_the_range_of_a_float(tags: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """What would take it beyond is invalid, ints included."""
    metric = Sum("x", on=Attempt, value="seconds", tags=tags)
    with caplog.at_level(logging.WARNING, logger="mvx.common.metrics"):
        feed(metric, *attempts([LARGE, LARGE, int(LARGE), 1]))
    assert metric.snapshot()["invalid"] == 2
    assert dimensions(metric)["total"] == LARGE
    assert "too large to add" in caplog.records[0].getMessage()


@each_measuring
def test_the_largest_numbers_leave_json_behind(kind: str) -> None:
    """What arithmetic takes beyond a float is None or was refused; nothing raises and the snapshot is JSON."""
    metric = KINDS[kind]()
    feed(metric, *attempts([LARGE, -LARGE, LARGE, LARGE, int(LARGE), -LARGE, 5e-324, -5e-324, 0.0]))
    shown = json.dumps(metric.snapshot(), allow_nan=False)
    assert json.loads(shown)["name"] == "x"


@each_measuring
@given(st.lists(st.sampled_from([LARGE, -LARGE, 1e308, 5e-324, -1.0, 0]), min_size=1, max_size=4), st.booleans())
def test_the_largest_numbers_leave_a_snapshot_whole_after_each(kind: str, values: list[float], tagged: bool) -> None:
    """Also where they lie further apart than a float can say, and there is no deviation to tell."""
    metric = KINDS[kind](tags=("backend",) if tagged else ())
    earlier = None
    for event in attempts(values):
        feed(metric, event)
        later = metric.snapshot()
        json.dumps([later, snapshot_delta(earlier, later)], allow_nan=False)
        earlier = later


# --- counter, sum, gauge -----------------------------------------------------------------------


def test_a_counter_counts() -> None:
    """Nothing but how many."""
    metric = Counter("x", on=(Begun, Ended))
    assert dimensions(metric) == {"total": 0}
    feed(metric, Begun(), Ended(), Begun())
    assert dimensions(metric) == {"total": 3}


@given(st.lists(st.integers(0, 10**30)))
def test_a_sum_of_ints_is_exact(values: list[int]) -> None:
    """However large, it stays an int."""
    metric = Sum("x", on=Attempt, value="seconds")
    feed(metric, *attempts(values))
    assert dimensions(metric) == {"total": sum(values), "count": len(values)}
    assert type(dimensions(metric)["total"]) is int


@given(st.lists(numbers, min_size=1))
def test_a_gauge_keeps_the_last_value_and_the_extremes(values: list[float]) -> None:
    """Since the start."""
    metric = Gauge("x", on=Attempt, value="seconds")
    assert dimensions(metric) == {"last": None, "min": None, "max": None, "count": 0}
    feed(metric, *attempts(values))
    assert dimensions(metric) == {"last": values[-1], "min": min(values), "max": max(values), "count": len(values)}


# --- up and down -------------------------------------------------------------------------------


def test_an_up_down_counter_tells_what_is_in_flight() -> None:
    """It rises with what begins and falls with what ends, and keeps the extremes."""
    metric = UpDownCounter("x", up=Begun, down=Ended)
    feed(metric, Begun(), Begun(), Ended(), Begun(), Ended(), Ended(), Ended())
    assert dimensions(metric) == {"value": -1, "min": -1, "max": 2, "up": 3, "down": 4}
    assert metric.event_types == (Begun, Ended)


def test_an_up_down_counter_of_amounts() -> None:
    """With ``value``, an event is worth that much, and a negative one is invalid."""
    metric = UpDownCounter[Any]("x", up=Begun, down=Ended, value="size")
    feed(metric, Begun(size=5), Ended(size=2), Ended(size=-1), Begun(size=-1), Begun(size=0.5))
    assert dimensions(metric) == {"value": 3.5, "min": 0, "max": 5, "up": 5.5, "down": 2}
    assert metric.snapshot()["invalid"] == 2


@given(st.lists(st.integers(-5, 5)))
def test_an_up_down_counter_of_signed_changes(changes: list[int]) -> None:
    """With ``on`` and ``value``, an event carries its change."""
    metric = UpDownCounter("x", on=Attempt, value="seconds")
    feed(metric, *attempts(changes))
    levels = [0, *(sum(changes[: i + 1]) for i in range(len(changes)))]
    assert dimensions(metric) == {
        "value": levels[-1],
        "min": min(levels),
        "max": max(levels),
        "up": sum(c for c in changes if c > 0),
        "down": -sum(c for c in changes if c < 0),
    }


def test_a_subclass_of_what_ends_ends_as_well() -> None:
    """Classes are told apart as ``isinstance`` does, and what both mean is an end."""

    class Failed(Ended):
        __slots__ = ()

    metric = UpDownCounter[Any]("x", up=(Begun, Failed), down=Ended)
    feed(metric, Begun(), Begun(), Failed())
    assert dimensions(metric)["value"] == 1


# --- ratio -------------------------------------------------------------------------------------


def test_a_ratio_of_nothing_is_none() -> None:
    """Nothing can be said of no events."""
    metric = Ratio("x", on=Attempt, hit="ok")
    assert dimensions(metric)["ratio"] is None
    assert dimensions(metric)["window_ratio"] is None


def test_a_ratio_is_the_share_of_hits() -> None:
    """By a predicate or an attribute, asked for its truth."""
    for hit in ("ok", lambda event: event.ok, lambda event: [1] if event.ok else []):
        metric = Ratio("x", on=Attempt, hit=hit)
        feed(metric, *(Attempt(ok=ok) for ok in (True, False, True, True)))
        shown = dimensions(metric)
        assert (shown["ratio"], shown["hits"], shown["events"]) == (0.75, 3, 4)


# --- summary and histogram ---------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6) | st.integers(-1000, 1000), min_size=1))
def test_the_moments_of_a_summary(values: list[float]) -> None:
    """They are those of the statistics module."""
    metric = Summary("x", on=Attempt, value="seconds")
    feed(metric, *attempts(values))
    shown = dimensions(metric)
    assert shown["count"] == len(values)
    assert shown["sum"] == pytest.approx(math.fsum(values), abs=1e-6)
    assert (shown["min"], shown["max"]) == (min(values), max(values))
    assert shown["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert shown["deviation"] == pytest.approx(statistics.pstdev(map(float, values)), abs=1e-3)


def test_the_deviation_of_large_numbers_that_differ_little() -> None:
    """Where the difference of the sums of squares would have lost every digit."""
    metric = Summary("x", on=Attempt, value="seconds")
    feed(metric, *attempts([1e9 + value for value in (4, 7, 13, 16)] * 1000))
    assert dimensions(metric)["deviation"] == pytest.approx(math.sqrt(22.5), rel=1e-9)


def test_a_summary_of_nothing() -> None:
    """None where there is nothing to say."""
    metric = Summary("x", on=Attempt, value="seconds", quantiles=(0, 0.999, 1))
    assert dimensions(metric) == {
        "count": 0,
        "sum": 0.0,
        "min": None,
        "max": None,
        "mean": None,
        "deviation": None,
        "p0": None,
        "p99.9": None,
        "p100": None,
    }


@given(st.lists(st.integers(-20, 40) | st.floats(-20, 40)), st.sets(st.integers(-10, 30), min_size=1))
def test_explicit_buckets_hold_what_they_say(values: list[float], chosen: set[int]) -> None:
    """Each has what is above the bound before it and not above its own."""
    bounds = sorted(chosen)
    metric = Histogram("x", on=Attempt, value="seconds", bounds=bounds)
    feed(metric, *attempts(values))
    (entry,) = metric.snapshot()["series"]
    edges = [-math.inf, *bounds, math.inf]
    assert entry["bounds"] == bounds
    assert entry["counts"] == [sum(low < value <= high for value in values) for low, high in pairwise(edges)]
    assert entry["count"] == len(values)
    assert entry["min"] == min(values, default=None)
    assert entry["max"] == max(values, default=None)


positive = (
    st.floats(5e-324, LARGE)
    | st.floats(0.5, 2)
    | st.integers(1, 2000)
    | st.sampled_from([2.0**k for k in range(-1074, 1024, 7)])
)


@given(st.lists(positive | positive.map(lambda x: -x) | st.just(0), max_size=60), st.randoms())
def test_exponential_buckets_hold_what_they_say(values: list[float], rng: random.Random) -> None:
    """No more than 160 of each sign, at the finest scale that allows it, in whatever order the values come."""
    metric = Histogram("x", on=Attempt, value="seconds")
    feed(metric, *attempts(values))
    (entry,) = metric.snapshot()["series"]
    assert entry["zeros"] == values.count(0)
    scale = entry["scale"]
    narrow = scale == 20
    for name, sign in (("positive", 1), ("negative", -1)):
        mine = [sign * value for value in values if sign * value > 0]
        buckets = entry[name]
        assert len(buckets["counts"]) <= 160
        assert sum(buckets["counts"]) == len(mine)
        for i, count in enumerate(buckets["counts"]):
            # In logarithms, as the bounds of far buckets are beyond a float.
            low, high = ((buckets["offset"] + i + step) * 2.0**-scale for step in (0, 1))
            assert sum(low < math.log2(value) <= high for value in mine) == count
        if mine:
            low, high = (math.ceil(math.log2(edge(mine)) * 2.0 ** (scale + 1)) - 1 for edge in (min, max))
            narrow = narrow or high - low >= 160
    assert narrow
    shuffled = [*values]
    rng.shuffle(shuffled)
    other = Histogram("x", on=Attempt, value="seconds")
    feed(other, *attempts(shuffled))
    for key in ("scale", "zeros", "positive", "negative", "min", "max"):
        assert other.snapshot()["series"][0][key] == entry[key]


@pytest.mark.parametrize(("highest", "scale"), [(159, 20), (160, 19)])
def test_the_scale_falls_with_the_161st_bucket(highest: int, scale: int) -> None:
    """160 buckets from the lowest to the highest are kept as they are."""
    metric = Histogram("x", on=Attempt, value="seconds")
    feed(metric, *attempts(2.0 ** ((bucket + 0.5) / 2**20) for bucket in (0, highest)))
    assert metric.snapshot()["series"][0]["scale"] == scale
