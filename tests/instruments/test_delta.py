"""What happened between two snapshots."""

from __future__ import annotations

import json
import math
import statistics
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import Counter, Gauge, Histogram, Summary, snapshot_delta
from tests.instruments.events import KINDS, MANY, Attempt, Clock, feed

each_kind = pytest.mark.parametrize("kind", KINDS)

ADDING: dict[str, tuple[str, ...]] = {
    "counter": ("total",),
    "sum": ("total", "count"),
    "updown": ("up", "down"),
    "gauge": ("count",),
    "histogram": ("count", "sum", "counts"),
    "exponential": ("count", "sum", "zeros"),
    "summary": ("count", "sum"),
    "rate": ("total", "elapsed"),
    "ratio": ("hits", "events"),
}
"""The values of which the later is the earlier plus the delta."""

LEVELS: dict[str, tuple[str, ...]] = {
    "updown": ("value", "min", "max"),
    "gauge": ("last", "min", "max"),
    "rate": ("rate_10s", "rate_60s", "average_1m", "average_5m", "average_15m"),
    "ratio": ("window_ratio", "window_hits", "window_events"),
}
"""The values that are those of the later snapshot."""

events = st.lists(
    st.builds(
        Attempt,
        seconds=st.integers(0, 1000) | st.floats(0, 1000),
        backend=st.sampled_from(["a", "b", 1, True, None]),
        ok=st.booleans(),
    ),
    max_size=20,
)


def plus(earlier: Any, delta: Any) -> Any:
    return [a + b for a, b in zip(earlier, delta, strict=True)] if isinstance(delta, list) else earlier + delta


