"""Locks that hand over the turn, in the place of the real ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Self

import pytest

from mvx.common.metrics import _core, _dispatch, _hub, _inbox, _rounds, _waiting
from tests.concurrency.interleaving.stage import Stage

Replacements = Mapping[ModuleType, Mapping[str, object]]
"""What of the package's surroundings is replaced, by module and name."""


class StageLock:
    """``threading.Lock``, or with ``reentrant`` RLock, on a stage."""

    def __init__(self, stage: Stage, *, reentrant: bool = False) -> None:
        self._stage = stage
        self._reentrant = reentrant
        self._count = 0
        self._owner: object = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not (self._reentrant and self._count and self._owner is self._stage.running):
            if self._count and not blocking:
                return False
            if not self._stage.wait(lambda: not self._count, None if timeout < 0 else timeout):
                return False
        self._count += 1
        self._owner = self._stage.running
        return True

    def release(self) -> None:
        if not self._count:
            raise RuntimeError("release unlocked lock")
        self._count -= 1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


@contextmanager
def staged(stage: Stage, more: Replacements) -> Iterator[None]:
    """Put the stage's time and locks, and ``more``, in the place of the real ones."""
    time = SimpleNamespace(monotonic=stage.monotonic, sleep=stage.sleep, thread_time=lambda: 0.0)
    locks = SimpleNamespace(
        Lock=lambda: StageLock(stage),
        RLock=lambda: StageLock(stage, reentrant=True),
        TIMEOUT_MAX=threading.TIMEOUT_MAX,
        current_thread=threading.current_thread,
        main_thread=threading.main_thread,
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (_inbox, _waiting, _hub, _rounds, _core):
            patch.setattr(module, "time", time)
        for module in (_waiting, _core, _dispatch):
            patch.setattr(module, "threading", locks)
        for module, values in more.items():
            for name, value in values.items():
                patch.setattr(module, name, value, raising=False)
        yield
