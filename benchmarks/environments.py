"""The virtual environments that the contenders live in: one for each library, made once and kept.

Each contender is measured with its own dependencies and nothing else, and two libraries that share an
import path can be compared at all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "mvx-metrics": (".[trio,uvloop]", "uvicorn==0.54.0"),
    "mvx-common": ("mvx-common==0.3.0", "uvicorn==0.54.0"),
    "prometheus": ("prometheus_client==0.26.0", "uvicorn==0.54.0"),
    "opentelemetry": ("opentelemetry-sdk==1.45.2", "uvicorn==0.54.0"),
    "datadog": ("datadog==0.56.0",),
    "statsd": ("statsd==4.0.1",),
    "inboxes": ("culsans==0.11.0", "aiologic==0.17.1", "janus==2.0.0"),
    "events": (".", "attrs==26.1.0", "msgspec==0.22.0"),
    "charts": ("matplotlib==3.11.2",),
}
"""What is installed in each environment; a dot, with or without extras, is this checkout."""


class EnvironmentFailedError(Exception):
    """An environment could not be made; the message is what pip said."""


def cache() -> Path:
    """Return the directory that the environments are kept in, out of the checkout."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mvx-metrics" / "environments"


def python_of(environment: str, *, tell: Callable[[str], object] = print) -> Path:
    """Return the interpreter of an environment, and make the environment first if it is not there.

    :raises EnvironmentFailedError: if pip fails
    """
    requirements = REQUIREMENTS[environment]
    version = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    # Another checkout, interpreter or list of requirements is another environment.
    ours = requirements[0].startswith(".")
    key = "\n".join((*requirements, version, str(ROOT) if ours else ""))
    place = cache() / f"{environment}-{version}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = place / "bin" / "python"
    finished = place / "finished"
    if finished.exists():
        return python
    tell(f"preparing the environment {environment}: {', '.join(requirements)}")
    venv.create(place, with_pip=True, clear=True)
    wanted = ("-e", *requirements) if ours else requirements
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EnvironmentFailedError(f"environment {environment!r}: {done.stderr.strip()}")
    finished.touch()
    return python
