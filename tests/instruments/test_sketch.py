"""Quantiles within their error, on every kind of data; merging in any order."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import OVERFLOW, Histogram, Summary
from mvx.common.metrics.instruments import _sketch as sketch
from mvx.common.metrics.instruments.summary import SummaryState
from tests.conftest import Tally
from tests.instruments.events import Attempt, Begun, Clock, feed

QUANTILES = (0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1)
ACCURACY = 0.01

values_of_any_kind = (
    st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9) | st.just(0.0) | st.floats(allow_nan=False, allow_infinity=False)
)


def measured(values: Any) -> SummaryState:
    state = SummaryState(QUANTILES)
    for value in values:
        state.measure(value)
    return state


def found(state: SummaryState) -> dict[float, Any]:
    return {item["quantile"]: item["value"] for item in state.values()["quantiles"]}


def assert_accurate(state: SummaryState, ordered: Any) -> None:
    """Each quantile is within 1 % of the value of its rank."""
    for q, value in found(state).items():
        exact = float(ordered[int(q * (len(ordered) - 1))])
        assert abs(value - exact) <= ACCURACY * abs(exact), (q, value, exact)


SHAPES: dict[str, Callable[[Any, int], Any]] = {
    "uniform": lambda rng, n: rng.uniform(0, 1, n),
    "log-normal": lambda rng, n: rng.lognormal(0, 2, n),
    "bimodal": lambda rng, n: rng.permutation(
        [*rng.normal(0.01, 0.001, n // 2), *rng.normal(100, 1, n - n // 2)],
    ),
    "normal of both signs": lambda rng, n: rng.normal(0, 10, n),
    "pareto": lambda rng, n: rng.pareto(0.5, n) + 1e-6,
    "ascending": lambda rng, n: (1 + rng.uniform(0, 1, n)).cumsum(),
    "descending": lambda rng, n: (1 + rng.uniform(0, 1, n)).cumsum()[::-1],
    "on the edges of buckets": lambda rng, n: sketch._GAMMA ** rng.integers(-900, 900, n).astype(float),
    "powers of two": lambda rng, n: 2.0 ** rng.integers(-400, 400, n).astype(float),
    "one value": lambda rng, n: rng.uniform(0, 1, 1).repeat(n),
    "mostly zero": lambda rng, n: rng.uniform(-1, 1, n) * (rng.uniform(0, 1, n) < 0.1),
    "whole numbers": lambda rng, n: rng.integers(0, 50, n),
    "17 powers of ten": lambda rng, n: 10.0 ** rng.uniform(-9, 8, n),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_quantiles_are_within_their_error(shape: str, tally: Tally) -> None:
    """Of a million values, each quantile is within 1 % of what numpy finds."""
    np: Any = pytest.importorskip("numpy")
    many = 1_000_000
    values = SHAPES[shape](np.random.default_rng(1), many)
    state = measured(values.tolist())
    assert_accurate(state, np.sort(values))
    exact = np.quantile(values, QUANTILES, method="lower")
    assert list(found(state).values()) == pytest.approx(list(exact), rel=ACCURACY)
    assert not state.parts.positive.collapsed
    shown = state.values()
    assert shown["mean"] == pytest.approx(values.mean(), rel=1e-6, abs=1e-9)
    assert shown["deviation"] == pytest.approx(values.std(), rel=1e-6, abs=1e-9)
    tally("values summarised, quantiles within 1 % of numpy's", many)


@given(st.lists(values_of_any_kind, min_size=1))
def test_quantiles_of_anything(values: list[float]) -> None:
    """Of any finite floats, also the largest and the smallest there are."""
    assert_accurate(measured(values), sorted(values))


@pytest.mark.parametrize("number", [5e-324, 2.2e-308, 1e-300, 1.0, 1e300, 1.7976931348623157e308])
def test_the_ends_of_the_floats(number: float) -> None:
    """One value is its own quantile."""
    for value in (number, -number):
        assert found(measured([value])) == dict.fromkeys(QUANTILES, value)


def test_a_bucket_s_middle_is_near_to_all_of_it() -> None:
    """From its lower to its upper bound, over the range of floats."""
    rng = random.Random(3)
    for _ in range(2000):
        value = math.exp(rng.uniform(-700, 700))
        assert sketch.middle_of(sketch.index_of(value)) == pytest.approx(value, rel=ACCURACY)


# --- the bound ---------------------------------------------------------------------------------


def test_values_that_spread_too_far_lose_accuracy_where_they_are_lowest() -> None:
    """Over 600 powers of ten there are no more buckets than the bound, and the upper quantiles hold."""
    rng = random.Random(5)
    values = [10.0 ** rng.uniform(-300, 300) for _ in range(20_000)]
    state = measured(values)
    assert len(state.parts.positive.counts) == sketch.MAX_BUCKETS
    assert sum(state.parts.positive.counts.values()) == len(values)
    assert state.values()["sketch"]["positive"]["collapsed"] is True
    ordered = sorted(values)
    shown = found(state)
    for q in (0.99, 0.999, 1):
        assert shown[q] == pytest.approx(ordered[int(q * (len(ordered) - 1))], rel=ACCURACY)


def small(monkeypatch: pytest.MonkeyPatch, buckets: int = 8) -> None:
    monkeypatch.setattr(sketch, "MAX_BUCKETS", buckets)


indexes = st.lists(st.integers(-40, 40), max_size=60)


def filled(numbers: list[int]) -> sketch.Buckets:
    buckets = sketch.Buckets()
    for number in numbers:
        buckets.add(number)
    return buckets


def collapsed_by_definition(numbers: list[int], most: int) -> dict[int, int]:
    """The highest buckets, and in the lowest of them what lies below."""
    kept = sorted(set(numbers))[-most:]
    return {index: sum(max(number, kept[0]) == index for number in numbers) for index in kept}


@given(indexes)
def test_what_is_kept_depends_on_the_values_and_not_on_their_order(numbers: list[int]) -> None:
    """The highest buckets are kept, and the lowest of them has what lies below; ``collapsed`` if there is any."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        for order in (numbers, sorted(numbers), sorted(numbers, reverse=True)):
            buckets = filled(order)
            assert buckets.counts == collapsed_by_definition(numbers, 8)
            assert buckets.collapsed is (len(set(numbers)) > 8)


