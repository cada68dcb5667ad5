"""A series of measurements for each combination of tag values, and a bound on their number."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from mvx.common.metrics._copying import copied
from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._log import emit
from mvx.common.metrics._text import name_of, show

from ._options import Options
from ._state import State

S = TypeVar("S", bound=State)

Label: TypeAlias = str | int | bool | None
"""A tag's value in a snapshot."""

OVERFLOW = "__overflow__"
"""The value of every tag of the series that takes what ``max_series`` has no room for."""

MAX_LABEL = 256
"""Characters of a tag value that are kept."""
MAX_BITS = 256
"""Bits of an int that is kept: JSON and its readers have limits of their own."""


def label_of(value: object) -> Label:
    """Return what stands for a tag value in snapshots.

    A str, an int, a bool and None stay what they are; an enum's member is its value if that is a str, and
    otherwise its name if it has one; a class is its qualified name; anything else is its ``str()``.  Text is cut after
    :data:`MAX_LABEL` characters, and what UTF-8 cannot encode, as in some names of files, is escaped.  A bool is not
    an int here: ``True`` and ``1`` are two labels.

    :raises Exception: what ``str()`` of something else raises
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # before Enum: what is equal to a text has to have its label
        text = str.__str__(value)
    elif isinstance(value, Enum):
        own: object = value.value
        # Flags that are not all named have no name.
        text = str.__str__(own) if isinstance(own, str) else _text_of(value.name or value)
    elif isinstance(value, int):
        if value.bit_length() <= MAX_BITS:
            return int(value)
        text = f"an int of {value.bit_length()} bits"
    elif isinstance(value, type):
        text = name_of(value)
    else:
        text = _text_of(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def _text_of(value: object) -> str:
    return str.__str__(str(value))  # exactly a str: what __str__ returns may be of a class of its own


def _is_its_own_key(value: object) -> bool:
    """Whether whatever equals ``value`` has the same label, and keeping it costs little."""
    if value is None:
        return True
    kind = type(value)
    if kind is str:
        return len(value) <= MAX_LABEL  # type: ignore[arg-type]  # because `kind is str` does not narrow
    return isinstance(value, Enum) and kind.__eq__ in (object.__eq__, str.__eq__)


class SeriesTable(Generic[S]):
    """Finds the series of an event; makes, bounds and expires them.

    A known combination of str, None and enum members is found by one look into a dict, keyed by the raw
    values.  Ints and bools need their types in the key, because ``True == 1``; what is left is looked up
    by its labels.

    An expired series is gone for the reader from the moment at which it has been idle for long enough;
    when it leaves the memory cannot be told from outside.
    """

    def __init__(self, options: Options[Any], *, new: Callable[[], S], retire: Callable[[S], None]) -> None:
        self._options = options
        self._tags = options.tags
        self._several = len(options.tags) > 1
        self._new = new
        self._retire = retire
        self._max_series = options.max_series
        self._expire_after = options.expire_after
        self._known: dict[Any, S] = {}
        # Labels and their types -> series.
        self._series: dict[Any, S] = {}
        self._overflow: S | None = None
        self._overflow_labels: tuple[Label, ...] = (OVERFLOW,) * len(self._tags)
        self._logged = False
        self._nothing_expires_before = -math.inf
        self.overflowed = 0
        """Events that went to the overflow series."""
        self.expired = 0
        """Series that have been taken out."""
        self.find: Callable[[MetricEvent], S] = self._finder()

    def __getstate__(self) -> dict[str, Any]:
        # What finds a series is about these very series, and raw values need not be fit for copying.
        return {key: value for key, value in vars(self).items() if key not in {"find", "_known"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._known = {}
        self.find = self._finder()

    def _finder(self) -> Callable[[Any], S]:
        """Return what finds an event's series: a closure, which costs half of what a method does."""
        tags_of, known, slowly = self._options.tags_of, self._known.get, self._find_slowly

        def find(event: Any) -> S:
            raw = tags_of(event)
            try:
                series = known(raw)
            except TypeError:  # not hashable
                series = None
            return slowly(raw, 0.0) if series is None else series

        if self._expire_after is None:
            return find
        clock, expire_after = self._options.clock, self._expire_after

        def find_living(event: Any) -> S:
            raw = tags_of(event)
            now = clock()
            try:
                series = known(raw)
            except TypeError:  # not hashable
                series = None
            if series is None or (now - series.touched >= expire_after and series.may_expire()):
                series = slowly(raw, now)
            series.touched = now
            return series

        return find_living

    def _find_slowly(self, raw: Any, now: float) -> S:
        values = raw if self._several else (raw,)
        try:
            series = self._series.get((values, *map(type, values)))
        except TypeError:  # not hashable
            series = None
        if series is not None and (self._expire_after is None or not self._is_expired(series, now)):
            return series
        labels = tuple(map(label_of, values))
        series = self._at(labels, now)
        if series is self._overflow:
            self.overflowed += 1
        # Several raw values may have one label: no more of them are remembered than twice the series.
        elif len(self._known) < 2 * self._max_series and all(map(_is_its_own_key, values)):
            self._known[raw] = series
        return series

    def _at(self, labels: tuple[Label, ...], now: float) -> S:
        """Return the living series of these labels, or a new one, or the overflow series."""
        key = (labels, *map(type, labels))
        series = self._series.get(key)
        if series is not None and self._is_expired(series, now):
            self._nothing_expires_before = now  # also after a clock has run backwards
            self._sweep(now)
            series = None
        return self._make(key, labels, now) if series is None else series

    def _make(self, key: Any, labels: tuple[Label, ...], now: float) -> S:
        if labels != self._overflow_labels:
            if len(self._series) >= self._max_series:
                self._sweep(now)
            if len(self._series) < self._max_series:
                series = self._series[key] = self._new()
                series.touched = now
                return series
            self._tell(labels)
        overflow = self._overflow
        if overflow is not None and self._is_expired(overflow, now):
            self._take_out(overflow)
            overflow = None
        if overflow is None:
            overflow = self._overflow = self._new()
        return overflow

    def _tell(self, labels: tuple[Label, ...]) -> None:
        if self._logged:
            return
        self._logged = True
        values: list[set[Any]] = [set() for _ in self._tags]
        for known, *kinds in self._series:
            for seen, *pair in zip(values, known, kinds, strict=True):
                seen.add(tuple(pair))
        worst = max(range(len(values)), key=lambda index: len(values[index]))
        emit(
            logging.WARNING,
            "instrument %r has %d series and takes no more: tag %r has %d values, and now came %s; "
            "what has no series goes to %r",
            self._options.name,
            self._max_series,
            self._tags[worst],
            len(values[worst]),
            show(labels[worst]),
            OVERFLOW,
            fields={"metric_name": self._options.name, "tag": self._tags[worst], "tag_value": labels[worst]},
        )

    # --- expiry ----------------------------------------------------------------------------------

    def _is_expired(self, series: S, now: float) -> bool:
        return self._expire_after is not None and now - series.touched >= self._expire_after and series.may_expire()

    def _sweep(self, now: float) -> None:
        """Take out what has expired; costs a look at each series, unless it is known that none can have."""
        if self._expire_after is None or now < self._nothing_expires_before:
            return
        first = now
        for key, series in list(self._series.items()):
            if self._is_expired(series, now):
                del self._series[key]
                self._take_out(series)
            elif series.may_expire():
                first = min(first, series.touched)
        self._nothing_expires_before = first + self._expire_after
        living = {id(series) for series in self._series.values()}
        for raw in [raw for raw, series in self._known.items() if id(series) not in living]:
            del self._known[raw]

    def _take_out(self, series: S) -> None:
        self.expired += 1
        self._retire(series)

    # --- reading ---------------------------------------------------------------------------------

    def parted(self) -> tuple[list[tuple[dict[str, Label], S]], list[S]]:
        """Return the living series, each with its tags, and those that have expired and are still there."""
        now = self._now()
        living: list[tuple[dict[str, Label], S]] = []
        ended: list[S] = []
        for tags, series in self.everything():
            if self._is_expired(series, now):
                ended.append(series)
            else:
                living.append((tags, series))
        return living, ended

    def adopt(self, labels: tuple[Label, ...], events: int) -> S:
        """Return the series of these labels, made if there is room, for the events of another instrument."""
        now = self._now()
        series = self._at(labels, now)
        series.touched = now
        if series is self._overflow and labels != self._overflow_labels:
            self.overflowed += events
        return series

    def _now(self) -> float:
        return 0.0 if self._expire_after is None else self._options.clock()

    def everything(self) -> Iterator[tuple[dict[str, Label], S]]:
        """Yield every series in memory with its tags, those included that have expired and are still there."""
        for key in copied(self._series):
            series = self._series.get(key)
            if series is not None:
                yield dict(zip(self._tags, key[0], strict=True)), series
        if self._overflow is not None:
            yield dict(zip(self._tags, self._overflow_labels, strict=True)), self._overflow
