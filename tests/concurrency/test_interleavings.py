"""The inbox protocol and what stands on it, in every interleaving of a few threads with a few preemptions.

The explorer is in ``interleaving/``; ``interleaving/explore.py`` says how it works.
"""

from __future__ import annotations

import pytest

from tests.concurrency.interleaving.catalogue import CASES
from tests.concurrency.interleaving.mutant import Mutant
from tests.concurrency.interleaving.mutants import MUTANTS
from tests.concurrency.interleaving.points import Points
from tests.concurrency.interleaving.schedule import Broken
from tests.conftest import Effort, Tally


@pytest.mark.parametrize("name", CASES)
def test_every_schedule(name: str, effort: Effort, tally: Tally) -> None:
    """Each scenario's invariants hold in every schedule with so many preemptions."""
    case = CASES[name]
    tally("schedules of the inbox protocol", case.explore(effort(case.short, case.long)))


# Those that take two preemptions a day are the quick ones: these do so at every instruction, too.
FINER = {name: case for name, case in CASES.items() if case.every is not None}
QUICK = {name: case for name, case in FINER.items() if case.short > 1 and case.needs_the_lock is None}


def test_at_every_instruction(effort: Effort, tally: Tally) -> None:
    """Nearly all of them do not even need the interpreter lock; with one preemption, at least."""
    schedules = 0
    for name, case in (FINER if effort.long else QUICK).items():
        assert case.every is not None
        try:
            schedules += case.explore(case.every, Points.EVERY)
        except Broken as exc:
            if case.needs_the_lock is None:
                exc.add_note(name)
                raise
        else:
            assert case.needs_the_lock is None, f"{name} holds without it"
    tally("schedules of the inbox protocol, with switches at every instruction", schedules)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_bites(mutant: Mutant, effort: Effort, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that is planted is found, with as many preemptions as it takes."""
    mutant.plant(monkeypatch)
    if mutant.preemptions and effort.long:
        CASES[mutant.case].explore(mutant.preemptions - 1)
    if mutant.short or effort.long:
        with pytest.raises(Broken):
            CASES[mutant.case].explore(mutant.preemptions)
