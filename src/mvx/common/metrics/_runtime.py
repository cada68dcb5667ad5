"""The runtime: one thread in which an application's recorders do their work."""

from __future__ import annotations

import atexit
import inspect
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import anyio
from anyio.from_thread import BlockingPortal

from . import _validation as valid
from ._actor import MIN_STOPPED_HOOK_TIMEOUT
from ._backends import LoopGoneError
from ._core import RecorderCore
from ._engine import Engine
from ._fork import reset_in_child
from ._hosting import BIRTH, Birth, Main
from ._hub import LoopHub
from ._inbox import OverflowPolicy
from ._lifecycle import RecorderOpResult, RecorderState
from ._log import emit
from ._recorder import MetricsRecorder, core_of
from ._waiting import OneShot
from .errors import (
    MetricsRuntimeError,
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

R = TypeVar("R", bound=MetricsRecorder)

BACKENDS = ("asyncio", "trio")
DEFAULT_STARTUP_TIMEOUT = 30.0
GRACE = 5.0
"""Seconds granted beyond the sum of the time limits that a wait depends on."""
EXIT_TIMEOUT = 30.0
"""Seconds that an interpreter's exit waits for runtimes that were not shut down."""


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


class _Creation(Generic[R]):
    """A recorder on its way into the registry."""

    def __init__(self, recorder_id: str) -> None:
        self.recorder_id = recorder_id
        self.outcome: OneShot[R | MetricsRuntimeError] = OneShot()
        self.cancelled = False
        self._scope: anyio.CancelScope | None = None

    def cancel(self) -> None:
        """Give it up; in the loop."""
        self.cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def begin(self) -> anyio.CancelScope:
        """Return the scope to work in."""
        self._scope = anyio.CancelScope()
        if self.cancelled:
            self._scope.cancel()
        return self._scope


class _RuntimeHome:
    """A runtime as the home of its recorders, across forks."""

    shielded = False
    survives_fork = True

    def __init__(self, runtime: MetricsRuntime) -> None:
        self._runtime = runtime

    def hub(self) -> LoopHub:
        return self._runtime._engine_at_work().hub  # noqa: SLF001 — same module

    def on_own_loop(self) -> bool:
        return self._runtime._in_own_thread()  # noqa: SLF001 — same module

    def launch(self, main: Main, *, name: str, ended: Callable[[], object]) -> None:
        self._runtime._engine_at_work().home.launch(main, name=name, ended=ended)  # noqa: SLF001 — same module


class MetricsRuntime:
    """Owns a thread with an event loop of its own, and in it the recorders that it creates.

    ::

        with MetricsRuntime(namespace="shop") as runtime:
            orders = Orders(metrics_recorder=runtime.create_recorder("orders"))
            ...
            print(runtime.get_recorder("orders").get_metric_snapshots())

    Every method may be called from any thread but the runtime's own; from an event loop use the
    ``a…`` forms, which do not block it.  A process that forgets :meth:`shutdown` drains at its exit
    all the same, in bounded time.  After ``os.fork()`` the child's runtime works anew from its next
    use on, with the same recorders and metrics: counts begin at zero, ``_on_starting()`` runs
    again, and events pending at the fork are left to the parent.
    """

    def __init__(
        self,
        *,
        namespace: str,
        backend: str = "asyncio",
        backend_options: Mapping[str, Any] | None = None,
        default_recorder_queue_max_size: int | None = None,
        default_recorder_queue_overflow_policy: OverflowPolicy = OverflowPolicy.DROP,
        startup_timeout: float | None = DEFAULT_STARTUP_TIMEOUT,
    ) -> None:
        """Make a runtime; nothing runs before :meth:`start`.

        :param namespace: the default namespace of its recorders
        :param backend: ``"asyncio"`` or ``"trio"``
        :param backend_options: options for ``anyio.run``, for example ``{"use_uvloop": True}``
        :param default_recorder_queue_max_size: see :class:`MetricsRecorder`; 10 000 by default
        :param default_recorder_queue_overflow_policy: see :class:`MetricsRecorder`; DROP by default
        :param startup_timeout: seconds that the start of the thread, and each creation of a recorder,
            may take; None for no limit
        :raises TypeError: if an argument is of the wrong type
        :raises ValueError: if one is None that must not be, or out of range, or the backend is unknown
        """
        self._namespace = valid.given("namespace", namespace)
        if valid.text("backend", backend) not in BACKENDS:
            msg = f"argument 'backend' must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}"
            raise ValueError(msg)
        self._backend = backend
        self._backend_options = valid.options("backend_options", backend_options)
        if default_recorder_queue_max_size is not None:
            valid.positive_int("default_recorder_queue_max_size", default_recorder_queue_max_size)
        self._queue_max_size = default_recorder_queue_max_size
        self._queue_overflow_policy = valid.member(
            "default_recorder_queue_overflow_policy", default_recorder_queue_overflow_policy, OverflowPolicy
        )
        self._startup_timeout = valid.optional_seconds("startup_timeout", startup_timeout)
        self._lock = threading.RLock()
        self._state = _S.VIRGIN
        self._engine: Engine | None = None
        self._home = _RuntimeHome(self)
        self._recorders: dict[str, MetricsRecorder] = {}
        self._creations: dict[str, _Creation[Any]] = {}
        self._removing: set[str] = set()
        self._shutdown_error: MetricsRuntimeError | None = None
        self._shutdown_limit: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._namespace!r} on {self._backend} {self._state.value}>"

    # --- identity and state ----------------------------------------------------------------------

    @property
    def namespace(self) -> str:
        """The default namespace of the runtime's recorders."""
        return self._namespace

    @property
    def backend(self) -> str:
        """``"asyncio"`` or ``"trio"``."""
        return self._backend

    @property
    def portal(self) -> BlockingPortal:
        """Anyio's way into the runtime's loop, for resources that hooks have opened there.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        """
        self._require_running("portal")
        return self._engine_at_work().portal

    def get_status(self) -> MetricsRuntimeState:
        """Return the state of this moment."""
        return self._state

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and wait until its loop runs; do nothing if RUNNING.

        :raises MetricsRuntimeInvalidStateError: in any other state but VIRGIN
        :raises MetricsRuntimeStartupError: if the loop does not come up, for instance because the
            backend is not installed
        """
        engine = self._begin_start()
        if engine is not None:
            self._check_started(engine, in_time=engine.ready.wait(self._startup_timeout, _nothing))

    async def astart(self) -> None:
        """Like :meth:`start`, without blocking the calling event loop; a checkpoint.

        :raises MetricsRuntimeInvalidStateError: in any other state but VIRGIN and RUNNING
        :raises MetricsRuntimeStartupError: if the loop does not come up
        """
        engine = self._begin_start()
        if engine is not None:
            self._check_started(engine, in_time=await engine.ready.wait_async(self._startup_timeout, _nothing))

    def _begin_start(self) -> Engine | None:
        with self._lock:
            if self._state is _S.RUNNING:
                return None
            if self._state is not _S.VIRGIN:
                raise MetricsRuntimeInvalidStateError(self._state, (_S.VIRGIN, _S.RUNNING), call="start")
            self._state = _S.STARTING
            engine = self._new_engine()
        try:
            engine.start()
        except RuntimeError as exc:  # no more threads
            self._state = _S.FAILURE
            raise MetricsRuntimeStartupError(exc) from exc
        return engine

    def _check_started(self, engine: Engine, *, in_time: bool) -> None:
        failure = engine.ready.peek() if in_time else TimeoutError(f"no event loop after {self._startup_timeout:g} s")
        with self._lock:
            if failure is None and self._state is _S.STARTING:
                self._state = _S.RUNNING
            elif failure is not None:
                self._state = _S.FAILURE
        if failure is not None:
            raise MetricsRuntimeStartupError(failure, hint=self._installation_hint(failure)) from failure

    def _installation_hint(self, failure: BaseException) -> str | None:
        if not isinstance(failure, (ImportError, LookupError)):
            return None
        extra = "uvloop" if self._backend == "asyncio" else self._backend
        return f"backend {self._backend!r} is not installed: pip install 'mvx-metrics[{extra}]'"

    def _new_engine(self) -> Engine:
        engine = self._engine = Engine(
            name=f"mvx.common.metrics {self._namespace}",
            backend=self._backend,
            backend_options=self._backend_options,
            ended=self._engine_ended,
        )
        reset_in_child(self)
        _alive.add(self)
        return engine

    def shutdown(self) -> None:
        """Stop every recorder, all at once and each with its drain, and end the thread; idempotent.

        From VIRGIN straight to CLOSED.  While another shutdown is under way, wait for it.  The wait
        is bounded by the recorders' own time limits plus five seconds.

        :raises MetricsRuntimeShutdownError: if a recorder did not stop well or the thread did not
            end; the others were stopped all the same, and the state is FAILURE
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        """
        self._refuse_own_thread("shutdown()", "await ashutdown() from elsewhere, or call shutdown() in another thread")
        engine = self._begin_shutdown()
        if engine is not None:
            in_time = engine.ended.wait(self._shutdown_limit, _nothing)
            engine.thread.join(GRACE if in_time else 0)
            self._check_shut_down(in_time=in_time)

    async def ashutdown(self) -> None:
        """Like :meth:`shutdown`, without blocking the calling event loop; a checkpoint.

        Cancelling the await does not cancel the shutdown.

        :raises MetricsRuntimeShutdownError: see :meth:`shutdown`
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        """
        self._refuse_own_thread("ashutdown()", "call it from another event loop")
        engine = self._begin_shutdown()
        if engine is not None:
            in_time = await engine.ended.wait_async(self._shutdown_limit, _nothing)
            if in_time:
                await engine.joined(GRACE)
            self._check_shut_down(in_time=in_time)

    def _begin_shutdown(self) -> Engine | None:
        """Set the shutdown going if that is still to be done; return what there is to wait for."""
        with self._lock:
            engine = self._engine
            if self._state in (_S.VIRGIN, _S.CLOSED, _S.FAILURE):
                if self._state is _S.VIRGIN:
                    self._state = _S.CLOSED
                return None
            if self._state is _S.STARTING:
                raise MetricsRuntimeInvalidStateError(self._state, (_S.RUNNING,), call="shutdown")
            if engine is None:  # a forked child that never used it
                self._state = _S.CLOSED
                _alive.discard(self)
                return None
            if self._state is _S.STOPPING:
                return engine
            self._state = _S.STOPPING
            self._shutdown_limit = self._time_to_stop(map(core_of, self._recorders.values()))
        try:
            engine.submit(self._shut_down, name="mvx.common.metrics shutdown")
        except LoopGoneError:
            pass  # then the engine has ended, and has said why
        return engine

    async def _shut_down(self) -> None:
        engine = self._engine
        with self._lock:
            creations = list(self._creations.values())
            recorders = dict(self._recorders)
        for creation in creations:
            creation.cancel()
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
        """The thread is at its end: say how, before anybody who waits for it is woken."""
        with self._lock:
            was = self._state
            if was is _S.STOPPING and failure is None:
                self._state = _S.CLOSED if self._shutdown_error is None else _S.FAILURE
            elif was is not _S.STARTING:
                self._state = _S.FAILURE
                self._shutdown_error = MetricsRuntimeShutdownError(cause=failure, situation="its thread failed")
            recorders = list(self._recorders.values())
            creations, self._creations = list(self._creations.values()), {}
        _alive.discard(self)
        if was is _S.RUNNING:
            emit(logging.CRITICAL, "the runtime's thread ended unexpectedly", error=failure, fields=self._fields())
        for creation in creations:
            creation.outcome.set(
                MetricsRuntimeRecorderStartupError(creation.recorder_id, cause=MetricsRuntimeUnexpectedError(failure))
            )
        for recorder in recorders:
            core_of(recorder).check_loop()

    def _check_shut_down(self, *, in_time: bool) -> None:
        with self._lock:
            if not in_time and self._state is _S.STOPPING:
                self._state = _S.FAILURE
                self._shutdown_error = MetricsRuntimeShutdownError(
                    situation=f"its thread has not ended within {self._shutdown_limit:g} s"
                )
            error = self._shutdown_error
        if error is not None:
            # An instance for each caller: raising one in several threads would mix their tracebacks.
            rebuild, args = error.__reduce__()
            raise rebuild(*args)

    def __enter__(self) -> Self:
        """Start the runtime."""
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut the runtime down; its error is logged rather than raised if the block failed already."""
        try:
            self.shutdown()
        except MetricsRuntimeShutdownError as error:
            self._raise_unless(exc, error)

    async def __aenter__(self) -> Self:
        """Start the runtime without blocking the event loop."""
        await self.astart()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut the runtime down without blocking the event loop, also when the block is cancelled."""
        try:
            with anyio.CancelScope(shield=True):
                await self.ashutdown()
        except MetricsRuntimeShutdownError as error:
            self._raise_unless(exc, error)

    def _raise_unless(self, exc: BaseException | None, error: MetricsRuntimeShutdownError) -> None:
        if exc is None:
            raise error
        emit(logging.ERROR, "%s", error.message, error=error, fields=self._fields())

    # --- recorders -------------------------------------------------------------------------------

    @overload
    def create_recorder(
        self,
        recorder_id: str,
        *,
        factory: Callable[..., R],
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> R: ...

    @overload
    def create_recorder(
        self,
        recorder_id: str,
        *,
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> MetricsRecorder: ...

    def create_recorder(
        self,
        recorder_id: str,
        *,
        factory: Callable[..., Any] = MetricsRecorder,
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> Any:
        """Create a recorder, start it in the runtime, and register it under ``recorder_id``.

        :param recorder_id: the key in this runtime's registry; stripped
        :param factory: a recorder class, or whatever returns a new recorder; called in the runtime's
            loop with ``entity_id`` and, as far as its signature takes them, the keywords below; what
            it does not pass on to the recorder, the recorder takes from here
        :param entity_id: ``recorder_id`` by default
        :param namespace: the runtime's by default
        :param queue_max_size: the runtime's default by default
        :param queue_overflow_policy: the runtime's default by default
        :param options: more keywords for the factory, for example ``failure_policy`` or ``linger``
        :raises TypeError: if an argument is of the wrong type
        :raises ValueError: if ``recorder_id`` is None or blank, or an argument is out of range
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises MetricsRuntimeRecorderAlreadyExistsError: if the id is in use or being created
        :raises MetricsRuntimeRecorderStartupError: if the factory or ``_on_starting()`` raises, or they
            take longer than ``startup_timeout``; the id is free again
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        """
        self._refuse_own_thread("create_recorder()", "await acreate_recorder() there")
        creation = self._begin_creation(
            recorder_id, factory, entity_id, namespace, queue_max_size, queue_overflow_policy, options
        )
        try:
            in_time = creation.outcome.wait(self._startup_timeout, _nothing)
        except BaseException:
            self._give_up(creation)
            raise
        return self._created(creation, in_time=in_time)

    @overload
    async def acreate_recorder(
        self,
        recorder_id: str,
        *,
        factory: Callable[..., R],
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> R: ...

    @overload
    async def acreate_recorder(
        self,
        recorder_id: str,
        *,
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> MetricsRecorder: ...

    async def acreate_recorder(
        self,
        recorder_id: str,
        *,
        factory: Callable[..., Any] = MetricsRecorder,
        entity_id: str | None = None,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        **options: Any,
    ) -> Any:
        """Like :meth:`create_recorder`, without blocking the calling event loop; a checkpoint.

        Allowed in the runtime's own loop too.  Cancelling the await cancels the creation; the id
        is then free again as soon as that has ended.
        """
        creation = self._begin_creation(
            recorder_id, factory, entity_id, namespace, queue_max_size, queue_overflow_policy, options
        )
        try:
            in_time = await creation.outcome.wait_async(self._startup_timeout, _nothing)
        except BaseException:
            self._give_up(creation)
            raise
        return self._created(creation, in_time=in_time)

    def _begin_creation(
        self,
        recorder_id: str,
        factory: Callable[..., Any],
        entity_id: str | None,
        namespace: str | None,
        queue_max_size: int | None,
        queue_overflow_policy: OverflowPolicy | None,
        more: dict[str, Any],
    ) -> _Creation[Any]:
        recorder_id = valid.identifier("recorder_id", recorder_id)
        valid.function("factory", factory)
        entity_id = recorder_id if entity_id is None else valid.text("entity_id", entity_id)
        options = {
            "namespace": self._namespace if namespace is None else valid.text("namespace", namespace),
            "queue_max_size": self._queue_max_size
            if queue_max_size is None
            else valid.positive_int("queue_max_size", queue_max_size),
            "queue_overflow_policy": self._queue_overflow_policy
            if queue_overflow_policy is None
            else valid.member("queue_overflow_policy", queue_overflow_policy, OverflowPolicy),
        }
        creation: _Creation[Any] = _Creation(recorder_id)
        with self._lock:
            self._require_running("create_recorder")
            if recorder_id in self._recorders or recorder_id in self._creations or recorder_id in self._removing:
                raise MetricsRuntimeRecorderAlreadyExistsError(recorder_id)
            self._creations[recorder_id] = creation

        async def create() -> None:
            await self._create(creation, factory, entity_id, options, more)

        try:
            self._engine_at_work().submit(create, name=f"mvx.common.metrics create {recorder_id}")
        except LoopGoneError as exc:
            self._creations.pop(recorder_id, None)
            raise MetricsRuntimeLoopUnavailableError from exc
        return creation

    async def _create(
        self,
        creation: _Creation[Any],
        factory: Callable[..., Any],
        entity_id: str,
        options: dict[str, Any],
        more: dict[str, Any],
    ) -> None:
        recorder_id = creation.recorder_id
        recorder: object = None
        failure: BaseException | None = None
        with creation.begin():
            try:
                birth = BIRTH.set(Birth(home=self._home, options=options))
                try:
                    recorder = factory(entity_id, **_taken_by(factory, options), **more)
                finally:
                    BIRTH.reset(birth)
                if not isinstance(recorder, MetricsRecorder) or core_of(recorder).home is not self._home:
                    msg = f"argument 'factory' must return a new MetricsRecorder made in the call, got {recorder!r}"
                    raise TypeError(msg)  # noqa: TRY301 — told like an exception of the factory's own
                result = await recorder.start()
                failure = result.error
            except BaseException as exc:
                failure = exc
        with self._lock:
            self._creations.pop(recorder_id, None)
            if failure is None and not creation.cancelled and isinstance(recorder, MetricsRecorder):
                self._recorders[recorder_id] = recorder
                creation.outcome.set(recorder)
                return
        if isinstance(recorder, MetricsRecorder):
            core_of(recorder).interrupt()
        if isinstance(failure, RecorderError) and failure.cause is not None:
            failure = failure.cause
        creation.outcome.set(MetricsRuntimeRecorderStartupError(recorder_id, cause=failure))

    def _give_up(self, creation: _Creation[Any]) -> None:
        """Nobody waits for ``creation`` any more: cancel it, or remove what it has come to."""
        try:
            self._engine_at_work().hub.call_soon(lambda: self._undo(creation))
        except LoopGoneError:
            pass

    def _undo(self, creation: _Creation[Any]) -> None:
        creation.cancel()
        with self._lock:
            if creation.outcome.is_set:
                recorder = self._recorders.pop(creation.recorder_id, None)
                if recorder is not None:
                    recorder.stop()

    def _created(self, creation: _Creation[Any], *, in_time: bool) -> Any:
        if not in_time:
            self._give_up(creation)
            late = TimeoutError(f"not created within startup_timeout of {self._startup_timeout:g} s")
            raise MetricsRuntimeRecorderStartupError(creation.recorder_id, cause=late) from late
        outcome = creation.outcome.peek()
        if isinstance(outcome, MetricsRuntimeError):
            raise outcome
        return outcome

    def get_recorder(self, recorder_id: str) -> MetricsRecorder:
        """Return the recorder registered under ``recorder_id``.

        :raises MetricsRuntimeRecorderNotFoundError: if there is none
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        recorder = self.try_get_recorder(recorder_id)
        if recorder is None:
            raise MetricsRuntimeRecorderNotFoundError(recorder_id.strip())
        return recorder

    def try_get_recorder(self, recorder_id: str) -> MetricsRecorder | None:
        """Return the recorder registered under ``recorder_id``, or None.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        recorder_id = valid.identifier("recorder_id", recorder_id)
        with self._lock:
            self._require_running("get_recorder")
            return self._recorders.get(recorder_id)

    def list_recorder_ids(self) -> tuple[str, ...]:
        """Return the ids in use, in the order of creation.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        """
        with self._lock:
            self._require_running("list_recorder_ids")
            return tuple(self._recorders)

    def stop_recorder(self, recorder_id: str) -> None:
        """Stop a recorder and keep it registered; do nothing if it has stopped already.

        :raises MetricsRuntimeRecorderNotFoundError: if there is none, or it is being removed
        :raises MetricsRuntimeRecorderStopError: if it does not stop well; the cause says why
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        self._refuse_own_thread("stop_recorder()", "await the recorder's stop() there")
        recorder = self.get_recorder(recorder_id)
        self._stop(recorder_id.strip(), core_of(recorder))

    def stop_and_remove_recorder(self, recorder_id: str) -> MetricsRecorder:
        """Stop a recorder, remove it, also if its stop fails, and return it.

        :raises MetricsRuntimeRecorderNotFoundError: if there is none, or it is being removed
        :raises MetricsRuntimeRecorderStopError: if it does not stop well; it is removed all the same
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        self._refuse_own_thread("stop_and_remove_recorder()", "call it in another thread")
        recorder_id = valid.identifier("recorder_id", recorder_id)
        with self._lock:
            self._require_running("stop_and_remove_recorder")
            recorder = self._recorders.pop(recorder_id, None)
            if recorder is None:
                raise MetricsRuntimeRecorderNotFoundError(recorder_id)
            self._removing.add(recorder_id)
        try:
            self._stop(recorder_id, core_of(recorder))
        finally:
            self._removing.discard(recorder_id)
        return recorder

    def _stop(self, recorder_id: str, core: RecorderCore) -> None:
        handle = core.stop()
        limit = self._time_to_stop([core])
        try:
            error = _stop_error(core, handle.wait(limit))
        except TimeoutError:
            error = RecorderTimeoutError("stop", limit or math.inf)
        if error is not None:
            raise MetricsRuntimeRecorderStopError(recorder_id, cause=error) from error

    # --- the inside ------------------------------------------------------------------------------

    def _engine_at_work(self) -> Engine:
        """Return the engine, and in a forked child make one first.

        :raises LoopGoneError: if the runtime is not running any more
        """
        engine = self._engine
        if engine is not None:
            return engine
        with self._lock:
            if self._engine is None:
                if self._state is not _S.RUNNING:
                    raise LoopGoneError
                engine = self._new_engine()
                engine.start()
            engine = self._engine
        if engine is None or not engine.ready.wait(self._startup_timeout, _nothing) or engine.ready.peek():
            raise LoopGoneError
        return engine

    def _in_own_thread(self) -> bool:
        engine = self._engine
        return engine is not None and engine.thread is threading.current_thread()

    def _refuse_own_thread(self, call: str, instead: str) -> None:
        if self._in_own_thread():
            raise MetricsRuntimeWouldDeadlockError(f"{call} in the runtime's own thread", instead)

    def _require_running(self, call: str) -> None:
        if self._state is not _S.RUNNING:
            raise MetricsRuntimeInvalidStateError(self._state, (_S.RUNNING,), call=call)

    def _time_to_stop(self, cores: Any) -> float | None:
        """Return the seconds that stopping ``cores`` at once may take, or None for no limit."""
        drains = [core.options.drain_timeout for core in cores]
        if None in drains:
            return None
        longest: float = max(drains, default=0.0)
        return longest + max(longest, MIN_STOPPED_HOOK_TIMEOUT) + GRACE

    def _fields(self) -> dict[str, Any]:
        return {"namespace": self._namespace, "backend": self._backend}

    def after_fork_in_child(self) -> None:
        """Begin anew; see :mod:`._fork`."""
        self._lock = threading.RLock()
        if self._engine is not None:
            self._engine.leave_behind()
            self._engine = None
        self._creations, self._removing = {}, set()
        if self._state is _S.STARTING:
            self._state = _S.VIRGIN
        elif self._state is _S.STOPPING:
            self._state = _S.CLOSED


def _taken_by(factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return those of ``options`` that the signature of ``factory`` takes."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return options
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return options
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in options.items() if name in names}


def _stop_error(core: RecorderCore, result: RecorderOpResult) -> RecorderError | None:
    """Return why a stop failed; having nothing to stop is no failure."""
    nothing_to_stop = result.error is not None and core.state in (RecorderState.STOPPED, RecorderState.VIRGIN)
    if nothing_to_stop and core.error is None:
        return None
    return result.error


def _nothing() -> None:
    pass


_alive: set[MetricsRuntime] = set()
"""Every runtime whose thread runs, also those that nobody refers to any more."""


@atexit.register
def _drain_at_exit() -> None:
    """Give runtimes that were not shut down a last drain, bounded in time.

    The interpreter calls this when the non-daemon threads have ended and the daemon threads still
    work; it sees what every finished producer emitted.  No thread can be started here.
    """
    ending: list[tuple[MetricsRuntime, Engine]] = []
    for runtime in list(_alive):
        try:
            engine = runtime._begin_shutdown()  # noqa: SLF001 — same module
        except MetricsRuntimeError:
            continue
        if engine is not None:
            ending.append((runtime, engine))
    deadline = time.monotonic() + EXIT_TIMEOUT
    for runtime, engine in ending:
        if not engine.ended.wait(max(0.0, deadline - time.monotonic()), _nothing):
            emit(logging.ERROR, "the runtime was not drained in time at exit", fields=runtime._fields())
