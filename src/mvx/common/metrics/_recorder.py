"""The recorder: what an application makes, passes into its components, and extends with hooks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from . import _validation as valid
from ._actor import Hooks
from ._core import ACTIVE, RecorderCore, RecorderOptions
from ._dispatch import FailurePolicy
from ._event import MetricEvent
from ._hosting import BIRTH, GroupHome, home_here
from ._hub import hub_of
from ._inbox import InboxOptions, OverflowPolicy
from ._lifecycle import STATE_TABLE, Reaction, RecorderState, RecorderWaitHandle
from ._metric import Metric
from ._rounds import ROUND
from ._run import DEFAULT_DRAIN_TIMEOUT
from ._statistics import RecorderStatistics
from ._waiting import current_loop
from .errors import RecorderLoopUnavailableError

DEFAULT_QUEUE_MAX_SIZE = 10_000
DEFAULT_LINGER = ROUND
DEFAULT_BLOCK_TIMEOUT = 1.0
DEFAULT_QUARANTINE_AFTER = 5


class _Unset:
    """Tells "not given" from None where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "<default>"


_UNSET = _Unset()


@functools.lru_cache(maxsize=256)
def _shared(options: RecorderOptions) -> RecorderOptions:
    """Return one object for all recorders with the same settings: with thousands of them, the cache is short."""
    return options