@given(indexes, indexes, indexes)
def test_merging_buckets_is_associative_and_commutative(a: list[int], b: list[int], c: list[int]) -> None:
    """Also where buckets collapse; the result is that of one sketch that saw everything."""

    def merged(*parts: Any) -> sketch.Buckets:
        result = sketch.Buckets()
        for part in parts:
            result.absorb(part if isinstance(part, sketch.Buckets) else filled(part))
        return result

    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        expected = filled([*a, *b, *c])
        for result in (
            merged(a, b, c),
            merged(c, b, a),
            merged(merged(a, b), c),
            merged(a, merged(b, c)),
            merged(merged(b, c), a),
        ):
            assert (result.counts, result.collapsed, result.floor) == (
                expected.counts,
                expected.collapsed,
                expected.floor,
            )


@given(indexes, indexes)
def test_taking_away_undoes_adding(a: list[int], b: list[int]) -> None:
    """What is left has the later numbers; what had collapsed before is gone from where it went."""
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        later = filled([*a, *b])
        later.take_away(filled(a))
        lowest = min(collapsed_by_definition([*a, *b], 8), default=0)
        expected: dict[int, int] = {}
        for number in b:
            place = max(number, lowest) if len({*a, *b}) > 8 else number
            expected[place] = expected.get(place, 0) + 1
        assert later.counts == expected


# --- merging instruments -----------------------------------------------------------------------

KINDS: dict[str, Callable[..., Any]] = {
    "summary": lambda **options: Summary("x", on=Attempt, value="seconds", **options),
    "explicit": lambda **options: Histogram("x", on=Attempt, value="seconds", bounds=(-1, 0, 10), **options),
    "exponential": lambda **options: Histogram("x", on=Attempt, value="seconds", **options),
}
ROUNDED = {"sum", "mean", "deviation"}

events = st.lists(
    st.builds(
        Attempt,
        seconds=st.floats(-1e6, 1e6) | st.floats(1e-300, 1e300) | st.integers(-5, 5),
        backend=st.sampled_from(["a", "b", 1, True]),
    ),
    max_size=25,
)


def exact_part(metric: Any) -> str:
    """All that does not depend on the order of additions, in an order of its own."""
    shown = metric.snapshot()

    def exact(values: dict[str, Any]) -> dict[str, Any]:
        # Of equal extremes, as 0, 0.0 and -0.0, the first is kept.
        as_float = {key: values[key] + 0.0 for key in ("min", "max") if values.get(key) is not None}
        return {key: value for key, value in values.items() if key not in ROUNDED | {"started"}} | as_float

    entries = sorted(json.dumps(exact(entry), sort_keys=True) for entry in shown["series"])
    return json.dumps([entries, exact(shown.get("overall", {})), exact(shown["dimensions"]), shown["invalid"]])


