"""Count, sum, extremes, mean and deviation of a stream of numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ._numbers import NAN, finite
from ._state import State


class Extent(State):
    """How many numbers there were, their sum, and from where to where they went."""

    __slots__ = ("count", "high", "low", "sum")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.sum: float = 0.0
        self.low = math.inf
        self.high = -math.inf

    @abstractmethod
    def measure(self, number: float) -> None:
        """Take the next number, which is finite."""
        ...

    def absorb(self, other: Any) -> None:
        """Add what another series of the same kind has measured."""
        self.count += other.count
        self.sum += other.sum
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def take_away(self, other: Any) -> None:
        """Take away what an earlier state of this series had measured.

        An extreme that is a new one is one of what is left; any other is not known from these figures alone.
        """
        self.count -= other.count
        self.sum -= other.sum
        if other.count:
            self.low = self.low if self.low < other.low else NAN
            self.high = self.high if self.high > other.high else NAN

    def values(self) -> dict[str, Any]:
        """Return all as JSON values: None where there is no number, or none that a float can hold."""
        some = self.count > 0
        return {
            "count": self.count,
            "sum": finite(self.sum),
            "min": finite(self.low) if some else None,
            "max": finite(self.high) if some else None,
            "mean": finite(self.sum / self.count) if some else None,
        }

    def read(self, values: Mapping[str, Any]) -> None:
        """Become what :meth:`values` has shown."""
        self.count = values["count"]
        self.sum = _number(values["sum"])
        if self.count:
            self.low, self.high = _number(values["min"]), _number(values["max"])


class Moments(Extent):
    """Mean and deviation as well.

    The deviation is kept by Welford's recurrence ("Note on a method for calculating corrected sums of squares
    and products", Technometrics 4, 1962), which does not subtract large numbers from each other, and joined by
    the formula of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
    variances", Stanford 1979).
    """

    __slots__ = ("mean", "spread")

    def __init__(self) -> None:
        super().__init__()
        self.mean = 0.0
        self.spread = 0.0
        """The sum of the squared distances from the mean."""

    def absorb(self, other: Any) -> None:
        """Add what another series has measured."""
        if not other.count:
            return
        count = self.count + other.count
        distance = other.mean - self.mean
        self.spread += other.spread + distance * distance * (self.count * other.count / count)
        self.mean = self.mean + distance * (other.count / count) if self.count else other.mean
        super().absorb(other)

    def take_away(self, other: Any) -> None:
        """Take away what an earlier state had measured.

        The deviation of a few numbers that came after very many is what rounding has left of it.
        """
        count = self.count - other.count
        if count and other.count:
            mean = self.mean + (self.mean - other.mean) * (other.count / count)
            distance = other.mean - mean
            spread = self.spread - other.spread - distance * distance * (count * other.count / self.count)
            self.mean, self.spread = mean, max(spread, 0.0)
        super().take_away(other)

    def values(self) -> dict[str, Any]:
        """Return all as JSON values."""
        some = self.count > 0
        # Of numbers further apart than a float can say, the distances are infinite, and the spread is anything.
        known = some and self.spread >= 0
        return super().values() | {
            "mean": finite(self.mean) if some else None,
            "deviation": finite(math.sqrt(self.spread / self.count)) if known else None,
        }

    def read(self, values: Mapping[str, Any]) -> None:
        """Become what :meth:`values` has shown."""
        super().read(values)
        if self.count:
            self.mean = _number(values["mean"])
            deviation = _number(values["deviation"])
            self.spread = deviation * deviation * self.count


def _number(shown: float | None) -> float:
    return NAN if shown is None else shown
