"""Draw the pictures of docs/instruments.md: ``python -m benchmarks.instrument_charts``.

What they show is measured by the instruments themselves, on a clock of the script's own, and drawn in the
environment ``charts``, which has matplotlib and nothing of ours.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, python_of

IMAGES = ROOT / "docs" / "images"
BLUE, ORANGE, GREEN, GREY = "#2a6f97", "#e07a2f", "#4f9d69", "#b0b7bf"
MINUTES = 20
OUTAGE = (8, 11)
"""Minutes in which one of the two backends fails."""


def measured() -> dict[str, Any]:
    """Return what the instruments show of twenty minutes, every ten seconds."""
    from mvx.common.metrics import MetricEvent  # noqa: PLC0415 — not in the environment that draws
    from mvx.common.metrics.instruments import (  # noqa: PLC0415 — likewise
        Counter,
        Gauge,
        Histogram,
        Rate,
        Ratio,
        Sum,
        Summary,
        UpDownCounter,
        snapshot_delta,
    )

    @dataclass(frozen=True, slots=True)
    class Begun(MetricEvent):
        event_type = "begun"
        waiting: int

    @dataclass(frozen=True, slots=True)
    class Ended(MetricEvent):
        event_type = "ended"
        ok: bool
        seconds: float
        backend: str
        size: int

    now = 0.0
    metrics: dict[str, Any] = {
        "counter": Counter("saves", on=Ended, tags=("backend",)),
        "updown": UpDownCounter[Begun | Ended]("saving", up=Begun, down=Ended),
        "gauge": Gauge("waiting", on=Begun, value="waiting"),
        "sum": Sum("bytes", on=Ended, value="size"),
        "rate": Rate("rate", on=Ended, clock=lambda: now),
        "ratio": Ratio("failures", on=Ended, hit=lambda event: not event.ok, clock=lambda: now),
        "summary": Summary("seconds", on=Ended, value="seconds"),
        "histogram": Histogram("seconds", on=Ended, value="seconds", bounds=[round(0.1 * n, 1) for n in range(1, 31)]),
        "exponential": Histogram("seconds", on=Ended, value="seconds"),
    }
    rng = random.Random(11)
    going: list[tuple[float, float, str, bool]] = []
    shown: list[dict[str, Any]] = []
    while now < MINUTES * 60:
        now += 0.1
        minute = now / 60
        busy = 4 + 3 * math.sin(minute / 3) + (6 if 14 < minute < 16 else 0)  # a rush
        if rng.random() < busy / 10:
            failing = OUTAGE[0] < minute < OUTAGE[1]
            backend = rng.choice(("disk", "s3"))
            fails = failing and backend == "s3"
            seconds = min(rng.lognormvariate(-1.2 if backend == "disk" else -0.4, 0.35) * (3 if fails else 1), 8.0)
            going.append((now + seconds, seconds, backend, not fails and rng.random() > 0.02))
            for name in ("updown", "gauge"):
                metrics[name].handle_event(Begun(len(going)))
        for job in [job for job in going if job[0] <= now]:
            going.remove(job)
            for name in set(metrics) - {"gauge"}:
                metrics[name].handle_event(Ended(job[3], job[1], job[2], int(job[1] * 1e6)))
        if len(shown) < int(now / 10):
            shown.append({"minute": minute} | {name: metrics[name].snapshot() for name in list(metrics)[:6]})
    sums = [None, *(row["sum"] for row in shown[5::6])]
    minutes = [snapshot_delta(earlier, later)["dimensions"]["total"] for earlier, later in pairwise(sums)]
    return {"shown": shown, "minutes": minutes} | {
        name: metrics[name].snapshot() for name in ("summary", "histogram", "exponential")
    }


def draw(found: dict[str, Any], to: Path) -> None:
    """Write one SVG a kind."""
    import matplotlib as mpl  # noqa: PLC0415 — only where this runs

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "mvx-metrics", "svg.fonttype": "none", "font.size": 9}
    draw_levels(found["shown"], to)
    draw_sum(found["shown"], found["minutes"], to)
    draw_times(found["shown"], to)
    draw_distributions(found, to)


def picture(title: str, x: str = "minutes") -> tuple[Any, Any]:
    """Return an empty picture."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — likewise

    figure, axes = plt.subplots(figsize=(7.5, 2.3), layout="constrained")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if x == "minutes":
        axes.set_xlim(0, MINUTES)
    return figure, axes


def save(to: Path, kind: str, figure: Any, axes: Any, *, legend: bool = True) -> None:
    """Write a picture."""
    if legend:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    # Without a date and with fixed ids, so that the same results give the same file.
    figure.savefig(to / f"instrument-{kind}.svg", metadata={"Date": None})


def dimension(shown: list[dict[str, Any]], kind: str, key: str) -> list[float]:
    """Return how a dimension went."""
    return [row[kind]["dimensions"][key] for row in shown]


