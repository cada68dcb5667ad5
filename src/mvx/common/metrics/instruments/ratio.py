"""Which share: of all events, those that satisfy a predicate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._base import Instrument
from ._options import MAX_SERIES, Clock, E, Events, Predicate, Tags, monotonic, resolve
from ._windows import Ring, SlottedState, Timeline, checked_window

WINDOW = 60.0


class RatioState(SlottedState):
    """Events and hits by slot."""

    __slots__ = ("event_ring", "events", "events_under_way", "hit_ring", "hits", "hits_under_way")

    def __init__(self, timeline: Timeline) -> None:
        super().__init__(timeline)
        self.events = self.hits = 0
        self.events_under_way = self.hits_under_way = 0
        self.event_ring = Ring(timeline.size)
        self.hit_ring = Ring(timeline.size)

    def count(self, now: float, hit: object) -> None:
        """Take the next event."""
        self.at(now)
        self.events += 1
        self.events_under_way += 1
        if hit:
            self.hits += 1
            self.hits_under_way += 1

    def close(self, idle: int) -> None:
        """Put away the slot under way."""
        self.event_ring.put(self.number, self.events_under_way)
        self.hit_ring.put(self.number, self.hits_under_way)
        self.events_under_way = self.hits_under_way = 0

    def values(self) -> dict[str, Any]:
        """Return the shares and what they are of."""
        timeline = self.timeline
        number = max(timeline.number_of(timeline.clock()), self.number)
        window = timeline.windows[0]
        events = self.in_window(self.event_ring, self.events_under_way, window, number)
        hits = self.in_window(self.hit_ring, self.hits_under_way, window, number)
        return {
            "ratio": _share(self.hits, self.events),
            "hits": self.hits,
            "events": self.events,
            "window_ratio": _share(hits, events),
            "window_hits": hits,
            "window_events": events,
        }


def difference(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values between two snapshots; the window is that of the later one."""
    hits, events = later["hits"] - earlier["hits"], later["events"] - earlier["events"]
    return {**later, "ratio": _share(hits, events), "hits": hits, "events": events}


def _share(hits: int, events: int) -> float | None:
    return hits / events if events else None


class Ratio(Instrument[E, RatioState]):
    """Tells which share of events are hits: requests that failed, look-ups that the cache could answer.

    Dimensions: ``ratio``, from 0 to 1, None while there are no events; ``hits`` and ``events``, what it is of;
    ``window_ratio``, ``window_hits`` and ``window_events``, the same for a sliding window, which moves in steps of a
    tenth of its length and covers the step under way in addition.

    :param hit: an attribute's name, or a function of the event: whether it is a hit
    :param window: the length of the sliding window, seconds
    :param clock: monotonic seconds, for the window and for ``expire_after``

    The other options are those of :class:`Counter`.

    :raises TypeError: if an argument is of the wrong type
    :raises ValueError: if one makes no sense: a blank name, an attribute that the events do not have
    """

    kind = "ratio"

    def __init__(
        self,
        name: str,
        *,
        on: Events[E],
        hit: str | Predicate[E],
        window: float = WINDOW,
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
        self._timeline = Timeline(options.clock, (checked_window("window", window),))
        super().__init__(options.measuring("hit", hit))

    def _new(self) -> RatioState:
        return RatioState(self._timeline)

    def _tagged(self, find: Callable[[Any], RatioState]) -> Callable[[Any], bool]:
        count_overall, is_hit, clock = self._overall.count, self._options.value_of, self._timeline.clock

        def count(event: Any) -> bool:
            hit = bool(is_hit(event))
            series = find(event)
            now = clock()
            series.count(now, hit)
            count_overall(now, hit)
            return True

        return count

    def _untagged(self) -> Callable[[Any], bool]:
        count_overall, is_hit, clock = self._overall.count, self._options.value_of, self._timeline.clock

        def count(event: Any) -> bool:
            count_overall(clock(), bool(is_hit(event)))
            return True

        return count
