"""Every example runs, as a program and by its ``main()``, on every backend that it takes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mvx.common.metrics import OverflowPolicy
from tests.support import DEADLINE

EXAMPLES = Path(__file__).parents[1] / "examples"
WITHOUT_TRIO = pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")


# --- what each example must come to --------------------------------------------------------------


def check_document_storage(data: Any, printed: list[str]) -> None:
    assert data == {
        "archive.filings": {"revisions": 3, "words": 26, "longest": 13},
        "archive.refusals": {"unchanged": 1, "untitled": 1},
    }
    assert printed == [
        "refused: 'lease' reads like its last revision",
        "refused: a contract needs a title",
        "archive.filings: revisions 3, words 26, longest 13",
        "archive.refusals: unchanged 1, untitled 1",
    ]


def check_emitting(data: Any, printed: list[str]) -> None:
    # What the documented component comes to: tests/test_spec.py compares the two.
    assert data == {"document_storage.save.attempts": {"total": 3, "success_total": 2, "failure_total": 1}}
    assert printed == [
        "not saved: document_id must not be empty",
        "not saved: document_id must not be empty",
        "document_storage.save.attempts: total 3, success_total 2, failure_total 1",
    ]


def check_instruments(data: Any, printed: list[str]) -> None:
    evening, late = ({name: shown["dimensions"] for name, shown in data[part].items()} for part in ("evening", "late"))
    assert len({shown["kind"] for shown in data["evening"].values()}) == len(evening) == 8
    assert (evening["dishes"], late["dishes"]) == ({"total": 14}, {"total": 11})
    assert (evening["takings"], late["takings"]) == ({"total": 18300, "count": 11}, {"total": 13200, "count": 8})
    assert late["waiting"] == {"value": 0, "min": 0, "max": 5, "up": 11, "down": 11}
    assert (late["complaints"]["hits"], late["complaints"]["events"]) == (3, 11)
    # The last half hour saw the last two tables.
    assert evening["pace"]["rate_1800s"] == pytest.approx(6 / 1800, rel=0.01)
    assert (evening["wait"]["max"], late["wait"]["p50"]) == (52, pytest.approx(22, rel=0.01))
    assert sum(data["late"]["wait.buckets"]["series"][0]["counts"]) == 11
    assert printed[0] == "the evening"
    assert printed[2].split() == ["soup:", "4"]
    assert "the late guests" in printed


def check_custom_recorder(data: Any, printed: list[str]) -> None:
    for way, lift in (("through a runtime", "north"), ("by hand", "south")):
        assert data.pop(way) == [
            {"lift": lift, "after": "lift.travelled", "trips": trips, "floors": floors}
            for trips, floors in ((1, 3), (2, 6), (3, 13))
        ]
    assert data == {}
    assert len(printed) == 8
    assert (printed[0], printed[4]) == ("through a runtime:", "by hand:")
    assert "'trips': 3, 'floors': 13" in printed[-1]


def check_metric_changed_hook(data: Any, printed: list[str]) -> None:
    assert data == [
        "cold store 2: -14.9 degrees, too warm",
        "cold store 2: -18.1 degrees, cold again",
        "cold store 2: -14.0 degrees, too warm",
    ]
    assert printed == ["9 readings, 3 messages", *(f"  {message}" for message in data)]


def check_manual_lifecycle(data: Any, printed: list[str]) -> None:
    assert data == [
        ("made", "VIRGIN", 0),
        ("started", "RUNNING", 0),
        ("flushed", "RUNNING", 3),
        ("waiting in the loop was refused", "STOPPING", 3),
        ("stopped", "STOPPED", 3),
        ("stopping twice is an error result", "STOPPED", 3),
        ("started again", "RUNNING", 3),
        ("stopped from a thread", "STOPPED", 4),
    ]
    assert [line.split()[-3:-1] for line in printed] == [[state, str(cars)] for _, state, cars in data]


def check_trio_block(data: Any, printed: list[str]) -> None:
    assert data == {"a morning": {"left": 20, "middle": 30, "right": 10}, "a power cut": {"left": 5}}
    assert printed == [
        "a morning: left oven 20 loaves, middle oven 30 loaves, right oven 10 loaves",
        "a power cut: left oven 5 loaves",
    ]


def check_backpressure(data: Any, printed: list[str]) -> None:
    outcomes = {outcome.policy: outcome for outcome in data}
    assert list(outcomes) == [policy.value for policy in OverflowPolicy]
    assert all(outcome.processed + outcome.lost == 300 for outcome in data)
    drop, oldest = outcomes["DROP"], outcomes["DROP_OLDEST"]
    raising, block = outcomes["RAISE_ERROR"], outcomes["BLOCK"]
    assert drop.lost > 0
    assert (drop.errors, drop.first) == (0, 1)
    assert oldest.lost > 0
    assert (oldest.errors, oldest.last) == (0, 300)
    assert raising.errors == raising.lost > 0
    assert (block.lost, block.errors, block.first, block.last) == (0, 0, 1, 300)
    # All but those that found room had to wait for a hook of one millisecond each.
    assert block.emitting_ms > 250
    assert printed[0] == "300 parcels at once, room for 20, 1 ms for each"
    assert [line.split()[0] for line in printed[2:]] == ["policy", *outcomes]


CHECKS: dict[str, Callable[[Any, list[str]], None]] = {
    "backpressure": check_backpressure,
    "custom_recorder": check_custom_recorder,
    "document_storage": check_document_storage,
    "emitting": check_emitting,
    "instruments": check_instruments,
    "manual_lifecycle": check_manual_lifecycle,
    "metric_changed_hook": check_metric_changed_hook,
    "trio_block": check_trio_block,
}
"""By the name of the file; each gets what ``main()`` returned and the lines printed."""

every_example = pytest.mark.parametrize("name", CHECKS)
every_backend = pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=WITHOUT_TRIO)])


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example, which is not a module of any package."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_file(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a user would, only stricter.

    Not in development mode: asyncio then complains on stderr of a slow step, which a busy machine is enough for.
    """
    return subprocess.run(
        (sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )


def test_every_example_is_tested() -> None:
    """A new file in ``examples/`` needs a check here, and a check needs its file."""
    assert {path.stem for path in EXAMPLES.glob("**/*.py")} == set(CHECKS)


@every_backend
@every_example
def test_what_an_example_returns_and_prints(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``main(backend)`` returns its data and prints it readably."""
    data = load(name, monkeypatch).main(backend)
    out, err = capsys.readouterr()
    CHECKS[name](data, out.splitlines())
    assert err == ""


@every_backend
@every_example
def test_an_example_is_a_program(name: str, backend: str) -> None:
    """``python examples/….py --backend …`` ends well, without a word on stderr."""
    done = run_file(name, "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@every_example
def test_an_example_has_a_default_backend(name: str) -> None:
    """It starts without arguments and prints the same kind of thing."""
    if name == "trio_block" and importlib.util.find_spec("trio") is None:
        pytest.skip("trio is not installed")
    done = run_file(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@every_example
def test_an_example_refuses_an_unknown_backend(name: str) -> None:
    """By a usage message that names those that there are."""
    done = run_file(name, "--backend", "curio")
    assert done.returncode == 2
    assert "asyncio" in done.stderr
    assert "trio" in done.stderr


@every_example
def test_an_example_says_what_it_shows_and_how_to_run_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstring begins with a sentence and holds the command; ``main()`` has a docstring of its own."""
    example = load(name, monkeypatch)
    assert example.__doc__ is not None
    assert example.__doc__.splitlines()[0].endswith(".")
    assert f"python examples/{name}.py" in example.__doc__
    assert example.main.__doc__


def test_the_archive_works_without_a_recorder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The component's metrics are optional: the same documents are filed and refused."""
    example = load("document_storage", monkeypatch)
    example.work_with(example.ContractArchive())
    assert len(capsys.readouterr().out.splitlines()) == 2
