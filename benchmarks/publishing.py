"""Where the published figures are, and the tables of the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.environments import ROOT

RESULTS = ROOT / "benchmarks" / "results"
"""The published figures and charts."""
PAGE = ROOT / "docs" / "benchmarks.md"


def renew(page: Path, results: Mapping[str, Any]) -> None:
    """Replace the tables of a page, which stand between two marks each, as far as there are new figures."""
    text = page.read_text()
    medians = report.medians(results["questions"])
    tables = {question: report.markdown(report.table(rows)) for question, rows in medians.items()}
    tables["goals"] = report.markdown(report.goal_table(report.judged(medians)))
    tables["machine"] = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in results["machine"].items())
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n{lines}\n\n{end}{rest.partition(end)[2]}"
    page.write_text(text)