def by_tags(snapshot: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {json.dumps(entry["tags"]): entry for entry in snapshot["series"]}


@each_kind
@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
@given(events, events, st.floats(0, 100))
def test_later_is_earlier_plus_delta(
    kind: str, tags: tuple[str, ...], before: list[Attempt], after: list[Attempt], passed: float
) -> None:
    """Of every kind, in total and in every series; through JSON as well."""
    clock = Clock()
    metric = KINDS[kind](tags=tags, clock=clock)
    feed(metric, *before)
    earlier = metric.snapshot()
    clock.now += passed
    feed(metric, *after, Attempt(seconds="invalid"))
    later = metric.snapshot()
    kept = json.dumps([earlier, later])
    delta = snapshot_delta(earlier, later)
    assert json.dumps([earlier, later]) == kept
    assert json.loads(json.dumps(delta, allow_nan=False)) == delta
    assert snapshot_delta(json.loads(json.dumps(earlier)), json.loads(json.dumps(later))) == delta
    assert set(delta) == {*later, "reset"}
    assert delta["reset"] is False
    assert delta["invalid"] == later["invalid"] - earlier["invalid"]
    zero = KINDS[kind](clock=clock).snapshot()["series"][0]
    zero["elapsed"] = 0
    old, new, between = by_tags(earlier), by_tags(later), by_tags(delta)
    assert list(new) == list(between)
    for key in ADDING[kind]:
        if key in later["dimensions"]:
            assert later["dimensions"][key] == pytest.approx(plus(earlier["dimensions"][key], delta["dimensions"][key]))
        for name in new:
            since_start = kind == "rate" and key == "elapsed" and name not in old
            expected = between[name][key] if since_start else plus(old.get(name, zero)[key], between[name][key])
            assert new[name][key] == pytest.approx(expected)
    for key in LEVELS.get(kind, ()):
        assert delta["dimensions"][key] == later["dimensions"][key]
        assert all(between[name][key] == new[name][key] for name in new)


@each_kind
@given(events)
def test_the_delta_of_an_instrument_to_itself_is_nothing(kind: str, before: list[Attempt]) -> None:
    """Everything that adds up is zero."""
    metric = KINDS[kind](clock=Clock(), tags=("backend",))
    feed(metric, *before)
    delta = snapshot_delta(metric.snapshot(), metric.snapshot())
    for part in (delta["overall"], *delta["series"]):
        for key in ADDING[kind]:
            assert not any(part[key]) if isinstance(part[key], list) else part[key] == 0


@each_kind
@given(events)
def test_since_the_start(kind: str, before: list[Attempt]) -> None:
    """Without an earlier snapshot, and from that of a fresh instrument, it is all of it."""
    clock = Clock()
    metric = KINDS[kind](tags=("backend",), clock=clock)
    fresh = metric.snapshot()
    feed(metric, *before)
    later = metric.snapshot()
    assert snapshot_delta(None, later) == {**later, "reset": False}
    delta = snapshot_delta(fresh, later)
    assert delta["series"] == later["series"]
    for key in ADDING[kind]:
        assert delta["overall"][key] == later["overall"][key]


@each_kind
def test_a_replaced_instrument_is_a_reset(kind: str) -> None:
    """Counting began anew: all that the later one shows has happened, even if it is more than before."""
    old, new = KINDS[kind](clock=Clock()), KINDS[kind](clock=Clock())
    feed(old, Attempt())
    feed(new, Attempt(), Attempt())
    delta = snapshot_delta(old.snapshot(), new.snapshot())
    assert delta == {**new.snapshot(), "reset": True}


@each_kind
def test_a_count_that_has_fallen_is_a_reset(kind: str) -> None:
    """Whatever the marks say, as after the wrong order or a restored state."""
    metric = KINDS[kind](clock=Clock())
    feed(metric, Attempt(), Attempt())
    earlier = metric.snapshot()
    fresh = KINDS[kind](clock=Clock())
    feed(fresh, Attempt())
    later = fresh.snapshot() | {"started": earlier["started"]}
    delta = snapshot_delta(earlier, later)
    assert delta["reset"] is True
    assert delta["dimensions"] == later["dimensions"]


@each_kind
def test_an_expired_series_that_came_back_counts_from_zero(kind: str) -> None:
    """Its mark tells, even where it has counted more than before; the totals have every event once."""
    clock = Clock()
    metric = KINDS[kind](tags=("backend",), expire_after=10, clock=clock)
    level = [Attempt(seconds=-1)] if kind == "updown" else []
    feed(metric, Attempt(), *level, Attempt(backend="stays"))
    earlier = metric.snapshot()
    clock.now += 9
    feed(metric, Attempt(backend="stays"))
    clock.now += 2
    feed(metric, Attempt(), Attempt(), *level, *level)
    delta = snapshot_delta(earlier, metric.snapshot())
    assert {entry["tags"]["backend"]: entry[MANY[kind]] for entry in delta["series"]} == {"disk": 2, "stays": 1}
    assert delta["dimensions"][MANY[kind]] == 3
    assert delta["expired"] == 1
    assert delta["reset"] is False


values = st.lists(st.floats(-1000, 1000) | st.floats(1e-9, 1e9), min_size=1, max_size=50)


@given(values, values)
def test_the_delta_of_a_summary_describes_what_came_between(before: list[float], after: list[float]) -> None:
    """Quantiles within 1 %, extremes as well, mean and deviation to rounding."""
    quantiles = (0, 0.25, 0.5, 0.9, 1)
    metric = Summary("x", on=Attempt, value="seconds", quantiles=quantiles)
    feed(metric, *map(Attempt, before))
    earlier = metric.snapshot()
    feed(metric, *map(Attempt, after))
    shown = snapshot_delta(earlier, metric.snapshot())["dimensions"]
    ordered = sorted(after)
    for q in quantiles:
        exact = ordered[int(q * (len(ordered) - 1))]
        assert shown[f"p{q * 100:g}"] == pytest.approx(exact, rel=0.01)
    scale = max(map(abs, [*before, *after]))
    for key, exact in (("min", ordered[0]), ("max", ordered[-1])):
        assert shown[key] == pytest.approx(exact, rel=0.01)
    if ordered[0] < min(before):
        assert shown["min"] == ordered[0]
    if ordered[-1] > max(before):
        assert shown["max"] == ordered[-1]
    assert shown["mean"] == pytest.approx(statistics.fmean(after), abs=1e-9 * scale)
    # The square root of what rounding leaves of the difference of two large numbers.
    assert shown["deviation"] == pytest.approx(statistics.pstdev(after), abs=1e-5 * scale)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5), values)
@example([1.7e308], [1.7e308])
@example([1.7e308], [1.0])
@example([-1.0], [1.0])
def test_the_extremes_of_a_delta_do_not_contradict_each_other(before: list[float], after: list[float]) -> None:
    """One may be exact and the other a guess: the least is never above the most, and both lie within what came."""
    metric = Summary("x", on=Attempt, value="seconds")
    feed(metric, *map(Attempt, before))
    earlier = metric.snapshot()
    feed(metric, *map(Attempt, after))
    later = metric.snapshot()["dimensions"]
    shown = snapshot_delta(earlier, metric.snapshot())["dimensions"]
    assert later["min"] <= shown["min"] <= shown["p50"] <= shown["p99"] <= shown["max"] <= later["max"]


