"""The runtime: one thread in which an application's recorders do their work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import anyio
from anyio.from_thread import BlockingPortal

from . import _validation as valid
from ._creation import Creation
from ._exit import forget
from ._inbox import OverflowPolicy
from ._log import emit
from ._recorder import MetricsRecorder, core_of
from ._supervisor import MetricsRuntimeState, Supervisor, SupervisorOptions
from .errors import (
    MetricsRuntimeError,
    MetricsRuntimeRecorderNotFoundError,
    MetricsRuntimeRecorderStartupError,
    MetricsRuntimeShutdownError,
)

R = TypeVar("R", bound=MetricsRecorder)

BACKENDS = ("asyncio", "trio")
DEFAULT_STARTUP_TIMEOUT = 30.0


class MetricsRuntime:
    """Owns a thread with an event loop of its own, and in it the recorders that it creates.

    ::

        with MetricsRuntime(namespace="shop") as runtime:
            orders = Orders(metrics_recorder=runtime.create_recorder("orders"))
            ...
            print(runtime.get_recorder("orders").get_metric_snapshots())

    What waits may be called from any thread but the runtime's own, where :meth:`acreate_recorder`
    and the look-ups are allowed, too; from an event loop use the ``a…`` forms, which do not block it.
    A process that forgets :meth:`shutdown` drains at its exit all the same, in bounded time.  After
    ``os.fork()`` the child's runtime works anew from its next use on, with the same recorders and
    metrics: counts begin at zero, ``_on_starting()`` runs again, and events pending at the fork are
    left to the parent.
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
        if valid.text("backend", backend) not in BACKENDS:
            msg = f"argument 'backend' must be one of {', '.join(map(repr, BACKENDS))}, got {backend!r}"
            raise ValueError(msg)
        self._supervisor = Supervisor(
            SupervisorOptions(
                namespace=valid.given("namespace", namespace),
                backend=backend,
                backend_options=valid.options("backend_options", backend_options),
                startup_timeout=valid.optional_seconds("startup_timeout", startup_timeout),
            )
        )
        if default_recorder_queue_max_size is not None:
            valid.positive_int("default_recorder_queue_max_size", default_recorder_queue_max_size)
        self._queue_max_size = default_recorder_queue_max_size
        self._queue_overflow_policy = valid.member(
            "default_recorder_queue_overflow_policy", default_recorder_queue_overflow_policy, OverflowPolicy
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.namespace!r} on {self.backend} {self.get_status().value}>"

    # --- identity and state ----------------------------------------------------------------------

    @property
    def namespace(self) -> str:
        """The default namespace of the runtime's recorders."""
        return self._supervisor.options.namespace

    @property
    def backend(self) -> str:
        """``"asyncio"`` or ``"trio"``."""
        return self._supervisor.options.backend

    @property
    def portal(self) -> BlockingPortal:
        """Anyio's way into the runtime's loop, for resources that hooks have opened there.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        """
        self._supervisor.require_running("portal")
        return self._supervisor.engine_at_work().portal

    def get_status(self) -> MetricsRuntimeState:
        """Return the state of this moment."""
        return self._supervisor.state

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and wait until its loop runs; do nothing if RUNNING.

        :raises MetricsRuntimeInvalidStateError: in any other state but VIRGIN and RUNNING
        :raises MetricsRuntimeStartupError: if the loop does not come up, for instance because the
            backend is not installed, or in a sub-interpreter
        """
        engine = self._supervisor.begin_start()
        if engine is not None:
            in_time = engine.ready.wait(self._supervisor.options.startup_timeout, _nothing)
            self._supervisor.check_started(engine, in_time=in_time)

    async def astart(self) -> None:
        """Like :meth:`start`, without blocking the calling event loop; a checkpoint.

        :raises MetricsRuntimeInvalidStateError: in any other state but VIRGIN and RUNNING
        :raises MetricsRuntimeStartupError: likewise
        """
        engine = self._supervisor.begin_start()
        if engine is not None:
            in_time = await engine.ready.wait_async(self._supervisor.options.startup_timeout, _nothing)
            self._supervisor.check_started(engine, in_time=in_time)

    def shutdown(self) -> None:
        """Stop every recorder, all at once and each with its drain, and end the thread; idempotent.

        From VIRGIN straight to CLOSED.  While another shutdown is under way, wait for it.  The wait
        is bounded by the recorders' own time limits plus five seconds.

        Without a limit where a recorder's ``drain_timeout`` is None.  Interrupted by Ctrl-C, it is not
        taken up again at the process's exit.

        :raises MetricsRuntimeShutdownError: if a recorder did not stop well or the thread did not
            end; the others were stopped all the same, and the state is FAILURE
        :raises MetricsRuntimeInvalidStateError: while the runtime is starting
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        """
        supervisor = self._supervisor
        supervisor.refuse_own_thread("shutdown()", "call it in another thread, or await ashutdown() on another loop")
        ended = supervisor.begin_shutdown()
        if ended is not None:
            try:
                in_time = ended.wait(supervisor.shutdown_limit, _nothing)
            except KeyboardInterrupt:
                forget(supervisor)  # whoever does not want to wait here does not want to wait at the exit either
                raise
            if in_time:
                supervisor.join()
            supervisor.check_shut_down(in_time=in_time)

    async def ashutdown(self) -> None:
        """Like :meth:`shutdown`, without blocking the calling event loop; a checkpoint.

        Cancelling the await does not cancel the shutdown.

        :raises MetricsRuntimeShutdownError: see :meth:`shutdown`
        :raises MetricsRuntimeInvalidStateError: while the runtime is starting
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        """
        supervisor = self._supervisor
        supervisor.refuse_own_thread("ashutdown()", "await it on another event loop")
        ended = supervisor.begin_shutdown()
        if ended is not None:
            in_time = await ended.wait_async(supervisor.shutdown_limit, _nothing)
            if in_time:
                await supervisor.ajoin()
            supervisor.check_shut_down(in_time=in_time)

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
        """Start the runtime without blocking the event loop; cancelled, it is shut down again."""
        try:
            await self.astart()
        except MetricsRuntimeError:
            raise
        except BaseException:
            # Decided before anything is waited for: asyncio may cancel again, and no shield stops that.
            ended = self._supervisor.abort_start()
            with anyio.CancelScope(shield=True):
                if ended is not None:
                    await ended.wait_async(self._supervisor.options.startup_timeout, _nothing)
                    await self._supervisor.ajoin()
            raise
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
        emit(logging.ERROR, "%s", error.message, error=error, fields=self._supervisor.log_fields)

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
        factory: type[MetricsRecorder] = MetricsRecorder,
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
        self._supervisor.refuse_own_thread("create_recorder()", "await acreate_recorder() there")
        creation = self._begin_creation(
            recorder_id, factory, entity_id, namespace, queue_max_size, queue_overflow_policy, options
        )
        try:
            in_time = creation.outcome.wait(self._supervisor.options.startup_timeout, _nothing)
        except BaseException:
            self._supervisor.give_up(creation)
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
        factory: type[MetricsRecorder] = MetricsRecorder,
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

        Allowed in the runtime's own loop too.  Cancelling the await cancels the creation, and the
        id is free again at once.
        """
        creation = self._begin_creation(
            recorder_id, factory, entity_id, namespace, queue_max_size, queue_overflow_policy, options
        )
        try:
            in_time = await creation.outcome.wait_async(self._supervisor.options.startup_timeout, _nothing)
        except BaseException:
            self._supervisor.give_up(creation)
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
        more_options: dict[str, Any],
    ) -> Creation:
        recorder_id = valid.identifier("recorder_id", recorder_id)
        valid.function("factory", factory)
        creation = Creation(
            recorder_id,
            factory=factory,
            entity_id=recorder_id if entity_id is None else valid.text("entity_id", entity_id),
            options={
                "namespace": self.namespace if namespace is None else valid.text("namespace", namespace),
                "queue_max_size": self._queue_max_size
                if queue_max_size is None
                else valid.positive_int("queue_max_size", queue_max_size),
                "queue_overflow_policy": self._queue_overflow_policy
                if queue_overflow_policy is None
                else valid.member("queue_overflow_policy", queue_overflow_policy, OverflowPolicy),
            },
            more_options=more_options,
            home=self._supervisor.home,
            registry=self._supervisor,
        )
        self._supervisor.begin_creation(creation)
        return creation

    def _created(self, creation: Creation, *, in_time: bool) -> MetricsRecorder:
        if not in_time:
            self._supervisor.give_up(creation)
            limit = self._supervisor.options.startup_timeout
            late = TimeoutError(f"not created within startup_timeout of {limit:g} s")
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
        recorder_id = valid.identifier("recorder_id", recorder_id)
        recorder = self._supervisor.find(recorder_id, "get_recorder")
        if recorder is None:
            raise MetricsRuntimeRecorderNotFoundError(recorder_id)
        return recorder

    def try_get_recorder(self, recorder_id: str) -> MetricsRecorder | None:
        """Return the recorder registered under ``recorder_id``, or None.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        return self._supervisor.find(valid.identifier("recorder_id", recorder_id), "try_get_recorder")

    def list_recorder_ids(self) -> tuple[str, ...]:
        """Return the ids in use, in the order of creation.

        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        """
        return self._supervisor.ids()

    def stop_recorder(self, recorder_id: str) -> None:
        """Stop a recorder and keep it registered; do nothing if it has stopped already.

        :raises MetricsRuntimeRecorderNotFoundError: if there is none, or it is being removed
        :raises MetricsRuntimeRecorderStopError: if it does not stop well; the cause says why
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        self._supervisor.refuse_own_thread("stop_recorder()", "await the recorder's stop() there")
        recorder_id = valid.identifier("recorder_id", recorder_id)
        recorder = self._supervisor.find(recorder_id, "stop_recorder")
        if recorder is None:
            raise MetricsRuntimeRecorderNotFoundError(recorder_id)
        self._supervisor.stop(recorder_id, core_of(recorder))

    def stop_and_remove_recorder(self, recorder_id: str) -> MetricsRecorder:
        """Stop a recorder, remove it, also if its stop fails, and return it.

        :raises MetricsRuntimeRecorderNotFoundError: if there is none, or it is being removed
        :raises MetricsRuntimeRecorderStopError: if it does not stop well; it is removed all the same
        :raises MetricsRuntimeInvalidStateError: unless RUNNING
        :raises MetricsRuntimeWouldDeadlockError: in the runtime's own thread
        :raises TypeError: if ``recorder_id`` is not a str
        :raises ValueError: if it is None or blank
        """
        self._supervisor.refuse_own_thread("stop_and_remove_recorder()", "call it in another thread")
        recorder_id = valid.identifier("recorder_id", recorder_id)
        recorder = self._supervisor.take(recorder_id)
        try:
            self._supervisor.stop(recorder_id, core_of(recorder))
        finally:
            self._supervisor.removed(recorder_id)
        return recorder


def supervisor_of(runtime: MetricsRuntime) -> Supervisor:
    """Return the engine room of ``runtime``; for tests."""
    return runtime._supervisor  # noqa: SLF001 — same module


def _nothing() -> None:
    pass
