"""What keeps the surroundings from growing while the library is watched."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the log from pytest, which remembers every record, and with it whatever its traceback holds."""
    logger = logging.Logger("unheard")  # noqa: LOG001 — one that getLogger() returned would be found by pytest
    logger.addHandler(logging.NullHandler())
    monkeypatch.setattr("mvx.common.metrics._log.logger", logger)


@pytest.fixture
def tidy_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have trio throw away the deadlines that are over at once, and not when there are a thousand of them."""
    monkeypatch.setattr("trio._core._run.DEADLINE_HEAP_MIN_PRUNE_THRESHOLD", 0)
