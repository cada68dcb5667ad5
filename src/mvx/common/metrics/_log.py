"""Diagnostics: the logger ``mvx.common.metrics``, its structured fields, and a limited rate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

from ._interrupt import is_for_the_thread

logger = logging.getLogger("mvx.common.metrics")
logger.addHandler(logging.NullHandler())

REPEAT_INTERVAL = 60.0
"""Seconds for which a repetition of the same failure is counted instead of logged."""


class LimitedLog:
    """Logs each kind of failure once an interval, with the count of what was held back since.

    Nothing that goes wrong here reaches the caller: a broken log handler must not stop a
    recorder.  The number of kinds remembered is bounded.
    """

    __slots__ = ("_clock", "_interval", "_seen")

    MAX_KINDS = 256

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, interval: float = REPEAT_INTERVAL) -> None:
        self._clock = clock
        self._interval = interval
        # kind -> (time of the last record, number held back since)
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def log(
        self,
        level: int,
        kind: Hashable,
        message: str,
        *args: object,
        error: BaseException | None = None,
        fields: dict[str, Any],
    ) -> bool:
        """Log ``message % args`` unless this ``kind`` was logged within the interval; return whether it was."""
        now = self._clock()
        last, held_back = self._seen.get(kind, (None, 0))
        if last is not None and now - last < self._interval:
            self._seen[kind] = (last, held_back + 1)
            return False
        if len(self._seen) >= self.MAX_KINDS:
            self._seen.clear()
        self._seen[kind] = (now, 0)
        if held_back:
            message += " (%d more like this held back)"
            args = (*args, held_back)
        emit(level, message, *args, error=error, fields={**fields, "held_back": held_back})
        return True


def emit(level: int, message: str, *args: object, error: BaseException | None = None, fields: dict[str, Any]) -> None:
    """Log one record with ``fields`` as attributes; raises nothing but Ctrl-C."""
    # In three parts: logging would ask a mere exception for its truth, which may be its own.
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    try:
        logger.log(level, message, *args, exc_info=exc_info, extra=fields)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise  # of everything else there is nobody left to tell
