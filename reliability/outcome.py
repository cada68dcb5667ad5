"""What came of a situation with one library, over all its repetitions."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from reliability.sheet import COLUMNS


@dataclass
class Outcome:
    """What came of a row with one contender; written to results.json."""

    situation: str
    case: str
    contender: str
    deadline: float
    """Seconds that each process was given."""
    processes: int = 0
    repetitions: int = 0
    """How many were begun."""
    tried: int = 0
    """Events offered."""
    accepted: int = 0
    """Events for which register_event() returned."""
    told: int = 0
    """Events for which it raised."""
    processed: int = 0
    """Events that a metric saw."""
    counted: int = 0
    """Accepted events that the library itself counts as not processed."""
    lost: int = 0
    """Accepted events that are neither processed nor counted."""
    surplus: int = 0
    """Events seen more often than offered, or seen although an error was raised."""
    killed: int = 0
    """Processes that did not end in time."""
    exit_codes: dict[str, int] = field(default_factory=dict)
    """Others than the expected one, with the number of processes."""
    tracebacks: int = 0
    """On stderr."""
    notes: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, counted twice, hung, or printed that nobody asked for."""
        wrong = (self.lost, self.surplus, self.killed, self.exit_codes, self.tracebacks, sum(self.faults.values()))
        return not any(wrong)

    def add(self, sheets: Path, lines: Iterable[str], stderr: str) -> None:
        """Take in what one process, and those that it has forked, left behind."""
        self.processes += 1
        total = _total(sheets)
        tried, accepted, told, processed, counted = (total[column] for column in COLUMNS)
        self.tried += tried
        self.accepted += accepted
        self.told += told
        self.processed += processed
        self.counted += counted
        self.lost += max(0, accepted - processed - counted)
        self.surplus += max(0, processed + told - tried)
        self.tracebacks += stderr.count("Traceback (most recent call last)")
        notes, faults = Counter(self.notes), Counter(self.faults)
        for line in lines:
            said = json.loads(line)
            self.repetitions += said.get("begun", 0)
            if "note" in said:
                notes[said["note"]] += 1
            if "fault" in said:
                faults[said["fault"]] += said["number"]
            if "figure" in said:
                name, value = said["figure"], round(said["value"], 5)
                self.figures[name] = max(value, self.figures.get(name, value))
        self.notes, self.faults = dict(notes), dict(faults)


def _total(sheets: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in sheets.glob("*.sheet"):
        for row in struct.iter_unpack(f"{len(COLUMNS)}q", path.read_bytes()):
            total.update(dict(zip(COLUMNS, row, strict=True)))
    return total
