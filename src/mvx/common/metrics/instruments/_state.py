"""What one series of an instrument has measured."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from typing import Any

_tick = itertools.count()


def mark() -> float:
    """Return Unix time in seconds, with a microsecond's digits that tell two marks of one process apart."""
    return int(time.time() * 1e3) / 1e3 + next(_tick) % 1000 * 1e-6


class State(ABC):
    """Measured values of one series, and where they begin."""

    __slots__ = ("started", "touched")

    def __init__(self) -> None:
        self.started = mark()
        """When counting began, Unix seconds; another mark means that it began anew."""
        self.touched = 0.0
        """When the last event came, by the instrument's clock; kept only where series expire."""

    def may_expire(self) -> bool:
        """Whether being idle is enough to be taken out."""
        return True

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """Return the values for a snapshot, as new JSON values."""
        ...
