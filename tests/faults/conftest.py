"""The fixture of the tests that cancel at every checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Effort
from tests.faults.arena import Arena


@pytest.fixture
def arena(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Arena]:
    """The backend of the test, and the effort; thousands of failures that are meant are not logged."""
    logger = logging.getLogger("mvx.common.metrics")
    logger.disabled = True
    yield Arena(*anyio_backend, effort.long)
    logger.disabled = False
