"""Bar charts of the results, as SVG; runs in the environment ``charts``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from benchmarks import report
from benchmarks.contenders import OURS
from benchmarks.drawing import save, uncluttered

OURS_COLOUR = "#2a6f97"
OTHER_COLOUR = "#b0b7bf"
DECADE = 10.0


def chart(question: str, rows: dict[str, dict[str, float]], to: Path) -> None:
    """Draw one bar a contender for the first figure of a question."""
    figure_name = next(iter(next(iter(rows.values()))))
    names = list(rows)[::-1]
    values = [max(rows[name][figure_name], 1e-3) for name in names]
    ours = (*OURS, "mvx-metrics")
    colours = [OURS_COLOUR if name in ours else OTHER_COLOUR for name in names]
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.34 * len(names)), layout="constrained")
    bars = axes.barh(names, values, color=colours)
    if max(values) > DECADE * min(values):
        axes.set_xscale("log")
    axes.bar_label(bars, labels=[f"{value:,.3g}" for value in values], padding=3, fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel(report.heading(figure_name))
    uncluttered(axes)
    save(figure, to / f"{question}.svg")


def main(results: Path, to: Path) -> None:
    """Draw all."""
    found: dict[str, Any] = json.loads(results.read_text())
    for question, rows in report.medians(found["questions"]).items():
        chart(question, rows, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
