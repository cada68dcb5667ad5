"""The documentation is true: its examples run and print what it shows, its links, commands and tables are right.

A ``python`` block of a Markdown file is a program; test functions in it are called.  A ``text`` block
right behind it is what it prints.  With the comment ``<!-- continues -->`` before it, it goes on from the blocks before it in
the same file.  In a docstring, a literal block is a Python example, which may await; the names of
the package are at hand there, and those of :data:`SHOP`.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mvx.common.metrics as package
from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorderProto,
    OverflowPolicy,
    RecorderState,
    RecorderStatistics,
)
from mvx.common.metrics._lifecycle import STATE_TABLE, Reaction

ROOT = Path(__file__).parents[1]
PACKAGE = Path(package.__file__).parent
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GUIDE = ROOT / "docs" / "guide.md"
PAGES = (README, *sorted((ROOT / "docs").rglob("*.md")))
CONTINUES = "<!-- continues -->"

FENCE = re.compile(r"^```(\w*)\s*$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown file."""

    language: str
    text: str
    line: int
    """The number of its first line in the file, from one."""
    before: str
    """What stands between it and the block before."""


@dataclass(frozen=True)
class Example:
    """One piece of code of the documentation."""

    path: Path
    line: int
    code: str
    output: str | None = None
    """What it prints, where the page shows that."""

    def __str__(self) -> str:
        root = ROOT if self.path.is_relative_to(ROOT) else PACKAGE
        return f"{self.path.relative_to(root)}:{self.line}"


def blocks_of(text: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    language: str | None = None
    lines: list[str] = []
    before: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = FENCE.match(line)
        if language is None and fence:
            language, lines = fence[1], []
        elif language is not None and line.rstrip() == "```":
            yield Block(language, "\n".join(lines), number - len(lines), "\n".join(before))
            language, before = None, []
        else:
            (before if language is None else lines).append(line)
    if language is not None:
        raise AssertionError("a block is not closed")


def programs_of(path: Path) -> Iterator[list[Example]]:
    """The examples of a page; those that continue each other together."""
    blocks = list(blocks_of(path.read_text()))
    program: list[Example] = []
    for index, block in enumerate(blocks):
        if block.language != "python":
            continue
        after = blocks[index + 1] if index + 1 < len(blocks) else None
        shown = after is not None and after.language == "text" and not after.before.strip()
        example = Example(path, block.line, block.text, after.text if shown and after else None)
        if program and not block.before.rstrip().endswith(CONTINUES):
            yield program
            program = []
        program.append(example)
    if program:
        yield program


PROGRAMS = [pytest.param(program, id=str(program[0])) for page in PAGES for program in programs_of(page)]


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """What an example does to signals ends with it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(example: Example, module: types.ModuleType, *, may_await: bool = False) -> None:
    """Run an example in a module's namespace; a traceback shows the lines of the documentation."""
    source = "\n" * (example.line - 1) + example.code
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if may_await else 0
    code = compile(source, str(example.path), "exec", flags=flags, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, vars(module)))
    else:
        exec(code, vars(module))


