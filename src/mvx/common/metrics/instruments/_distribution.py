# ruff: noqa: SLF001 — what is looked into is another instance of the same class
"""Instruments that measure a distribution, and whose series can be added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mvx.common.metrics._text import show

from ._base import Instrument
from ._moments import Extent
from ._numbers import LARGEST, converted
from ._options import E, Options, Value

D = TypeVar("D", bound=Extent)


class Distribution(Instrument[E, D], Generic[E, D]):
    """A Summary or a Histogram.

    The values over all series are added up when they are read, not with each event, which would be measured twice.
    """

    def __init__(self, options: Options[E], value: Value[E]) -> None:
        super().__init__(options.measuring("value", value))
        self._retired = self._new()
        """What expired series have measured."""

    def merge(self, other: Instrument[Any, D]) -> None:
        """Add all that ``other`` has measured, series by series; what it goes on to measure is its own.

        The order of merging makes no difference, but for rounding in sums, mean and deviation, and where
        ``max_series`` has no room for all series.  Neither may be handling an event meanwhile.

        :raises TypeError: if ``other`` is not of the same kind
        :raises ValueError: if it has other tags, another unit, or buckets that do not fit
        """
        if not isinstance(other, type(self)):
            raise TypeError(f"argument 'other' must be a {type(self).__name__}, got {show(other)}")
        if other is self:
            raise ValueError(f"argument 'other' must be another {type(self).__name__}, got the same one")
        if set(other._options.tags) != set(self._options.tags):
            raise ValueError(f"argument 'other' must have the tags {self._options.tags}, got {other._options.tags}")
        units = self._options.unit, other._options.unit
        if units[0] != units[1] and None not in units:
            raise ValueError(f"argument 'other' must have the unit {units[0]!r}, got {show(units[1])}")
        self._check_mergeable(other)
        self._invalid += other._invalid
        if self._table is None or other._table is None:
            self._overall.absorb(other._overall)
            return
        living, ended = other._table.parted()
        for series in (other._retired, *ended):
            self._retired.absorb(series)
        self._table.expired += other._table.expired + len(ended)
        self._table.overflowed += other._table.overflowed
        for tags, series in living:
            labels = tuple(tags[name] for name in self._options.tags)
            self._table.adopt(labels, series.count).absorb(series)

    def _check_mergeable(self, other: Any) -> None:
        """Check what else has to agree."""

    def _total(self) -> D:
        if self._table is None:
            return self._overall
        total = self._new()
        total.absorb(self._retired)
        for _, series in self._table.everything():
            total.absorb(series)
        return total

    def _retire(self, series: D) -> None:
        self._retired.absorb(series)

    def _tagged(self, find: Callable[[Any], D]) -> Callable[[Any], bool]:
        value_of, reject = self._options.value_of, self._reject

        def measure_in_series(event: Any) -> bool:
            raw = number = value_of(event)
            if number.__class__ is not float and number.__class__ is not int:
                number = converted(number)
            if not -LARGEST <= number <= LARGEST:
                return reject(raw)
            find(event).measure(number)
            return True

        return measure_in_series

    def _untagged(self) -> Callable[[Any], bool]:
        return self._measuring(self._overall.measure)
