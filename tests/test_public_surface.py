"""What the package shows: names, aliases, docstrings, and what an import costs."""

from __future__ import annotations

import enum
import importlib
import importlib.resources
import inspect
import json
import subprocess
import sys
from types import ModuleType

import pytest

from mvx.common import metrics
from mvx.common.metrics import MetricsRecorder, MetricsRecorderProto, asyncio_names, emitting, errors
from tests.support import Count, Seen

MODULES = [metrics, asyncio_names, emitting, errors]
ALIASES = {
    "AsyncioMetricsRecorder": "MetricsRecorder",
    "AsyncioMetricsRecorderState": "RecorderState",
    "AsyncioMetricsRecorderQueueOverflowPolicy": "OverflowPolicy",
    "AsyncioMetricsRecorderOp": "RecorderOp",
    "AsyncioMetricsRecorderOpResult": "RecorderOpResult",
    "AsyncioMetricsRecorderWaitHandle": "RecorderWaitHandle",
    "AsyncioMetricsRecorderError": "RecorderError",
    "AsyncioMetricsRecorderLoopUnavailableError": "RecorderLoopUnavailableError",
    "AsyncioMetricsRecorderInvalidStateError": "RecorderInvalidStateError",
    "AsyncioMetricsRecorderOnStartingHookFailedError": "RecorderOnStartingHookFailedError",
    "AsyncioMetricsRecorderOnStoppedHookFailedError": "RecorderOnStoppedHookFailedError",
    "AsyncioMetricsRecorderQueueOverflowError": "RecorderQueueOverflowError",
    "AsyncioMetricsRecorderDispatcherCancelledError": "RecorderDispatcherCancelledError",
    "AsyncioMetricsRecorderUnexpectedError": "RecorderUnexpectedError",
}


def public_names(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }


