"""The documented programs run as they stand.

They are part of the specification rather than of this repository, so they lie beside it and are
read from there; where they are not, these tests are skipped.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import runpy
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from mvx.common.metrics import MetricsRuntime
from tests.support import DEADLINE

SPEC = Path(__file__).parents[2] / "shared" / "spec"
CUSTOM_RECORDER = SPEC / "custom_recorder.py"
DOCUMENT_STORAGE = SPEC / "document_storage.py"
REWRITTEN = Path(__file__).parents[1] / "examples" / "emitting.py"

pytestmark = pytest.mark.skipif(
    not (CUSTOM_RECORDER.is_file() and DOCUMENT_STORAGE.is_file()),
    reason="the documented programs are not there, beside the repository",
)

METRIC = "document_storage.save.attempts"


def snapshot(total: int, success_total: int, failure_total: int) -> dict[str, Any]:
    """The snapshot of the documented metric."""
    return {
        "name": METRIC,
        "dimensions": {"total": total, "success_total": success_total, "failure_total": failure_total},
    }


SNAPSHOTS = {METRIC: snapshot(3, 2, 1)}
PUBLISHED = {
    "publisher_is_open": False,
    "published_records": [
        {
            "entity_id": "document_storage",
            "metric_name": METRIC,
            "event_type": "document_storage.save.attempt",
            "snapshot": snapshot(*numbers),
        }
        for numbers in ((1, 1, 0), (2, 2, 0), (3, 2, 1))
    ],
    "snapshots": SNAPSHOTS,
}


def printed_by(path: Path) -> Any:
    """Run a program that prints one literal, with warnings as errors."""
    done = subprocess.run(
        (sys.executable, "-W", "error", str(path)),
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return ast.literal_eval(done.stdout)


def names_of(path: Path) -> dict[str, Any]:
    """What a program defines, when it is not run as the main one."""
    return runpy.run_path(str(path), run_name="documented")


def test_the_custom_recorder_is_a_program() -> None:
    """It prints the documented records and snapshots."""
    assert printed_by(CUSTOM_RECORDER) == PUBLISHED


def test_the_document_storage_is_a_program() -> None:
    """It prints the documented snapshots."""
    assert printed_by(DOCUMENT_STORAGE) == SNAPSHOTS


def test_the_document_storage_returns_its_snapshots() -> None:
    """Its ``main()`` does so in this process, too."""
    assert names_of(DOCUMENT_STORAGE)["main"]() == SNAPSHOTS


def rewritten(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``examples/emitting.py``, imported."""
    example = types.ModuleType("example_emitting")
    monkeypatch.setitem(sys.modules, example.__name__, example)  # dataclasses look their module up
    exec(compile(REWRITTEN.read_text(), str(REWRITTEN), "exec"), vars(example))
    return example


def test_the_rewritten_component_gives_the_same_numbers(
    backend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side, call for call, on every backend: same results, same exceptions, same numbers after each call."""
    example = rewritten(monkeypatch)
    documents = [("" if random.Random(n).random() < 0.3 else str(n), "text") for n in range(200)]

    def outcome_of(storage: Any, document: tuple[str, str]) -> object:
        try:
            return storage.save_document(*document)
        except ValueError as error:
            return str(error)

    with MetricsRuntime(namespace="example.metrics", **backend) as runtime:
        one, other = runtime.create_recorder("documented"), runtime.create_recorder("rewritten")
        documented = names_of(DOCUMENT_STORAGE)["DocumentStorage"]
        storages = [documented(metrics_recorder=one), example.DocumentStorage(metrics_recorder=other)]
        silent = [documented(), example.DocumentStorage()]
        for document in documents:
            assert len({outcome_of(storage, document) for storage in storages + silent}) == 1
            expected = one.get_metric_snapshots()[METRIC]["dimensions"]
            assert example.numbers_of(other.get_metric_snapshots()[METRIC]) == expected
        assert expected["total"] == 200
        assert 0 < expected["failure_total"] < expected["success_total"]


def lines_of_the_component(path: Path) -> int:
    """The lines of a program's component: of all its classes, without blank lines and docstrings."""
    text = path.read_text()
    skipped: set[int] = set()
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines.update(range(first, (node.end_lineno or first) + 1))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            skipped.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return sum(bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number in lines - skipped)


def test_the_rewritten_component_has_a_fifth_of_the_lines() -> None:
    """Event, metric, helper and the work itself, in either: no more than a fifth of the documented lines."""
    assert (lines_of_the_component(DOCUMENT_STORAGE), lines_of_the_component(REWRITTEN)) == (51, 10)


@pytest.mark.anyio
async def test_the_custom_recorder_runs_on_every_backend() -> None:
    """A subclass of ``AsyncioMetricsRecorder`` needs no change under another loop than asyncio's own."""
    example: Callable[[], Awaitable[Any]] = names_of(CUSTOM_RECORDER)["run_custom_recorder_example"]
    with anyio.fail_after(DEADLINE):
        assert await example() == PUBLISHED


@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
def test_the_custom_recorder_runs_by_trio_run() -> None:
    """Driven by trio itself, without anyio around it."""
    import trio  # noqa: PLC0415 — not installed everywhere

    example = names_of(CUSTOM_RECORDER)["run_custom_recorder_example"]
    assert trio.run(example) == PUBLISHED
