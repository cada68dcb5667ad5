"""Every test of a contract runs on every backend, and in every home where it takes one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import HOMES

BACKENDS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio-debug"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
    pytest.param(
        ("trio", {}),
        id="trio",
        marks=pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed"),
    ),
]


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend of an async test, and of the runtime of a sync one."""
    param: tuple[str, dict[str, Any]] = request.param
    return param


@pytest.fixture
def backend(anyio_backend: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The same as keywords for MetricsRuntime."""
    name, options = anyio_backend
    return {"backend": name, "backend_options": options}


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Threads take turns as often as the interpreter can manage."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest) -> str:
    """Where a recorder's actor lives."""
    param: str = request.param
    return param
