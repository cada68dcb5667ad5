"""The control side of a runtime: its state, its engine, and the registry of its recorders."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import anyio

from ._actor import MIN_STOPPED_HOOK_TIMEOUT
from ._backends import LoopGoneError
from ._copying import copied
from ._core import ACTIVE, RecorderCore
from ._creation import Creation
from ._engine import Engine
from ._exit import drain_at_exit, forget
from ._fork import reset_in_child
from ._hosting import Main
from ._hub import LoopHub
from ._interpreter import REFUSAL, in_subinterpreter
from ._lifecycle import RecorderOpResult, RecorderState
from ._log import emit
from ._recorder import MetricsRecorder, core_of
from ._waiting import OneShot
from .errors import (
    MetricsRuntimeInvalidStateError,
    MetricsRuntimeLoopUnavailableError,
    MetricsRuntimeRecorderAlreadyExistsError,
    MetricsRuntimeRecorderNotFoundError,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeRecorderStopError,
    MetricsRuntimeShutdownError,
    MetricsRuntimeStartupError,
    MetricsRuntimeUnexpectedError,
    MetricsRuntimeWouldDeadlockError,
    RecorderError,
    RecorderInvalidStateError,
    RecorderTimeoutError,
)

GRACE = 5.0
"""Seconds granted beyond the time limits that a wait depends on."""


class MetricsRuntimeState(StrEnum):
    """Where a runtime is in its life; it is never restarted."""

    VIRGIN = "VIRGIN"
    """Made and never started."""
    STARTING = "STARTING"
    """Its thread is coming up."""
    RUNNING = "RUNNING"
    """Recorders can be created."""
    STOPPING = "STOPPING"
    """Its recorders are draining."""
    CLOSED = "CLOSED"
    """Everything has ended well."""
    FAILURE = "FAILURE"
    """It could not start, its thread failed, or a recorder did not stop well."""


_S = MetricsRuntimeState


@dataclass(frozen=True, kw_only=True, slots=True)
class SupervisorOptions:
    """A runtime's settings, checked."""

    namespace: str
    backend: str
    backend_options: dict[str, Any]
    startup_timeout: float | None


class RuntimeHome:
    """A runtime as the home of its recorders, across forks."""

    shielded = False
    exposed = True
    survives_fork = True
    gives_turns = True

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.known: set[type] = set()

    def hub(self) -> LoopHub:
        return self._supervisor.engine_at_work().hub

    def on_own_loop(self) -> bool:
        return self._supervisor.in_own_thread()

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        self._supervisor.engine_at_work().home.launch(main, name=name, ended=ended)


