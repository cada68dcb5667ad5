"""Wrong arguments and wrong moments: a clear error, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeStartupError,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderQueueOverflowError,
    RecorderState,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._recorder import core_of
from tests.support import DEADLINE, Count, Gate, Journal, Seen, Tick, auntil, balanced, until, virgin

STRANGE: Any = object()


def named(argument: str, value: object) -> str:
    """A pattern: the message names the argument and the value."""
    return rf"argument '{argument}'.*{re.escape(repr(value))}"


def still_working(recorder: MetricsRecorder) -> None:
    """An event emitted now is measured, it is the only one there ever was, and the ledger is balanced.

    From another thread than the recorder's.
    """
    recorder.register_metric(count := Count("still_working"))
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    _check(recorder, count)


async def astill_working(recorder: MetricsRecorder) -> None:
    """The same from the recorder's own loop."""
    recorder.register_metric(count := Count("still_working"))
    recorder.register_event(Tick())
    assert (await recorder.flush()).success
    _check(recorder, count)


def _check(recorder: MetricsRecorder, count: Count) -> None:
    s = recorder.statistics()
    assert recorder.get_status() is RecorderState.RUNNING
    assert count.total == 1
    assert (s.offered, s.processed) == (1, 1)
    assert balanced(s)


@pytest.fixture
def runtime(backend: dict[str, Any]) -> Iterator[MetricsRuntime]:
    with MetricsRuntime(namespace="t", **backend) as runtime:
        yield runtime


# --- making a recorder ---------------------------------------------------------------------------

WRONG_POSITIVE_INT = [(True, TypeError), (1.5, TypeError), ("7", TypeError), (0, ValueError), (-3, ValueError)]
WRONG_SECONDS = [
    (True, TypeError),
    ("1", TypeError),
    (-0.5, ValueError),
    (math.inf, ValueError),
    (math.nan, ValueError),
]
WRONG_RECORDER_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    ("entity_id", None, ValueError),
    ("entity_id", 7, TypeError),
    ("entity_id", b"orders", TypeError),
    ("namespace", 7, TypeError),
    ("namespace", b"shop", TypeError),
    *(("queue_max_size", value, kind) for value, kind in WRONG_POSITIVE_INT),
    ("queue_overflow_policy", "DROP", TypeError),
    ("queue_overflow_policy", FailurePolicy.FAIL, TypeError),
    ("failure_policy", "ISOLATE", TypeError),
    ("failure_policy", OverflowPolicy.DROP, TypeError),
    *(("drain_timeout", value, kind) for value, kind in WRONG_SECONDS),
    *(("block_timeout", value, kind) for value, kind in WRONG_SECONDS),
    *(("linger", value, kind) for value, kind in WRONG_SECONDS),
    *(("quarantine_after", value, kind) for value, kind in WRONG_POSITIVE_INT),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("argument", "value", "kind"), WRONG_RECORDER_OPTIONS)
async def test_a_recorder_refuses_a_wrong_option(argument: str, value: object, kind: type[Exception]) -> None:
    """Each constructor argument is checked when the recorder is made."""
    options = {"entity_id": "x", argument: value}
    with pytest.raises(kind, match=named(argument, value)):
        MetricsRecorder(**options)  # type: ignore[arg-type] # because wrong arguments are what is tested


@pytest.mark.anyio
@pytest.mark.parametrize("blank", ["", "   ", "\n"])
async def test_a_blank_entity_id_is_replaced(blank: str) -> None:
    """Not an error: an id is generated."""
    assert re.fullmatch("[0-9a-f]{8}", MetricsRecorder(blank).entity_id)


@pytest.mark.anyio
async def test_an_entity_id_is_stripped() -> None:
    """Blanks around an id are not part of it."""
    assert MetricsRecorder("  orders\n").entity_id == "orders"


def test_a_recorder_needs_a_loop() -> None:
    """Made where no event loop runs, the error says where to make it instead."""
    with pytest.raises(RecorderLoopUnavailableError, match=r"none runs here; use MetricsRuntime\.create_recorder"):
        MetricsRecorder("x")


@pytest.mark.anyio
async def test_a_recorder_needs_a_loop_in_its_own_thread() -> None:
    """A loop in another thread does not count."""
    with pytest.raises(RecorderLoopUnavailableError):
        await anyio.to_thread.run_sync(MetricsRecorder, "x")


# --- making a runtime ----------------------------------------------------------------------------

WRONG_RUNTIME_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    ("namespace", None, ValueError),
    ("namespace", 7, TypeError),
    ("backend", "curio", ValueError),
    ("backend", "", ValueError),
    ("backend", "uvloop", ValueError),
    ("backend", None, TypeError),
    ("backend", 7, TypeError),
    ("backend_options", "debug", TypeError),
    ("backend_options", [("debug", True)], TypeError),
    *(("default_recorder_queue_max_size", value, kind) for value, kind in WRONG_POSITIVE_INT),
    ("default_recorder_queue_overflow_policy", "DROP", TypeError),
    ("default_recorder_queue_overflow_policy", None, TypeError),
    *(("startup_timeout", value, kind) for value, kind in WRONG_SECONDS),
]


