"""How it is distributed, as counts between bounds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from mvx.common.metrics._text import show

from ._distribution import Distribution
from ._exponential import ExponentialState
from ._moments import Extent
from ._numbers import LARGEST, converted
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, Value, monotonic, resolve, sequence_of

MAX_BOUNDS = 1000
"""More bounds than this are a mistake: each series has a count for each."""


class ExplicitState(Extent):
    """Counts between given bounds."""

    __slots__ = ("bounds", "counts")

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)

    def measure(self, number: float) -> None:
        """Take the next number, which is finite."""
        self.count += 1
        self.sum += number
        if number < self.low:  # noqa: PLR1730 — min() costs three times as much
            self.low = number
        if number > self.high:  # noqa: PLR1730 — likewise
            self.high = number
        self.counts[bisect_left(self.bounds, number)] += 1

    def absorb(self, other: Any) -> None:
        """Add what another series has measured."""
        super().absorb(other)
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def take_away(self, other: Any) -> None:
        """Take away what an earlier state had measured."""
        super().take_away(other)
        self.counts = [mine - theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def values(self) -> dict[str, Any]:
        """Return the counts and their bounds as well."""
        return super().values() | {"bounds": list(self.bounds), "counts": list(self.counts)}

    def read(self, values: Mapping[str, Any]) -> None:
        """Become what :meth:`values` has shown."""
        super().read(values)
        self.counts = list(values["counts"])


HistogramState: TypeAlias = ExplicitState | ExponentialState


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a histogram's values is a plain number."""
    return {key: values[key] for key in ("count", "sum", "min", "max", "mean")}


def difference(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of what was measured between two snapshots of one series."""
    if ("bounds" in later, later.get("bounds")) != ("bounds" in earlier, earlier.get("bounds")):
        raise ValueError("argument 'earlier' must have the bounds of 'later'")
    state, before = _shown(later), _shown(earlier)
    state.take_away(before)
    return state.values()


def _shown(values: Mapping[str, Any]) -> HistogramState:
    state: HistogramState = ExplicitState(values["bounds"]) if "bounds" in values else ExponentialState()
    state.read(values)
    return state


class Histogram(Distribution[E, HistogramState]):
    """Counts values between bounds, as dashboards draw them.

    With ``bounds``, a count for each space between two of them, and one below and one above all; a value
    that equals a bound is counted below it.  Without, exponential buckets that adapt to what is measured:
    at most 160 of each sign, each as much wider than the one below as the values' range demands (the
    base-2 exponential histogram of OpenTelemetry).

    Dimensions: ``count``, ``sum``, ``min``, ``max`` and ``mean``, the last three None before the first
    value.  The series have the buckets as well: ``bounds`` and ``counts``, one more than bounds; or
    ``scale``, ``zeros``, ``positive`` and ``negative``, see ``_exponential``.

    :param value: an attribute's name, or a function of the event
    :param bounds: numbers, ascending; None: exponential buckets

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "histogram"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        value: Value[E],
        bounds: Sequence[float] | None = None,
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._bounds = None if bounds is None else _checked(bounds)
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

    def _new(self) -> HistogramState:
        return ExponentialState() if self._bounds is None else ExplicitState(self._bounds)

    def _dimensions(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return flat(values)

    def _check_mergeable(self, other: Histogram[Any]) -> None:
        if other._bounds != self._bounds:
            raise ValueError(f"argument 'other' must have the bounds {self._bounds}, got {other._bounds}")


def _checked(bounds: object) -> tuple[float, ...]:
    bounds = sequence_of("numbers", "bounds", bounds)
    if not 0 < len(bounds) <= MAX_BOUNDS:
        raise ValueError(f"argument 'bounds' must hold 1 to {MAX_BOUNDS} numbers, got {len(bounds)}")
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise TypeError(f"argument 'bounds' must hold numbers, got {show(bound)}")
        if not -LARGEST <= bound <= LARGEST:
            raise ValueError(f"argument 'bounds' must hold finite numbers, got {show(bound)}")
    if not all(one < next_ for one, next_ in pairwise(bounds)):
        raise ValueError(f"argument 'bounds' must ascend, got {show(bounds)}")
    return tuple(map(converted, bounds))
