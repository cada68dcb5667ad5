"""Buckets whose bounds are powers of a base that adapts to the range of the values.

The base-2 exponential histogram of OpenTelemetry (its specification, "Metrics data model: ExponentialHistogram"
and "Metrics SDK: Base2 Exponential Bucket Histogram Aggregation"): at scale ``s`` the base is 2 ** (2 ** -s), and
bucket ``i`` takes what is above base ** i and not above base ** (i + 1).  As soon as the buckets
from the lowest to the highest are more than 160, the scale falls: each step joins buckets in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2
from typing import Any

from ._moments import Extent

MAX_SIZE = 160
"""Buckets of each sign, as the specification has it."""
MAX_SCALE = 20


def index_of(number: float, factor: float) -> int:
    """Return the bucket of a number above zero.

    The specification looks at powers of two apart, because ``log`` may miss them; ``log2`` does not.  As
    the factor is a power of two, the product is exact: a lower scale joins the buckets of a higher one.

    :param factor: buckets from one power of two to the next, ``2 ** scale``
    """
    return ceil(log2(number) * factor) - 1


class ExponentialState(Extent):
    """Counts in exponential buckets, of each sign; scale and buckets depend on the values and not on their order."""

    __slots__ = ("factor", "negative", "positive", "scale", "zeros")

    def __init__(self) -> None:
        super().__init__()
        self.scale = MAX_SCALE
        self.factor = 2.0**MAX_SCALE
        self.zeros = 0
        self.positive: dict[int, int] = {}
        self.negative: dict[int, int] = {}

    def measure(self, number: float) -> None:
        """Take the next number, which is finite."""
        self.count += 1
        self.sum += number
        if number < self.low:  # noqa: PLR1730 — min() costs three times as much
            self.low = number
        if number > self.high:  # noqa: PLR1730 — likewise
            self.high = number
        if number > 0:
            counts = self.positive
            index = ceil(log2(number) * self.factor) - 1  # index_of, at half the price
        elif number:
            counts = self.negative
            index = index_of(-number, self.factor)
        else:
            self.zeros += 1
            return
        try:
            counts[index] += 1
        except KeyError:
            counts[index] = 1
            self._fit()

    def absorb(self, other: Any) -> None:
        """Add what another series has measured."""
        super().absorb(other)
        self._lower(self.scale - other.scale)
        self.zeros += other.zeros
        shift = other.scale - self.scale
        _join(self.positive, other.positive, shift)
        _join(self.negative, other.negative, shift)
        self._fit()

    def take_away(self, other: Any) -> None:
        """Take away what an earlier state had measured, whose scale can only have been higher."""
        super().take_away(other)
        self.zeros -= other.zeros
        shift = other.scale - self.scale
        _join(self.positive, other.positive, shift, sign=-1)
        _join(self.negative, other.negative, shift, sign=-1)
        self.positive = {index: count for index, count in self.positive.items() if count > 0}
        self.negative = {index: count for index, count in self.negative.items() if count > 0}

    def _fit(self) -> None:
        """Lower the scale until there are not too many buckets."""
        steps = 0
        for counts in (self.positive, self.negative):
            if counts:
                low, high = min(counts), max(counts)
                while (high >> steps) - (low >> steps) >= MAX_SIZE:
                    steps += 1
        self._lower(steps)

    def _lower(self, steps: int) -> None:
        if steps > 0:
            self.scale -= steps
            self.factor = 2.0**self.scale
            before, self.positive, self.negative = (self.positive, self.negative), {}, {}
            _join(self.positive, before[0], steps)
            _join(self.negative, before[1], steps)

    def values(self) -> dict[str, Any]:
        """Return scale, zeros and buckets as well: of each sign the first bucket, and the counts from there."""
        return super().values() | {
            "scale": self.scale,
            "zeros": self.zeros,
            "positive": _shown(self.positive),
            "negative": _shown(self.negative),
        }

    def read(self, values: Mapping[str, Any]) -> None:
        """Become what :meth:`values` has shown."""
        super().read(values)
        self.scale, self.zeros = values["scale"], values["zeros"]
        self.factor = 2.0**self.scale
        for counts, shown in ((self.positive, values["positive"]), (self.negative, values["negative"])):
            counts.update({shown["offset"] + i: count for i, count in enumerate(shown["counts"]) if count})


def _join(counts: dict[int, int], others: dict[int, int], shift: int, *, sign: int = 1) -> None:
    for index, count in others.items():
        place = index >> shift
        counts[place] = counts.get(place, 0) + sign * count


def _shown(counts: dict[int, int]) -> dict[str, Any]:
    if not counts:
        return {"offset": 0, "counts": []}
    low, high = min(counts), max(counts)
    return {"offset": low, "counts": [counts.get(index, 0) for index in range(low, high + 1)]}
