"""Every situation, from the files that there are."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reliability.situation import GROUPS, Situation

PACKAGE = Path(__file__).parent / "situations"


@dataclass(frozen=True)
class Row:
    """A situation in one of its cases."""

    name: str
    case: str
    situation: Situation

    @property
    def title(self) -> str:
        """What the tables call it."""
        return self.situation.title.format(case=self.case)

    def __str__(self) -> str:
        return f"{self.name}, {self.case}" if self.case else self.name


def names() -> list[str]:
    """Return the names of the situations, which are those of their files."""
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def rows(only: str | None = None) -> list[Row]:
    """Return the rows of the tables in their order, or those of one situation."""

    def found() -> Iterator[Row]:
        for name in names() if only is None else [only]:
            situation: Situation = importlib.import_module(f"reliability.situations.{name}").SITUATION
            yield from (Row(name, case, situation) for case in situation.cases)

    return sorted(found(), key=lambda row: GROUPS.index(row.situation.group))
