"""Copying what other threads change."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

T = TypeVar("T")


def copied(items: deque[T] | dict[T, Any]) -> tuple[T, ...]:
    """Return the items, or the keys, of one moment.

    A copy is made in C, but allocating it may set off the garbage collector, which may run finalizers,
    which may let other threads in.  A deque or a dict notices that it was changed; then, once more.
    """
    while True:
        try:
            return tuple(items)
        except RecursionError:
            raise
        except RuntimeError:  # pragma: no cover — the collector's timing, which no test can force
            continue
