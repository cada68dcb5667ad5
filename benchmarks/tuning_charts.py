"""Charts of what ``benchmarks.tuning`` has measured, as SVG; runs in the environment ``charts``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.drawing import save, uncluttered
from benchmarks.tuning import SWEEPS

PANELS = (
    ("cost of an emit, ns", (("emit_p50_ns", "median"), ("emit_mean_ns", "mean"), ("emit_p99_ns", "99 %"))),
    ("delay of an event, ms", (("delay_p50_ms", "median"), ("delay_p99_ms", "99 %"))),
    ("lost, %", (("lost_percent", "lost"),)),
)
COLOURS = ("#2a6f97", "#7fb3d0", "#c05746")


def chart(setting: str, rows: list[dict[str, Any]], to: Path) -> None:
    """Draw cost, delay and loss over one setting, side by side."""
    label = SWEEPS[setting][0]
    numeric = all(isinstance(row["value"], int | float) for row in rows)
    names = [f"{row['value']:g}" if numeric else str(row["value"]) for row in rows]
    figure, all_axes = plt.subplots(1, len(PANELS), figsize=(10.5, 3.1), layout="constrained")
    for axes, (title, curves) in zip(all_axes, PANELS, strict=True):
        for (name, words), colour in zip(curves, COLOURS, strict=False):
            values = [row[name] for row in rows]
            # Evenly spaced, as the settings are in steps of about three.
            axes.plot(names, values, "o-" if numeric else "o", color=colour, label=words, markersize=4)
        if title != "lost, %":
            axes.set_yscale("log")
            axes.legend(frameon=False, fontsize=7)
        else:
            axes.set_ylim(-3, 103)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=7)
        if not numeric:
            axes.margins(x=0.2)
            axes.tick_params(axis="x", rotation=20)
        uncluttered(axes)
    save(figure, to / f"tuning_{setting}.svg")


def main(results: Path, to: Path) -> None:
    """Draw all."""
    for setting, rows in json.loads(results.read_text()).items():
        chart(setting, rows, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