class Supervisor:
    """Starts, ends and asks the engine, from any thread.

    The lock keeps callers apart.  The engine's own thread never takes it: a caller may have been
    interrupted while holding it, by a signal handler that shuts the runtime down and waits.
    """

    def __init__(self, options: SupervisorOptions) -> None:
        self.options = options
        self._phase = _S.VIRGIN
        self._final: MetricsRuntimeState | None = None
        self.home = RuntimeHome(self)
        self.log_fields: dict[str, Any] = {"namespace": options.namespace, "backend": options.backend}
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._recorders: dict[str, MetricsRecorder] = {}
        self._creations: dict[str, Creation] = {}
        self._removing: dict[str, MetricsRecorder] = {}
        self._leaving: dict[str, MetricsRecorder] = {}
        """Recorders whose creation was given up, and that may not have ended yet."""
        self._shutdown_begun = False
        self._shutdown_error: MetricsRuntimeShutdownError | None = None
        self.shutdown_limit: float | None = None
        """Seconds after which a shutdown under way counts as failed."""
        # Here and not with the engine: another thread may fork in the midst of a start.
        reset_in_child(self)

    @property
    def state(self) -> MetricsRuntimeState:
        """The state of this moment."""
        if self._final is not None:
            return self._final
        engine = self._engine
        if self._phase is _S.STARTING and engine is not None and engine.is_up:
            return _S.RUNNING
        return self._phase

    # --- life ------------------------------------------------------------------------------------

    def begin_start(self) -> Engine | None:
        """Start the thread, without waiting; return None if it runs already."""
        with self._lock:
            if self.state is _S.RUNNING:
                return None
            if self.state is not _S.VIRGIN:
                raise MetricsRuntimeInvalidStateError(self.state, (_S.VIRGIN, _S.RUNNING), call="start")
            if in_subinterpreter():
                self._final = _S.FAILURE
                raise MetricsRuntimeStartupError(hint=REFUSAL)
            self._phase = _S.STARTING
            try:
                self._engine = self._new_engine()
                self._engine.start()
            except BaseException as exc:
                if self._engine is None or self._engine.thread.ident is None:
                    self._start_has_not_been(exc)
                raise
            return self._engine

    def _start_has_not_been(self, error: BaseException) -> None:
        self._engine = None
        self._phase = _S.VIRGIN
        forget(self)
        if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):  # the system has no thread left
            self._final = _S.FAILURE
            raise MetricsRuntimeStartupError(error) from error

    def check_started(self, engine: Engine, *, in_time: bool) -> None:
        """Say how the start ended."""
        limit = self.options.startup_timeout
        failure = engine.ready.peek() if in_time else TimeoutError(f"no event loop within {limit:g} s")
        if failure is not None:
            self._final = _S.FAILURE
            engine.give_up()
            raise MetricsRuntimeStartupError(failure, hint=self._installation_hint(failure)) from failure

    def abort_start(self) -> OneShot[BaseException | None] | None:
        """Have a runtime whose start was cancelled end, as soon as it has come up; return what there is to wait for."""
        with self._lock:
            engine, state = self._engine, self.state
            if engine is None or state not in (_S.STARTING, _S.RUNNING):
                return None
            self._phase = _S.STOPPING
        # The flag first, the look second; the engine does it the other way round.
        engine.give_up()
        if engine.is_up:
            self._submit_shutdown()
        return engine.ended

    def _installation_hint(self, failure: BaseException) -> str | None:
        if not isinstance(failure, (ImportError, LookupError)):
            return None
        backend = self.options.backend
        extra = "uvloop" if backend == "asyncio" else backend
        return f"{extra} is not installed: pip install 'mvx-metrics[{extra}]'"

    def _new_engine(self) -> Engine:
        engine = Engine(
            name=f"mvx.common.metrics {self.options.namespace}",
            backend=self.options.backend,
            backend_options=self.options.backend_options,
            ended=self._engine_ended,
        )
        drain_at_exit(self)
        return engine

    def begin_shutdown(self) -> OneShot[BaseException | None] | None:
        """Set the shutdown going if that is still to be done; return what there is to wait for."""
        with self._lock:
            engine, state = self._engine, self.state
            match state:
                case _S.CLOSED | _S.FAILURE:
                    return None
                case _S.VIRGIN:
                    self._final = _S.CLOSED
                    return None
                case _S.STARTING:
                    raise MetricsRuntimeInvalidStateError(state, (_S.RUNNING,), call="shutdown")
                case _S.RUNNING if engine is None:  # a forked child that has never used it
                    self._final = _S.CLOSED
                    forget(self)
                    return None
                case _S.RUNNING:
                    # From now on no creation gets into the registry: what is there is all there is to stop.
                    self._phase = _S.STOPPING
                    self.shutdown_limit = _time_to_stop(map(core_of, self._all_recorders().values()))
        if engine is None:
            return None
        # The first caller does, or another if Ctrl-C hit the first one right here; an engine that is not up and has
        # been given up ends by itself.
        if not self._shutdown_begun and (engine.is_up or not engine.given_up):
            self._submit_shutdown()
        return engine.ended

    def _submit_shutdown(self) -> None:
        try:
            self.engine_at_work().submit(self._shut_down, name="mvx.common.metrics shutdown")
        except LoopGoneError:
            pass  # then the engine has ended, and has said why

    def _all_recorders(self) -> dict[str, MetricsRecorder]:
        return {**self._recorders, **self._removing}

    async def _shut_down(self) -> None:
        engine = self._engine
        if self._shutdown_begun or engine is None:
            return
        self._shutdown_begun = True
        recorders = self._all_recorders()
        for creation in list(self._creations.values()):
            creation.give_up()
        errors: dict[str, BaseException] = {}
        late = {recorder_id: recorder for recorder_id, recorder in recorders.items() if _is_starting(recorder)}
        stops = {recorder_id: recorder.stop() for recorder_id, recorder in recorders.items() if recorder_id not in late}
        async with anyio.create_task_group() as group:
            for recorder_id, recorder in late.items():
                group.start_soon(_stop_when_started, recorder_id, recorder, errors)
            for recorder_id, handle in stops.items():
                _note(errors, recorder_id, _stop_error(core_of(recorders[recorder_id]), await handle))
        if errors:
            self._shutdown_error = MetricsRuntimeShutdownError(errors)
        await engine.end()

    def _engine_ended(self, failure: BaseException | None) -> None:
        """Settle everything, in the engine's thread at its end, before anybody who waits for it is woken."""
        was = self.state
        if was is not _S.STOPPING or failure is not None:
            self._shutdown_error = MetricsRuntimeShutdownError(cause=failure, situation="its thread failed")
        if self._final is None:
            self._final = _S.CLOSED if self._shutdown_error is None else _S.FAILURE
        forget(self)
        if was is _S.RUNNING:
            emit(logging.CRITICAL, "the runtime's thread ended unexpectedly", error=failure, fields=self.log_fields)
        for creation in tuple(self._creations.values()):
            cause = MetricsRuntimeUnexpectedError(failure)
            creation.outcome.set(MetricsRuntimeRecorderStartupError(creation.recorder_id, cause=cause))
        for recorder in (*self._all_recorders().values(), *self._leaving.values()):
            core_of(recorder).check_loop()

    def check_shut_down(self, *, in_time: bool) -> None:
        """Say how the shutdown ended, to each caller with an error of its own."""
        if not in_time and self._final is None:
            limit = self.shutdown_limit or 0.0
            stuck: dict[str, BaseException] = {
                recorder_id: RecorderTimeoutError("stop", limit)
                for recorder_id, recorder in {**self._leaving, **self._all_recorders()}.items()
                if core_of(recorder).state in ACTIVE
            }
            for creation in tuple(self._creations.values()):
                stuck[creation.recorder_id] = RecorderTimeoutError("create_recorder", limit)
            self._shutdown_error = MetricsRuntimeShutdownError(
                stuck, situation=f"its thread has not ended within {limit:g} s"
            )
            self._final = _S.FAILURE
        if self._shutdown_error is not None:
            raise self._shutdown_error.fresh()

    def join(self) -> None:
        """Wait for the thread's last instructions."""
        if self._engine is not None:
            self._engine.thread.join(GRACE)

    async def ajoin(self) -> None:
        """Likewise, without blocking the event loop."""
        if self._engine is not None:
            await self._engine.joined(GRACE)

    # --- recorders -------------------------------------------------------------------------------

    def begin_creation(self, creation: Creation) -> None:
        """Reserve the id and set the creation going."""
        recorder_id = creation.recorder_id
        with self._lock:
            self.require_running("create_recorder")
            if recorder_id in self._recorders or recorder_id in self._creations or recorder_id in self._removing:
                raise MetricsRuntimeRecorderAlreadyExistsError(recorder_id)
            self._creations[recorder_id] = creation
        try:
            engine = self.engine_at_work()
            if creation.needs_no_loop:
                creation.run_here()
            else:
                engine.submit(creation.run, name=f"mvx.common.metrics create {recorder_id}")
        except LoopGoneError as exc:
            self.give_up(creation)
            raise MetricsRuntimeLoopUnavailableError from exc
        except BaseException:  # Ctrl-C, say: it may have been submitted all the same
            self.give_up(creation)
            raise

    def creation_ended(self, creation: Creation, recorder: MetricsRecorder | None) -> bool:
        recorder_id = creation.recorder_id
        if not creation.claim_id():
            return False
        registered = False
        if recorder is not None and not creation.given_up:
            self._recorders[recorder_id] = recorder
            # Looked at after the entry: a shutdown has either seen the entry or is seen here.
            registered = self.state is _S.RUNNING
            if not registered:
                self._recorders.pop(recorder_id, None)
        # Last, so that the id is never free in between.
        self._creations.pop(recorder_id, None)
        return registered

    def not_registered(self, recorder_id: str, recorder: MetricsRecorder) -> None:
        for name, other in tuple(self._leaving.items()):
            if core_of(other).state not in ACTIVE:
                del self._leaving[name]
        self._leaving[recorder_id] = recorder

    def give_up(self, creation: Creation) -> None:
        """Free the id of a creation that nobody waits for any more, and cancel it, or remove what it has come to."""
        if creation.claim_id():
            self._creations.pop(creation.recorder_id, None)

        def undo() -> None:
            creation.give_up()
            if creation.outcome.is_set:
                recorder = self._recorders.get(creation.recorder_id)
                if recorder is not None and recorder is creation.outcome.peek():
                    self._recorders.pop(creation.recorder_id, None)
                    recorder.stop()

        try:
            self.engine_at_work().hub.call_soon(undo)
        except LoopGoneError:
            pass

    def find(self, recorder_id: str, call: str) -> MetricsRecorder | None:
        """Return the recorder registered under an id."""
        self.require_running(call)  # without the lock: hooks may ask, too
        return self._recorders.get(recorder_id)

    def ids(self) -> tuple[str, ...]:
        """Return the ids in use."""
        self.require_running("list_recorder_ids")
        return copied(self._recorders)

    def take(self, recorder_id: str) -> MetricsRecorder:
        """Begin to remove a recorder: from now on only the caller knows it, and its id is not free yet."""
        with self._lock:
            self.require_running("stop_and_remove_recorder")
            recorder = self._recorders.get(recorder_id)
            if recorder is None:
                raise MetricsRuntimeRecorderNotFoundError(recorder_id)
            self._removing[recorder_id] = recorder
            self._recorders.pop(recorder_id, None)
            return recorder

    def removed(self, recorder_id: str) -> None:
        """Free the id of a recorder that was taken."""
        self._removing.pop(recorder_id, None)

    def stop(self, recorder_id: str, core: RecorderCore) -> None:
        """Stop a recorder and wait for it, in bounded time even if its loop does not answer."""
        limit = _time_to_stop([core])
        try:
            if core.state is RecorderState.STARTING:  # a restart, or a forked child's first use
                core.start().wait(limit)
            error = _stop_error(core, core.stop().wait(limit))
        except TimeoutError:
            error = RecorderTimeoutError("stop", limit or math.inf)
        if error is not None:
            raise MetricsRuntimeRecorderStopError(recorder_id, cause=error) from error

    # --- the inside ------------------------------------------------------------------------------

    def engine_at_work(self) -> Engine:
        """Return the engine, and in a forked child make one first.

        :raises LoopGoneError: if the runtime is not running any more
        """
        engine = self._engine
        if engine is None:
            engine = self._engine_in_child()
        if not engine.is_up:
            # Only in a child: elsewhere nobody gets here before the start has ended.
            in_time = engine.ready.wait(self.options.startup_timeout, _nothing)
            if not in_time or not engine.is_up:
                raise LoopGoneError
        return engine

    def _engine_in_child(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self.state is not _S.RUNNING:
                    raise LoopGoneError
                engine = self._new_engine()
                try:
                    engine.start()
                except RuntimeError as exc:  # the system has no thread left; the next use tries again
                    raise LoopGoneError from exc
                self._engine = engine
            return self._engine

    def in_own_thread(self) -> bool:
        """Whether the calling thread is the engine's."""
        engine = self._engine
        return engine is not None and engine.thread is threading.current_thread()

    def refuse_own_thread(self, call: str, instead: str) -> None:
        """Raise if ``call`` would wait for the very thread that makes it."""
        if self.in_own_thread():
            raise MetricsRuntimeWouldDeadlockError(f"{call} in the runtime's own thread", instead)

    def require_running(self, call: str) -> None:
        """Raise unless RUNNING."""
        if self.state is not _S.RUNNING:
            raise MetricsRuntimeInvalidStateError(self.state, (_S.RUNNING,), call=call)

    def after_fork_in_child(self) -> None:
        """Begin anew; see :mod:`._fork`."""
        was = self.state
        self._lock = threading.RLock()
        if self._engine is not None:
            self._engine.leave_behind()
            self._engine = None
        # The forking thread may have been waiting for one of these, and interrupted by a signal handler.
        for creation in self._creations.values():
            stayed = MetricsRuntimeLoopUnavailableError("the thread stayed in the parent process at a fork")
            creation.outcome.set(MetricsRuntimeRecorderStartupError(creation.recorder_id, cause=stayed))
        self._creations, self._removing, self._leaving = {}, {}, {}
        if was is _S.RUNNING:
            self._phase = _S.RUNNING
        elif was is _S.STARTING:
            self._phase = _S.VIRGIN
        elif was is _S.STOPPING:
            self._final = _S.CLOSED


def _time_to_stop(cores: Iterable[RecorderCore]) -> float | None:
    """Return the seconds that stopping ``cores`` at once may take, or None for no limit."""
    start = longest = 0.0
    for core in cores:
        drain = core.options.drain_timeout
        if drain is None:
            return None
        longest = max(longest, drain)
        if core.state is RecorderState.STARTING:
            start = max(start, drain)
    return start + longest + max(longest, MIN_STOPPED_HOOK_TIMEOUT) + GRACE


def _stop_error(core: RecorderCore, result: RecorderOpResult) -> RecorderError | None:
    """Return why a stop failed; having nothing to stop is no failure."""
    nothing_to_stop = isinstance(result.error, RecorderInvalidStateError)
    if nothing_to_stop and core.state in (RecorderState.STOPPED, RecorderState.VIRGIN):
        return None
    return result.error


def _is_starting(recorder: MetricsRecorder) -> bool:
    return recorder.get_status() is RecorderState.STARTING


async def _stop_when_started(recorder_id: str, recorder: MetricsRecorder, errors: dict[str, BaseException]) -> None:
    core = core_of(recorder)
    _note(errors, recorder_id, _stop_error(core, await core.end()))


def _note(errors: dict[str, BaseException], recorder_id: str, error: BaseException | None) -> None:
    if error is not None:
        errors[recorder_id] = error


def _nothing() -> None:
    pass