@pytest.mark.parametrize(("argument", "value", "kind"), WRONG_RUNTIME_OPTIONS)
def test_a_runtime_refuses_a_wrong_option(argument: str, value: object, kind: type[Exception]) -> None:
    """Each constructor argument is checked when the runtime is made, before anything runs."""
    options = {"namespace": "t", argument: value}
    with pytest.raises(kind, match=named(argument, value)):
        MetricsRuntime(**options)  # type: ignore[arg-type] # because wrong arguments are what is tested


def test_an_unknown_backend_names_the_known_ones() -> None:
    """The error says what there is to choose from."""
    with pytest.raises(ValueError, match="'asyncio', 'trio'"):
        MetricsRuntime(namespace="t", backend="twisted")


def test_an_option_that_the_backend_does_not_know_fails_the_start() -> None:
    """The backend's own complaint is the cause, and no thread stays behind."""
    runtime = MetricsRuntime(namespace="t", backend="trio", backend_options={"nonsense": 1})
    with pytest.raises(MetricsRuntimeStartupError, match="nonsense") as caught:
        runtime.start()
    assert isinstance(caught.value.cause, TypeError)
    assert runtime.get_status() is MetricsRuntimeState.FAILURE
    # The start is answered in the thread's last moments.
    until(lambda: not any(thread.name == "mvx.common.metrics t" for thread in threading.enumerate()))


def run_python(program: str) -> str:
    """What ``program`` prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


NOT_INSTALLED = """
    import importlib.abc
    import sys

    class Blocker(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == {blocked!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Blocker())

    from mvx.common.metrics import MetricsRuntime, MetricsRuntimeStartupError

    def attempt(**options):
        try:
            MetricsRuntime(namespace="t", **options).start()
        except MetricsRuntimeStartupError as exc:
            print(exc)

    attempt({options})
    # The others work.
    with MetricsRuntime(namespace="t") as runtime:
        runtime.create_recorder("x")
        print(runtime.get_status().value)
"""


@pytest.mark.parametrize(
    ("blocked", "options", "says"),
    [
        ("trio", "backend='trio'", ["trio", "pip install 'mvx-metrics[trio]'"]),
        ("uvloop", "backend_options={'use_uvloop': True}", ["uvloop", "pip install 'mvx-metrics[uvloop]'"]),
    ],
)
def test_a_backend_that_is_not_installed_says_how_to_install_it(blocked: str, options: str, says: list[str]) -> None:
    """The error names the extra; without it the package works on plain asyncio."""
    error, state = run_python(NOT_INSTALLED.format(blocked=blocked, options=options)).splitlines()
    for part in says:
        assert part in error
    assert re.search(rf"\b{blocked}'? is not installed", error)
    assert state == "RUNNING"


def test_the_package_works_without_trio() -> None:
    """A recorder made by hand on asyncio, where trio cannot be imported."""
    program = """
        import sys
        sys.modules["trio"] = None
        import asyncio
        from mvx.common.metrics import MetricsRecorder

        async def main():
            async with MetricsRecorder("x") as recorder:
                print(await recorder.aget_metric_snapshots())

        asyncio.run(main())
    """
    assert run_python(program).strip() == "{}"


# --- the runtime's methods -----------------------------------------------------------------------

WRONG_IDS = [(None, ValueError), ("", ValueError), (" \n", ValueError), (7, TypeError), (b"x", TypeError)]
BY_ID: list[Callable[[MetricsRuntime, Any], object]] = [
    lambda runtime, recorder_id: runtime.create_recorder(recorder_id),
    lambda runtime, recorder_id: runtime.get_recorder(recorder_id),
    lambda runtime, recorder_id: runtime.try_get_recorder(recorder_id),
    lambda runtime, recorder_id: runtime.stop_recorder(recorder_id),
    lambda runtime, recorder_id: runtime.stop_and_remove_recorder(recorder_id),
]


@pytest.mark.parametrize("call", BY_ID, ids=["create", "get", "try_get", "stop", "stop_and_remove"])
@pytest.mark.parametrize(("value", "kind"), WRONG_IDS)
def test_a_runtime_refuses_a_wrong_id(
    runtime: MetricsRuntime, call: Callable[[MetricsRuntime, Any], object], value: object, kind: type[Exception]
) -> None:
    """Every method that takes an id checks it the same way; the recorders go on."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(kind, match=named("recorder_id", value)):
        call(runtime, value)
    assert runtime.list_recorder_ids() == ("x",)
    still_working(recorder)


WRONG_CREATION_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    ("factory", None, TypeError),
    ("factory", "MetricsRecorder", TypeError),
    ("entity_id", 7, TypeError),
    ("namespace", 7, TypeError),
    *(("queue_max_size", value, kind) for value, kind in WRONG_POSITIVE_INT),
    ("queue_overflow_policy", "DROP", TypeError),
]