def draw_levels(shown: list[dict[str, Any]], to: Path) -> None:
    """Draw what is counted and what stands."""
    minutes = [row["minute"] for row in shown]
    figure, axes = picture("Counter: saves in all, by backend")
    totals = {"disk": [0.0] * len(shown), "s3": [0.0] * len(shown)}
    for index, row in enumerate(shown):
        for series in row["counter"]["series"]:
            totals[series["tags"]["backend"]][index] = series["total"]
    axes.stackplot(minutes, *totals.values(), labels=list(totals), colors=(BLUE, GREY))
    save(to, "counter", figure, axes)

    figure, axes = picture("UpDownCounter: saves in flight")
    axes.step(minutes, dimension(shown, "updown", "value"), color=BLUE, label="value", where="post")
    axes.plot(minutes, dimension(shown, "updown", "max"), color=ORANGE, label="max", linestyle="--")
    save(to, "updown", figure, axes)

    figure, axes = picture("Gauge: length of the queue, as last reported")
    low, high = dimension(shown, "gauge", "min"), dimension(shown, "gauge", "max")
    axes.fill_between(minutes, low, high, color="#e3e7eb", label="min to max")
    axes.step(minutes, dimension(shown, "gauge", "last"), color=BLUE, label="last", where="post")
    save(to, "gauge", figure, axes)


def draw_sum(shown: list[dict[str, Any]], minutes: list[float], to: Path) -> None:
    """Draw the total, and what came in each minute."""
    figure, axes = picture("Sum: megabytes saved, in all and in each minute (snapshot_delta)")
    axes.bar(range(len(minutes)), [size / 1e6 for size in minutes], width=0.9, align="edge", color=GREY, label="delta")
    axes.set_ylabel("MB a minute")
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    other.plot([row["minute"] for row in shown], [size / 1e6 for size in dimension(shown, "sum", "total")], color=BLUE)
    axes.plot([], [], color=BLUE, label="total")
    other.set_ylabel("MB in all")
    other.set_ylim(0)
    axes.legend(frameon=False, loc="upper left")
    save(to, "sum", figure, axes, legend=False)


def draw_times(shown: list[dict[str, Any]], to: Path) -> None:
    """Draw what looks at a clock."""
    minutes = [row["minute"] for row in shown]
    figure, axes = picture("Rate: saves per second, with a rush from minute 14 to 16")
    axes.plot(minutes, dimension(shown, "rate", "rate_10s"), color=GREY, label="rate_10s", linewidth=1)
    for key, colour in (("average_1m", BLUE), ("average_5m", ORANGE), ("average_15m", GREEN)):
        axes.plot(minutes, dimension(shown, "rate", key), color=colour, label=key)
    axes.set_ylim(0)
    save(to, "rate", figure, axes)

    figure, axes = picture("Ratio: share of saves that failed; one backend is out from minute 8 to 11")
    axes.axvspan(*OUTAGE, color="#f3e3d7")
    axes.plot(minutes, dimension(shown, "ratio", "window_ratio"), color=ORANGE, label="window_ratio")
    axes.plot(minutes, dimension(shown, "ratio", "ratio"), color=BLUE, label="ratio")
    axes.set_ylim(0)
    save(to, "ratio", figure, axes)


def draw_distributions(found: dict[str, Any], to: Path) -> None:
    """Draw how long it took."""
    (explicit,) = found["histogram"]["series"]
    figure, axes = picture("Histogram: seconds a save took, between explicit bounds", "seconds")
    edges = [0.0, *explicit["bounds"]]
    axes.bar(edges[:-1], explicit["counts"][:-1], width=0.093, align="edge", color=BLUE)
    axes.set_ylabel("saves")
    save(to, "histogram", figure, axes, legend=False)

    (buckets,) = found["exponential"]["series"]
    first, counts = buckets["positive"]["offset"], buckets["positive"]["counts"]
    bounds = [2.0 ** ((first + i) / 2.0 ** buckets["scale"]) for i in range(len(counts) + 1)]
    figure, axes = picture("Summary: seconds a save took, and the quantiles of them", "seconds")
    axes.bar(bounds[:-1], counts, width=[b - a for a, b in pairwise(bounds)], align="edge", color="#c3cdd6")
    axes.set_xscale("log")
    axes.set_xticks((0.1, 0.2, 0.5, 1, 2, 5), ("0.1", "0.2", "0.5", "1", "2", "5"))
    axes.minorticks_off()
    for key, colour in (("p50", BLUE), ("p90", GREEN), ("p99", ORANGE)):
        value = found["summary"]["dimensions"][key]
        axes.axvline(value, color=colour, label=f"{key}: {value:.2f} s")
    axes.set_ylabel("saves")
    save(to, "summary", figure, axes)


def main(arguments: list[str]) -> None:
    """Measure here, draw there."""
    if arguments:
        draw(json.loads(Path(arguments[0]).read_text()), Path(arguments[1]))
        return
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        results = Path(place) / "measured.json"
        results.write_text(json.dumps(measured()))
        command = [str(part) for part in (python_of("charts"), "-m", "benchmarks.instrument_charts", results, IMAGES)]
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
