"""Every test of a contract runs on every backend, and in every home where it takes one."""

from __future__ import annotations

import importlib.util
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support import HOMES

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore Ctrl-C, and the programs that tests start inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a busy machine asyncio's debug mode finds callbacks slow that are not.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two profiles of the tests that try the same thing many times."""
    group = parser.getgroup("effort")
    group.addoption("--long", action="store_true", help="the long profile: hours instead of minutes")
    group.addoption("--tally", metavar="FILE", help="append what was tried, and how often, to FILE, as JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    """The same two for Hypothesis."""
    # A machine that is busy elsewhere is not a failure, so no example has a deadline.
    hypothesis.settings.register_profile("short", deadline=None, max_examples=50, derandomize=True)
    hypothesis.settings.register_profile("long", deadline=None, max_examples=10_000)
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")


@dataclass(frozen=True)
class Effort:
    """How often a test tries."""

    long: bool

    def __call__(self, short: int, long: int) -> int:
        """Return ``short`` in the profile of every day and ``long`` in the long one."""
        return long if self.long else short


@pytest.fixture
def effort(pytestconfig: pytest.Config) -> Effort:
    """How often to try, by the profile of this run."""
    return Effort(pytestconfig.getoption("--long"))


Tally = Callable[..., None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Put on record what the test has tried: ``tally("cancellations", 1234)``, once all of them went well.

    A test that fails records nothing, so every line of the record is one of tries without a loss.
    """

    def put(what: str, tried: int) -> None:
        path = request.config.getoption("--tally")
        if path is not None:
            line = json.dumps(
                {"what": what, "tried": tried, "test": request.node.nodeid, "python": sys.version.split()[0]}
            )
            with Path(path).open("a") as file:
                file.write(line + "\n")

    return put