@pytest.mark.parametrize("module", [metrics, asyncio_names, emitting], ids=lambda module: module.__name__)
def test_all_is_true(module: ModuleType) -> None:
    """``__all__`` names every public object of the module and nothing else."""
    assert set(module.__all__) == public_names(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted(module: ModuleType) -> None:
    """``__all__`` is in order, without repetitions."""
    assert list(module.__all__) == sorted(set(module.__all__))


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_a_documented_name_is_the_same_object(alias: str, name: str) -> None:
    """The ``Asyncio…`` spelling is another name, not another class."""
    assert getattr(metrics, alias) is getattr(metrics, name)
    assert getattr(asyncio_names, alias) is getattr(metrics, name)


def test_the_documented_names_are_all_there() -> None:
    """The module of the documented names holds exactly those of the contract's table."""
    assert set(asyncio_names.__all__) == set(ALIASES)


@pytest.mark.parametrize(
    "name",
    [
        "FailurePolicy",
        "Metric",
        "MetricEvent",
        "MetricsEmitter",
        "MetricsRecorder",
        "MetricsRecorderProto",
        "MetricsRuntime",
        "MetricsRuntimeError",
        "MetricsRuntimeInvalidStateError",
        "MetricsRuntimeLoopUnavailableError",
        "MetricsRuntimeRecorderAlreadyExistsError",
        "MetricsRuntimeRecorderError",
        "MetricsRuntimeRecorderNotFoundError",
        "MetricsRuntimeRecorderStartupError",
        "MetricsRuntimeRecorderStopError",
        "MetricsRuntimeShutdownError",
        "MetricsRuntimeStartupError",
        "MetricsRuntimeState",
        "MetricsRuntimeUnexpectedError",
        "Outcome",
        "OutcomeEvent",
        "OverflowPolicy",
        "RecorderStatistics",
        "observe",
    ],
)
def test_a_name_of_the_contract_is_exported(name: str) -> None:
    """``from mvx.common.metrics import`` finds it."""
    assert name in metrics.__all__
    assert hasattr(metrics, name)


@pytest.mark.parametrize("name", metrics.__all__)
def test_a_public_object_is_documented(name: str) -> None:
    """Every public function and class has a docstring of its own, and so has everything public in a class."""
    value = getattr(metrics, name)
    if inspect.isfunction(value):
        assert value.__doc__
        return
    assert inspect.isclass(value)
    own = vars(value).get("__doc__")
    assert own
    if not issubclass(value, enum.Enum):
        # Written by somebody, not filled in by dataclass or attrs.
        assert not own.startswith(f"{name}(")
    for attribute, member in vars(value).items():
        if attribute.startswith("_"):
            continue
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("hook", ["_on_starting", "_on_metric_changed", "_on_stopped"])
def test_a_hook_is_documented(hook: str) -> None:
    """The hooks are for users to override, underscore or not."""
    assert inspect.getdoc(getattr(MetricsRecorder, hook))


def test_the_modules_are_documented() -> None:
    """Each public module says what it is for."""
    for module in MODULES:
        assert module.__doc__


def run_python(program: str) -> str:
    """What ``program`` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_no_extra() -> None:
    """trio, uvloop and rich are loaded by nobody but those who use them."""
    loaded = json.loads(
        run_python("import json, sys, mvx.common.metrics; print(json.dumps([m.split('.')[0] for m in sys.modules]))")
    )
    assert "anyio" in loaded
    assert not {"trio", "uvloop", "rich", "pytest", "hypothesis"} & set(loaded)


def test_importing_starts_no_thread_and_makes_no_loop() -> None:
    """An import has no effect beyond the names."""
    program = (
        "import threading, mvx.common.metrics, asyncio;print(threading.active_count(), asyncio._get_running_loop())"
    )
    assert run_python(program).split() == ["1", "None"]


def test_importing_leaves_the_root_logger_alone() -> None:
    """A library configures no logging; its own logger has a handler that does nothing."""
    program = (
        "import logging, mvx.common.metrics;"
        "log = logging.getLogger('mvx.common.metrics');"
        "print(logging.root.handlers, [type(h).__name__ for h in log.handlers], log.level, log.propagate)"
    )
    assert run_python(program).strip() == "[] ['NullHandler'] 0 True"


def test_mvx_and_mvx_common_are_namespace_packages() -> None:
    """Other distributions can add to ``mvx`` and ``mvx.common``."""
    for name in ("mvx", "mvx.common"):
        package = importlib.import_module(name)
        assert getattr(package, "__file__", None) is None
        assert package.__path__


def test_the_package_says_that_it_is_typed() -> None:
    """``py.typed`` is there, so that type checkers read the annotations."""
    assert importlib.resources.files(metrics).joinpath("py.typed").is_file()


@pytest.mark.anyio
async def test_a_recorder_satisfies_the_protocol() -> None:
    """A recorder is a MetricsRecorderProto, by isinstance; a metric is not."""
    assert isinstance(MetricsRecorder("x"), MetricsRecorderProto)
    assert not isinstance(Count(), MetricsRecorderProto)


def test_a_stand_in_satisfies_the_protocol() -> None:
    """Any class with the four methods does; one that lacks a method does not."""

    class StandIn:
        def register_metric(self, metric: object) -> None: ...
        def register_event(self, event: object) -> None: ...
        def get_metric_snapshots(self) -> dict[str, dict[str, object]]:
            return {}

        def iter_metrics(self) -> list[Seen]:
            return []

    class Half:
        def register_metric(self, metric: object) -> None: ...
        def register_event(self, event: object) -> None: ...

    assert isinstance(StandIn(), MetricsRecorderProto)
    assert not isinstance(Half(), MetricsRecorderProto)


def test_a_recorder_keeps_its_names_to_itself() -> None:
    """A subclass may use any name that is not documented: everything else is private by mangling."""
    documented = {
        "aget_metric_snapshots",
        "aregister_event",
        "entity_id",
        "flush",
        "get_metric_snapshots",
        "get_status",
        "iter_metrics",
        "namespace",
        "register_event",
        "register_metric",
        "start",
        "statistics",
        "stop",
        "_on_starting",
        "_on_metric_changed",
        "_on_stopped",
    }
    own = {name for name in vars(MetricsRecorder) if not name.startswith("__")}
    assert {name for name in own if not name.startswith("_MetricsRecorder__")} == documented
