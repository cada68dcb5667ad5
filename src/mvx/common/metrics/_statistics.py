"""The exact ledger of a recorder: where every offered event went."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RecorderStatistics:
    """What became of the events offered to one recorder, and how its metrics and hooks fared.

    In every reading, ``offered == accepted + dropped + rejected`` and
    ``accepted == processed + pending + evicted + abandoned``.  All but ``pending`` and
    ``capacity`` only ever grow; a restart goes on counting, a forked child begins at zero.
    """

    offered: int
    """Events handed to the recorder, not counting bad input."""
    accepted: int
    """Events taken into the inbox."""
    processed: int
    """Events that every interested metric has seen, hooks included."""
    pending: int
    """Events accepted and not yet processed, the one under way included."""
    dropped: int
    """New events thrown away by ``OverflowPolicy.DROP``."""
    rejected: int
    """Events refused with an error to the emitter: a full inbox, or a recorder that takes none."""
    evicted: int
    """Waiting events thrown away by ``OverflowPolicy.DROP_OLDEST``."""
    abandoned: int
    """Accepted events that the recorder did not get to: its drain ran out of time, it failed, or its loop is gone."""
    metric_errors: int
    """Exceptions raised by metrics, in ``handle_event`` or ``snapshot``."""
    hook_errors: int
    """Exceptions raised by hooks, and an ``_on_metric_changed`` or ``_on_stopped`` cut short."""
    unmatched: int
    """Processed events that no registered metric wanted."""
    high_water: int
    """The most events seen pending: at the beginning of a pass, in a reading, and when an event found no room."""
    capacity: int
    """The bound on pending events."""


MAX_READINGS = 100
"""How often the ledger is read at most until a reading was not disturbed."""


READERS = 64
"""How many readers may be held up in the midst of a reading at once without any count ever falling."""


class AtomicCounter(itertools.count):  # type: ignore[type-arg] # generic for the type checker alone
    """Counts and is read from any thread, signal handler or finalizer, without a lock.

    ``next()`` of an ``itertools.count`` is one step of C.  So is its ``repr()``, the one way to look
    at a count without stepping it.  A lock would not do: a signal handler that waits for the actor
    may have interrupted the thread that holds it.
    """

    __slots__ = ()

    increment = itertools.count.__next__

    def value(self) -> int:
        """Return how often :meth:`increment` was called."""
        return int(repr(self)[len("AtomicCounter(") : -1])


class Ledger:
    """The counters behind :class:`RecorderStatistics`.

    The public numbers are written by the actor alone, the atomic ones by anybody.  How many
    events were accepted is not counted but deduced, so the hot path pays nothing for it.
    """

    __slots__ = (
        "_accepted_seen",
        "_high_water_seen",
        "abandoned",
        "dropped",
        "evicted",
        "full",
        "high_water",
        "hook_errors",
        "losses_told",
        "metric_errors",
        "processed",
        "rejected",
        "taken",
        "unmatched",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at zero; for a forked child."""
        self.dropped = AtomicCounter()
        self.rejected = AtomicCounter()
        self.evicted = AtomicCounter()
        self.metric_errors = AtomicCounter()
        self.hook_errors = AtomicCounter()
        self.processed = 0
        self.unmatched = 0
        self.abandoned = 0
        self.taken = 0
        """Events taken out of the inbox to be handled; one more than ``processed`` while one is being handled."""
        self.high_water = 0
        """As the actor sees it."""
        self.full = 0
        """The capacity, once an event has found no room."""
        self.losses_told = 0
        """How many dropped and evicted events the log has spoken of."""
        self._accepted_seen = [0]
        self._high_water_seen = [0]

    def look_again(self) -> None:
        """Forget earlier readings: one may have seen an event that has since been refused, its consumer being gone."""
        self._accepted_seen[:] = [0]

    def read(self, *, waiting: Callable[[], int], capacity: int) -> RecorderStatistics:
        """Return the numbers of this moment; ``waiting`` tells how many events the inbox holds."""
        for _ in range(MAX_READINGS):
            # Against the stream, so that an event that moves on meanwhile is missed and not counted
            # twice; and again if one has moved.
            before = self.processed, self.abandoned, self.evicted.value(), self.taken
            held = waiting()
            if before == (self.processed, self.abandoned, self.evicted.value(), self.taken):
                break
        processed, abandoned, evicted, taken = before
        in_flight = taken - processed
        gone = processed + abandoned + evicted
        # What this reading has missed, an earlier one may have seen.
        here = gone + in_flight + held
        accepted = _highest(self._accepted_seen, here)
        high_water = max(self.high_water, self.full, in_flight + held if accepted == here else 0)
        dropped, rejected = self.dropped.value(), self.rejected.value()
        return RecorderStatistics(
            offered=accepted + dropped + rejected,
            accepted=accepted,
            processed=processed,
            pending=accepted - gone,
            dropped=dropped,
            rejected=rejected,
            evicted=evicted,
            abandoned=abandoned,
            metric_errors=self.metric_errors.value(),
            hook_errors=self.hook_errors.value(),
            unmatched=self.unmatched,
            high_water=_highest(self._high_water_seen, high_water),
            capacity=capacity,
        )


def _highest(seen: list[int], value: int) -> int:
    """Note ``value`` and return the highest value noted; without a lock, so that readers may overlap."""
    highest = max(value, *seen)
    # Not a variable: a reader that was held up would put an older maximum back.
    seen.append(highest)
    del seen[:-READERS]
    return highest
