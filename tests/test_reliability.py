"""The situations of ``python -m reliability``: this library passes each, and the page shows what was found.

Each runs once here, with short time limits, in a process of its own.  The comparison with the other library needs the
package index, and is left to the command.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reliability import __main__ as command
from reliability import catalogue, legacy, page
from reliability.catalogue import Row
from reliability.outcome import Outcome
from reliability.results import PATH, Results, Tried, tally_of
from reliability.runner import ROOT, Contender, SituationError, play
from reliability.situation import GROUPS

ROWS = catalogue.rows()
BOUND = 0.3
"""Seconds in place of the library's own time limits."""
BOUNDS = {"churn": 10.0}
"""The same for a situation that runs into no limit, and must not on a slow machine."""

RUNS = [
    pytest.param(
        row,
        name,
        id=f"{row}-{name}",
        marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed"),
    )
    for row in ROWS
    for name in row.situation.backends
]

Played = dict[tuple[str, str], "Future[Outcome]"]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    """The situations of the tests that were selected, under way two at a time: most of what they do is waiting."""
    futures: Played = {}
    with ThreadPoolExecutor(2) as pool:
        for item in request.session.items:
            params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
            if "row" in params and "name" in params:
                row, name = params["row"], params["name"]
                # What takes no time has no need of other limits than its users have.
                bounds = None if row.situation.quick else BOUNDS.get(row.name, BOUND)
                futures[str(row), name] = pool.submit(
                    play, row, Contender(name, sys.executable, name), 1, bounds=bounds
                )
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.mark.parametrize(("row", "name"), RUNS)
def test_nothing_is_lost(row: Row, name: str, played: Played) -> None:
    """The situation ends in time and as it should, and every event that was accepted is seen or counted."""
    outcome = played[str(row), name].result()
    if row.situation.is_limit:
        # What is lost here is what the documentation says.
        outcome.lost = 0
    assert outcome.is_clean, outcome


def test_every_file_is_a_situation() -> None:
    """Each has a title of its own and a known heading, and there are enough of them."""
    assert {row.name for row in ROWS} == set(catalogue.names())
    assert len({row.title for row in ROWS}) == len(ROWS)
    assert {row.situation.group for row in ROWS} == set(GROUPS)
    assert len(catalogue.names()) >= 20


# --- the harness sees what goes wrong --------------------------------------------------------------


def row_named(name: str) -> Row:
    return catalogue.rows(name)[0]


OURS = Contender("ours", sys.executable)


def test_a_loss_is_seen() -> None:
    """Events that are pending at the end of a process which cannot tell any more are lost."""
    outcome = play(row_named("os_exit"), OURS, 1)
    assert outcome.lost > 0
    assert outcome.accepted == outcome.processed + outcome.lost
    assert not outcome.is_clean


def test_a_hang_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not end in time is killed, after a few such processes the situation is given up, and what
    they counted is known all the same.
    """
    monkeypatch.setattr("reliability.runner.MAX_KILLED", 2)
    # On a busy machine, too, each comes to its hang within the deadline.
    outcome = play(row_named("metric_never_returns"), OURS, 5, deadline=5.0)
    assert outcome.killed == outcome.processes == 2
    assert (outcome.accepted, outcome.processed) == (2 * 200, 0)
    assert not outcome.is_clean


def test_a_situation_that_does_not_begin_is_an_error() -> None:
    """It is not taken for one that went well."""
    with pytest.raises(SituationError, match="os_exit did not begin"):
        play(row_named("os_exit"), Contender("nobody", sys.executable, "no-such-backend"), 1)


@pytest.mark.parametrize("what", ["lost", "surplus", "killed", "tracebacks", "exit_codes", "faults"])
def test_whatever_is_wrong_shows(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An outcome with one blemish is not clean, is told in words, and fails the command."""
    value: Any = {"exit_codes": {"1": 1}, "faults": {"events out of order": 1}}.get(what, 1)
    sound = Outcome("order", "", page.ASYNCIO, 20.0, processes=1, repetitions=1)
    unsound = replace(sound, **{what: value})
    assert sound.is_clean
    assert not unsound.is_clean
    assert list(page.remarks(unsound)) != list(page.remarks(sound))
    assert command.verdict([sound]) == 0
    assert command.verdict([sound, unsound]) == 1
    assert "NOT AS PROMISED: order" in capsys.readouterr().err


def test_the_other_library_cannot_fail_the_command() -> None:
    """The exit code is about this library, outside of the limits."""
    other = Outcome("order", "", legacy.NAME, 20.0, lost=1)
    limit = Outcome("os_exit", "", page.ASYNCIO, 20.0, lost=1)
    assert command.verdict([other, limit]) == 0


# --- the page --------------------------------------------------------------------------------------


def test_the_page_shows_the_results() -> None:
    """The tables of docs/reliability.md are those of results.json."""
    assert page.renewed(page.PATH.read_text(), Results.load()) == page.PATH.read_text()


def test_the_results_are_complete() -> None:
    """results.json has every situation with everybody who can take part, as often as the long profile says."""
    found = {(o.situation, o.case, o.contender): o for o in Results.load().situations}
    on = {page.ASYNCIO: "asyncio", page.TRIO: "trio", legacy.NAME: "asyncio"}
    expected = {
        (row.name, row.case, contender)
        for row in ROWS
        for contender in page.CONTENDERS
        if on[contender] in row.situation.backends
    }
    assert set(found) == expected
    for row in ROWS:
        for contender in page.CONTENDERS:
            outcome = found.get((row.name, row.case, contender))
            assert outcome is None or outcome.killed or outcome.repetitions == row.situation.long