@pytest.mark.parametrize(("argument", "value", "kind"), WRONG_CREATION_OPTIONS)
def test_creating_refuses_a_wrong_option(
    runtime: MetricsRuntime, argument: str, value: object, kind: type[Exception]
) -> None:
    """Raised to the caller itself, and the id stays free."""
    options: dict[str, Any] = {argument: value}
    with pytest.raises(kind, match=named(argument, value)):
        runtime.create_recorder("x", **options)
    still_working(runtime.create_recorder("x"))


@pytest.mark.anyio
@pytest.mark.parametrize(("argument", "value", "kind"), WRONG_CREATION_OPTIONS)
async def test_creating_refuses_a_wrong_option_in_the_async_form(
    backend: dict[str, Any], argument: str, value: object, kind: type[Exception]
) -> None:
    """The same check in acreate_recorder."""
    options: dict[str, Any] = {argument: value}
    async with MetricsRuntime(namespace="t", **backend) as runtime:
        with pytest.raises(kind, match=named(argument, value)):
            await runtime.acreate_recorder("x", **options)
        assert runtime.list_recorder_ids() == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"failure_policy": "FAIL"}, named("failure_policy", "FAIL")),
        ({"drain_timeout": -1}, named("drain_timeout", -1)),
        ({"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
    ],
)
def test_a_wrong_option_for_the_factory_is_a_failed_creation(
    runtime: MetricsRuntime, options: dict[str, Any], says: str
) -> None:
    """What only the factory can judge comes back as the cause, and the id is free again."""
    with pytest.raises(MetricsRuntimeRecorderStartupError, match="'x'") as caught:
        runtime.create_recorder("x", **options)
    assert re.search(says, str(caught.value.cause))
    still_working(runtime.create_recorder("x"))


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (lambda _id: None, "None"),
        (lambda _id: Count(), "Count"),
        (lambda _id: MetricsRecorder, "MetricsRecorder"),
    ],
)
def test_a_factory_must_return_a_recorder(
    runtime: MetricsRuntime, factory: Callable[..., MetricsRecorder], says: str
) -> None:
    """The error names the argument and what came instead."""
    with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
        runtime.create_recorder("x", factory=factory)
    assert isinstance(caught.value.cause, TypeError)
    assert re.search(rf"argument 'factory' must return a new MetricsRecorder.*{says}", str(caught.value.cause))
    still_working(runtime.create_recorder("x"))


def test_a_factory_must_make_the_recorder_anew(runtime: MetricsRuntime) -> None:
    """A recorder that is registered already cannot be registered under a second id."""
    first = runtime.create_recorder("first")
    with pytest.raises(MetricsRuntimeRecorderStartupError):
        runtime.create_recorder("second", factory=lambda _id: first)
    assert runtime.list_recorder_ids() == ("first",)
    assert first.get_status() is RecorderState.RUNNING
    still_working(first)


def test_a_factory_cannot_bring_a_recorder_of_another_runtime(runtime: MetricsRuntime, backend: dict[str, Any]) -> None:
    """It lives in the other one's thread, and goes on there."""
    with MetricsRuntime(namespace="other", **backend) as other:
        foreign = other.create_recorder("x")
        with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
            runtime.create_recorder("x", factory=lambda _id: foreign)
        assert "argument 'factory'" in str(caught.value.cause)
        assert runtime.list_recorder_ids() == ()
        still_working(foreign)


# --- events --------------------------------------------------------------------------------------


class Nameless(MetricEvent):
    """Cannot say what it is."""

    @property
    def event_type(self) -> str:
        raise LookupError("no name")


class Numbered(MetricEvent):
    """Says what it is with a number."""

    @property
    def event_type(self) -> str:
        return 7  # type: ignore[return-value] # because that is the mistake


class Shapeless(MetricEvent):
    """Has a class attribute in the place of the property."""

    event_type = None  # type: ignore[assignment] # because that is the mistake


WRONG_EVENTS: list[tuple[Any, type[Exception], str]] = [
    (None, ValueError, r"argument 'event' must be a MetricEvent, got None"),
    ("tick", TypeError, r"argument 'event' must be a MetricEvent, got 'tick' of type 'str'"),
    (Tick, TypeError, r"argument 'event' must be a MetricEvent, got <class .*Tick'> of type"),
    (STRANGE, TypeError, r"argument 'event' must be a MetricEvent, got <object object"),
    (Count(), TypeError, r"argument 'event' must be a MetricEvent, got .* of type 'Count'"),
    (Nameless(), ValueError, r"argument 'event': Nameless\.event_type raised LookupError\('no name'\)"),
    (Numbered(), ValueError, r"argument 'event': Numbered\.event_type must be a str, got 7"),
    (Shapeless(), ValueError, r"argument 'event': Shapeless\.event_type must be a str, got None"),
]


async def _register_event(recorder: MetricsRecorder, event: Any) -> None:
    recorder.register_event(event)


