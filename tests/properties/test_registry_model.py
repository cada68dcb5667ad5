"""A runtime's registry does what a dict of recorders does, in whatever order its calls are made."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mvx.common.metrics import (
    FailurePolicy,
    Metric,
    MetricsError,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeState,
    OverflowPolicy,
    RecorderState,
)
from mvx.common.metrics._recorder import core_of
from tests.conftest import Effort, Tally
from tests.properties.model import Refused, Trouble
from tests.support import DEADLINE, Failing, Tick

R = MetricsRuntimeState
S = RecorderState


# --- recorders -----------------------------------------------------------------------------------


class Faithful(MetricsRecorder):
    """Does all that is asked of it."""


class Unwilling(MetricsRecorder):
    """Cannot start."""

    async def _on_starting(self) -> None:
        raise ConnectionError("start")


class Stubborn(MetricsRecorder):
    """Cannot stop."""

    async def _on_stopped(self) -> None:
        raise ConnectionError("stop")


class Fragile(MetricsRecorder):
    """Fails with its first event."""

    def __init__(self, entity_id: str, **options: Any) -> None:
        super().__init__(entity_id, failure_policy=FailurePolicy.FAIL, **options)
        self.register_metric(Failing(ConnectionError("event")))


def broken_factory(entity_id: str) -> MetricsRecorder:
    raise ConnectionError("factory")


def wrong_factory(entity_id: str) -> Metric:
    return Failing(ConnectionError())


FACTORIES = [Faithful, Faithful, Stubborn, Fragile, Unwilling, broken_factory, wrong_factory]

# What comes of each: the cause of a failed creation.
CREATION_FAILS: dict[Any, Trouble] = {
    Unwilling: Trouble("ConnectionError", says="start"),
    broken_factory: Trouble("ConnectionError", says="factory"),
    wrong_factory: Trouble("TypeError"),
}


@dataclass(eq=False, slots=True)
class Made:
    """A recorder that was created, and what there is to know of it."""

    kind: Any
    state: RecorderState = S.RUNNING
    error: Trouble | None = None
    recorder: MetricsRecorder | None = None

    def refusal(self, *expected: str) -> Trouble:
        details = {"recorder_state": self.state.value, "expected_states": expected}
        return Trouble("RecorderInvalidStateError", details, self.error)

    def stop(self) -> Trouble | None:
        """Return the error of ``stop()``."""
        if self.state is not S.RUNNING:
            return self.refusal("RUNNING")
        self.state = S.STOPPED
        if self.kind is Stubborn:
            self.state = S.FAILURE
            cause = Trouble("ConnectionError", says="stop")
            self.error = Trouble("RecorderOnStoppedHookFailedError", cause=cause)
        return self.error

    def stop_for_good(self) -> Trouble | None:
        """Return what is wrong with it, for which having nothing to stop is nothing."""
        return None if self.state is S.STOPPED else self.stop()

    def lose_its_task(self) -> None:
        """The runtime has ended without having stopped it: it was removed, and started again by hand."""
        if self.state is S.RUNNING:
            self.state = S.CANCELLED
            self.error = Trouble("RecorderDispatcherCancelledError", {"abandoned": 0})

    def start(self, *, loop_is_gone: bool) -> Trouble | None:
        """Return the error of ``start()``."""
        if self.state is not S.STOPPED:
            return self.refusal("VIRGIN", "STOPPED")
        self.state = S.RUNNING
        if loop_is_gone:
            self.state, self.error = S.FAILURE, Trouble("RecorderLoopUnavailableError")
        return self.error

    def emit(self) -> None:
        """``register_event``, and all that comes of it."""
        if self.state is not S.RUNNING:
            raise Refused(self.refusal("VIRGIN", "STARTING", "RUNNING"))
        if self.kind is Fragile:
            self.state = S.FAILURE
            self.error = Trouble("RecorderUnexpectedError", cause=Trouble("ConnectionError", says="event"))


@dataclass(eq=False, slots=True)
class Registry:
    """The model: a runtime is a state and a dict."""

    state: MetricsRuntimeState = R.VIRGIN
    recorders: dict[str, Made] = field(default_factory=dict)
    everyone: list[Made] = field(default_factory=list)
    """Every recorder ever made, whether it is still registered or not."""

    def _require_running(self, *more: str) -> None:
        if self.state is not R.RUNNING:
            details = {"runtime_state": self.state.value, "expected_states": (*more, "RUNNING")}
            raise Refused(Trouble("MetricsRuntimeInvalidStateError", details))

    def start(self) -> None:
        if self.state is R.VIRGIN:
            self.state = R.RUNNING
        self._require_running("VIRGIN")

    def shutdown(self) -> None:
        if self.state is R.VIRGIN:
            self.state = R.CLOSED
        if self.state is not R.RUNNING:
            return
        ends = {recorder_id: made.stop_for_good() for recorder_id, made in self.recorders.items()}
        errors = {recorder_id: error for recorder_id, error in ends.items() if error is not None}
        for made in self.everyone:
            made.lose_its_task()
        self.state = R.CLOSED
        if errors:
            self.state = R.FAILURE
            details = {"failed_recorder_ids": tuple(errors), "recorder_errors": errors}
            raise Refused(Trouble("MetricsRuntimeShutdownError", details, next(iter(errors.values()))))

    def create(self, given: object, kind: Any) -> Made:
        recorder_id = self._id(given)
        self._require_running()
        if recorder_id in self.recorders:
            raise Refused(_about("AlreadyExists", recorder_id))
        if kind in CREATION_FAILS:
            raise Refused(_about("Startup", recorder_id, CREATION_FAILS[kind]))
        self.recorders[recorder_id] = made = Made(kind)
        self.everyone.append(made)
        return made

    def get(self, given: object) -> Made:
        recorder_id = self._id(given)
        self._require_running()
        if recorder_id not in self.recorders:
            raise Refused(_about("NotFound", recorder_id))
        return self.recorders[recorder_id]

    def try_get(self, given: object) -> Made | None:
        recorder_id = self._id(given)
        self._require_running()
        return self.recorders.get(recorder_id)

    def ids(self) -> tuple[str, ...]:
        self._require_running()
        return tuple(self.recorders)

    def stop(self, given: object) -> None:
        error = self.get(given).stop_for_good()
        if error is not None:
            raise Refused(_about("Stop", self._id(given), error))

    def remove(self, given: object) -> Made:
        made = self.get(given)
        try:
            self.stop(given)
        finally:
            del self.recorders[self._id(given)]
        return made

    def _id(self, given: object) -> str:
        if given is None:
            raise Refused(Trouble("ValueError"))
        if not isinstance(given, str):
            raise Refused(Trouble("TypeError"))
        if not given.strip():
            raise Refused(Trouble("ValueError"))
        return given.strip()


def _about(kind: str, recorder_id: str, cause: Trouble | None = None) -> Trouble:
    return Trouble(f"MetricsRuntimeRecorder{kind}Error", {"recorder_id": recorder_id}, cause)


def told(error: BaseException) -> Trouble:
    """Tell what an error is, without the wording of the library's own complaints about arguments."""
    if isinstance(error, (TypeError, ValueError)):
        return Trouble(type(error).__name__)
    if not isinstance(error, MetricsError):
        return Trouble.of(error)
    trouble = Trouble.of(error)
    details = dict(trouble.details)
    if "recorder_errors" in details:
        details["recorder_errors"] = {key: told(value) for key, value in details["recorder_errors"].items()}
    return Trouble(trouble.kind, details, None if error.cause is None else told(error.cause))


