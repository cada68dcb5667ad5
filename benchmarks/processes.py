"""Measuring and drawing, each in a process and an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, python_of

DEADLINE = 300.0
"""Seconds that one measurement may take; none comes near when all is well."""


def tell(text: str) -> None:
    """Show progress, apart from the tables."""
    sys.stderr.write(f"{text}\n")  # in one piece: threads tell side by side
    sys.stderr.flush()


def measured(environment: str, module: str, *arguments: str) -> dict[str, float]:
    """Return the figures that a module of this package prints last, run in ``environment``.

    :raises EnvironmentFailedError: if the environment could not be made
    :raises RuntimeError: if the process fails, with what it said
    """
    done = subprocess.run(
        [str(python_of(environment, tell=tell)), "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def write(results: Mapping[str, Any], name: str, charts: str, to: Path) -> None:
    """Write ``results`` as JSON under ``name`` to a directory, and the charts that the module ``charts`` draws of them.

    :raises EnvironmentFailedError: if the environment could not be made
    """
    to.mkdir(parents=True, exist_ok=True)
    path = (to / name).resolve()
    path.write_text(json.dumps(results, indent=1) + "\n")
    python = str(python_of("charts", tell=tell))
    subprocess.run([python, "-m", f"benchmarks.{charts}", str(path), str(path.parent)], cwd=ROOT, check=True)
