"""``python -m mvx.common.metrics``: what it shows where, how it fails, and how it ends."""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mvx.common.metrics import MetricsRuntimeStartupError, _demo
from mvx.common.metrics import __main__ as cli
from mvx.common.metrics.__main__ import main
from tests.support import DEADLINE, Tick, balanced

# Not in development mode: asyncio then complains on stderr of a slow step, which a busy machine is enough for.
COMMAND = (sys.executable, "-W", "error", "-m", "mvx.common.metrics")
ESCAPE = "\x1b"


class Terminal(io.StringIO):
    """A stream that says that somebody is looking at it."""

    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the surroundings of the tests say about terminals does not count."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def flags(backend: dict[str, Any]) -> list[str]:
    """The options that choose a backend."""
    uvloop = ["--uvloop"] if backend["backend_options"].get("use_uvloop") else []
    return ["--backend", backend["backend"], *uvloop]


@pytest.fixture
def always_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run counts as long from its beginning, and every report of progress is drawn."""
    monkeypatch.setattr(cli, "BAR_AFTER", 0.0)
    monkeypatch.setattr(cli, "BAR_EVERY", 0.0)


def rows(text: str) -> dict[str, str]:
    """The rows of the plain tables."""
    return dict(re.findall(r"^  (\S.*?)  +(\S+)$", text, flags=re.MULTILINE))


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``program`` in an interpreter of its own."""
    return subprocess.run(
        (sys.executable, "-W", "error", "-c", program, *arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


# --- what it shows -------------------------------------------------------------------------------


def test_it_shows_snapshot_statistics_throughput_and_versions(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every event is measured, and the tables say so."""
    assert main([*flags, "--events", "1234"]) == 0
    out, err = capsys.readouterr()
    table = rows(out)
    assert out.startswith("1,234 events on ")
    assert (table["saved"], table["refused"]) == ("1,172", "62")
    assert table["offered"] == table["accepted"] == table["processed"] == "1,234"
    assert table["pending"] == table["dropped"] == table["rejected"] == table["evicted"] == table["abandoned"] == "0"
    assert {"emitted a second", "processed a second"} < set(table)
    for name in ("mvx-metrics", "anyio", "trio", "uvloop"):
        assert table[name] == importlib.metadata.version(name)
    assert table["python"] == ".".join(map(str, sys.version_info[:3]))
    assert out.endswith("all 1,234 events were processed, none was lost\n")
    assert err == ""


def test_it_names_the_loop_that_it_used(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The heading tells uvloop from asyncio's own loop."""
    main([*flags, "--events", "1"])
    loop = "asyncio with uvloop" if "--uvloop" in flags else flags[1]
    assert capsys.readouterr().out.splitlines()[0] == f"1 events on {loop}"


def test_more_events_than_the_inbox_holds_are_not_lost() -> None:
    """The component waits for room."""
    report = _demo.run(25_000)
    assert report.statistics.capacity < 25_000
    assert report.statistics.processed == 25_000
    assert report.lost == 0
    assert balanced(report.statistics)
    assert 0 < report.emit_seconds <= report.total_seconds


def test_progress_is_reported_in_slices_up_to_the_last_event() -> None:
    """The last report is the number of events, whether or not it fills a slice."""
    reports: list[int] = []
    _demo.run(2_500, progress=reports.append)
    assert reports == [1_000, 2_000, 2_500]


def test_a_package_that_is_missing_is_shown_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions are looked up, not imported."""

    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["--events", "1"]) == 0
    assert re.search(r"uvloop +not installed$", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_component_works_without_a_recorder() -> None:
    """Metrics are optional: saving and refusing stay the same."""
    documents = _demo.Documents(longest=3)
    documents.save("short", "abc")
    with pytest.raises(ValueError, match="'long' has 4 characters; 3 are allowed"):
        documents.save("long", "abcd")


def test_the_metric_leaves_other_events_alone() -> None:
    """Also when it is asked about one, it counts saves only."""
    metric = _demo.Saves()
    assert metric.handle_event(Tick()) is False
    assert metric.handle_event(_demo.SaveTried(length=3, saved=True)) is True
    assert metric.snapshot()["dimensions"] == {"saved": 1, "refused": 0, "characters": 3}
    assert _demo.SaveTried(length=3, saved=True).event_type == "documents.save_tried"


# --- where it shows it ---------------------------------------------------------------------------


def test_at_a_terminal_rich_draws_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes and colours, with the same numbers."""
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main(["--events", "1234"]) == 0
    assert ESCAPE in terminal.getvalue()
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert re.search(r"│ processed +│ +1,234 │", text)
    assert text.splitlines()[0] == "1,234 events on asyncio"
    assert "snapshot of documents.saves" in text
    assert text.endswith("all 1,234 events were processed, none was lost\n")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_no_colours_gets_plain_text(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR and a dumb terminal are respected."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main(["--events", "10"]) == 0
    assert ESCAPE not in terminal.getvalue()
    assert rows(terminal.getvalue())["processed"] == "10"


def test_without_rich_a_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich is an extra, not a condition."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main(["--events", "10"]) == 0
    assert ESCAPE not in terminal.getvalue()
    assert rows(terminal.getvalue())["processed"] == "10"


@pytest.mark.usefixtures("always_a_bar")
def test_a_long_run_shows_a_bar_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables in stdout stay free of it, and in the end the cursor is visible again."""
    pytest.importorskip("rich")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(["--events", "3000"]) == 0
    assert "2000/3000" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert ESCAPE not in capsys.readouterr().out


@pytest.mark.usefixtures("always_a_bar")
def test_without_colours_the_progress_is_plain_and_wiped_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, written over itself."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(["--events", "2000"]) == 0
    assert terminal.getvalue() == "\r 50% of 2,000 events\r100% of 2,000 events\r" + " " * 40 + "\r"
    assert capsys.readouterr().out.startswith("2,000 events")


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_a_short_run_shows_no_bar(no_colour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done before anybody could wonder needs no bar."""
    monkeypatch.setattr(cli, "BAR_AFTER", float("inf"))
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert main(["--events", "2000"]) == 0
    assert terminal.getvalue().strip() == ""


@pytest.mark.usefixtures("always_a_bar")
def test_nobody_at_stderr_means_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file is no place for one."""
    assert main(["--events", "2000"]) == 0
    assert capsys.readouterr().err == ""


def test_a_pipe_gets_plain_text(flags: list[str]) -> None:
    """As a program of its own: no escapes, no words on stderr, status 0."""
    done = subprocess.run(
        (*COMMAND, *flags, "--events", "300"), check=False, capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ESCAPE not in done.stdout
    assert rows(done.stdout)["processed"] == "300"


def test_the_core_dependencies_suffice() -> None:
    """Without rich, trio and uvloop it runs on asyncio."""
    program = (
        "import sys\n"
        "for extra in ('rich', 'trio', 'uvloop'): sys.modules[extra] = None\n"
        "from mvx.common.metrics.__main__ import main\n"
        "sys.exit(main(['--events', '10']))"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout)["processed"] == "10"


def test_a_pipe_loads_no_extra() -> None:
    """What is not shown is not imported."""
    program = (
        "import sys\n"
        "from mvx.common.metrics.__main__ import main\n"
        "main(['--events', '10'])\n"
        "print('loaded', sorted({'rich', 'trio', 'uvloop'} & set(sys.modules)))"
    )
    assert run_python(program).stdout.splitlines()[-1] == "loaded []"


# --- how it fails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--events", "0"], "argument --events: must be at least 1, got '0'"),
        (["--events=-5"], "argument --events: must be at least 1, got '-5'"),
        (["--events", "many"], "argument --events: must be a whole number, got 'many'"),
        (["--events", "1.5"], "argument --events: must be a whole number, got '1.5'"),
        (["--events"], "argument --events: expected one argument"),
        (["--backend", "curio"], "argument --backend: invalid choice: 'curio'"),
        (["--backend", "trio", "--uvloop"], "argument --uvloop: not allowed with --backend trio"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_usage_is_told_with_status_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the argument, what is wrong with it, and what was given."""
    with pytest.raises(SystemExit) as excinfo:
        main(arguments)
    out, err = capsys.readouterr()
    assert excinfo.value.code == 2
    assert out == ""
    assert err.startswith("usage: python -m mvx.common.metrics")
    assert complaint in err


def test_the_help_tells_options_statuses_and_the_overflow_policy(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that one needs to know before a run."""
    with pytest.raises(SystemExit) as excinfo:
        main(["--help"])
    out, err = capsys.readouterr()
    assert excinfo.value.code == 0
    assert err == ""
    for words in ("--backend {asyncio,trio}", "--uvloop", "--events N", "(default: 5000)", "OverflowPolicy.BLOCK"):
        assert words in out
    assert "exit status: 0" in out
    assert "NO_COLOR" in out


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    """For reports of bugs."""
    with pytest.raises(SystemExit) as excinfo:
        main(["--version"])
    assert excinfo.value.code == 0
    assert capsys.readouterr().out == f"mvx-metrics {importlib.metadata.version('mvx-metrics')}\n"


@pytest.mark.parametrize(
    ("extra", "arguments"), [("trio", ["--backend", "trio"]), ("uvloop", ["--uvloop"])], ids=["trio", "uvloop"]
)
def test_a_backend_that_is_not_installed_is_told_with_a_hint(extra: str, arguments: list[str]) -> None:
    """Status 1, no traceback, and what to install."""
    program = (
        "import sys\n"
        f"sys.modules[{extra!r}] = None\n"
        "from mvx.common.metrics.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = run_python(program, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("python -m mvx.common.metrics: error: the runtime could not be started")
    assert f"pip install 'mvx-metrics[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_error_of_the_library_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its message, and status 1."""

    def run(*args: object, **options: object) -> None:
        raise MetricsRuntimeStartupError(hint="buy a new machine")

    monkeypatch.setattr(_demo, "run", run)
    assert main([]) == 1
    assert capsys.readouterr() == (
        "",
        "python -m mvx.common.metrics: error: the runtime could not be started; buy a new machine\n",
    )


def test_a_lost_event_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The promise of the help is checked: status 1 if the numbers do not bear it out."""
    report = _demo.run(10)
    lossy = dataclasses.replace(report, statistics=dataclasses.replace(report.statistics, processed=7, abandoned=3))
    monkeypatch.setattr(_demo, "run", lambda *args, **options: lossy)
    assert main([]) == 1
    assert capsys.readouterr().out.endswith("3 events were lost\n")


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An output that cannot be written is told in one line."""
    monkeypatch.setattr(sys, "stdout", Broken(OSError(errno.ENOSPC, "No space left on device")))
    assert main(["--events", "1"]) == 1
    err = capsys.readouterr().err
    assert err == "python -m mvx.common.metrics: error: cannot write: [Errno 28] No space left on device\n"


# --- how it ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--events", "10"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_gone_is_no_failure(arguments: list[str]) -> None:
    """`| head` may close the pipe: no traceback, no complaint at the exit, status 0."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            (*COMMAND, *arguments), check=False, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=DEADLINE
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_left_for_a_reader_that_has_gone_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later flush, as the interpreter's at its exit, finds nothing to complain about."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["--events", "1"]) == 0
        stream.flush()


def test_a_reader_of_a_stream_that_is_no_file_may_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no descriptor to turn elsewhere then, and nothing to do."""
    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError()))
    assert main(["--events", "1"]) == 0


def test_head_gets_its_lines() -> None:
    """As typed in a shell."""
    with subprocess.Popen((*COMMAND, "--events", "10"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as producer:
        assert producer.stdout is not None
        assert producer.stderr is not None
        first = producer.stdout.readline()
        producer.stdout.close()
        assert producer.stderr.read() == b""
    assert first == b"10 events on asyncio\n"
    assert producer.returncode == 0


def test_ctrl_c_shuts_the_runtime_down_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of the work: status 130 and one word."""
    save = _demo.Documents.save
    calls: list[str] = []

    def interrupted_save(self: _demo.Documents, title: str, text: str) -> None:
        calls.append(title)
        if len(calls) == 150:
            raise KeyboardInterrupt
        save(self, title, text)

    monkeypatch.setattr(_demo.Documents, "save", interrupted_save)
    assert main(["--events", "1000"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert len(calls) == 150


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal is needed")
@pytest.mark.parametrize("no_colour", ["", "1"], ids=["rich", "plain"])
def test_ctrl_c_under_a_bar_leaves_a_clean_terminal(no_colour: str, flags: list[str], tmp_path: Path) -> None:
    """A real signal from outside, once the bar is there: no traceback, cursor visible, status 130."""
    if not no_colour:
        pytest.importorskip("rich")
    # A tracer takes locks of its own, which the signal may find held.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    terminal, its_end = os.openpty()
    try:
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(
                (*COMMAND, *flags, "--events", "1000000000"),
                stdout=out,
                stderr=its_end,
                env={**environment, "NO_COLOR": no_colour},
            )
        try:
            shown = read_until(terminal, b"1000000000" if not no_colour else b"1,000,000,000 events")
            process.send_signal(signal.SIGINT)
            shown += read_until(terminal, b"interrupted")
            assert process.wait(DEADLINE) == 130
        finally:
            process.kill()
            process.wait(DEADLINE)
    finally:
        os.close(its_end)
        os.close(terminal)
    assert b"Traceback" not in shown
    assert (tmp_path / "out").read_bytes() == b""
    if no_colour:
        assert ESCAPE.encode() not in shown
    else:
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def read_until(descriptor: int, words: bytes) -> bytes:
    """Read what comes until ``words`` have come, within a deadline."""
    seen = b""
    deadline = time.monotonic() + DEADLINE
    while words not in seen:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            pytest.fail(f"{words!r} has not come within {DEADLINE:g} s, but {seen!r}")
        seen += os.read(descriptor, 65536)
    return seen
