"""What a type checker sees: mypy, strict, over programs that assert the inferred types."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "tests" / "typing").glob("*.py"))

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")


def run_mypy(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mypy, strict, with this project's settings, and nothing but a cache left behind."""
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=300)


@pytest.fixture
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Warm from one run of the tests to the next, where pytest may keep anything."""
    kept: pytest.Cache | None = getattr(request.config, "cache", None)
    return tmp_path if kept is None else kept.mkdir("mypy")


def test_there_are_programs_to_check() -> None:
    """An empty directory would pass every check."""
    assert len(PROGRAMS) >= 3
    for program in PROGRAMS:
        assert "assert_type(" in program.read_text(encoding="utf-8")


def test_the_inferred_types_are_the_documented_ones(cache: Path) -> None:
    """Every assert_type holds, everything wrong in the programs is refused, and nothing else is."""
    # A `type: ignore` that silences nothing is an error under --strict: so are missing refusals.
    done = run_mypy(cache, *map(str, PROGRAMS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_assertion_would_be_found(cache: Path, tmp_path: Path) -> None:
    """The checks above are not vacuous: mypy finds the package and its types."""
    program = tmp_path / "wrong.py"
    program.write_text(
        "from typing import assert_type\n"
        "from mvx.common.metrics import MetricsRuntime\n"
        "def check(runtime: MetricsRuntime) -> None:\n"
        "    assert_type(runtime.create_recorder('x'), int)\n",
        encoding="utf-8",
    )
    done = run_mypy(cache, str(program))
    assert done.returncode == 1
    assert 'Expression is of type "MetricsRecorder", not "int"' in done.stdout
