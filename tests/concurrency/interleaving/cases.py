"""A scenario, and how far it is explored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mvx.common.metrics import _copying, _rounds
from tests.concurrency.interleaving.explore import explore
from tests.concurrency.interleaving.locks import Replacements
from tests.concurrency.interleaving.loop import on_scripted_loops
from tests.concurrency.interleaving.points import Points, interleaved
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.stage import Stage

Make = Callable[[Stage], Scenario]


@dataclass(frozen=True)
class Case:
    """A scenario and how far it is explored."""

    make: Make
    short: int
    """Preemptions in the profile of every day."""
    long: int
    """Preemptions in the long one."""
    time_passes: bool = False
    """Whether a wait may run out."""
    every: int | None = 1
    """Preemptions at every instruction, in the long profile; what then holds does not need the interpreter lock."""
    needs_the_lock: str | None = None
    """Why it does not hold there, if it does not."""
    in_copies: bool = False
    """Whether others are let in in the midst of a copy as well, as the collector's finalizers may do in 3.11."""

    def explore(self, preemptions: int, points: Points = Points.COLLECTOR, **options: Any) -> int:
        """Run every schedule with at most so many preemptions; return how many were run."""
        return explore(
            self.make,
            preemptions=preemptions,
            points=points,
            time_passes=self.time_passes,
            replace=self._replace,
            **options,
        )

    def _replace(self, stage: Stage) -> Replacements:
        copying: Replacements = {_copying: {"tuple": _copy}} if self.in_copies else {}
        scripted = on_scripted_loops(stage)
        # Ten rounds in vain before they end are not different from one.
        return {**scripted, _rounds: {"QUIET_ROUNDS": 1}, **copying}


@interleaved
def _copy(items: Iterable[object]) -> tuple[object, ...]:
    """``tuple()``, step by step: the iterator notices what others change after it was made."""
    iterator = iter(items)
    return tuple(iterator)


class Cases(dict[str, Case]):
    """Cases by name."""

    def add(self, name: str, make: Make, **how: Any) -> None:
        """Enter a case; the keywords are the fields of :class:`Case`."""
        assert name not in self
        self[name] = Case(make, **how)

    def case(self, name: str, **how: Any) -> Callable[[Make], Make]:
        """Enter the decorated function likewise."""

        def enter(make: Make) -> Make:
            self.add(name, make, **how)
            return make

        return enter
