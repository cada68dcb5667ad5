"""Quantiles of a stream within a relative error, in bounded memory.

DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019): a value falls into a bucket whose bounds are successive powers of
gamma = (1 + a) / (1 - a), and every value of a bucket is within the relative error a of its middle.  Negative
values have buckets of their own, zero has a count.

Of the ways to find the bucket, ``ceil(log(x) / log(gamma))`` is the cheapest here: interpolating
between powers of two from ``frexp``, as the paper proposes for compiled languages, costs
three times as much in Python, whose ``math.log`` is one call in C.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ACCURACY = 0.01
"""The relative error that quantiles keep to."""

# A shade narrower than that, so that rounding in the logarithm does not take a value over the edge.
_GAMMA = (1 + ACCURACY * (1 - 1e-7)) / (1 - ACCURACY * (1 - 1e-7))
PER_LOG = 1 / math.log(_GAMMA)
"""Buckets in a factor of e."""
_MIDDLE = math.log(2 / (1 + _GAMMA))
# Where exp() ends; what is nearer is cut by the largest value anyway.
_LARGEST_LOG = 709.78

MAX_BUCKETS = 2048
"""Buckets with something in them, of each sign, that are kept: 17 powers of ten without a gap."""


class Buckets:
    """Counts of values above zero, by bucket.

    Once there are more than :data:`MAX_BUCKETS`, the lowest ones are one.  Which these are depends only on the
    values and not on their order: a bucket that so many higher ones have left behind stays behind.
    """

    __slots__ = ("collapsed", "counts", "floor")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.floor: int | None = None
        """The lowest bucket, as soon as there is no room for another one."""
        self.collapsed = False
        """Whether the lowest bucket holds what belongs below it."""

    def add(self, index: int, count: int = 1) -> None:
        """Count values in a bucket that may be new; for one that is there, ``counts[index] += count`` is enough."""
        counts = self.counts
        if self.floor is not None and index < self.floor:
            self.collapsed = True
            index = self.floor
        if index in counts:
            counts[index] += count
            return
        counts[index] = count
        if len(counts) > MAX_BUCKETS:
            lowest = min(counts)
            moved = counts.pop(lowest)
            self.floor = min(counts)
            counts[self.floor] += moved
            self.collapsed = True
        elif len(counts) == MAX_BUCKETS:
            self.floor = min(counts)

    def absorb(self, other: Buckets) -> None:
        """Add what another sketch has counted."""
        self.collapsed |= other.collapsed
        counts = self.counts
        for index, count in other.counts.items():
            if index in counts:
                counts[index] += count
            else:
                self.add(index, count)

    def take_away(self, other: Buckets) -> None:
        """Take away what an earlier state of these buckets had counted."""
        for index, count in other.counts.items():
            # What the earlier one had lower has gone to the floor since.
            place = index if self.floor is None or index >= self.floor else self.floor
            left = self.counts.get(place, 0) - count
            if left > 0:
                self.counts[place] = left
            else:
                self.counts.pop(place, None)

    def sorted(self) -> list[tuple[int, int]]:
        """Return the buckets, lowest first, with their counts."""
        return sorted(self.counts.items())

    def show(self) -> dict[str, Any]:
        """Return the buckets as JSON values."""
        found = self.sorted()
        return {
            "indexes": [index for index, _ in found],
            "counts": [count for _, count in found],
            "collapsed": self.collapsed,
        }

    @classmethod
    def shown(cls, found: Mapping[str, Any]) -> Buckets:
        """Return the buckets that :meth:`show` has shown."""
        buckets = cls()
        buckets.counts.update(zip(found["indexes"], found["counts"], strict=True))
        buckets.collapsed = found["collapsed"]
        if len(buckets.counts) >= MAX_BUCKETS:
            buckets.floor = min(buckets.counts)
        return buckets


def index_of(number: float) -> int:
    """Return the bucket of a number above zero."""
    return math.ceil(math.log(number) * PER_LOG)


def middle_of(index: int) -> float:
    """Return the number that is within the relative error of all of a bucket."""
    return math.exp(min(index / PER_LOG + _MIDDLE, _LARGEST_LOG))


def quantiles(wanted: Iterable[float], count: int, low: float, high: float, parts: Parts) -> list[float | None]:
    """Return for each ``q`` of ``wanted``, ascending or not, a number near the one of rank ``floor(q * (count - 1))``.

    :param count: how many numbers there are
    :param low: the lowest of them, for which no result is too low
    :param high: the highest of them
    :param parts: their buckets
    """
    ranks = {q: int(q * (count - 1)) for q in wanted}
    if not count:
        return [None] * len(ranks)
    found: dict[float, float] = {}
    todo = sorted(ranks, key=ranks.__getitem__, reverse=True)
    seen = 0
    for sign, index, many in parts.ascending():
        seen += many
        while todo and ranks[todo[-1]] < seen:
            found[todo.pop()] = min(max(sign * middle_of(index), low), high)
        if not todo:
            break
    # As floats, without a sign at zero: of equal numbers, as 1 and 1.0, the extremes are whichever came first.
    return [float(found.get(q, high)) + 0.0 for q in ranks]


class Parts:
    """Numbers of either sign, and zeros."""

    __slots__ = ("negative", "positive", "zeros")

    def __init__(self) -> None:
        self.positive = Buckets()
        self.negative = Buckets()
        self.zeros = 0

    def ascending(self) -> Iterator[tuple[int, int, int]]:
        """Yield the sign of each bucket, its index and its count, from the lowest number to the highest."""
        for index, count in reversed(self.negative.sorted()):
            yield -1, index, count
        if self.zeros:
            yield 0, 0, self.zeros
        for index, count in self.positive.sorted():
            yield 1, index, count

    def ends(self) -> tuple[float, float] | None:
        """Return the middles of the lowest and of the highest bucket, if there is any."""
        found = list(self.ascending())
        if not found:
            return None
        (first, lowest, _), (last, highest, _) = found[0], found[-1]
        return first * middle_of(lowest), last * middle_of(highest)

    def absorb(self, other: Parts) -> None:
        """Add what another sketch has counted."""
        self.positive.absorb(other.positive)
        self.negative.absorb(other.negative)
        self.zeros += other.zeros

    def take_away(self, other: Parts) -> None:
        """Take away what an earlier state had counted."""
        self.positive.take_away(other.positive)
        self.negative.take_away(other.negative)
        self.zeros -= other.zeros

    def show(self) -> dict[str, Any]:
        """Return all as JSON values."""
        return {
            "accuracy": ACCURACY,
            "zeros": self.zeros,
            "positive": self.positive.show(),
            "negative": self.negative.show(),
        }

    @classmethod
    def shown(cls, found: Mapping[str, Any]) -> Parts:
        """Return what :meth:`show` has shown."""
        parts = cls()
        parts.zeros = found["zeros"]
        parts.positive = Buckets.shown(found["positive"])
        parts.negative = Buckets.shown(found["negative"])
        return parts