async def _aregister_event(recorder: MetricsRecorder, event: Any) -> None:
    await recorder.aregister_event(event)


@pytest.mark.anyio
@pytest.mark.parametrize("register", [_register_event, _aregister_event])
@pytest.mark.parametrize(("event", "kind", "says"), WRONG_EVENTS)
async def test_a_wrong_event_is_refused(
    home: str,
    register: Callable[[MetricsRecorder, Any], Awaitable[None]],
    event: object,
    kind: type[Exception],
    says: str,
) -> None:
    """Every time, not only the first; it does not start the recorder, and is no offered event."""
    async with virgin(home, MetricsRecorder, "x") as recorder:
        for _ in range(2):
            with pytest.raises(kind, match=says):
                await register(recorder, event)
        assert recorder.get_status() is RecorderState.VIRGIN
        assert (await recorder.start()).success
        with pytest.raises(kind, match=says):
            await register(recorder, event)
        await astill_working(recorder)


def test_the_error_of_an_event_type_is_chained(runtime: MetricsRuntime) -> None:
    """What the event's own code raised is the cause."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(ValueError, match="Nameless") as caught:
        recorder.register_event(Nameless())
    assert isinstance(caught.value.__cause__, LookupError)
    still_working(recorder)


def test_a_wrong_event_is_refused_by_a_full_recorder(runtime: MetricsRuntime) -> None:
    """It is bad input, not an overflow, and counts as neither."""
    recorder = runtime.create_recorder("x", factory=Journal, queue_max_size=1)
    recorder.register_metric(Count())
    recorder.changed = gate = Gate()
    recorder.register_event(Tick())
    assert gate.reached.wait(DEADLINE)
    for event, kind, says in WRONG_EVENTS:
        with pytest.raises(kind, match=says):
            recorder.register_event(event)
    gate.open()
    assert recorder.flush().wait(DEADLINE).success
    s = recorder.statistics()
    assert (s.offered, s.processed) == (1, 1)


def test_an_abstract_event_cannot_be_made() -> None:
    """A class without event_type fails where the event is made, not where it is emitted."""
    with pytest.raises(TypeError, match="event_type"):
        MetricEvent()  # type: ignore[abstract] # because that is the mistake


# --- metrics -------------------------------------------------------------------------------------


class Wanting(Count):
    """Wants what it is told to want."""

    def __init__(self, wanted: Any) -> None:
        super().__init__()
        self.event_types = wanted  # type: ignore[misc] # because one class serves all cases


class Named(Count):
    """Has whatever it is given for a name."""

    def __init__(self, name: Any) -> None:
        super().__init__(name)


class NamelessMetric(Count):
    """Cannot say its name."""

    @property
    def metric_name(self) -> str:
        raise LookupError("no name")


class Unwanting(Count):
    """Cannot say what it wants."""

    @property
    def event_types(self) -> Any:  # type: ignore[override] # because a property here is the mistake
        raise LookupError("no idea")


WRONG_METRICS: list[tuple[Any, type[Exception], str]] = [
    (None, ValueError, r"argument 'metric' must be a Metric, got None"),
    ("count", TypeError, r"argument 'metric' must be a Metric, got 'count' of type 'str'"),
    (Count, TypeError, r"argument 'metric' must be a Metric, got <class .*Count'>"),
    (Tick(), TypeError, r"argument 'metric' must be a Metric, got Tick\(n=0\)"),
    (Named(7), TypeError, r"argument 'metric': Named\.metric_name must be a str, got 7"),
    (Named(None), TypeError, r"argument 'metric': Named\.metric_name must be a str, got None"),
    (Named(""), ValueError, r"argument 'metric': Named\.metric_name must not be blank, got ''"),
    (Named(" \t"), ValueError, r"argument 'metric': Named\.metric_name must not be blank, got ' \\t'"),
    (NamelessMetric(), ValueError, r"argument 'metric': NamelessMetric\.metric_name raised LookupError\('no name'\)"),
    (Wanting([Tick]), TypeError, r"argument 'metric': Wanting\.event_types must be None or a tuple .*, got \[<class"),
    (
        Wanting(Tick),
        TypeError,
        r"argument 'metric': Wanting\.event_types must be None or a tuple .*, got <class .*Tick",
    ),
    (Wanting("Tick"), TypeError, r"argument 'metric': Wanting\.event_types must be None or a tuple .*, got 'Tick'"),
    (Wanting((Tick, "Tock")), TypeError, r"argument 'metric': Wanting\.event_types must hold .* only, got 'Tock'"),
    (Wanting((7,)), TypeError, r"argument 'metric': Wanting\.event_types must hold .* only, got 7"),
    (Wanting((int,)), TypeError, r"argument 'metric': Wanting\.event_types must hold .* only, got <class 'int'>"),
    (Wanting((Tick(),)), TypeError, r"argument 'metric': Wanting\.event_types must hold .* only, got Tick\(n=0\)"),
    (Wanting((Tick | None,)), TypeError, r"argument 'metric': Wanting\.event_types must hold .* only, got .*Tick"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("metric", "kind", "says"), WRONG_METRICS)
async def test_a_wrong_metric_is_refused(home: str, metric: object, kind: type[Exception], says: str) -> None:
    """It is not registered; the metrics that are, and the recorder, go on."""
    async with virgin(home, MetricsRecorder, "x") as recorder:
        recorder.register_metric(seen := Seen())
        for _ in range(2):
            with pytest.raises(kind, match=says):
                recorder.register_metric(metric)  # type: ignore[arg-type] # because bad input is what is tested
        assert list(recorder.iter_metrics()) == [seen]
        assert (await recorder.start()).success
        await astill_working(recorder)
        assert len(seen.events) == 1


def test_event_types_that_cannot_be_read_are_refused(runtime: MetricsRuntime) -> None:
    """Like a name that cannot be read: by name, with the cause."""
    recorder = runtime.create_recorder("x")
    with pytest.raises(ValueError, match=r"argument 'metric': Unwanting\.event_types raised LookupError") as caught:
        recorder.register_metric(Unwanting())
    assert isinstance(caught.value.__cause__, LookupError)
    still_working(recorder)


def test_wanting_nothing_is_allowed(runtime: MetricsRuntime) -> None:
    """An empty tuple is a tuple of event classes."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(wanting := Wanting(()))
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).success
    assert wanting.total == 0
    assert recorder.statistics().unmatched == 1


