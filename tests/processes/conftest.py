"""Every program runs on every backend, whose name is its first argument."""

from __future__ import annotations

import importlib.util
import zlib

import pytest

from tests.conftest import Effort
from tests.processes.launch import BACKENDS

ASYNCIO_NAMES = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]
NAMES = [
    *ASYNCIO_NAMES,
    pytest.param(
        "trio",
        marks=pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed"),
    ),
]


@pytest.fixture(params=NAMES)
def backend_name(request: pytest.FixtureRequest) -> str:
    """The first argument of a program."""
    param: str = request.param
    return param


@pytest.fixture(params=ASYNCIO_NAMES)
def asyncio_name(request: pytest.FixtureRequest) -> str:
    """The first argument of a program about what trio does not allow, such as closing a loop under its tasks."""
    param: str = request.param
    return param


@pytest.fixture
def in_turn(request: pytest.FixtureRequest, effort: Effort) -> tuple[str, ...]:
    """The backends for a test whose subject knows none: one in the profile of every day, another one for each test; else all."""
    turn = zlib.crc32(request.node.name.encode()) % len(BACKENDS)
    return BACKENDS[: effort(0, len(BACKENDS))] or BACKENDS[turn : turn + 1]