def rounded_part(metric: Any) -> dict[str, float]:
    return {
        key: value for key, value in metric.snapshot()["dimensions"].items() if key in ROUNDED and value is not None
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tags", [(), ("backend",)], ids=["untagged", "tagged"])
@given(st.tuples(events, events, events))
@example(([], [Attempt(seconds=1.0)], [Attempt(seconds=1)]))
@example(([], [Attempt(seconds=-0.0)], [Attempt(seconds=0)]))
def test_merging_is_associative_and_commutative(
    kind: str, tags: tuple[str, ...], parts: tuple[list[Attempt], ...]
) -> None:
    """Whatever is merged into what first, the result is that of one instrument that saw every event."""

    def fed(*lists: list[Attempt]) -> Any:
        metric = KINDS[kind](tags=tags)
        for some in lists:
            feed(metric, *some)
        return metric

    a, b, c = parts
    expected = fed(a, b, c)
    left, right, turned = fed(a), fed(b), fed(c)
    left.merge(fed(b))
    left.merge(fed(c))
    right.merge(fed(c))
    outer = fed(a)
    outer.merge(right)
    turned.merge(fed(b))
    turned.merge(fed(a))
    # Rounding shows where values of very different size cancel each other.
    largest = max((abs(event.seconds) for some in parts for event in some), default=0)
    for result in (left, outer, turned):
        assert exact_part(result) == exact_part(expected)
        if largest < 1e100:
            assert rounded_part(result) == pytest.approx(rounded_part(expected), rel=1e-6, abs=1e-6 * largest)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(-1e6, 1e6) | st.floats(1e-300, 1e300), max_size=60), st.randoms())
def test_the_order_of_events_makes_no_difference(kind: str, values: list[float], rng: random.Random) -> None:
    """But for rounding in sums."""
    metric, other = KINDS[kind](), KINDS[kind]()
    feed(metric, *map(Attempt, values))
    shuffled = [*values]
    rng.shuffle(shuffled)
    feed(other, *map(Attempt, shuffled))
    assert exact_part(metric) == exact_part(other)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_leaves_the_other_alone(kind: str) -> None:
    """It goes on by itself, and what it measures is not seen here."""
    one, other = KINDS[kind](tags=("backend",)), KINDS[kind](tags=("backend",))
    feed(other, Attempt(backend="a"))
    before = other.snapshot()
    one.merge(other)
    assert other.snapshot() == before
    feed(one, Attempt(backend="a"))
    assert other.snapshot() == before
    feed(other, Attempt(backend="a"))
    assert one.snapshot()["dimensions"]["count"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_expired_is_merged_as_well(kind: str) -> None:
    """It is in the totals of both."""
    clock = Clock()
    one = KINDS[kind](tags=("backend",), expire_after=10, clock=clock)
    other = KINDS[kind](tags=("backend",), expire_after=10, clock=clock, max_series=1)
    feed(other, Attempt(backend="a"))
    clock.now += 20
    feed(other, Attempt(backend="b"))
    one.merge(other)
    assert one.snapshot()["dimensions"]["count"] == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", [False, True], ids=["there", "swept"])
def test_a_series_that_has_expired_does_not_come_back_by_a_merge(kind: str, late: bool) -> None:
    """Whether or not it has left the memory: it is in the totals, and counted as expired."""
    clock = Clock()
    one = KINDS[kind](tags=("backend",), expire_after=10, clock=clock)
    other = KINDS[kind](tags=("backend",), expire_after=10, clock=clock, max_series=1)
    feed(other, Attempt(backend="a"))
    clock.now += 20
    if late:
        feed(other, Attempt(backend="b"))
    one.merge(other)
    shown = one.snapshot()
    assert [entry["tags"]["backend"] for entry in shown["series"]] == ["b"] * late
    assert shown["expired"] == 1
    assert shown["dimensions"]["count"] == 1 + late


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_merge_has_no_room_for_overflows(kind: str) -> None:
    """Event by event; and what had overflowed before has not ceased to."""
    one, other = KINDS[kind](tags=("backend",), max_series=2), KINDS[kind](tags=("backend",), max_series=3)
    feed(one, Attempt(backend="a"))
    feed(other, *(Attempt(backend=backend) for backend in "aabbbccccddddd"))
    one.merge(other)
    shown = one.snapshot()
    assert {entry["tags"]["backend"]: entry["count"] for entry in shown["series"]} == {
        "a": 3,
        "b": 3,
        OVERFLOW: 9,
    }
    assert shown["overflowed"] == 9
    assert other.snapshot()["overflowed"] == 5


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_fits_can_be_merged(kind: str) -> None:
    """Another kind, other tags, other bounds and the same instrument are refused."""
    metric = KINDS[kind](tags=("backend",))
    with pytest.raises(TypeError, match=r"argument 'other' must be a (Summary|Histogram), got 3"):
        metric.merge(3)
    with pytest.raises(ValueError, match=r"must have the tags \('backend',\), got \(\)"):
        metric.merge(KINDS[kind]())
    with pytest.raises(ValueError, match="must be another"):
        metric.merge(metric)
    with pytest.raises(ValueError, match="argument 'other' must have the unit 's', got 'ms'"):
        KINDS[kind](unit="s").merge(KINDS[kind](unit="ms"))
    KINDS[kind](unit="s").merge(KINDS[kind]())  # one that does not say
    if kind != "summary":
        with pytest.raises(ValueError, match="argument 'other' must have the bounds"):
            metric.merge(Histogram("x", on=Begun, value="size", bounds=(1,), tags=("backend",)))