class MetricsRecorder:
    """Accepts events anywhere, hands them to its metrics on one event loop, and runs hooks there.

    Made by hand, a recorder belongs to the asyncio or trio event loop that runs in the calling
    thread.  It starts with :meth:`start`, with its first event, or as a block::

        async with MetricsRecorder("orders") as recorder:
            recorder.register_metric(OrdersPlaced())
            recorder.register_event(OrderPlaced())

    Made by :class:`MetricsRuntime`, it belongs to the runtime's thread and is running already.

    Subclass it to react: the hooks ``_on_starting``, ``_on_metric_changed`` and ``_on_stopped`` run
    one at a time in the recorder's own task.  Every other attribute of a recorder is private under
    a mangled name, so that a subclass may name its own as it likes.
    """

    # For the cache, see RecorderCore; and users may set attributes, in a test for example.
    __slots__ = ("__core", "__dict__", "__group", "__home_before", "__weakref__")

    def __init__(
        self,
        entity_id: str,
        *,
        namespace: str | None = None,
        queue_max_size: int | None = None,
        queue_overflow_policy: OverflowPolicy | None = None,
        failure_policy: FailurePolicy | None = None,
        drain_timeout: float | _Unset | None = _UNSET,
        block_timeout: float | None = None,
        linger: float | None = None,
        quarantine_after: int | None = None,
    ) -> None:
        """Make a recorder that has not been started.

        Inside the factory of a runtime, options that are not given are the runtime's.

        :param entity_id: what is being measured, for example the component's name; stripped, and
            eight random hexadecimal digits if blank
        :param namespace: the part of the application that it belongs to
        :param queue_max_size: how many events may be accepted and not yet processed; 10 000 by default;
            each other thread that emits at the same instant may exceed it by one, and under
            DROP_OLDEST a bound of 1 lets one event wait beside the one under way
        :param queue_overflow_policy: what happens to an event beyond that; RAISE_ERROR by default
        :param failure_policy: what happens when a metric or ``_on_metric_changed`` raises; ISOLATE by default
        :param drain_timeout: seconds that :meth:`stop` may go on processing, and that a snapshot waits;
            30 by default, None for no limit
        :param block_timeout: seconds that BLOCK lets a thread wait; 1 by default
        :param linger: seconds between two drains while events keep coming, 0.1 by default: the first
            event after a pause is handled at once, those that follow in batches, which spares the
            emitters from waking the loop; 0 turns it off.  In a runtime, those of its recorders that have
            no hooks and the default look together until none has got an event for a second, so that
            a first event may wait, too
        :param quarantine_after: how many failures running set a metric aside under QUARANTINE; 5 by default
        :raises RecorderLoopUnavailableError: if no event loop runs in the calling thread, or in a sub-interpreter
        :raises TypeError: if an argument is of the wrong type
        :raises ValueError: if one is None that must not be, or out of range
        """
        birth = BIRTH.get()
        inherited = {} if birth is None else birth.options
        if namespace is None:
            namespace = inherited.get("namespace")
        if queue_max_size is None:
            queue_max_size = inherited.get("queue_max_size")
        if queue_overflow_policy is None:
            queue_overflow_policy = inherited.get("queue_overflow_policy")
        self.__core = RecorderCore(
            entity_id=valid.entity_id(entity_id),
            namespace=None if namespace is None else valid.text("namespace", namespace),
            options=_shared(
                RecorderOptions(
                    inbox=InboxOptions(
                        capacity=DEFAULT_QUEUE_MAX_SIZE
                        if queue_max_size is None
                        else valid.positive_int("queue_max_size", queue_max_size),
                        overflow_policy=OverflowPolicy.RAISE_ERROR
                        if queue_overflow_policy is None
                        else valid.member("queue_overflow_policy", queue_overflow_policy, OverflowPolicy),
                        block_timeout=DEFAULT_BLOCK_TIMEOUT
                        if block_timeout is None
                        else valid.seconds("block_timeout", block_timeout),
                        linger=DEFAULT_LINGER if linger is None else valid.seconds("linger", linger),
                    ),
                    failure_policy=FailurePolicy.ISOLATE
                    if failure_policy is None
                    else valid.member("failure_policy", failure_policy, FailurePolicy),
                    quarantine_after=DEFAULT_QUARANTINE_AFTER
                    if quarantine_after is None
                    else valid.positive_int("quarantine_after", quarantine_after),
                    drain_timeout=DEFAULT_DRAIN_TIMEOUT
                    if isinstance(drain_timeout, _Unset)
                    else valid.optional_seconds("drain_timeout", drain_timeout),
                )
            ),
            home=home_here(),
            hooks=self.__hooks,
        )
        self.__group: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.entity_id!r} {self.get_status().value}>"

    # --- identity and state ----------------------------------------------------------------------

    @property
    def entity_id(self) -> str:
        """What is being measured."""
        return self.__core.entity_id

    @property
    def namespace(self) -> str | None:
        """The part of the application that the recorder belongs to."""
        return self.__core.namespace

    def get_status(self) -> RecorderState:
        """Return the state of this moment."""
        return self.__core.state

    def statistics(self) -> RecorderStatistics:
        """Return where every event went that was offered; from any thread.

        Both equations of :class:`RecorderStatistics` hold in every reading; a reading is repeated
        until nothing has moved under it.
        """
        return self.__core.statistics()

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> RecorderWaitHandle:
        """Start, or start again after a stop; return at once.

        Never raises and never blocks; from any thread.  While a start is under way, the handle
        is that start's.  In every other state but VIRGIN and STOPPED the result is a
        RecorderInvalidStateError, and a RecorderLoopUnavailableError if the loop has ended.
        """
        return self.__core.start()

    def stop(self) -> RecorderWaitHandle:
        """Turn new events away, process what was accepted, run ``_on_stopped()``; return at once.

        Never raises and never blocks; from any thread.  The drain takes up to ``drain_timeout``
        seconds; then the hook under way is cancelled, what is left is counted as abandoned, and
        the result says so with a RecorderDrainTimeoutError.  While a stop is under way, the
        handle is that stop's.  In every other state but RUNNING the result is a
        RecorderInvalidStateError.
        """
        return self.__core.stop()

    def flush(self) -> RecorderWaitHandle:
        """Process every event accepted before this call, hooks included, without any linger.

        Returns at once, from any thread and in any state.  The result's error says if some of
        those events had to be abandoned.
        """
        return self.__core.flush()

    async def __aenter__(self) -> Self:
        """Start the recorder in a task group of this block.

        :raises RecorderInvalidStateError: unless VIRGIN or STOPPED
        :raises RecorderError: if it cannot be started, for instance because a hook raised
        :raises RecorderLoopUnavailableError: on another loop than the one that it was made on
        """
        core = self.__core
        if STATE_TABLE[core.state].start is not Reaction.BEGIN:
            raise core.invalid_state(core.state, "start", call="__aenter__")
        if not core.home.on_own_loop():
            raise RecorderLoopUnavailableError("'async with' must run on the loop that the recorder was made on")
        hub = hub_of(current_loop())
        group = anyio.create_task_group()
        await group.__aenter__()
        before, core.home = core.home, GroupHome(hub, group, shielded=True)
        try:
            result = await core.start()
            if result.error is not None:
                raise result.error  # noqa: TRY301 — the clean-up is the same
        except BaseException:
            core.interrupt()
            core.home = before
            await self.__leave(group)
            raise
        self.__group, self.__home_before = group, before
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the recorder, also when the block is cancelled: the drain is shielded and bounded.

        :raises RecorderError: if the recorder failed or did not stop well, unless the block is
            being left by an exception already
        """
        core = self.__core
        group, self.__group = self.__group, None
        if group is None:
            return
        try:
            # A stop of the user's own within the block has been reported to the user.
            reported = core.has_reported_its_end
            core.home = self.__home_before
            with anyio.CancelScope(shield=True):
                while core.state in ACTIVE:
                    await core.end()
                    reported = False
        except KeyboardInterrupt:
            core.interrupt()  # Ctrl-C in the midst of the drain ends it, also where tasks are protected from it
            raise
        finally:
            await self.__leave(group)
        if exc is None and core.error is not None and not reported:
            raise core.error.fresh()

    async def __leave(self, group: TaskGroup) -> None:
        try:
            await group.__aexit__(None, None, None)
        finally:
            self.__core.conclude()

    # --- metrics and events ----------------------------------------------------------------------

    def register_metric(self, metric: Metric) -> None:
        """Add ``metric``, or put it in the place of the one of the same name; from any thread.

        A metric registered before an event is emitted sees that event.

        :raises ValueError: if it is None, its ``metric_name`` raises or is blank, or its
            ``event_types`` raises
        :raises TypeError: if it is not a Metric, its ``metric_name`` is not a str, or its
            ``event_types`` is neither None nor a tuple of MetricEvent classes
        :raises RecorderInvalidStateError: if the recorder is stopping, has stopped or failed
        """
        self.__core.register_metric(metric)

    def register_event(self, event: MetricEvent) -> None:
        """Hand over ``event`` and carry on.

        Synchronous; legal in any thread, on any event loop, in a signal handler, a finalizer, a
        metric and a hook of the same recorder.  Under BLOCK it may wait; otherwise never.  The
        first event starts a recorder that has not been started.

        An event for which this returns is handled by every metric registered for it before the
        recorder has stopped, in the order of emission for each emitting thread, or it is counted
        in :meth:`statistics`: as ``dropped`` under DROP, as ``evicted`` under DROP_OLDEST, as
        ``abandoned`` if a stop ran out of time or the recorder failed.  An event for which this
        raises was not accepted.

        :raises ValueError: if ``event`` is None, or its ``event_type`` raises or is not a str;
            looked at for the first event of a class
        :raises TypeError: if it is not a MetricEvent
        :raises RecorderQueueOverflowError: if there is no room under RAISE_ERROR, or under BLOCK within
            ``block_timeout``; under BLOCK at once on the recorder's own loop, which cannot wait for itself
        :raises RecorderInvalidStateError: if the recorder is stopping, has stopped or failed, or its
            event loop turns out to be gone; its ``cause`` says why
        """
        inbox = self.__core.entry
        # Inbox.put() spelt out: one call less, which is a fifth of the price of emitting.
        events = inbox.events
        if type(event) in inbox.known and len(events) < inbox.threshold:
            events.append(event)
            if not inbox.nap or inbox.announce(event):
                return
        elif inbox.put(event):
            return
        self.__core.put_again(event)

    async def aregister_event(self, event: MetricEvent) -> None:
        """Hand over ``event``, and wait for room as long as it takes, under whatever policy.

        On any event loop.  A checkpoint.  Cancelled, also by ``asyncio.Task.cancel()``, the event
        was not accepted; returned, it was, as with :meth:`register_event`.

        :raises ValueError: if ``event`` is None, or its ``event_type`` raises or is not a str
        :raises TypeError: if it is not a MetricEvent
        :raises RecorderQueueOverflowError: if there is no room in a hook of the same recorder
        :raises RecorderInvalidStateError: if the recorder is stopping, has stopped or failed, or its
            event loop turns out to be gone; its ``cause`` says why
        """
        await self.__core.put_when_room(event)

    # --- reading ---------------------------------------------------------------------------------

    def get_metric_snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return every metric's snapshot by the metric's name.

        From any other thread, the snapshots contain every event accepted before the call: the
        call blocks until those have been processed.  On the recorder's own loop it cannot wait
        and returns the state so far; ``await`` :meth:`aget_metric_snapshots` there.  Nor can it wait
        while nobody runs the recorder's loop, and returns the state so far then, too.  A snapshot
        that raises is replaced by one with an ``error``, and counted.

        :raises RecorderTimeoutError: if the recorder does not get to it within ``drain_timeout`` seconds
        """
        return self.__core.snapshots()

    async def aget_metric_snapshots(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the snapshots with every event accepted before the call; on any event loop.

        A checkpoint wherever there is something to wait for; may be cancelled freely.

        :raises RecorderTimeoutError: if the recorder does not get to it within ``drain_timeout`` seconds
        :raises RecorderWouldDeadlockError: in a hook of the same recorder
        """
        return await self.__core.asnapshots()

    def iter_metrics(self) -> Iterator[Metric]:
        """Iterate over the metrics registered at this moment, in the order of registration."""
        return iter(self.__core.dispatcher.metrics())

    # --- hooks -----------------------------------------------------------------------------------

    async def _on_starting(self) -> None:
        """Override: open resources, before the first event is handled.

        Raising makes the start fail with RecorderOnStartingHookFailedError.
        """

    async def _on_metric_changed(self, *, metric: Metric, event: MetricEvent) -> None:
        """Override: react after ``metric`` has accepted ``event``, before the next event is handled.

        ``metric.snapshot()`` shows exactly this event.  Raising is handled as ``failure_policy`` says.
        """

    async def _on_stopped(self) -> None:
        """Override: close resources, after the last event.

        Runs once for each completed ``_on_starting()``, whatever ended the recorder, for
        ``drain_timeout`` seconds at most, but for at least ten; with None, without a limit after
        :meth:`stop` and for 30 otherwise.  Raising makes the stop fail with
        RecorderOnStoppedHookFailedError.
        """

    def __hooks(self) -> Hooks:
        overridden = {
            name
            for name in ("_on_starting", "_on_stopped", "_on_metric_changed")
            if getattr(getattr(self, name), "__func__", None) is not getattr(MetricsRecorder, name)
        }
        return Hooks(
            on_starting=self._on_starting,
            on_stopped=self._on_stopped,
            on_metric_changed=self._on_metric_changed if "_on_metric_changed" in overridden else None,
            custom=bool(overridden),
        )


def core_of(recorder: MetricsRecorder) -> RecorderCore:
    """Return the engine of ``recorder``; for the runtime."""
    core: RecorderCore = recorder._MetricsRecorder__core  # type: ignore[attr-defined] # noqa: SLF001 — same module
    return core