def test_an_abstract_metric_cannot_be_made() -> None:
    """A class without a method fails where the metric is made."""
    with pytest.raises(TypeError, match="metric_name"):
        Metric()  # type: ignore[abstract] # because that is the mistake


class Unreadable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class Showing(Count):
    """Shows itself as it is told to."""

    def __init__(self, show: Callable[[], Any], name: str = "showing") -> None:
        super().__init__(name)
        self.show = show

    def snapshot(self) -> Mapping[str, Any]:
        shown: Mapping[str, Any] = self.show()
        return shown


def raising(error: BaseException) -> Callable[[], Any]:
    def show() -> Any:
        raise error

    return show


@pytest.mark.parametrize(
    ("show", "error"),
    [
        (raising(ValueError("boom")), {"type": "ValueError", "message": "boom"}),
        (raising(SystemExit(3)), {"type": "SystemExit", "message": "3"}),
        (raising(asyncio.CancelledError()), {"type": "CancelledError", "message": ""}),
        (raising(KeyboardInterrupt()), {"type": "KeyboardInterrupt", "message": ""}),
        (lambda: None, {"type": "TypeError", "message": "Showing.snapshot() must return a mapping, got None"}),
        (lambda: [1], {"type": "TypeError", "message": "Showing.snapshot() must return a mapping, got [1]"}),
        (lambda: "a", {"type": "TypeError", "message": "Showing.snapshot() must return a mapping, got 'a'"}),
    ],
)
def test_a_wrong_snapshot_shows_its_failure_in_its_place(
    runtime: MetricsRuntime, show: Callable[[], Any], error: dict[str, str]
) -> None:
    """The other metrics' snapshots are returned all the same, and each failure is counted."""
    recorder = runtime.create_recorder("x")
    for metric in (Count("first"), Showing(show), Count("last")):
        recorder.register_metric(metric)
    recorder.register_event(Tick())
    for times in (1, 2):
        snapshots = recorder.get_metric_snapshots()
        assert list(snapshots) == ["first", "showing", "last"]
        assert snapshots["first"]["dimensions"] == snapshots["last"]["dimensions"] == {"total": 1}
        assert snapshots["showing"] == {"name": "showing", "dimensions": {}, "error": error}
        assert recorder.statistics().metric_errors == times
    recorder.register_event(Tick())
    assert recorder.get_metric_snapshots()["first"]["dimensions"] == {"total": 2}
    assert balanced(recorder.statistics())


def test_a_failure_that_cannot_be_shown_does_not_hide_the_other_snapshots(runtime: MetricsRuntime) -> None:
    """An exception whose str() raises, too, costs its own metric's snapshot and no other."""
    recorder = runtime.create_recorder("x")
    recorder.register_metric(Showing(raising(Unreadable())))
    recorder.register_metric(Count())
    recorder.register_event(Tick())
    snapshots = recorder.get_metric_snapshots()
    assert snapshots["count"]["dimensions"] == {"total": 1}
    assert snapshots["showing"]["error"]["type"] == "Unreadable"
    assert recorder.statistics().metric_errors == 1