def test_the_results_are_good() -> None:
    """What is published of this library is without a loss, outside of the limits."""
    assert command.verdict(Results.load().situations) == 0


def test_the_results_do_not_tell_of_the_machine() -> None:
    """results.json has neither paths nor the name of the machine."""
    text = PATH.read_text()
    for word in (str(ROOT), str(Path.home()) + "/", sys.prefix, "/tmp/", "/usr/"):
        assert word not in text
    assert json.dumps(platform.node()) not in text


def test_results_survive_being_kept(tmp_path: Path) -> None:
    """What is written is what is read."""
    results = Results(
        {"x": "3.11.0"},
        [Outcome("order", "", page.TRIO, 20.0, notes={"a note": 2}, figures={"seconds": 0.5})],
        [Tried("cancellations", 7, "tests/faults")],
    )
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert Results.load(tmp_path / "nothing.json") == Results({}, [], [])


def test_the_record_of_the_tests_is_added_up() -> None:
    """The same thing tried by several tests of a directory is one line of the table."""
    lines = [
        json.dumps({"what": what, "tried": tried, "test": test, "python": "3.11.0"})
        for what, tried, test in (
            ("cancellations", 10, "tests/faults/test_a.py::test_one[asyncio]"),
            ("cancellations", 1_990, "tests/faults/test_b.py::test_two"),
            ("forks", 3, "tests/processes/test_fork.py::test_three"),
        )
    ]
    tests = tally_of(lines)
    assert tests == [Tried("cancellations", 2_000, "tests/faults"), Tried("forks", 3, "tests/processes")]
    assert page.tests_table([]) == "No run of the long profile is on record."
    assert "| cancellations | 2 000 | 0 | [`tests/faults/`](../tests/faults) |" in page.tests_table(tests)


def test_a_test_that_was_run_again_counts_once() -> None:
    """A record may have been made in parts."""
    lines = [json.dumps({"what": "forks", "tried": n, "test": "tests/processes/test_fork.py::test"}) for n in (3, 5)]
    assert tally_of(lines) == [Tried("forks", 5, "tests/processes")]


def test_the_ways_of_a_cancellation_are_one_line() -> None:
    """Of a table that would be nothing else otherwise."""
    table = page.tests_table(
        [
            Tried("blocks cancelled by scope", 3, "tests/faults"),
            Tried("blocks cancelled by Task.cancel()", 4, "tests/faults"),
            Tried("clocks cancelled by scope", 5, "tests/faults"),
        ]
    )
    assert "| blocks cancelled, in 2 ways | 7 | 0 |" in table
    assert "| clocks cancelled | 5 | 0 |" in table


def test_a_record_is_taken_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--tests --record FILE`` runs nothing."""
    path = tmp_path / "tally.jsonl"
    path.write_text(json.dumps({"what": "forks", "tried": 3, "test": "tests/processes/test_fork.py::test"}) + "\n")
    written: list[Results] = []
    monkeypatch.setattr(command, "write", written.append)
    monkeypatch.setattr(command, "run_tests", pytest.fail)
    assert command.main(["--tests", "--record", str(path)]) == 0
    assert written[0].tests == [Tried("forks", 3, "tests/processes")]


@pytest.mark.parametrize("fails", [False, True])
def test_the_long_tests_are_run_with_a_record(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--tests`` writes what the tests have put on record, and leaves everything as it was if one has failed."""
    entry = {"what": "forks", "tried": 3, "test": "tests/processes/test_fork.py::test_three", "python": "3.11.0"}
    commands: list[list[str]] = []

    def pytest_run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(words)
        Path(words[words.index("--tally") + 1]).write_text(json.dumps(entry) + "\n")
        return subprocess.CompletedProcess(words, int(fails))

    written: list[Results] = []
    monkeypatch.setattr(subprocess, "run", pytest_run)
    monkeypatch.setattr(command, "write", written.append)
    assert command.main(["--tests"]) == int(fails)
    (words,) = commands
    assert words[1:4] == ["-m", "pytest", "--long"]
    assert {"tests/concurrency", "tests/processes"} <= set(words)
    assert [results.tests for results in written] == ([] if fails else [[Tried("forks", 3, "tests/processes")]])
    assert ("the tests failed" in capsys.readouterr().err) is fails


def test_a_page_without_markers_is_refused() -> None:
    """The command does not guess where its tables belong."""
    with pytest.raises(ValueError, match="needs the markers <!-- tests: begin -->"):
        page.renewed("# Reliability\n", Results({}, [], []))


# --- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tests", "--quick"], "--tests runs no situations, so that --quick makes no sense with it"),
        (["--tests", "--situations"], "so that --situations makes no sense with it"),
        (["--tests", "--only", "order"], "so that --only makes no sense with it"),
        (["--tests", "--legacy-python", "python"], "so that --legacy-python makes no sense with it"),
        (["--record", "README.md"], "--record is a record of tests: it needs --tests"),
        (["--tests", "--record", "no-such-file"], "there is no file 'no-such-file'"),
        (["--only", "no-such"], "there is no situation 'no-such'; there are all_cancelled, churn, "),
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--legacy-python", "x", "--cache", "y"], "--legacy-python and --cache exclude each other"),
        (["--legacy-python", "no-such-python"], "no-such-python cannot be run"),
        (["--legacy-python", sys.executable], "mvx-common==0.3.0"),
        (["--slow"], "unrecognized arguments: --slow"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They end the command at once, with code 2 and a sentence."""
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
