"""What all charts have in common; runs in the environment ``charts``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

# With fixed ids, and below without a date, so that the same results give the same file.
mpl.rcParams["svg.hashsalt"] = "mvx-metrics"


def uncluttered(axes: Any) -> None:
    """Take off the lines that say nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG, and let go of it."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