def call_tests(module: types.ModuleType) -> None:
    """Call the test functions of an example, once."""
    for name in [name for name in vars(module) if name.startswith("test_")]:
        result = vars(module).pop(name)()
        if inspect.iscoroutine(result):
            asyncio.run(result)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """A new, empty module to run an example in, with a new, empty directory for its files."""
    module = types.ModuleType("documented_example")
    # Dataclasses look their module up by name.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    return module


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_page_shows_programs_that_run(
    program: list[Example], module: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python example of a page runs as it stands, and prints what the page says."""
    for example in program:
        try:
            run(example, module)
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("mvx"):
                raise
            pytest.skip(f"needs {exc.name}")
        call_tests(module)
        printed = capsys.readouterr().out
        if example.output is not None:
            assert printed.strip() == example.output.strip(), f"{example} prints something else"


@pytest.mark.parametrize("page", [README, GUIDE], ids=lambda page: page.name)
def test_the_pages_have_examples(page: Path) -> None:
    """The reading of a page finds its examples."""
    assert sum(len(program) for program in programs_of(page)) >= 5


# --- docstrings --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OrderPlaced(MetricEvent):
    """An order was placed."""

    @property
    def event_type(self) -> str:
        return "orders.placed"


class OrdersPlaced(Metric):
    """Counts orders."""

    event_types = (OrderPlaced,)

    def __init__(self) -> None:
        self.total = 0

    @property
    def metric_name(self) -> str:
        return "orders.placed"

    def handle_event(self, event: MetricEvent) -> bool:
        self.total += 1
        return True

    def snapshot(self) -> Mapping[str, Any]:
        return {"name": self.metric_name, "dimensions": {"total": self.total}}


class Orders:
    """An instrumented component."""

    def __init__(self, *, metrics_recorder: MetricsRecorderProto | None = None) -> None:
        if metrics_recorder is not None:
            metrics_recorder.register_metric(OrdersPlaced())
            metrics_recorder.register_event(OrderPlaced())


SHOP: dict[str, Any] = {"Orders": Orders, "OrderPlaced": OrderPlaced, "OrdersPlaced": OrdersPlaced}
"""What the docstrings take for granted: a component, its event and its metric."""


def literal_blocks_of(docstring: str, line: int) -> Iterator[tuple[int, str]]:
    """The literal blocks of a docstring that starts at ``line``, each with the line where it starts."""
    lines = docstring.expandtabs().splitlines()
    index = 0
    while index < len(lines):
        introduction = lines[index].strip()
        index += 1
        is_python = introduction.startswith(".. code-block:: python")
        if not is_python and (introduction.startswith("..") or not introduction.endswith("::")):
            continue
        margin = len(lines[index - 1]) - len(lines[index - 1].lstrip()) if index > 1 else 0
        start = index
        while index < len(lines) and (not lines[index].strip() or indent_of(lines[index]) > margin):
            index += 1
        block = lines[start:index]
        while block and not block[0].strip():
            del block[0]
            start += 1
        if block:
            yield line + start, inspect.cleandoc("\n".join(["", *block]))


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def docstring_examples() -> Iterator[tuple[str, Example]]:
    """The examples of every docstring of the package, each with its module's name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join((package.__name__, *(part for part in parts if part != "__init__")))
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            docstring = ast.get_docstring(node, clean=False)
            if docstring is None:
                continue
            if ">>>" in docstring:
                raise AssertionError(f"{path}: write an example as a literal block, so that it is run")
            line = node.body[0].lineno
            yield from ((name, Example(path, number, code)) for number, code in literal_blocks_of(docstring, line))


DOCSTRING_EXAMPLES = list(docstring_examples())


@pytest.mark.parametrize(("name", "example"), [pytest.param(*found, id=str(found[1])) for found in DOCSTRING_EXAMPLES])
def test_docstrings_show_code_that_runs(
    name: str, example: Example, module: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every example of a docstring runs, given the names of the package and of the shop."""
    try:
        home = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("mvx"):
            raise
        pytest.skip(f"needs {exc.name}")
    vars(module).update({name: getattr(package, name) for name in package.__all__})
    vars(module).update({name: value for name, value in vars(home).items() if not name.startswith("_")})
    vars(module).update(SHOP)
    run(example, module, may_await=True)


def test_the_docstrings_have_examples() -> None:
    """The reading of the docstrings finds the tour of the package and the classes' own examples."""
    assert {example.path.name for _, example in DOCSTRING_EXAMPLES} >= {"__init__.py", "_recorder.py", "_runtime.py"}


# --- links -------------------------------------------------------------------------------------


def prose_of(path: Path) -> str:
    """A page without its blocks and inline code, in which brackets mean something else."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        for target in LINK.findall(prose_of(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*link, id=f"{link[0].name}-{link[1]}") for link in links()])
def test_links_lead_somewhere(page: Path, target: str) -> None:
    """A relative link names a file or directory of the project, and a heading in it that exists."""
    name, _, anchor = target.partition("#")
    found = (page.parent / name).resolve() if name else page
    assert found.exists()
    assert found.is_relative_to(ROOT)
    if anchor:
        assert anchor in anchors_of(found)


# --- commands ----------------------------------------------------------------------------------


def commands() -> list[str]:
    """The README's commands that begin with nothing but Python."""
    blocks = [block for block in blocks_of(README.read_text()) if block.language == "sh"]
    return [block.text for block in blocks if block.text.startswith("python3 -m venv")]


def steps_of(command: str) -> list[list[str]]:
    """The words of each command of an ``&&`` chain."""
    return [shlex.split(step) for step in command.split(" && ")]


def test_the_two_commands_are_one_line_each() -> None:
    """The README has one line that runs the library and one that tests it, set-up included."""
    run_command, test_command = commands()
    for command in (run_command, test_command):
        assert "\n" not in command
        assert steps_of(command)[0] == ["python3", "-m", "venv", ".venv"]
    assert steps_of(run_command)[-1] == [".venv/bin/python", "-m", package.__name__]
    assert importlib.util.find_spec(f"{package.__name__}.__main__") is not None
    assert steps_of(test_command)[-1][:3] == [".venv/bin/python", "-m", "pytest"]


def test_the_commands_install_extras_that_exist() -> None:
    """What the commands ask of pip is in the project's metadata."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in commands():
        requirement = steps_of(command)[1][-1]
        found = re.fullmatch(r"\.\[([\w,]+)\]", requirement)
        assert found is not None
        assert set(found[1].split(",")) <= set(known)


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    """What ``.ci/run`` takes from the README, or has in it, is the test command word for word."""
    script_path = ROOT / ".ci" / "run"
    if not script_path.exists():
        pytest.skip("there is no .ci/run here")
    script = script_path.read_text()
    test_command = commands()[1]
    if test_command in script.splitlines():
        return
    extraction = re.search(r"^\w+=\$\((sed -n .* README\.md .*)\)$", script, flags=re.MULTILINE)
    assert extraction is not None, "the script neither has the README's test command nor reads it from there"
    done = subprocess.run(["sh", "-c", extraction[1]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout.strip() == test_command


# --- tables ------------------------------------------------------------------------------------


def table_after(path: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without their back quotes; the head row first."""
    text = path.read_text()
    assert f"\n{heading}\n" in text, f"{path.name} has no heading {heading!r}"
    section = text.split(f"\n{heading}\n", 1)[1]
    rows: list[list[str]] = []
    for line in section.splitlines():
        if line.startswith("|"):
            rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
        elif rows:
            break
    return [row for row in rows if not set("".join(row)) <= set("-: ")]


def first_column(path: Path, heading: str) -> list[str]:
    return [row[0] for row in table_after(path, heading)[1:]]


def test_the_guide_explains_every_counter() -> None:
    """The table of counters has the fields of RecorderStatistics, in their order."""
    assert first_column(GUIDE, "### Where every event went") == [
        field.name for field in dataclasses.fields(RecorderStatistics)
    ]


def test_the_readme_explains_every_policy() -> None:
    """The tables of policies have the members of the enumerations, in their order."""
    assert first_column(README, "## When the inbox is full") == list(OverflowPolicy)
    assert first_column(README, "## When a metric or a hook raises") == list(FailurePolicy)


def test_the_state_table_is_the_codes() -> None:
    """The table of docs/architecture.md says what the table in the code says."""
    word = {Reaction.BEGIN: "yes", Reaction.JOIN: "joins", Reaction.REFUSE: "no"}
    expected = {
        state.value: [
            word[row.start],
            word[row.stop],
            word[row.register_metric],
            word[row.register_event],
            ", ".join(follower.value for follower in RecorderState if follower in row.then) or "nothing",
        ]
        for state, row in STATE_TABLE.items()
    }
    found = table_after(ARCHITECTURE, "## The states of a recorder")
    assert found[0] == ["state", "start()", "stop()", "register_metric", "register_event", "may be followed by"]
    assert {row[0]: row[1:] for row in found[1:]} == expected


@pytest.mark.parametrize(
    ("heading", "package"),
    [("## The layout", PACKAGE), ("## Instruments", PACKAGE / "instruments"), ("## Emitting", PACKAGE / "emitting")],
)
def test_the_layout_is_complete(heading: str, package: Path) -> None:
    """docs/architecture.md has a row for every module and package, and for nothing else."""
    present = {
        path.name + ("/" if path.is_dir() else "")
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = [name for cell in first_column(ARCHITECTURE, heading) for name in cell.split(", ")]
    assert sorted(named) == sorted(present)


def test_the_changelog_has_the_version() -> None:
    """The version of the metadata has its section."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
