"""The ledger by itself: what a reading of numbers in motion may and may not say."""

from __future__ import annotations

import dataclasses

import pytest

from mvx.common.metrics import RecorderStatistics
from mvx.common.metrics._statistics import MAX_READINGS, READERS, Ledger


def read(ledger: Ledger, waiting: int = 0) -> RecorderStatistics:
    return ledger.read(waiting=lambda: waiting, capacity=9)


def test_a_new_ledger_is_at_zero() -> None:
    """And so is one that begins anew, in a forked child, whatever it has counted."""
    ledger = Ledger()
    nothing = {**dict.fromkeys([field.name for field in dataclasses.fields(RecorderStatistics)], 0), "capacity": 9}
    assert dataclasses.asdict(read(ledger)) == nothing
    for counter in (ledger.dropped, ledger.rejected, ledger.evicted, ledger.metric_errors, ledger.hook_errors):
        counter.increment()
    ledger.processed = ledger.taken = ledger.unmatched = ledger.abandoned = 5
    ledger.high_water = ledger.full = ledger.losses_told = 5
    read(ledger, waiting=3)
    ledger.reset()
    assert dataclasses.asdict(read(ledger)) == nothing
    assert (ledger.taken, ledger.full, ledger.losses_told) == (0, 0, 0)


def test_every_number_has_its_place() -> None:
    """Each counted apart, and both sums right."""
    ledger = Ledger()
    for times, counter in enumerate(
        (ledger.dropped, ledger.rejected, ledger.evicted, ledger.metric_errors, ledger.hook_errors), start=1
    ):
        for _ in range(times):
            counter.increment()
    ledger.processed, ledger.taken, ledger.unmatched, ledger.abandoned = 60, 61, 7, 8
    assert dataclasses.asdict(read(ledger, waiting=10)) == {
        "offered": 60 + 1 + 10 + 3 + 8 + 1 + 2,
        "accepted": 60 + 1 + 10 + 3 + 8,
        "processed": 60,
        "pending": 11,
        "dropped": 1,
        "rejected": 2,
        "evicted": 3,
        "abandoned": 8,
        "metric_errors": 4,
        "hook_errors": 5,
        "unmatched": 7,
        "high_water": 11,
        "capacity": 9,
    }


@pytest.mark.parametrize("name", ["processed", "abandoned", "taken", "evicted"])
def test_a_disturbed_reading_is_repeated(name: str) -> None:
    """Whatever has moved, until nothing does; the one that was not disturbed counts."""
    ledger = Ledger()
    readings = 0

    def waiting() -> int:
        nonlocal readings
        readings += 1
        if readings < 5:
            if name == "evicted":
                ledger.evicted.increment()
            else:
                setattr(ledger, name, getattr(ledger, name) + 1)
                if name == "processed":
                    ledger.taken += 1
        return 0

    now = ledger.read(waiting=waiting, capacity=9)
    assert readings == 5
    assert now.accepted == 4


def test_a_reading_gives_up_in_the_end() -> None:
    """So many are disturbed, and the last one is good enough."""
    ledger = Ledger()
    readings = 0

    def waiting() -> int:
        nonlocal readings
        readings += 1
        ledger.taken += 1
        ledger.processed += 1
        return 0

    assert ledger.read(waiting=waiting, capacity=9).processed == MAX_READINGS - 1
    assert readings == MAX_READINGS


def test_what_an_earlier_reading_has_seen_is_not_taken_back() -> None:
    """Accepted never falls: an event that this reading has missed is pending; it says nothing of the height."""
    ledger = Ledger()
    ledger._accepted_seen.append(4)
    now = read(ledger, waiting=1)
    assert (now.accepted, now.pending, now.high_water) == (4, 4, 0)


MANY = 30
"""Readers that are held up at the same time."""


def test_readers_that_are_held_up_take_nothing_back() -> None:
    """Many at once, each after it has looked at what the others saw, and then one that sees more than all of them."""
    ledger = Ledger()

    class HeldUp(int):
        """A number in whose comparison somebody else reads the ledger."""

        depth = 0

        def __radd__(self, other: int) -> int:
            total = HeldUp(other + int(self))
            total.depth = self.depth
            return total

        def __lt__(self, other: int) -> bool:
            depth, self.depth = self.depth, 0
            if depth:
                nest(depth - 1)
            return int(self) < other

    def nest(depth: int) -> None:
        held = HeldUp(3 if depth else 7)
        held.depth = depth
        ledger.read(waiting=lambda: held, capacity=9)

    nest(MANY)
    now = read(ledger)
    assert (now.accepted, now.high_water) == (7, 7)


def test_the_height_is_the_highest_of_all_that_saw_it() -> None:
    """The actor, an event that found no room, and a reading; and it never falls."""
    ledger = Ledger()
    assert read(ledger, waiting=2).high_water == 2
    ledger.high_water = 3
    assert read(ledger).high_water == 3
    ledger.full = 9
    assert read(ledger).high_water == 9
    ledger.high_water = ledger.full = 0
    assert read(ledger).high_water == 9


def test_what_is_remembered_of_readings_is_bounded() -> None:
    """However many there are."""
    ledger = Ledger()
    for n in range(3 * READERS):
        read(ledger, waiting=n % 7)
    assert len(ledger._accepted_seen) == len(ledger._high_water_seen) == READERS
    ledger.reset()
    for n in range(3 * READERS):
        read(ledger, waiting=n % 7)
    assert len(ledger._accepted_seen) == len(ledger._high_water_seen) == READERS


def test_a_reading_that_was_wrong_is_forgotten() -> None:
    """It had seen an event that was refused in the end: what is there counts anew."""
    ledger = Ledger()
    for _ in range(2 * READERS):
        assert read(ledger, waiting=3).accepted == 3
    ledger.look_again()
    assert read(ledger, waiting=0).accepted == 0
    assert ledger._accepted_seen == [0, 0]  # nothing of before: where the next ones are compared from, and this one
    for _ in range(2 * READERS):
        assert read(ledger, waiting=2).accepted == 2
    assert len(ledger._accepted_seen) == READERS
