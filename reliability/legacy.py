"""An environment of its own for mvx-common 0.3.0, which could not live beside this library."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENT = "mvx-common==0.3.0"
NAME = "mvx-common 0.3.0"
_PROBE = (
    "import importlib.metadata as m, platform; import mvx.common.metrics;"
    "print(m.version('mvx-common'), platform.python_version())"
)


class LegacyError(Exception):
    """There is no environment with mvx-common 0.3.0."""


def default_cache() -> Path:
    """Return the directory that keeps the environment from one run to the next."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvx-metrics-reliability"


def python_version(python: str) -> str:
    """Return the Python version of an environment with mvx-common 0.3.0.

    :raises LegacyError: if there is no such interpreter, or it has something else
    """
    try:
        # -I: whatever this process was pointed to by its environment is no part of that one.
        done = subprocess.run([python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LegacyError(f"{python} cannot be run: {error}") from error
    if done.returncode != 0:
        raise LegacyError(f"{python} cannot import mvx.common.metrics from an installed {REQUIREMENT}")
    version, python_of = done.stdout.split()
    if version != REQUIREMENT.partition("==")[2]:
        raise LegacyError(f"{python} has mvx-common {version}, not {REQUIREMENT}")
    return python_of


def prepare(cache: Path) -> str:
    """Return the interpreter of an environment in ``cache``, which is made if it is not there.

    :raises LegacyError: if it cannot be made
    """
    # The interpreter that runs this library, so that the comparison is one of libraries alone.
    home = cache / f"{REQUIREMENT.replace('==', '-')}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    if python.exists():
        try:
            python_version(str(python))
        except LegacyError:
            pass  # interrupted while it was made
        else:
            return str(python)
    print(f"making an environment for {NAME}", flush=True)
    try:
        venv.create(home, clear=True, with_pip=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        last = (str(error.stderr or "").strip().splitlines() or ["no reason was given"])[-1]
        raise LegacyError(f"{REQUIREMENT} cannot be installed: {last}") from error
    except OSError as error:
        raise LegacyError(f"no environment can be made in {cache}: {error}") from error
    python_version(str(python))
    return str(python)
