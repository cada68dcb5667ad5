"""Run the long profile of the fault tests, and every situation with both libraries; renew the tables of the page."""

from __future__ import annotations

import argparse
import importlib.util
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reliability import catalogue, legacy, page
from reliability.catalogue import Row
from reliability.outcome import Outcome
from reliability.results import PATH, Results, tally_of
from reliability.runner import ROOT, Contender, end_all, play

TESTS = ("tests/concurrency", "tests/faults", "tests/properties", "tests/processes", "tests/soak")
QUICK_DEADLINE = 8.0
"""Seconds for each process in the quick profile, which only a process that hangs comes near."""
JOBS = 2


def parser() -> argparse.ArgumentParser:
    """Return the command line's."""
    result = argparse.ArgumentParser(
        prog="python -m reliability",
        description=f"{__doc__} Both together take hours; --quick takes less than a minute.",
    )
    result.add_argument("--situations", action="store_true", help="only the situations")
    result.add_argument("--tests", action="store_true", help="only the long profile of the fault tests")
    result.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="with --tests: run nothing, but take what runs of `pytest --long --tally FILE` have put on record",
    )
    result.add_argument(
        "--quick", action="store_true", help="few repetitions of the situations that take no time; writes nothing"
    )
    result.add_argument("--only", metavar="NAME", help="only this situation; writes nothing")
    result.add_argument(
        "--legacy-python", metavar="PATH", help=f"the interpreter of an environment that has {legacy.NAME}"
    )
    result.add_argument(
        "--cache",
        metavar="DIRECTORY",
        type=Path,
        help=f"where the environment of {legacy.NAME} is made and found again",
    )
    result.add_argument(
        "--jobs", type=int, default=JOBS, metavar="N", help=f"how many processes run at a time ({JOBS} by default)"
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _checked(arguments)
    results = Results.load()
    code = 0
    if not options.tests:
        rows = catalogue.rows(options.only)
        results.situations = run_situations(
            rows, contenders(options.legacy_python), quick=options.quick, jobs=options.jobs
        )
        results.pythons |= {legacy.NAME: options.python_of_legacy, "mvx-metrics": platform.python_version()}
        code = verdict(results.situations)
    if options.quick or options.only is not None:
        print(page.situations_tables(results))
        return code
    if not options.tests:
        write(results)
    if not options.situations:
        tried = run_tests() if options.record is None else options.record.read_text().splitlines()
        if tried is None:
            print("the tests failed: their table stays as it was", file=sys.stderr)
            return 1
        results.tests = tally_of(tried)
        results.pythons["the tests"] = platform.python_version()
        write(results)
    return code


def write(results: Results) -> None:
    """Keep the results, and renew the page."""
    results.save()
    page.PATH.write_text(page.renewed(page.PATH.read_text(), results))
    print(f"written: {PATH.relative_to(ROOT)}, {page.PATH.relative_to(ROOT)}", flush=True)


def _checked(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options, or leave with a word on what is wrong with them."""
    cli = parser()
    options = cli.parse_args(arguments)
    for name in ("situations", "quick", "only", "legacy_python", "cache"):
        if options.tests and getattr(options, name):
            cli.error(f"--tests runs no situations, so that --{name.replace('_', '-')} makes no sense with it")
    _check_record(cli, options)
    if options.legacy_python is not None and options.cache is not None:
        cli.error("--legacy-python and --cache exclude each other")
    if options.jobs < 1:
        cli.error("--jobs must be at least 1")
    if options.only is not None and options.only not in catalogue.names():
        cli.error(f"there is no situation {options.only!r}; there are {', '.join(catalogue.names())}")
    if not options.tests:
        try:
            if options.legacy_python is None:
                options.legacy_python = legacy.prepare(options.cache or legacy.default_cache())
            options.python_of_legacy = legacy.python_version(options.legacy_python)
        except legacy.LegacyError as error:
            cli.error(str(error))
    return options


def _check_record(cli: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.record is not None and not options.tests:
        cli.error("--record is a record of tests: it needs --tests")
    if options.record is not None and not options.record.is_file():
        cli.error(f"there is no file {str(options.record)!r}")


def contenders(legacy_python: str) -> list[Contender]:
    """Return who takes part."""
    found = [Contender(legacy.NAME, legacy_python), Contender(page.ASYNCIO, sys.executable)]
    if importlib.util.find_spec("trio") is None:
        print("trio is not installed, and is left out")
    else:
        found.append(Contender(page.TRIO, sys.executable, "trio"))
    return found


def run_situations(rows: list[Row], who: list[Contender], *, quick: bool, jobs: int) -> list[Outcome]:
    """Run every row with every contender, and tell of each."""
    tasks = [
        (row, contender, row.situation.quick if quick else row.situation.long)
        for row in rows
        for contender in who
        if contender.backend in row.situation.backends
    ]
    tasks = [task for task in tasks if task[2]]
    began = time.monotonic()
    done = 0

    def run(task: tuple[Row, Contender, int]) -> Outcome:
        nonlocal done
        row, contender, times = task
        outcome = play(row, contender, times, deadline=QUICK_DEADLINE if quick else None)
        done += 1
        told = "; ".join(page.remarks(outcome)).replace("*", "")
        print(f"[{done}/{len(tasks)}, {time.monotonic() - began:.0f} s] {row}, {contender.name}: {told}", flush=True)
        return outcome

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(run, tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise


def run_tests() -> list[str] | None:
    """Run the long profile, and return its record, or None if a test failed."""
    there = [name for name in TESTS if (ROOT / name).is_dir()]
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "tally.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--long", "--tally", str(record), *there], cwd=ROOT, check=False
        )
        if done.returncode != 0:
            return None
        return record.read_text().splitlines() if record.exists() else []


def verdict(outcomes: list[Outcome]) -> int:
    """Say how this library fared; return the exit code."""
    limits = {row.name for row in catalogue.rows() if row.situation.is_limit}
    unclean = [
        outcome
        for outcome in outcomes
        if outcome.contender != legacy.NAME and outcome.situation not in limits and not outcome.is_clean
    ]
    for outcome in unclean:
        told = "; ".join(page.remarks(outcome)).replace("*", "")
        print(f"NOT AS PROMISED: {outcome.situation} {outcome.case}, {outcome.contender}: {told}", file=sys.stderr)
    return 1 if unclean else 0


if __name__ == "__main__":
    # What was started shall end with this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
