"""Rates and windows against a model that remembers every event."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import Rate, Ratio
from tests.instruments.events import Attempt, Clock, dimensions, feed, series

# Steps that fall onto the edges of slots, between them, and hours beyond; the clock may also stand still.
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.75, 9.0, 10.0, 60.0, 61.0, 7200.0]) | st.floats(0, 30),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=40,
)


class Model:
    """Remembers when every event came, and works everything out from that."""

    def __init__(self, clock: Clock, slot: float) -> None:
        self.clock = clock
        self.start = clock.now
        self.slot = slot
        self.events: list[tuple[int, bool]] = []  # slot, hit

    def number(self) -> int:
        return int((self.clock.now - self.start) / self.slot)

    def event(self, *, hit: bool = True) -> None:
        self.events.append((self.number(), hit))

    def window(self, length: float, *, hit: bool = False) -> int:
        first = self.number() - round(length / self.slot)
        return sum(number >= first and (is_hit or not hit) for number, is_hit in self.events)

    def rate(self, length: float) -> float:
        first = max(self.number() - round(length / self.slot), 0)
        return self.window(length) / max(self.clock.now - self.start - first * self.slot, self.slot)

    def average(self, period: float) -> float:
        """The sum over all slots that are over, each weighed by its age."""
        number = self.number()
        if not number:
            return len(self.events) / self.slot
        per_slot = [0] * number
        for at, _ in self.events:
            if at < number:
                per_slot[at] += 1
        decay = math.exp(-self.slot / period)
        weighed = sum(
            (1 - decay) * many / self.slot * decay ** (number - 1 - at) for at, many in enumerate(per_slot) if many
        )
        return weighed / (1 - math.exp(-number * self.slot / period))


@given(steps)
def test_rates_are_those_of_the_model(steps: list[tuple[float, int, bool]]) -> None:
    """After every step, with and without events, and whether or not somebody reads in between."""
    clock = Clock()
    metric = Rate("x", on=Attempt, clock=clock)
    model = Model(clock, 1.0)
    for passed, many, read in steps:
        clock.now += passed
        for _ in range(many):
            metric.handle_event(Attempt())
            model.event()
        if read:
            _compare(metric, model)
    _compare(metric, model)


def _compare(metric: Rate[Attempt], model: Model) -> None:
    elapsed = model.clock.now - model.start
    assert dimensions(metric) == pytest.approx(
        {
            "total": len(model.events),
            "elapsed": elapsed,
            "mean": len(model.events) / max(elapsed, 1.0),
            "rate_10s": model.rate(10),
            "rate_60s": model.rate(60),
            "average_1m": model.average(60),
            "average_5m": model.average(300),
            "average_15m": model.average(900),
        },
        rel=1e-6,
        abs=1e-250,
    )


@given(steps)
def test_shares_are_those_of_the_model(steps: list[tuple[float, int, bool]]) -> None:
    """In total and in the window."""
    clock = Clock()
    metric = Ratio("x", on=Attempt, hit="ok", window=10, clock=clock)
    model = Model(clock, 1.0)
    for passed, many, ok in steps:
        clock.now += passed
        for _ in range(many):
            metric.handle_event(Attempt(ok=ok))
            model.event(hit=ok)
        shown = dimensions(metric)
        hits, total = sum(hit for _, hit in model.events), len(model.events)
        assert (shown["hits"], shown["events"]) == (hits, total)
        assert shown["ratio"] == (hits / total if total else None)
        hits, total = model.window(10, hit=True), model.window(10)
        assert (shown["window_hits"], shown["window_events"]) == (hits, total)
        assert shown["window_ratio"] == (hits / total if total else None)


@pytest.mark.parametrize("per_second", [1, 7, 100])
def test_a_steady_rate_shows_in_every_figure(per_second: int) -> None:
    """From the first slot on, and not after several periods."""
    clock = Clock()
    metric = Rate("x", on=Attempt, clock=clock)
    for _ in range(30):
        for _ in range(per_second):
            feed(metric, Attempt())
        clock.now += 1
        shown = dimensions(metric)
        for name in ("mean", "rate_10s", "rate_60s", "average_1m", "average_5m", "average_15m"):
            assert shown[name] == pytest.approx(per_second), name


def test_hours_without_events() -> None:
    """The windows are empty, the averages forget, the total stays; and then it goes on."""
    clock = Clock()
    metric = Rate("x", on=Attempt, clock=clock)
    feed(metric, *[Attempt()] * 1000)
    clock.now += 7 * 24 * 3600
    shown = dimensions(metric)
    assert shown["total"] == 1000
    assert shown["rate_10s"] == shown["rate_60s"] == shown["average_1m"] == 0
    assert 0 <= shown["average_15m"] < 1e-200
    json.dumps(metric.snapshot(), allow_nan=False)
    feed(metric, *[Attempt()] * 10)
    assert dimensions(metric)["rate_10s"] == pytest.approx(10 / 10, rel=0.01)


@pytest.mark.parametrize("kind", [Rate, Ratio])
def test_a_clock_that_stands_still(kind: Any) -> None:
    """Nothing is divided by nothing: there are as many events a second as in one slot."""
    metric = kind("x", on=Attempt, clock=Clock(), **({"hit": "ok"} if kind is Ratio else {}))
    feed(metric, *[Attempt()] * 50)
    shown = dimensions(metric)
    if kind is Rate:
        assert all(shown[name] == 50 for name in shown if name not in ("elapsed", "total"))
        assert shown["elapsed"] == 0
    else:
        assert shown["ratio"] == shown["window_ratio"] == 1


@pytest.mark.parametrize("kind", [Rate, Ratio])
def test_a_clock_that_runs_backwards(kind: Any) -> None:
    """Events count for where the clock had been; nothing fails and nothing is lost."""
    clock = Clock(1000)
    metric = kind("x", on=Attempt, clock=clock, **({"hit": "ok"} if kind is Ratio else {}))
    total = "total" if kind is Rate else "events"
    for passed in (5, -3, -100, 2, 200, -50):
        clock.now += passed
        feed(metric, Attempt(), Attempt())
        json.dumps(metric.snapshot(), allow_nan=False)
        assert min(value for value in dimensions(metric).values() if value is not None) >= 0
    assert dimensions(metric)[total] == 12


def test_a_rate_does_not_forget_the_time_that_a_clock_takes_back() -> None:
    """Ten seconds have passed, whatever it says then: a hundred events are ten a second, and not a hundred."""
    clock = Clock(1000)
    metric = Rate("x", on=Attempt, clock=clock)
    for _ in range(10):
        feed(metric, *[Attempt()] * 10)
        clock.now += 1
    feed(metric, Attempt())
    clock.now -= 500
    shown = dimensions(metric)
    assert shown["elapsed"] == 10
    assert all(shown[name] == pytest.approx(10, rel=0.1) for name in shown if name not in ("elapsed", "total"))


def test_windows_of_other_lengths() -> None:
    """They are named after their lengths, and slots are never longer than five seconds."""
    clock = Clock(0)
    metric = Rate("x", on=Attempt, windows=(0.5, 120), clock=clock)
    assert {"rate_0.5s", "rate_120s"} < set(dimensions(metric))
    feed(metric, *[Attempt()] * 6)
    clock.now += 60
    shown = dimensions(metric)
    assert (shown["rate_0.5s"], shown["rate_120s"]) == (0, 0.1)
    hours = Rate("x", on=Attempt, windows=(3600,), clock=clock)
    feed(hours, *[Attempt()] * 10)
    clock.now += 10
    assert dimensions(hours)["average_1m"] == pytest.approx(
        10 / 5 * math.exp(-5 / 60) * (1 - math.exp(-5 / 60)) / (1 - math.exp(-10 / 60))
    )


def test_a_series_that_appears_late_was_at_zero_before() -> None:
    """Its rates are by the same time as the others', and add up to the overall rate."""
    clock = Clock()
    metric = Rate("x", on=Attempt, tags=("backend",), clock=clock)
    feed(metric, *[Attempt(backend="a")] * 30)
    clock.now += 30
    feed(metric, *[Attempt(backend="b")] * 15)
    clock.now += 1
    rates = series(metric, "rate_60s")
    assert rates[("a",)] == pytest.approx(30 / 31)
    assert rates[("b",)] == pytest.approx(15 / 31)
    for name in ("rate_10s", "average_1m", "average_15m"):
        assert sum(series(metric, name).values()) == pytest.approx(dimensions(metric)[name])


def test_the_memory_of_a_rate_is_that_of_its_slots() -> None:
    """However many events come, and however much time passes."""
    clock = Clock()
    metric = Rate("x", on=Attempt, clock=clock)
    ring = metric._overall.ring._amounts
    size = sys.getsizeof(ring)
    for second in range(500):
        clock.now += second % 7
        feed(metric, *[Attempt()] * 3)
    assert metric._overall.ring._amounts is ring
    assert sys.getsizeof(ring) == size
    assert len(ring) == 61