@pytest.mark.parametrize("bounds", [(-10.0, 0.0, 10.0), None], ids=["explicit", "exponential"])
@given(values, values)
def test_the_delta_of_a_histogram_has_the_buckets_of_what_came_between(
    bounds: tuple[float, ...] | None, before: list[float], after: list[float]
) -> None:
    """At the scale of the later one; an extreme is known if it is a new one."""
    metric = Histogram("x", on=Attempt, value="seconds", bounds=bounds)
    feed(metric, *map(Attempt, before))
    earlier = metric.snapshot()
    feed(metric, *map(Attempt, after))
    later = metric.snapshot()["series"][0]
    (entry,) = snapshot_delta(earlier, metric.snapshot())["series"]
    assert entry["min"] == (min(after) if min(after) < min(before) else None)
    assert entry["max"] == (max(after) if max(after) > max(before) else None)
    assert entry["count"] == len(after)
    assert entry["mean"] == pytest.approx(statistics.fmean(after), abs=1e-9 * max(map(abs, [*before, *after])))
    if bounds:
        edges = [-math.inf, *bounds, math.inf]
        assert entry["counts"] == [sum(low < value <= high for value in after) for low, high in pairwise(edges)]
        return
    assert entry["scale"] == later["scale"]
    assert entry["zeros"] == after.count(0)
    for name, sign in (("positive", 1), ("negative", -1)):
        found = {entry[name]["offset"] + i: many for i, many in enumerate(entry[name]["counts"]) if many}
        expected: dict[int, int] = {}
        for value in after:
            if sign * value > 0:
                index = math.ceil(math.log2(sign * value) * 2.0 ** entry["scale"]) - 1
                expected[index] = expected.get(index, 0) + 1
        assert found == expected


@pytest.mark.parametrize(
    ("earlier", "later", "message"),
    [
        (None, {"name": "x", "dimensions": {}}, "argument 'later' must be an instrument's snapshot, got {'name': 'x'"),
        (None, {"name": "x", "kind": "counter"}, "argument 'later' must be an instrument's snapshot, got {'name': 'x'"),
        (
            None,
            Counter("a", on=Attempt).snapshot() | {"kind": ["counter"]},
            "argument 'later' must be an instrument's snapshot, got {'name': 'a'",
        ),
        (
            None,
            Counter("a", on=Attempt).snapshot() | {"series": []},
            "argument 'later' must be an instrument's snapshot, got {'name': 'a'",
        ),
        ({}, Counter("a", on=Attempt).snapshot(), "argument 'earlier' must be an instrument's snapshot, got {}"),
        (
            Counter("a", on=Attempt).snapshot(),
            Counter("b", on=Attempt).snapshot(),
            "argument 'earlier' must have the name 'b', got 'a'",
        ),
        (
            Counter("a", on=Attempt).snapshot(),
            Gauge("a", on=Attempt, value="seconds").snapshot(),
            "argument 'earlier' must have the kind 'gauge', got 'counter'",
        ),
    ],
)
def test_only_snapshots_of_one_instrument_have_a_delta(earlier: Any, later: Any, message: str) -> None:
    """The error says what does not fit."""
    with pytest.raises(ValueError) as caught:
        snapshot_delta(earlier, later)
    assert message in str(caught.value)


@pytest.mark.parametrize(("earlier", "later", "argument"), [(None, None, "later"), (3, "a snapshot", "earlier")])
def test_a_snapshot_is_a_mapping(earlier: Any, later: Any, argument: str) -> None:
    """None may be the earlier one only."""
    later = Counter("a", on=Attempt).snapshot() if later else later
    with pytest.raises(TypeError, match=rf"argument '{argument}' must be an instrument's snapshot, got (None|3)"):
        snapshot_delta(earlier, later)


def test_other_bounds_have_no_delta() -> None:
    """Counts between other bounds cannot be subtracted, however alike the rest is."""
    first = Histogram("x", on=Attempt, value="seconds", bounds=(1,)).snapshot()
    second = Histogram("x", on=Attempt, value="seconds", bounds=(2,)).snapshot()
    second["started"] = second["series"][0]["started"] = first["started"]
    with pytest.raises(ValueError, match="argument 'earlier' must have the bounds of 'later'"):
        snapshot_delta(first, second)
    assert snapshot_delta(first, second | {"started": 3.0})["reset"] is True
