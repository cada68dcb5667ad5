"""What was found, as kept in results.json: the comparison and the record of the long tests."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reliability.outcome import Outcome

PATH = Path(__file__).with_name("results.json")


@dataclass
class Tried:
    """What the tests have tried, and how often, without a loss."""

    what: str
    tried: int
    directory: str
    """Of the tests."""


@dataclass
class Results:
    """Everything that the tables show."""

    pythons: dict[str, str]
    """The Python of each contender, and of the tests."""
    situations: list[Outcome]
    tests: list[Tried]

    @classmethod
    def load(cls, path: Path = PATH) -> Results:
        """Read what was kept; nothing, if there is nothing."""
        if not path.exists():
            return cls({}, [], [])
        kept: dict[str, Any] = json.loads(path.read_text())
        return cls(
            kept["pythons"],
            [Outcome(**outcome) for outcome in kept["situations"]],
            [Tried(**tried) for tried in kept["tests"]],
        )

    def save(self, path: Path = PATH) -> None:
        """Keep it."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def tally_of(lines: list[str]) -> list[Tried]:
    """Add up the record of test runs, in the order in which things were tried first.

    Of a test that was run more than once, the last line counts.
    """
    found: dict[tuple[str, str], Tried] = {}
    last = {(entry["test"], entry["what"]): entry for entry in map(json.loads, lines)}
    for entry in last.values():
        directory = str(Path(entry["test"].partition("::")[0]).parent)
        tried = found.setdefault((entry["what"], directory), Tried(entry["what"], 0, directory))
        tried.tried += entry["tried"]
    return list(found.values())
