"""How often: events per second."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ._base import Instrument
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, monotonic, resolve
from ._windows import Ring, SlottedState, Timeline, checked_windows, window_name

WINDOWS = (10.0, 60.0)
PERIODS = {"average_1m": 60.0, "average_5m": 300.0, "average_15m": 900.0}
"""Seconds in which an average forgets all but 1/e of what was."""
FINEST = 5.0
"""Seconds that a slot has at most, so that the averages see more than single steps."""
LEAST = 1e-300
"""What has decayed to less than this is zero."""


class Average:
    """An exponentially weighted average of events per second, as of UNIX load averages.

    At the end of each slot ``average += (1 - exp(-slot / period)) * (rate in the slot - average)``; slots in
    which nothing happened are made up for in one step.  Divided by the weight of the time since the
    start, a steady rate shows from the first slot on, and not after several periods.
    """

    __slots__ = ("_decay", "_period", "_value")

    def __init__(self, period: float, slot: float) -> None:
        self._period = period
        self._decay = math.exp(-slot / period)
        self._value = 0.0

    def after(self, rate: float, idle: int) -> float:
        """Return the average, not yet weighed, after a slot of this rate and ``idle`` empty ones."""
        return (self._value * self._decay + (1 - self._decay) * rate) * self._decay**idle

    def close(self, rate: float, idle: int) -> None:
        """Make it so."""
        self._value = self.after(rate, idle)

    def read(self, rate: float, over: int, elapsed: float) -> float:
        """Return the average.

        :param rate: the rate in the newest slot with events
        :param over: how many slots are over since that one began
        :param elapsed: seconds in all slots that are over
        """
        if not elapsed:
            return rate
        value = self.after(rate, over - 1) if over else self._value
        return value / -math.expm1(-elapsed / self._period) if value > LEAST else 0.0


class RateState(SlottedState):
    """Events by slot."""

    __slots__ = ("averages", "ring", "total", "under_way")

    def __init__(self, timeline: Timeline) -> None:
        super().__init__(timeline)
        self.total = 0
        self.under_way = 0
        self.ring = Ring(timeline.size)
        self.averages = [Average(period, timeline.slot) for period in PERIODS.values()]

    def close(self, idle: int) -> None:
        """Put away the slot under way."""
        self.ring.put(self.number, self.under_way)
        rate = self.under_way / self.timeline.slot
        for average in self.averages:
            average.close(rate, idle)
        self.under_way = 0

    def values(self) -> dict[str, Any]:
        """Return the total, the time and the rates."""
        timeline = self.timeline
        # A clock that runs backwards does not undo the time in which events came.
        now = max(timeline.clock(), timeline.start + self.number * timeline.slot)
        number = max(timeline.number_of(now), self.number)
        elapsed = now - timeline.start
        values: dict[str, Any] = {
            "total": self.total,
            "elapsed": elapsed,
            "mean": self.total / max(elapsed, timeline.slot),
        }
        for window in timeline.windows:
            many = self.in_window(self.ring, self.under_way, window, number)
            values[f"rate_{window_name(window)}"] = many / timeline.covered(window, now)
        rate = self.under_way / timeline.slot
        for name, average in zip(PERIODS, self.averages, strict=True):
            values[name] = average.read(rate, number - self.number, number * timeline.slot)
        return values


def difference(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values between two snapshots: total, time and mean; the rates are those of the later one."""
    total, elapsed = later["total"] - earlier["total"], later["elapsed"] - earlier["elapsed"]
    return {**later, "total": total, "elapsed": elapsed, "mean": total / elapsed if elapsed > 0 else None}


class Rate(Instrument[E, RateState]):
    """Tells how many events there are in a second: of late, and on average over the last minutes.

    Dimensions: ``total``, events; ``elapsed``, seconds since the instrument was made; ``mean``, events per
    second in that time; ``rate_10s`` and ``rate_60s``, events per second in sliding windows; ``average_1m``,
    ``average_5m`` and ``average_15m``, exponentially weighted averages as of UNIX load averages.

    A window moves in steps of a tenth of the shortest, and five seconds at most.  It covers its length and
    the step under way, and its rate is by the time that it really covers.  Until the first step is over, rates
    are by a whole step.  Should the clock run backwards, events count for the step where it was, until it has caught
    up.  The memory of a series is a number for each step of the longest window.

    :param windows: the lengths of the sliding windows, seconds
    :param clock: monotonic seconds, for the rates and for ``expire_after``

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "rate"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        windows: Sequence[float] = WINDOWS,
        tags: Tags[E] = (),
        when: Predicate[E] | None = None,
        unit: str | None = None,
        description: str | None = None,
        max_series: int = MAX_SERIES,
        expire_after: float | None = None,
        clock: Clock = monotonic,
    ) -> None:
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
        self._timeline = Timeline(options.clock, checked_windows("windows", windows, finest=FINEST), finest=FINEST)
        super().__init__(options)

    def _new(self) -> RateState:
        return RateState(self._timeline)

    def _tagged(self, find: Callable[[Any], RateState]) -> Callable[[Any], bool]:
        overall, clock = self._overall, self._timeline.clock

        def count(event: Any) -> bool:
            series = find(event)
            now = clock()
            for state in (series, overall):
                state.at(now)
                state.total += 1
                state.under_way += 1
            return True

        return count

    def _untagged(self) -> Callable[[Any], bool]:
        overall, clock = self._overall, self._timeline.clock
        at = overall.at

        def count(_event: Any) -> bool:
            at(clock())
            overall.total += 1
            overall.under_way += 1
            return True

        return count