class Brittle(Mapping[str, Any]):
    """A mapping that breaks when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise ValueError("broken")

    def __iter__(self) -> Iterator[str]:
        raise ValueError("broken")

    def __len__(self) -> int:
        return 1


def test_a_quarantined_metric_that_shows_a_broken_mapping_hides_no_other(runtime: MetricsRuntime) -> None:
    """The notice of the quarantine is added to the mapping, and adding it may fail."""

    class Sick(Showing):
        def handle_event(self, event: MetricEvent) -> bool:
            raise ValueError("boom")

    recorder = runtime.create_recorder("x", failure_policy=FailurePolicy.QUARANTINE, quarantine_after=1)
    recorder.register_metric(Sick(Brittle))
    recorder.register_metric(Count())
    recorder.register_event(Tick())
    snapshots = recorder.get_metric_snapshots()
    assert snapshots["count"]["dimensions"] == {"total": 1}
    assert snapshots["showing"]["error"] == {"type": "ValueError", "message": "broken"}


@pytest.mark.parametrize("policy", list(FailurePolicy))
def test_a_metric_may_raise_what_cannot_be_shown(runtime: MetricsRuntime, policy: FailurePolicy) -> None:
    """An exception whose str() and repr() raise is dealt with like any other."""

    class Sick(Count):
        def handle_event(self, event: MetricEvent) -> bool:
            raise Unreadable

    recorder = runtime.create_recorder("x", failure_policy=policy)
    recorder.register_metric(Sick("sick"))
    recorder.register_metric(count := Count())
    recorder.register_event(Tick())
    assert recorder.flush().wait(DEADLINE).op_name == "FLUSH"
    s = recorder.statistics()
    assert (s.metric_errors, s.processed) == (1, 1)
    assert balanced(s)
    if policy is FailurePolicy.FAIL:
        assert recorder.get_status() is RecorderState.FAILURE
        with pytest.raises(Exception, match="'x'"):
            runtime.stop_and_remove_recorder("x")
    else:
        assert count.total == 1
        assert recorder.get_status() is RecorderState.RUNNING


# --- wrong moments -------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("op", ["start", "stop", "flush"])
async def test_blocking_for_an_operation_on_the_own_loop_is_refused(op: str) -> None:
    """``handle.wait()`` would wait for itself: it says so and what to do; the operation goes on."""
    recorder = Journal("x")
    recorder.register_metric(Count())
    recorder.starting = gate = Gate()
    starting = recorder.start()
    if op != "start":
        gate.open()
        assert (await starting).success
        recorder.changed = gate = Gate()
        recorder.register_event(Tick())
    handle = {"start": lambda: starting, "stop": recorder.stop, "flush": recorder.flush}[op]()
    with pytest.raises(RecorderWouldDeadlockError, match=rf"wait\(\) for {op.upper()} .*await the handle instead"):
        handle.wait()
    with pytest.raises(RecorderWouldDeadlockError):
        handle.wait(timeout=0.0)
    gate.open()
    assert (await handle).success
    # Over, there is nothing left to wait for.
    assert handle.wait().success
    await recorder.stop()
    assert balanced(recorder.statistics())


class SelfAwaiting(MetricsRecorder):
    """Awaits, in one of its hooks, something that needs the hook to return first."""

    def __init__(self, hook: str, wait_for: Callable[[MetricsRecorder], Awaitable[object]]) -> None:
        super().__init__("x")
        self.hook = hook
        self.wait_for = wait_for
        self.caught: BaseException | None = None

    async def _in(self, hook: str) -> None:
        if hook == self.hook:
            try:
                await self.wait_for(self)
            except RecorderWouldDeadlockError as exc:
                self.caught = exc

    async def _on_starting(self) -> None:
        await self._in("starting")

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        await self._in("changed")

    async def _on_stopped(self) -> None:
        await self._in("stopped")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("hook", "wait_for"),
    [
        ("starting", lambda recorder: recorder.start()),
        ("starting", lambda recorder: recorder.flush()),
        ("starting", lambda recorder: recorder.aget_metric_snapshots()),
        ("changed", lambda recorder: recorder.flush()),
        ("changed", lambda recorder: recorder.stop()),
        ("changed", lambda recorder: recorder.aget_metric_snapshots()),
        ("stopped", lambda recorder: recorder.stop()),
    ],
)
async def test_a_hook_cannot_await_its_own_recorder(
    home: str, hook: str, wait_for: Callable[[MetricsRecorder], Awaitable[object]]
) -> None:
    """It gets an error instead of hanging for ever, and the recorder goes on."""
    with anyio.fail_after(DEADLINE):
        async with virgin(home, SelfAwaiting, hook, wait_for) as recorder:
            recorder.register_metric(count := Count())
            assert (await recorder.start()).success
            recorder.register_event(Tick())
            assert (await recorder.flush()).success
            await recorder.stop()
            assert isinstance(recorder.caught, RecorderWouldDeadlockError)
            assert "hook of the same recorder" in recorder.caught.message
            assert recorder.get_status() is RecorderState.STOPPED
            assert count.total == 1
            assert balanced(recorder.statistics())


@pytest.mark.anyio
async def test_block_on_the_own_loop_raises_at_once() -> None:
    """Waiting could never end there: the error comes without the wait and names the way out."""
    recorder = Journal("x", queue_max_size=1, queue_overflow_policy=OverflowPolicy.BLOCK, block_timeout=3600.0)
    recorder.register_metric(count := Count())
    recorder.changed = gate = Gate()
    assert (await recorder.start()).success
    recorder.register_event(Tick())
    with pytest.raises(RecorderQueueOverflowError, match=r"await aregister_event\(\) there") as caught:
        recorder.register_event(Tick())
    assert dict(caught.value.details) == {"capacity": 1}
    gate.open()
    assert (await recorder.stop()).success
    s = recorder.statistics()
    assert (s.offered, s.accepted, s.rejected, count.total) == (2, 1, 1, 1)
    assert balanced(s)


@pytest.mark.anyio
async def test_waiting_for_room_in_an_own_hook_raises_at_once(home: str) -> None:
    """Only the hook's return makes room: aregister_event does not wait for that in the hook."""

    class Echo(MetricsRecorder):
        caught: RecorderQueueOverflowError | None = None

        async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
            try:
                await self.aregister_event(event)
            except RecorderQueueOverflowError as exc:
                self.caught = exc

    with anyio.fail_after(DEADLINE):
        async with virgin(home, Echo, "x", queue_max_size=1) as recorder:
            recorder.register_metric(Count())
            recorder.register_event(Tick())
            assert (await recorder.flush()).success
            assert recorder.caught is not None
            assert "hook" in recorder.caught.message
            s = recorder.statistics()
            assert (s.processed, s.rejected) == (1, 1)
            assert balanced(s)