Outcome = tuple[str, object]


def outcome(function: Callable[[], object]) -> Outcome:
    """Return what a call comes to: what it returns or what it raises."""
    try:
        return "returned", function()
    except Refused as refused:
        return "raised", refused.trouble
    except (MetricsError, TypeError, ValueError) as error:
        return "raised", told(error)


# --- the machine ---------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c", " a", "b\n"])
ANY_IDS = st.sampled_from(["a", "b", "c", " a", "b\n", "a", "b", "c", "", " \t", None, 7])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "entity_id": st.sampled_from(["an entity", " stripped "]),
        "namespace": st.just("another"),
        "queue_max_size": st.integers(1, 3),
        "queue_overflow_policy": st.sampled_from(OverflowPolicy),
    },
)
FORM = st.sampled_from([False, False, False, True])
"""Whether to call the form for event loops."""


class RegistryMachine(RuleBasedStateMachine):
    """Calls whatever can be called of a runtime."""

    backend: Mapping[str, Any]
    examples = 0

    @initialize(
        queue_max_size=st.sampled_from([None, 5]), policy=st.sampled_from(OverflowPolicy), started=st.booleans()
    )
    def make(self, queue_max_size: int | None, policy: OverflowPolicy, started: bool) -> None:
        self.model = Registry()
        self.defaults = {
            "namespace": "model",
            "queue_max_size": queue_max_size or 10_000,
            "queue_overflow_policy": policy,
        }
        self.runtime = MetricsRuntime(
            namespace="model",
            default_recorder_queue_max_size=queue_max_size,
            default_recorder_queue_overflow_policy=policy,
            **self.backend,
        )
        if started:
            self.start(aform=False)

    @invariant()
    def compare(self) -> None:
        assert self.runtime.get_status() is self.model.state
        assert outcome(self.runtime.list_recorder_ids) == outcome(self.model.ids)
        for made in self.model.everyone:
            assert made.recorder is not None
            assert made.recorder.get_status() is made.state

    # --- life ------------------------------------------------------------------------------------

    @rule(aform=FORM)
    def start(self, aform: bool) -> None:
        start = partial(anyio.run, self.runtime.astart) if aform else self.runtime.start
        assert outcome(start) == outcome(self.model.start)

    @precondition(lambda self: self.model.state is not R.RUNNING or len(self.model.everyone) > 2)
    @rule(aform=FORM)
    def shutdown(self, aform: bool) -> None:
        shutdown = partial(anyio.run, self.runtime.ashutdown) if aform else self.runtime.shutdown
        assert outcome(shutdown) == outcome(self.model.shutdown)

    # --- the registry ----------------------------------------------------------------------------

    @rule(recorder_id=IDS, factory=st.sampled_from(FACTORIES), options=OPTIONS, aform=FORM)
    def create(self, recorder_id: str, factory: Any, options: dict[str, Any], aform: bool) -> None:
        expected = outcome(lambda: self.model.create(recorder_id, factory))
        call: Callable[[], MetricsRecorder] = partial(
            self.runtime.create_recorder, recorder_id, factory=factory, **options
        )
        if aform:
            call = partial(anyio.run, partial(self.runtime.acreate_recorder, recorder_id, factory=factory, **options))
        found = outcome(call)
        made, recorder = expected[1], found[1]
        if not isinstance(made, Made):
            assert found == expected
            return
        assert isinstance(recorder, factory)
        made.recorder = recorder
        self.check_options(recorder, recorder_id, options)

    create_too = create

    def check_options(self, recorder: MetricsRecorder, recorder_id: str, options: Mapping[str, Any]) -> None:
        wanted = {"entity_id": recorder_id, **self.defaults, **options}
        assert recorder.entity_id == wanted["entity_id"].strip()
        assert recorder.namespace == wanted["namespace"]
        assert recorder.statistics().capacity == wanted["queue_max_size"]
        assert core_of(recorder).options.inbox.overflow_policy is wanted["queue_overflow_policy"]

    @rule(given=ANY_IDS)
    def get(self, given: Any) -> None:
        self.compare_recorder(lambda: self.runtime.get_recorder(given), lambda: self.model.get(given))
        self.compare_recorder(lambda: self.runtime.try_get_recorder(given), lambda: self.model.try_get(given))

    @rule(given=ANY_IDS)
    def stop_recorder(self, given: Any) -> None:
        assert outcome(lambda: self.runtime.stop_recorder(given)) == outcome(lambda: self.model.stop(given))

    @rule(given=ANY_IDS)
    def stop_and_remove_recorder(self, given: Any) -> None:
        self.compare_recorder(lambda: self.runtime.stop_and_remove_recorder(given), lambda: self.model.remove(given))

    def compare_recorder(self, found: Callable[[], object], expected: Callable[[], Made | None]) -> None:
        how, what = outcome(expected)
        if isinstance(what, Made):
            what = what.recorder
        assert outcome(found) == (how, what)

    @rule(given=st.sampled_from([None, "", 7]), factory=st.sampled_from(["no factory", None]))
    def create_by_bad_input(self, given: Any, factory: Any) -> None:
        """Bad arguments are told first, whatever the state."""
        wanted = Trouble("TypeError" if given == 7 else "ValueError")
        assert outcome(lambda: self.runtime.create_recorder(given)) == ("raised", wanted)
        assert outcome(lambda: self.runtime.create_recorder("a", factory=factory)) == ("raised", Trouble("TypeError"))

    # --- the recorders' own calls, past the runtime ----------------------------------------------

    def made(self, which: int) -> Made:
        return self.model.everyone[which % len(self.model.everyone)]

    @precondition(lambda self: self.model.everyone)
    @rule(which=st.integers(0, 10))
    def emit(self, which: int) -> None:
        made = self.made(which)
        recorder = made.recorder
        assert recorder is not None
        assert outcome(lambda: recorder.register_event(Tick())) == outcome(made.emit)
        flushed = recorder.flush().wait(DEADLINE)
        assert flushed.success
        if made.state is S.FAILURE:
            # The flush is over before the recorder's end, which comes by itself.
            recorder.stop().wait(DEADLINE)

    @precondition(lambda self: self.model.everyone)
    @rule(which=st.integers(0, 10))
    def stop_by_hand(self, which: int) -> None:
        made = self.made(which)
        assert made.recorder is not None
        result = made.recorder.stop().wait(DEADLINE)
        assert (None if result.error is None else told(result.error)) == made.stop()

    @precondition(lambda self: self.model.everyone)
    @rule(which=st.integers(0, 10))
    def start_by_hand(self, which: int) -> None:
        made = self.made(which)
        assert made.recorder is not None
        result = made.recorder.start().wait(DEADLINE)
        gone = self.model.state is not R.RUNNING
        assert (None if result.error is None else told(result.error)) == made.start(loop_is_gone=gone)

    @precondition(lambda self: self.model.everyone)
    @rule(which=st.integers(0, 10))
    def read(self, which: int) -> None:
        made = self.made(which)
        assert made.recorder is not None
        names = ["failing"] if made.kind is Fragile else []
        assert list(made.recorder.get_metric_snapshots()) == names

    # --- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "runtime"):
            return
        if sys.exc_info()[0] is None:
            self.shutdown(aform=False)
            self.compare()
            type(self).examples += 1
        else:
            outcome(self.runtime.shutdown)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What fails here fails on purpose; pytest would show the traceback of each."""
    with caplog.at_level(logging.CRITICAL, "mvx.common.metrics"):
        yield


@pytest.mark.usefixtures("quiet")
def test_a_registry_does_what_the_model_does(
    anyio_backend: tuple[str, dict[str, Any]], effort: Effort, tally: Tally
) -> None:
    """Ids, states, recorders found, and every error with its cause."""
    name, options = anyio_backend

    class Machine(RegistryMachine):
        pass

    Machine.backend = {"backend": name, "backend_options": {k: v for k, v in options.items() if k != "debug"}}
    settings = hypothesis.settings(max_examples=effort(50, 2_000), stateful_step_count=25)
    if settings.derandomize:
        hypothesis.seed(f"{name} {options}")(Machine)  # not the same sequences on each backend
    run_state_machine_as_test(Machine, settings=settings)
    tally("sequences of calls compared with the model of a runtime's registry", Machine.examples)
