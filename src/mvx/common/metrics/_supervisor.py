"""The control side of a runtime: its state, its engine, and the registry of its recorders."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import attrs

from ._actor import MIN_STOPPED_HOOK_TIMEOUT
from ._backends import LoopGoneError
from ._core import RecorderCore
from ._creation import Creation
from ._engine import Engine
from ._exit import drain_at_exit, forget
from ._fork import reset_in_child
from ._hosting import Main
from ._hub import LoopHub
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


@attrs.frozen(kw_only=True, slots=True)
class SupervisorOptions:
    """A runtime's settings, checked."""

    namespace: str
    backend: str
    backend_options: dict[str, Any]
    startup_timeout: float | None


class RuntimeHome:
    """A runtime as the home of its recorders, across forks."""

    shielded = False
    survives_fork = True

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def hub(self) -> LoopHub:
        return self._supervisor.engine_at_work().hub

    def on_own_loop(self) -> bool:
        return self._supervisor.in_own_thread()

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        self._supervisor.engine_at_work().home.launch(main, name=name, ended=ended)


class Supervisor:
    """Guards state and registry with a lock that is held for assignments only."""

    def __init__(self, options: SupervisorOptions) -> None:
        self.options = options
        self.state = _S.VIRGIN
        self.home = RuntimeHome(self)
        self.log_fields: dict[str, Any] = {"namespace": options.namespace, "backend": options.backend}
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._recorders: dict[str, MetricsRecorder] = {}
        self._creations: dict[str, Creation] = {}
        self._removing: set[str] = set()
        self._shutdown_error: MetricsRuntimeShutdownError | None = None
        self.shutdown_limit: float | None = None
        """Seconds after which a shutdown under way counts as failed."""

    # --- life ------------------------------------------------------------------------------------

    def begin_start(self) -> Engine | None:
        """Start the thread, without waiting; return None if it runs already."""
        with self._lock:
            if self.state is _S.RUNNING:
                return None
            if self.state is not _S.VIRGIN:
                raise MetricsRuntimeInvalidStateError(self.state, (_S.VIRGIN, _S.RUNNING), call="start")
            self.state = _S.STARTING
            engine = self._new_engine()
        try:
            engine.start()
        except RuntimeError as exc:  # the system has no thread left
            self.state = _S.FAILURE
            raise MetricsRuntimeStartupError(exc) from exc
        return engine

    def check_started(self, engine: Engine, *, in_time: bool) -> None:
        """Say how the start ended."""
        limit = self.options.startup_timeout
        failure = engine.ready.peek() if in_time else TimeoutError(f"no event loop within {limit:g} s")
        if failure is not None:
            with self._lock:
                self.state = _S.FAILURE
            raise MetricsRuntimeStartupError(failure, hint=self._installation_hint(failure)) from failure

    def _installation_hint(self, failure: BaseException) -> str | None:
        if not isinstance(failure, (ImportError, LookupError)):
            return None
        backend = self.options.backend
        extra = "uvloop" if backend == "asyncio" else backend
        return f"{extra} is not installed: pip install 'mvx-metrics[{extra}]'"

    def _new_engine(self) -> Engine:
        engine = self._engine = Engine(
            name=f"mvx.common.metrics {self.options.namespace}",
            backend=self.options.backend,
            backend_options=self.options.backend_options,
            came_up=self._engine_came_up,
            ended=self._engine_ended,
        )
        reset_in_child(self)
        drain_at_exit(self)
        return engine

    def _engine_came_up(self) -> None:
        # In the engine's thread, so that it holds even if whoever waits for it is interrupted.
        with self._lock:
            if self.state is _S.STARTING:
                self.state = _S.RUNNING

    def begin_shutdown(self) -> OneShot[BaseException | None] | None:
        """Set the shutdown going if that is still to be done; return what there is to wait for."""
        with self._lock:
            engine = self._engine
            match self.state:
                case _S.CLOSED | _S.FAILURE:
                    return None
                case _S.VIRGIN:
                    self.state = _S.CLOSED
                    return None
                case _S.STARTING:
                    raise MetricsRuntimeInvalidStateError(self.state, (_S.RUNNING,), call="shutdown")
                case _S.STOPPING if engine is not None:
                    return engine.ended
            if engine is None:  # a forked child that has never used it
                self.state = _S.CLOSED
                forget(self)
                return None
            self.state = _S.STOPPING
            self.shutdown_limit = _time_to_stop(map(core_of, self._recorders.values()))
        try:
            engine.submit(self._shut_down, name="mvx.common.metrics shutdown")
        except LoopGoneError:
            pass  # then the engine has ended, and has said why
        return engine.ended

    async def _shut_down(self) -> None:
        with self._lock:
            engine = self._engine
            creations, recorders = list(self._creations.values()), dict(self._recorders)
        for creation in creations:
            creation.give_up()
        errors: dict[str, BaseException] = {}
        stops = {recorder_id: recorder.stop() for recorder_id, recorder in recorders.items()}
        for recorder_id, handle in stops.items():
            error = _stop_error(core_of(recorders[recorder_id]), await handle)
            if error is not None:
                errors[recorder_id] = error
        if errors:
            self._shutdown_error = MetricsRuntimeShutdownError(errors)
        if engine is not None:
            await engine.end()

    def _engine_ended(self, failure: BaseException | None) -> None:
        """Settle everything, in the engine's thread at its end, before anybody who waits for it is woken."""
        with self._lock:
            was = self.state
            if was is _S.STOPPING and failure is None:
                self.state = _S.CLOSED if self._shutdown_error is None else _S.FAILURE
            else:
                self.state = _S.FAILURE
                self._shutdown_error = MetricsRuntimeShutdownError(cause=failure, situation="its thread failed")
            recorders = list(self._recorders.values())
            creations, self._creations = list(self._creations.values()), {}
        forget(self)
        if was is _S.RUNNING:
            emit(logging.CRITICAL, "the runtime's thread ended unexpectedly", error=failure, fields=self.log_fields)
        for creation in creations:
            cause = MetricsRuntimeUnexpectedError(failure)
            creation.outcome.set(MetricsRuntimeRecorderStartupError(creation.recorder_id, cause=cause))
        for recorder in recorders:
            core_of(recorder).check_loop()

    def check_shut_down(self, *, in_time: bool) -> None:
        """Say how the shutdown ended, to each caller with an error of its own."""
        with self._lock:
            if not in_time and self.state is _S.STOPPING:
                self.state = _S.FAILURE
                self._shutdown_error = MetricsRuntimeShutdownError(
                    situation=f"its thread has not ended within {self.shutdown_limit:g} s"
                )
            error = self._shutdown_error
        if error is not None:
            raise error.fresh()

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
            self.engine_at_work().submit(creation.run, name=f"mvx.common.metrics create {recorder_id}")
        except LoopGoneError as exc:
            with self._lock:
                self._creations.pop(recorder_id, None)
            raise MetricsRuntimeLoopUnavailableError from exc

    def creation_ended(self, creation: Creation, recorder: MetricsRecorder | None) -> bool:
        with self._lock:
            if self._creations.pop(creation.recorder_id, None) is not creation:
                return False
            if recorder is None or creation.given_up or self.state is not _S.RUNNING:
                return False
            self._recorders[creation.recorder_id] = recorder
            return True

    def give_up(self, creation: Creation) -> None:
        """Cancel a creation that nobody waits for any more, or remove what it has come to."""

        def undo() -> None:
            creation.give_up()
            if creation.outcome.is_set:
                with self._lock:
                    recorder = self._recorders.get(creation.recorder_id)
                    if recorder is not None and recorder is creation.outcome.peek():
                        del self._recorders[creation.recorder_id]
                        recorder.stop()

        try:
            self.engine_at_work().hub.call_soon(undo)
        except LoopGoneError:
            pass

    def find(self, recorder_id: str, call: str) -> MetricsRecorder | None:
        """Return the recorder registered under an id."""
        with self._lock:
            self.require_running(call)
            return self._recorders.get(recorder_id)

    def ids(self) -> tuple[str, ...]:
        """Return the ids in use."""
        with self._lock:
            self.require_running("list_recorder_ids")
            return tuple(self._recorders)

    def take(self, recorder_id: str) -> MetricsRecorder:
        """Begin to remove a recorder: from now on only the caller knows it, and its id is not free yet."""
        with self._lock:
            self.require_running("stop_and_remove_recorder")
            recorder = self._recorders.pop(recorder_id, None)
            if recorder is None:
                raise MetricsRuntimeRecorderNotFoundError(recorder_id)
            self._removing.add(recorder_id)
            return recorder

    def removed(self, recorder_id: str) -> None:
        """Free the id of a recorder that was taken."""
        with self._lock:
            self._removing.discard(recorder_id)

    def stop(self, recorder_id: str, core: RecorderCore) -> None:
        """Stop a recorder and wait for it, in bounded time even if its loop does not answer."""
        limit = _time_to_stop([core])
        try:
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
        if engine is not None:
            return engine
        with self._lock:
            engine = self._engine
            if engine is None:
                if self.state is not _S.RUNNING:
                    raise LoopGoneError
                engine = self._new_engine()
                engine.start()
        if not engine.ready.wait(self.options.startup_timeout, _nothing) or engine.ready.peek():
            raise LoopGoneError
        return engine

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
        self._lock = threading.RLock()
        if self._engine is not None:
            self._engine.leave_behind()
            self._engine = None
        self._creations, self._removing = {}, set()
        if self.state is _S.STARTING:
            self.state = _S.VIRGIN
        elif self.state is _S.STOPPING:
            self.state = _S.CLOSED


def _time_to_stop(cores: Iterable[RecorderCore]) -> float | None:
    """Return the seconds that stopping ``cores`` at once may take, or None for no limit."""
    longest = 0.0
    for core in cores:
        drain = core.options.drain_timeout
        if drain is None:
            return None
        longest = max(longest, drain)
    return longest + max(longest, MIN_STOPPED_HOOK_TIMEOUT) + GRACE


def _stop_error(core: RecorderCore, result: RecorderOpResult) -> RecorderError | None:
    """Return why a stop failed; having nothing to stop is no failure."""
    if result.error is not None and core.error is None and core.state in (RecorderState.STOPPED, RecorderState.VIRGIN):
        return None
    return result.error


def _nothing() -> None:
    pass