# --- a loop that has ended -----------------------------------------------------------------------


def run(anyio_backend: tuple[str, dict[str, Any]], main: Callable[[], Awaitable[MetricsRecorder]]) -> MetricsRecorder:
    """Run ``main`` on a loop that has ended when this returns."""
    name, options = anyio_backend
    return anyio.run(main, backend=name, backend_options=options)


def assert_dead(recorder: MetricsRecorder, state: RecorderState, cause: type[Exception]) -> None:
    """Every call answers, none hangs, and the errors say why."""
    with pytest.raises(RecorderInvalidStateError, match=rf"register_event\(\) .* '{state.value}'") as caught:
        recorder.register_event(Tick())
    assert isinstance(caught.value.cause, cause)
    assert recorder.get_status() is state
    with pytest.raises(RecorderInvalidStateError):
        recorder.register_metric(Count("late"))
    for handle in (recorder.start(), recorder.stop()):
        result = handle.wait(DEADLINE)
        assert not result.success
        assert isinstance(result.error, RecorderInvalidStateError)
        assert isinstance(result.error.cause, cause)
    assert recorder.flush().wait(DEADLINE).op_name == "FLUSH"
    assert "count" in recorder.get_metric_snapshots()
    assert [metric.metric_name for metric in recorder.iter_metrics()] == ["count"]
    assert balanced(recorder.statistics())


