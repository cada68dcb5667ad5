"""How it is distributed, in a few figures: moments and quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from mvx.common.metrics._text import show

from ._distribution import Distribution
from ._moments import Moments
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, Value, monotonic, resolve, sequence_of
from ._sketch import PER_LOG, Parts, quantiles

QUANTILES = (0.5, 0.9, 0.95, 0.99)


class SummaryState(Moments):
    """Moments, and a sketch of the distribution."""

    __slots__ = ("parts", "wanted")

    def __init__(self, wanted: Sequence[float] = QUANTILES) -> None:
        super().__init__()
        self.wanted = wanted
        self.parts = Parts()

    def measure(
        self,
        number: float,
        # Locals are found faster than globals, and this runs for every event.
        log: Callable[[float], float] = math.log,
        ceil: Callable[[float], int] = math.ceil,
        per_log: float = PER_LOG,
    ) -> None:
        """Take the next number, which is finite."""
        self.count = count = self.count + 1
        self.sum += number
        if number < self.low:  # noqa: PLR1730 — min() costs three times as much
            self.low = number
        if number > self.high:  # noqa: PLR1730 — likewise
            self.high = number
        # As in Moments.measure, written out because a call would cost as much again.
        distance = number - self.mean
        self.mean = mean = self.mean + distance / count
        self.spread += distance * (number - mean)
        if number > 0:
            buckets = self.parts.positive
            index = ceil(log(number) * per_log)
        elif number:
            buckets = self.parts.negative
            index = ceil(log(-number) * per_log)
        else:
            self.parts.zeros += 1
            return
        try:
            buckets.counts[index] += 1
        except KeyError:
            buckets.add(index)

    def absorb(self, other: Any) -> None:
        """Add what another series has measured."""
        super().absorb(other)
        self.parts.absorb(other.parts)

    def take_away(self, other: Any) -> None:
        """Take away what an earlier state had measured; an extreme that is not a new one is the sketch's guess."""
        low, high = self.low, self.high
        super().take_away(other)
        self.parts.take_away(other.parts)
        ends = self.parts.ends()
        if ends is not None:
            # A guess is within all that there was, and not on the wrong side of the other one.
            if math.isnan(self.low):
                self.low = min(max(ends[0], low), high)
            if math.isnan(self.high):
                self.high = max(min(ends[1], high), self.low)

    def values(self) -> dict[str, Any]:
        """Return moments, quantiles and the sketch."""
        found = quantiles(self.wanted, self.count, self.low, self.high, self.parts)
        shown = [{"quantile": q, "value": value} for q, value in zip(self.wanted, found, strict=True)]
        return super().values() | {"quantiles": shown, "sketch": self.parts.show()}

    @classmethod
    def shown(cls, values: Mapping[str, Any]) -> Self:
        """Return the state that :meth:`values` has shown."""
        state = cls([item["quantile"] for item in values["quantiles"]])
        state.read(values)
        state.parts = Parts.shown(values["sketch"])
        return state


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a summary's values is a plain number: a quantile of 0.999 as ``p99.9``."""
    numbers = {key: value for key, value in values.items() if key not in {"quantiles", "sketch"}}
    return numbers | {key_of(item["quantile"]): item["value"] for item in values["quantiles"]}


def key_of(quantile: float) -> str:
    """Return a quantile's name among the dimensions."""
    return f"p{quantile * 100:.10g}"


def difference(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of what was measured between two snapshots of one series.

    Extremes are exact where they are new ones, and otherwise within the sketch's relative error.
    """
    state = SummaryState.shown(later)
    state.take_away(SummaryState.shown(earlier))
    return state.values()


class Summary(Distribution[E, SummaryState]):
    """Describes a distribution: how long requests take, how large documents are.

    Dimensions: ``count``, ``sum``, ``min``, ``max``, ``mean``; ``deviation``, the standard deviation of just
    these values; and the quantiles, ``p50``, ``p90``, ``p95`` and ``p99`` unless others are asked for, each
    within 1 % of the value that has that rank (DDSketch, see ``_sketch``).  They are None before the first
    value.  The memory of a series is bounded by 2 048 buckets of each sign; only values that spread over more
    than that lose accuracy, in those nearest to zero, and the sketch then says ``collapsed``.

    :param value: an attribute's name, or a function of the event
    :param quantiles: which quantiles to show, each from 0 to 1

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "summary"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        value: Value[E],
        quantiles: Sequence[float] = QUANTILES,
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._quantiles = _checked(quantiles)
        options = resolve(
            name,
            on=on,
            tags=tags,
            when=when,
            unit=unit,
            description=description,
            max_series=max_series,
            expire_after=expire_after,
            clock=clock,
        )
        super().__init__(options, value)

    def _new(self) -> SummaryState:
        return SummaryState(self._quantiles)

    def _dimensions(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return flat(values)


def _checked(wanted: object) -> tuple[float, ...]:
    wanted = sequence_of("numbers", "quantiles", wanted)
    for q in wanted:
        if isinstance(q, bool) or not isinstance(q, (int, float)):
            raise TypeError(f"argument 'quantiles' must hold numbers, got {show(q)}")
        if not 0 <= q <= 1:
            raise ValueError(f"argument 'quantiles' must hold numbers from 0 to 1, got {show(q)}")
    if len({key_of(q) for q in wanted}) < len(wanted):
        raise ValueError(f"argument 'quantiles' must not repeat one, got {show(wanted)}")
    return tuple(float(q) for q in wanted)
