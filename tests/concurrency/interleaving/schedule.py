"""Which schedule comes next: a depth-first search through the decisions, one path of which is a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Replay:
    """One schedule of a scenario."""

    choices: Mapping[int, int]
    """Which of the options was taken where it was not the first, by the number of the decision."""
    shared: frozenset[str]
    """The attributes that were known to be shared."""


class Broken(AssertionError):
    """A schedule under which the code does not do what it should."""

    def __init__(self, what: str, log: Sequence[str], replay: Replay) -> None:
        """Describe the schedule for a reader, and so that it can be run again."""
        steps = "\n".join(f"  {n}. {line}" for n, line in enumerate(log, 1))
        super().__init__(f"{what}\nschedule:\n{steps}\nto run it again: only={replay!r}")
        self.log = tuple(log)
        self.replay = replay


@dataclass(slots=True)
class _Decision:
    """A place where more than one thing could happen."""

    count: int
    """How many things; unknown (-1) where a replay has laid it down and it has not been reached yet."""
    where: object
    chosen: int = 0


class Search:
    """Goes through all schedules, each of which is run from its beginning."""

    def __init__(self) -> None:
        self._laid_down: list[_Decision] = []
        self._made: list[_Decision] = []

    def begin(self) -> None:
        """Begin the schedule that is laid down; behind what is, the first option is taken each time."""
        self._made = []

    def choose(self, count: int, where: object) -> int:
        """Return which of so many options is taken.

        :raises RuntimeError: if the scenario does not do the same as the last time
        """
        index = len(self._made)
        if index < len(self._laid_down):
            decision = self._laid_down[index]
            if decision.count < 0:
                decision.count, decision.where = count, where
            if (decision.count, decision.where) != (count, where):
                msg = f"the same schedule went another way: {decision.where} and {where}"
                raise RuntimeError(msg)
        else:
            decision = _Decision(count, where)
        self._made.append(decision)
        return decision.chosen

    @property
    def choices(self) -> dict[int, int]:
        """What :class:`Replay` holds of the schedule that has been run."""
        return {n: decision.chosen for n, decision in enumerate(self._made) if decision.chosen}

    def advance(self) -> bool:
        """Lay down the next schedule; return whether there is one."""
        path = self._made
        while path:
            last = path[-1]
            if last.chosen + 1 < last.count:
                last.chosen += 1
                self._laid_down = path
                return True
            path.pop()
        return False

    def begin_again(self) -> None:
        """Forget everything: there are more decisions than was known."""
        self._laid_down = []

    def lay_down(self, choices: Mapping[int, int]) -> None:
        """Have the next schedule be that one."""
        self._laid_down = [_Decision(-1, None, choices.get(n, 0)) for n in range(max(choices, default=-1) + 1)]
