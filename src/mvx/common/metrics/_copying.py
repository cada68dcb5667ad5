"""Copying a deque that other threads append to."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

T = TypeVar("T")


def copied(items: deque[T]) -> tuple[T, ...]:
    """Return the items of one moment.

    A copy is made in C, but allocating it may set off the garbage collector, which may run finalizers,
    which may let other threads in.  A deque notices that it was changed meanwhile; then, once more.
    """
    while True:
        try:
            return tuple(items)
        except RuntimeError:
            continue