def test_an_unstarted_recorder_whose_loop_has_ended(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Its first event is refused with the reason, and it has failed."""

    async def main() -> MetricsRecorder:
        recorder = MetricsRecorder("x")
        recorder.register_metric(Count())
        return recorder

    recorder = run(anyio_backend, main)
    assert_dead(recorder, RecorderState.FAILURE, RecorderLoopUnavailableError)
    s = recorder.statistics()
    assert (s.accepted, s.rejected) == (0, s.offered)


def test_starting_a_recorder_whose_loop_has_ended(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """The result says that the loop is gone; nothing is raised and nothing hangs."""

    async def main() -> MetricsRecorder:
        recorder = MetricsRecorder("x")
        recorder.register_metric(Count())
        return recorder

    recorder = run(anyio_backend, main)
    result = recorder.start().wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert_dead(recorder, RecorderState.FAILURE, RecorderLoopUnavailableError)


def test_starting_a_stopped_recorder_again_whose_loop_has_ended(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """The same for a restart; what was measured is still there."""

    async def main() -> MetricsRecorder:
        recorder = MetricsRecorder("x")
        recorder.register_metric(Count())
        recorder.register_event(Tick())
        assert (await recorder.start()).op_name == "START"
        assert (await recorder.stop()).success
        return recorder

    recorder = run(anyio_backend, main)
    assert recorder.get_status() is RecorderState.STOPPED
    result = recorder.start().wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}
    assert_dead(recorder, RecorderState.FAILURE, RecorderLoopUnavailableError)


def test_a_running_recorder_whose_loop_has_ended(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """Ending the loop cancels it: what it had accepted was measured, later events are refused."""

    async def main() -> MetricsRecorder:
        recorder = MetricsRecorder("x")
        recorder.register_metric(Count())
        assert (await recorder.start()).success
        for n in range(5):
            recorder.register_event(Tick(n))
        return recorder

    recorder = run(anyio_backend, main)
    assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 5}
    assert recorder.get_status() is RecorderState.CANCELLED
    assert_dead(recorder, RecorderState.CANCELLED, Exception)


@contextmanager
def bare_asyncio_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that the test closes while tasks are left in it, which asyncio reports to its logger."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        yield loop
    finally:
        loop.close()


async def start_here(linger: float = 0.0) -> tuple[MetricsRecorder, Count]:
    recorder = MetricsRecorder("x", linger=linger)
    recorder.register_metric(count := Count())
    assert (await recorder.start()).success
    recorder.register_event(Tick())
    assert (await recorder.flush()).success
    inbox = core_of(recorder).inbox
    await auntil(lambda: inbox.lingering if linger else inbox.idle)
    return recorder, count


def test_a_recorder_whose_loop_was_closed_without_a_word() -> None:
    """``loop.close()`` cancels nothing: the next event is refused, every call answers, the ledger is balanced."""
    with bare_asyncio_loop() as loop:
        recorder, count = loop.run_until_complete(start_here())
    assert recorder.get_status() is RecorderState.RUNNING
    assert_dead(recorder, RecorderState.FAILURE, RecorderLoopUnavailableError)
    s = recorder.statistics()
    assert (s.accepted, s.processed, count.total) == (1, 1, 1)
    gc.collect()


def test_events_emitted_after_the_loop_was_closed_in_a_linger_are_counted() -> None:
    """In a linger nobody is told of an event, so these are accepted; the next call that asks finds them lost."""
    with bare_asyncio_loop() as loop:
        recorder, count = loop.run_until_complete(start_here(linger=3600.0))
    for n in range(3):
        recorder.register_event(Tick(n))
    result = recorder.flush().wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert_dead(recorder, RecorderState.FAILURE, RecorderLoopUnavailableError)
    s = recorder.statistics()
    assert (s.accepted, s.processed, s.abandoned, count.total) == (4, 1, 3, 1)
    gc.collect()


def test_an_event_pending_when_the_loop_was_closed_is_abandoned() -> None:
    """Accepted between two runs of the loop, never processed, and counted."""
    with bare_asyncio_loop() as loop:
        recorder, count = loop.run_until_complete(start_here())
        recorder.register_event(Tick())
        assert recorder.statistics().pending == 1
    result = recorder.stop().wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert recorder.get_status() is RecorderState.FAILURE
    s = recorder.statistics()
    assert (s.accepted, s.processed, s.abandoned, count.total) == (2, 1, 1, 1)
    assert balanced(s)
    gc.collect()


def test_a_wait_ends_when_the_loop_is_closed() -> None:
    """Somebody who waits for a recorder of a closed loop is told, without a time limit of their own."""
    with bare_asyncio_loop() as loop:
        recorder, _count = loop.run_until_complete(start_here())
        stopping = recorder.stop()
    result = stopping.wait(DEADLINE)
    assert isinstance(result.error, RecorderLoopUnavailableError)
    gc.collect()


def test_a_loop_between_two_runs_has_not_ended() -> None:
    """``run_until_complete`` twice: what was emitted in between is processed in the second run."""
    with bare_asyncio_loop() as loop:
        recorder, count = loop.run_until_complete(start_here())
        recorder.register_event(Tick())
        # Nobody runs the loop: reading must not wait for it.
        assert recorder.get_metric_snapshots()["count"]["dimensions"] == {"total": 1}

        async def stop() -> bool:
            return (await recorder.stop()).success

        assert loop.run_until_complete(stop())
    assert count.total == 2
    assert balanced(recorder.statistics())


@asynccontextmanager
async def another_loop() -> AsyncIterator[Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]]:
    """Runs a function on an asyncio loop in a thread of its own, which has ended when it returns."""

    async def elsewhere(function: Callable[[], Awaitable[Any]]) -> Any:
        return await anyio.to_thread.run_sync(lambda: anyio.run(function, backend="asyncio"))

    yield elsewhere


@pytest.mark.anyio
async def test_entering_a_recorder_on_another_loop_is_refused() -> None:
    """``async with`` belongs on the loop that the recorder was made on; refused, the recorder is as it was."""
    recorder = MetricsRecorder("x")

    async def enter() -> None:
        with pytest.raises(RecorderLoopUnavailableError, match="must run on the loop that the recorder was made on"):
            await recorder.__aenter__()

    async with another_loop() as elsewhere:
        await elsewhere(enter)
    assert recorder.get_status() is RecorderState.VIRGIN
    async with recorder:
        await astill_working(recorder)


@pytest.mark.anyio
async def test_calls_from_a_loop_that_ends_at_once(home: str) -> None:
    """Emitting, flushing and reading from loops that come and go leave nothing behind in the recorder."""
    async with virgin(home, MetricsRecorder, "x") as recorder:
        recorder.register_metric(count := Count())

        async def visit() -> Mapping[str, Any]:
            recorder.register_event(Tick())
            await recorder.aregister_event(Tick())
            with anyio.move_on_after(0):
                await recorder.flush()  # given up at once: the loop ends while the recorder may want to answer
            return await recorder.aget_metric_snapshots()

        async with another_loop() as elsewhere:
            for n in range(1, 4):
                assert (await elsewhere(visit))["count"]["dimensions"] == {"total": 2 * n}
        assert (await recorder.flush()).success
        assert count.total == 6
        assert balanced(recorder.statistics())
