"""A sub-interpreter refuses the library, and is no harm to the main interpreter, where it works."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.processes.launch import run_on
from tests.processes.test_fork import exact

MODULE = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"

pytestmark = pytest.mark.skipif(importlib.util.find_spec(MODULE) is None, reason=f"this Python has no {MODULE}")


@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_subinterpreter_is_refused(kind: str, in_turn: tuple[str, ...]) -> None:
    """Of either kind, in any thread: every way to begin raises an error that names the reason; the main one goes on."""
    for outcome in run_on(in_turn, "subinterpreter", kind):
        if missing := outcome.all("no anyio"):
            pytest.skip(f"anyio cannot be imported in such a sub-interpreter here: {missing[0]['error']}")
        assert len(outcome.all("end", "sub")) == 2
        expected = {
            "start": "MetricsRuntimeStartupError",
            "block": "MetricsRuntimeStartupError",
            "recorder": "RecorderLoopUnavailableError",
        }
        # Not every event loop runs in an isolated one: trio does not on some Pythons.
        if not outcome.all("no loop"):
            expected["astart"] = "MetricsRuntimeStartupError"
            expected["recorder on a loop"] = "RecorderLoopUnavailableError"
        for what, error in expected.items():
            refusals = outcome.all(what, "sub")
            assert [r["error"] for r in refusals] == [error] * 2
            assert all("sub-interpreter" in r["message"] for r in refusals)
        assert [r["state"] for r in outcome.all("state", "sub")] == ["FAILURE"] * 2
        assert {r["error"] for r in outcome.all("create_recorder", "sub")} == {"MetricsRuntimeInvalidStateError"}
        assert [r["error"] for r in outcome.all("shutdown", "sub")] == [None] * 2

        assert outcome.one("snapshot")["total"] == 30
        assert outcome.one("child ended")["code"] == 0
        assert exact(outcome.one("stopped", "child"), 5)
        assert exact(outcome.one("end"), 30)
        assert outcome.one("end")["state"] == "CLOSED"
