"""``python -m mvx.common.metrics``: the library at work, at a glance."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TextIO

from . import _demo
from ._runtime import BACKENDS
from .errors import MetricsError

if TYPE_CHECKING:
    from rich.console import Console

PROG = "python -m mvx.common.metrics"
DEFAULT_EVENTS = 5_000
BAR_AFTER = 0.5
"""Seconds that a run lasts before a progress bar is shown."""
BAR_EVERY = 0.1
"""Seconds between two redrawings of the bar."""
SUCCESS, FAILURE, INTERRUPTED = 0, 1, 130
DISTRIBUTIONS = ("mvx-metrics", "anyio", "trio", "uvloop")

DESCRIPTION = """\
Save documents in a small component that emits one event for each, measure them in a
MetricsRuntime, and show the metric's snapshot, the recorder's statistics, the throughput
and the versions found.

Nothing gets lost: the recorder's inbox is bounded, and when it is full, OverflowPolicy.BLOCK
lets the component wait for room."""

EPILOG = """\
exit status: 0 if every event was measured, 1 on failure, 2 for wrong usage, 130 after Ctrl-C.
Tables are drawn with rich if that is installed and the output goes to a terminal; they are plain
text elsewhere, and wherever NO_COLOR is set."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table: a title, and rows of a label and a value."""

    title: str
    rows: list[tuple[str, str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    :param argv: the arguments; those of the process by default
    :raises SystemExit: with 2 if they are wrong, with 0 after ``--help`` and ``--version``
    """
    try:
        status = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, `head` for example, has all that it wants: no failure.
        _discard(sys.stdout)
        return SUCCESS
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except MetricsError as error:
        return _fail(error.message)
    except OSError as error:
        _discard(sys.stdout)
        return _fail(f"cannot write: {error}")
    return status


def _fail(message: str) -> int:
    sys.stderr.write(f"{PROG}: error: {message}\n")
    return FAILURE


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        if arguments.uvloop and arguments.backend != "asyncio":
            parser.error(f"argument --uvloop: not allowed with --backend {arguments.backend}")
    finally:
        # Help and errors leave by SystemExit; a reader that has gone shall be noticed all the same.
        sys.stdout.flush()
    with _progress(arguments.events) as progress:
        report = _demo.run(
            arguments.events,
            backend=arguments.backend,
            backend_options={"use_uvloop": True} if arguments.uvloop else None,
            progress=progress,
        )
    loop = f"{arguments.backend} with uvloop" if arguments.uvloop else arguments.backend
    _show(f"{arguments.events:,} events on {loop}", _sections(report), _verdict(report))
    return FAILURE if report.lost else SUCCESS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=BACKENDS[0],
        help="the event loop of the runtime's thread (default: %(default)s)",
    )
    parser.add_argument("--uvloop", action="store_true", help="run asyncio on uvloop")
    parser.add_argument(
        "--events",
        type=_count,
        default=DEFAULT_EVENTS,
        metavar="N",
        help="how many events to emit; a run that takes long shows its progress (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"mvx-metrics {_version('mvx-metrics')}")
    return parser


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        msg = f"must be a whole number, got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
    if count < 1:
        msg = f"must be at least 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return count


# --- what is shown -------------------------------------------------------------------------------


def _sections(report: _demo.Report) -> list[Section]:
    snapshots = [
        Section(f"snapshot of {name}", [(label, f"{value:,}") for label, value in snapshot["dimensions"].items()])
        for name, snapshot in report.snapshots.items()
    ]
    statistics = [(label, f"{value:,}") for label, value in asdict(report.statistics).items()]
    events = report.statistics.offered
    throughput = [
        ("saved and emitted, s", f"{report.emit_seconds:.3f}"),
        ("emitted a second", f"{events / report.emit_seconds:,.0f}"),
        ("until all processed, s", f"{report.total_seconds:.3f}"),
        ("processed a second", f"{report.statistics.processed / report.total_seconds:,.0f}"),
    ]
    versions = [("python", platform.python_version()), *((name, _version(name)) for name in DISTRIBUTIONS)]
    return [
        *snapshots,
        Section("recorder's statistics", statistics),
        Section("throughput", throughput),
        Section("versions", versions),
    ]


def _verdict(report: _demo.Report) -> str:
    if report.lost:
        return f"{report.lost:,} events were lost"
    return f"all {report.statistics.processed:,} events were processed, none was lost"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _show(heading: str, sections: list[Section], verdict: str) -> None:
    console = _console(sys.stdout)
    if console is None:
        sys.stdout.write("\n\n".join([heading, *map(_plain_table, sections), verdict]) + "\n")
        return
    from rich.columns import Columns  # noqa: PLC0415 — an extra, used only at a terminal
    from rich.table import Table  # noqa: PLC0415 — likewise

    tables = []
    for section in sections:
        table = Table(title=section.title, title_justify="left", show_header=False, min_width=len(section.title))
        table.add_column(style="cyan")
        table.add_column(justify="right")
        for row in section.rows:
            table.add_row(*row)
        tables.append(table)
    console.print(heading, style="bold")
    console.print(Columns(tables, padding=(1, 3)))
    console.print(verdict)


def _plain_table(section: Section) -> str:
    left = max(len(label) for label, _ in section.rows)
    right = max(len(value) for _, value in section.rows)
    return "\n".join([section.title, *(f"  {label:<{left}}  {value:>{right}}" for label, value in section.rows)])


# --- where it is shown ---------------------------------------------------------------------------


def _console(stream: TextIO) -> Console | None:
    """Return rich's console for ``stream``, or None where only plain text belongs."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 — an extra, used only at a terminal
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object] | None]:
    """Yield what to call with the number of events done: a bar at a terminal, else nothing.

    The bar goes to stderr, so that it does not get into a file or a pipe that takes the tables.
    """
    stream = sys.stderr
    if not stream.isatty():
        yield None
        return
    console = _console(stream)
    if console is None:
        try:
            yield _now_and_then(
                lambda done: stream.write(f"\r{done / total:4.0%} of {total:,} events") and stream.flush()
            )
        finally:
            stream.write("\r" + " " * 40 + "\r")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn  # noqa: PLC0415 — likewise

    # Redrawn from here rather than by a thread of rich's, which would take part in what is measured.
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True, auto_refresh=False
    )
    task = bar.add_task("events", total=total)

    def draw(done: int) -> None:
        bar.update(task, completed=done)
        bar.start()
        bar.refresh()

    try:
        yield _now_and_then(draw)
    finally:
        bar.stop()


def _now_and_then(draw: Callable[[int], object]) -> Callable[[int], None]:
    """Call ``draw`` for a long run only, and not too often."""
    due = time.monotonic() + BAR_AFTER

    def progress(done: int) -> None:
        nonlocal due
        if (now := time.monotonic()) >= due:
            due = now + BAR_EVERY
            draw(done)

    return progress


def _discard(stream: TextIO) -> None:
    """Let what is still buffered vanish, so that the interpreter does not complain about it at its exit."""
    try:
        descriptor = stream.fileno()
    except OSError:
        return  # not a file
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
