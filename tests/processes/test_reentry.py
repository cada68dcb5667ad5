"""Signal handlers and finalizers may emit, at whatever instruction of the library they strike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mvx.common.metrics import OverflowPolicy
from tests.conftest import Effort, Tally
from tests.processes.launch import run_program

Check = Callable[[dict[str, Any]], None]


def check_drop(end: dict[str, Any]) -> None:
    assert end["dropped"] > 0
    assert end["evicted"] == 0


def check_drop_oldest(end: dict[str, Any]) -> None:
    assert end["evicted"] > 0
    assert end["dropped"] == 0


def check_raise_error(end: dict[str, Any]) -> None:
    assert end["rejected"] > 0
    assert end["evicted"] == end["dropped"] == 0


def check_block(end: dict[str, Any]) -> None:
    assert end["evicted"] == end["dropped"] == 0


CHECKS: dict[OverflowPolicy, Check] = {
    OverflowPolicy.DROP: check_drop,
    OverflowPolicy.DROP_OLDEST: check_drop_oldest,
    OverflowPolicy.RAISE_ERROR: check_raise_error,
    OverflowPolicy.BLOCK: check_block,
}


def check_in_full(end: dict[str, Any]) -> None:
    assert end["nested"] > 50
    assert end["offered"] == end["calls"]
    assert end["offered"] == end["accepted"] + end["dropped"] + end["rejected"]
    assert end["accepted"] == end["processed"] + end["evicted"]
    assert end["pending"] == end["abandoned"] == 0
    assert end["metric_errors"] == end["hook_errors"] == 0


@pytest.mark.parametrize("source", ["signal", "signal-on-loop", "finalizer"])
def test_emitting_in_the_midst_of_emitting(backend_name: str, source: str, effort: Effort, tally: Tally) -> None:
    """No deadlock under any policy, and the ledger balances to the event."""
    times = effort(1, 20)
    outcome = run_program("reentry", backend_name, source, times, deadline=60 * times)
    for policy, check_policy in CHECKS.items():
        (end,) = [r for r in outcome.all("emitted") if r["policy"] == policy]
        check_in_full(end)
        check_policy(end)
    assert len(outcome.all("stopped")) == len(CHECKS)
    inside = "finalizers" if source == "finalizer" else "signal handlers"
    tally(f"emits by {inside} in the midst of an emit", sum(r["nested"] for r in outcome.all("emitted")))


def test_reading_the_ledger_in_the_midst_of_reading_it(backend_name: str, effort: Effort, tally: Tally) -> None:
    """A handler that emits to a sleeping recorder and reads its statistics, too, spoils no reading of the ledger."""
    times = effort(1, 20)
    outcome = run_program("reentry", backend_name, "signal-idle", times, deadline=30 * times)
    for policy in OverflowPolicy:
        (end,) = [r for r in outcome.all("emitted") if r["policy"] == policy]
        check_in_full(end)
        assert end["wrong"] == 0
    tally("readings of the ledger by signal handlers", sum(r["nested"] for r in outcome.all("emitted")))
