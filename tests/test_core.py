"""The control side of a recorder, on a loop that does only what the test says."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mvx.common.metrics import (
    FailurePolicy,
    OverflowPolicy,
    RecorderDispatcherCancelledError,
    RecorderInvalidStateError,
    RecorderLoopUnavailableError,
    RecorderOp,
    RecorderState,
    RecorderTimeoutError,
    RecorderUnexpectedError,
    RecorderWaitHandle,
    RecorderWouldDeadlockError,
)
from mvx.common.metrics._actor import ActorRun, Hooks
from mvx.common.metrics._backends import LoopGoneError
from mvx.common.metrics._core import MAX_LOOKS, RecorderCore, RecorderOptions, _SnapshotRequest
from mvx.common.metrics._inbox import UNATTENDED, InboxOptions
from tests.support import Count, Failing, Tick, Tock, balanced

S = RecorderState
GONE = "event loop unavailable: the recorder's event loop has ended"


class Loop:
    """Stands in for an event loop: nothing that is posted runs by itself."""

    def __init__(self) -> None:
        self.running = True
        self.task: object | None = None

    def is_running(self) -> bool:
        return self.running

    def is_current(self) -> bool:
        return True

    def task_identity(self) -> object | None:
        return self.task


class Hub:
    """Stands in for the loop's hub."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.calls: list[Callable[[], object]] = []
        self.gone = False

    def call_soon(self, callback: Callable[[], object]) -> None:
        if self.gone:
            raise LoopGoneError
        self.calls.append(callback)

    def is_gone(self) -> bool:
        return self.gone

    def look_no_more(self, sleeper: object) -> None:
        """Nobody wanted to be looked at."""

    def detach(self, run: object) -> None:
        """Nobody was attached."""


class Home:
    """Stands in for the place where the actor lives: takes note of it and does not start it."""

    shielded = True
    exposed = False
    survives_fork = True
    gives_turns = False

    def __init__(self) -> None:
        self.the_hub = Hub()
        self.known: set[type] = set()
        self.closed = False
        self.own_loop = False
        self.error: BaseException | None = None
        self.launched: list[tuple[Callable[[], Awaitable[None]], str, Callable[[], object]]] = []

    def hub(self) -> Any:
        if self.closed:
            raise LoopGoneError
        return self.the_hub

    def on_own_loop(self) -> bool:
        return self.own_loop

    def launch(self, main: Callable[[], Awaitable[None]], *, name: str, ended: Callable[[], object]) -> None:
        self.launched.append((main, name, ended))
        if self.error is not None:
            raise self.error


@pytest.fixture
def home() -> Home:
    return Home()


Make = Callable[..., RecorderCore]


@pytest.fixture
def make(home: Home) -> Make:
    """Makes a core in ``home``."""

    def make_core(*, capacity: int = 10, drain_timeout: float | None = 0.01) -> RecorderCore:
        async def hook(**_: object) -> None:
            """Nothing."""

        return RecorderCore(
            entity_id="x",
            namespace="n",
            options=RecorderOptions(
                inbox=InboxOptions(
                    capacity=capacity, overflow_policy=OverflowPolicy.RAISE_ERROR, block_timeout=1.0, linger=0.0
                ),
                failure_policy=FailurePolicy.ISOLATE,
                quarantine_after=5,
                drain_timeout=drain_timeout,
            ),
            home=home,
            hooks=lambda: Hooks(on_starting=hook, on_stopped=hook, on_metric_changed=None),
        )

    return make_core


def state(core: RecorderCore) -> RecorderState:
    """The state of this moment; a function, because the type checker takes an attribute for unchanged."""
    return core.state


def end(core: RecorderCore) -> None:
    """The actor's task ends before its first step."""
    core.conclude()


def start_and_step(core: RecorderCore) -> None:
    """Start, and let the run believe that its hook has completed."""
    core.start()
    run = core._run
    assert run is not None
    run._started = True


# --- starting --------------------------------------------------------------------------------------


def test_a_start_launches_the_actor(make: Make, home: Home) -> None:
    """By its name, once; who joins gets the same handle; a virgin's is done, and good, before."""
    core = make()
    assert state(core) is S.VIRGIN
    assert core.error is None
    before = core.starting()
    assert (before.done(), before.wait().success, before.wait().op_name) == (True, True, RecorderOp.START)
    handle = core.start()
    assert state(core) is S.STARTING
    assert core.start() is handle
    assert core.starting() is handle
    assert not handle.done()
    ((main, name, ended),) = home.launched
    run = core._run
    assert isinstance(run, ActorRun)
    assert (main, name, ended) == (run.main, "mvx.common.metrics recorder x", run.conclude)
    end(core)


def test_a_start_of_a_recorder_whose_loop_has_ended(make: Make, home: Home) -> None:
    """The result says so, events that had been accepted are abandoned, and it is final."""
    core = make()
    core.inbox._late.append(Tick())
    home.closed = True
    result = core.start().wait()
    assert result.op_name is RecorderOp.START
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert str(result.error) == GONE
    assert state(core) is S.FAILURE
    assert isinstance(core.error, RecorderLoopUnavailableError)
    statistics = core.statistics()
    assert (statistics.accepted, statistics.abandoned, statistics.pending) == (1, 1, 0)
    again = core.start().wait()
    assert isinstance(again.error, RecorderInvalidStateError)
    assert isinstance(again.error.cause, RecorderLoopUnavailableError)
    assert again.error.cause is not core.error
    assert home.launched == []


@pytest.mark.anyio
async def test_what_is_done_at_once_can_be_awaited(make: Make, home: Home) -> None:
    """The start that a virgin has not had, a stop that is refused, a start without a loop, and one that is refused."""
    core = make()
    assert (await core.starting()).success
    assert isinstance((await core.stop()).error, RecorderInvalidStateError)
    home.closed = True
    assert isinstance((await core.start()).error, RecorderLoopUnavailableError)
    assert isinstance((await core.start()).error, RecorderInvalidStateError)


def test_a_loop_that_ends_between_two_runs(make: Make, home: Home) -> None:
    """Nothing was pending: what had been counted before stays as it was."""
    core = make()
    core.start()
    core._run._started = True  # type: ignore[union-attr] # there is one by now
    core.entry.put(Tick())
    core.stop()
    end(core)
    assert core.statistics().abandoned == 1
    home.closed = True
    assert isinstance(core.start().wait().error, RecorderLoopUnavailableError)
    statistics = core.statistics()
    assert (statistics.accepted, statistics.abandoned) == (1, 1)


def test_a_loop_that_ends_as_the_actor_is_launched(make: Make, home: Home) -> None:
    """The run is concluded in the loop's stead."""
    core = make()
    home.error = LoopGoneError()
    result = core.start().wait()
    assert isinstance(result.error, RecorderLoopUnavailableError)
    assert state(core) is S.FAILURE
    assert str(core.error) == GONE


def test_an_exception_before_there_is_a_run(make: Make, home: Home) -> None:
    """Ctrl-C, say: it goes its way, and nothing has been."""
    core = make()
    plain = core._hooks

    def interrupted() -> Hooks:
        raise KeyboardInterrupt

    core._hooks = interrupted
    with pytest.raises(KeyboardInterrupt):
        core.start()
    assert state(core) is S.VIRGIN
    assert home.launched == []
    core._hooks = plain
    core.start()
    assert state(core) is S.STARTING
    end(core)


def test_an_exception_as_the_actor_is_launched(make: Make, home: Home) -> None:
    """Ctrl-C, say: it goes its way, and the start has not been; what came in meanwhile waits for the next one."""
    core = make()
    home.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        core.entry.put(Tick(1))
    assert state(core) is S.VIRGIN
    inbox = core.inbox
    assert (inbox.awake, inbox.nap) == (False, UNATTENDED)
    home.error = None
    assert core.entry.put(Tick(2)) is True
    assert state(core) is S.STARTING
    assert list(core.inbox.events) == [Tick(1), Tick(2)]
    assert len(home.launched) == 2
    end(core)


def test_an_exception_as_the_actor_is_launched_again(make: Make, home: Home) -> None:
    """It goes back to where it was, stopped, with nothing pending; and can be tried once more."""
    core = make()
    start_and_step(core)
    core.stop()
    end(core)
    home.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        core.start()
    assert state(core) is S.STOPPED
    assert core.entry.put(Tick()) is False
    assert core.statistics().pending == 0
    home.error = None
    start_and_step(core)
    assert core.entry.put(Tick()) is True
    end(core)


@pytest.mark.anyio
async def test_a_run_that_was_taken_back_does_nothing(make: Make, home: Home) -> None:
    """Its task may have been made all the same."""
    core = make()
    home.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        core.start()
    ((main, _, _),) = home.launched
    await main()
    assert state(core) is S.VIRGIN
    home.error = None
    start_and_step(core)
    end(core)


def test_whoever_waits_for_a_start_that_has_not_been(make: Make, home: Home) -> None:
    """Somebody had joined it: told why; events that had come in are abandoned where their run has gone with it."""
    core = make()
    start_and_step(core)
    core.entry.put(Tick())
    core.stop()
    end(core)
    assert core.statistics().abandoned == 1
    handles: list[RecorderWaitHandle] = []
    plain = home.launch

    def interrupted(*args: Any, **options: Any) -> None:
        run = core._run
        assert run is not None
        handles.extend((core.start(), run.starting, run.stopping))
        core.entry.put(Tick())
        raise KeyboardInterrupt

    home.launch = interrupted  # type: ignore[method-assign] # to do something meanwhile
    with pytest.raises(KeyboardInterrupt):
        core.start()
    for handle in handles:
        error = handle.wait(0.0).error
        assert isinstance(error, RecorderUnexpectedError)
        assert str(error) == "the recorder could not be started: KeyboardInterrupt()"
        assert isinstance(error.cause, KeyboardInterrupt)
    statistics = core.statistics()
    assert (statistics.accepted, statistics.abandoned, statistics.pending) == (2, 2, 0)
    home.launch = plain  # type: ignore[method-assign] # as it was


def test_a_snapshot_of_a_start_that_has_not_been(make: Make, home: Home) -> None:
    """Whoever has asked for it meanwhile and gives up finds no run; the next one answers."""
    core = make()
    requests: list[_SnapshotRequest | None] = []
    plain = home.launch

    def interrupted(*args: Any, **options: Any) -> None:
        requests.append(core._ask_for_snapshots())
        raise KeyboardInterrupt

    home.launch = interrupted  # type: ignore[method-assign] # to do something meanwhile
    with pytest.raises(KeyboardInterrupt):
        core.start()
    (request,) = requests
    assert request is not None
    core._forget(request)
    assert not request.reply.is_set
    home.launch = plain  # type: ignore[method-assign] # as it was
    core.start()
    end(core)
    assert request.reply.is_set


def test_an_exception_behind_the_beginning_of_a_run(make: Make, home: Home) -> None:
    """The actor has taken its first step: it goes on."""
    core = make()

    def begun_and_interrupted(*args: Any, **options: Any) -> None:
        run = core._run
        assert run is not None
        del run._right_to_begin  # what the actor does first
        raise KeyboardInterrupt

    home.launch = begun_and_interrupted  # type: ignore[method-assign] # to do something meanwhile
    with pytest.raises(KeyboardInterrupt):
        core.start()
    assert state(core) is S.STARTING
    assert not core.starting().done()
    end(core)


def test_an_exception_behind_the_end_of_a_start(make: Make, home: Home) -> None:
    """The actor was launched, and has ended: that stays so."""
    core = make()

    def ended_and_interrupted(*args: Any, ended: Callable[[], object], **options: Any) -> None:
        ended()
        raise KeyboardInterrupt

    home.launch = ended_and_interrupted  # type: ignore[method-assign] # to do something meanwhile
    with pytest.raises(KeyboardInterrupt):
        core.start()
    assert state(core) is S.CANCELLED


def test_a_start_that_is_interrupted_by_a_start(make: Make, home: Home) -> None:
    """A signal handler that starts the recorder in the midst of its start: both are one, and so is the actor."""
    core = make()
    plain = core._hooks
    handles: list[RecorderWaitHandle] = []

    def interrupted() -> Hooks:
        core._hooks = plain
        handles.append(core.start())
        return plain()

    core._hooks = interrupted
    handles.append(core.start())
    try:
        assert len(home.launched) == 1
        assert handles[0] is handles[1] is core.starting()
    finally:
        for _, _, ended in home.launched:
            ended()


def test_the_first_event_starts_a_virgin_only(make: Make, home: Home) -> None:
    """What rings late must not start what has meanwhile been stopped."""
    core = make()
    assert core.entry.put(Tick()) is True
    assert state(core) is S.STARTING
    assert len(home.launched) == 1
    assert core._start_on_first_event() is True
    assert len(home.launched) == 1
    end(core)
    assert core._start_on_first_event() is True
    assert len(home.launched) == 1
    assert state(core) is S.CANCELLED


def test_the_first_event_of_a_recorder_whose_loop_has_ended(make: Make, home: Home) -> None:
    """Refused with the reason, rejected in the ledger, and nothing is abandoned."""
    for gone in ("hub", "home"):
        home.the_hub.gone, home.closed = gone == "hub", gone == "home"
        core = make()
        with pytest.raises(RecorderInvalidStateError) as caught:
            core.entry.put(Tick())
        assert str(caught.value) == (
            "register_event() is not allowed in recorder state 'FAILURE', only in 'VIRGIN', 'STARTING', 'RUNNING'"
        )
        assert str(caught.value.cause) == GONE
        statistics = core.statistics()
        assert (statistics.offered, statistics.rejected, statistics.accepted) == (1, 1, 0)
        assert state(core) is S.FAILURE
        assert home.launched == []


# --- claiming --------------------------------------------------------------------------------------


def test_a_recorder_knows_its_name(make: Make) -> None:
    """Its own and that of the runtime it belongs to."""
    core = make()
    assert (core.entity_id, core.namespace) == ("x", "n")


def test_a_recorder_is_claimed_once(make: Make) -> None:
    """By the first registry that asks."""
    core = make()
    assert core.claim() is True
    assert core.claim() is False


def test_a_recorder_that_has_been_started_is_nobodys(make: Make) -> None:
    """Somebody else has it."""
    core = make()
    core.start()
    assert core.claim() is False
    end(core)


# --- stopping --------------------------------------------------------------------------------------


def test_a_stop_asks_the_run(make: Make, home: Home) -> None:
    """The entry is closed at once; the actor is told in its loop; a second stop joins."""
    core = make()
    start_and_step(core)
    handle = core.stop()
    assert state(core) is S.STOPPING
    assert core.inbox.closed
    run = core._run
    assert run is not None
    assert home.the_hub.calls == [run.begin_stop]
    assert core.stop() is handle
    assert not handle.done()
    end(core)
    assert handle.wait().success
    assert state(core) is S.STOPPED


def test_a_stop_of_a_recorder_whose_loop_has_ended(make: Make, home: Home) -> None:
    """It is concluded in the loop's stead, at once, with what was pending abandoned."""
    core = make()
    start_and_step(core)
    core.entry.put(Tick())
    flush = core.flush()
    home.the_hub.gone = True
    stop = core.stop()
    assert stop.done()
    assert isinstance(stop.wait().error, RecorderLoopUnavailableError)
    assert state(core) is S.FAILURE
    assert core.statistics().abandoned == 1
    assert isinstance(flush.wait().error, RecorderLoopUnavailableError)


def test_without_a_run_there_is_nothing_to_end(make: Make) -> None:
    """Neither to interrupt nor to conclude."""
    core = make()
    core.interrupt()
    core.conclude()
    assert state(core) is S.VIRGIN


@pytest.mark.anyio
async def test_ctrl_c_is_remembered_until_all_is_settled(make: Make) -> None:
    """The recorder has failed by it, and it is raised in the end; what comes later is not the reason any more."""
    core = make()
    start_and_step(core)
    run = core._run
    assert isinstance(run, ActorRun)
    run._remember(interrupt := KeyboardInterrupt())
    run._remember(ValueError("later"))
    assert run._ctrl_c is interrupt
    end(core)
    assert state(core) is S.FAILURE
    assert isinstance(core.error, RecorderUnexpectedError)
    assert str(core.error) == "interrupted: KeyboardInterrupt()"
    assert core.error.cause is interrupt


def test_who_has_been_told_of_the_end(make: Make) -> None:
    """Whoever has asked for it and got the answer; nobody else has."""
    core = make()
    told = [core.has_reported_its_end]
    start_and_step(core)
    end(core)
    told.append(core.has_reported_its_end)
    start_and_step(core)
    core.stop()
    told.append(core.has_reported_its_end)
    end(core)
    assert [*told, core.has_reported_its_end] == [False, False, False, True]


def test_the_end_of_a_run_is_seen_before_its_entry_is_closed(make: Make) -> None:
    """Nobody finds a closed inbox in a state that accepts, whatever has ended the run."""
    core = make()
    start_and_step(core)
    seen: list[RecorderState] = []

    class Looking:
        def notify(self) -> None:
            seen.append(core.state)

    core.inbox.line._waiters.append(Looking())
    end(core)
    assert seen == [S.STOPPING]
    assert state(core) is S.STOPPED


def test_the_hub_looks_no_more_after_the_end_of_a_run(make: Make, home: Home) -> None:
    """An inbox in its linger would keep the run alive until that is over."""
    forgotten: list[object] = []

    def look_no_more(sleeper: object) -> None:
        forgotten.append(sleeper)

    home.the_hub.look_no_more = look_no_more  # type: ignore[method-assign] # to see who is forgotten
    core = make()
    start_and_step(core)
    end(core)
    assert forgotten == [core.inbox]


def test_an_interrupted_run_is_cancelled_before_it_begins(make: Make) -> None:
    """The actor finds it when it starts."""
    core = make()
    core.start()
    core.interrupt()
    run = core._run
    assert isinstance(run, ActorRun)
    assert run._interrupted
    end(core)


# --- flushing --------------------------------------------------------------------------------------


def test_a_flush_of_what_has_ended(make: Make) -> None:
    """Done at once: well where nothing was lost, and with the reason where something was."""
    core = make()
    assert core.flush().wait().success
    start_and_step(core)
    core.stop()
    end(core)
    assert core.flush().wait().success
    lossy = make()
    lossy.start()
    lossy.entry.put(Tick())
    end(lossy)
    for _ in range(2):
        result = lossy.flush().wait()
        assert result.op_name is RecorderOp.FLUSH
        assert isinstance(result.error, RecorderDispatcherCancelledError)


def test_a_flush_under_way_ends_with_the_run(make: Make) -> None:
    """It is queued behind the events, and answered by whoever concludes."""
    core = make()
    core.start()
    flush = core.flush()
    assert not flush.done()
    assert len(core.inbox.requests) == 1
    end(core)
    assert flush.wait().success


def test_a_flush_of_what_was_processed_before_the_loss(make: Make) -> None:
    """What was lost had come later: that is nothing to whoever asked before."""
    core = make()
    start_and_step(core)
    before = core.flush()
    core.entry.put(Tick())
    behind = core.flush()
    run = core._run
    assert run is not None
    run.lose_loop()
    assert before.wait(0.0).success
    assert isinstance(behind.wait(0.0).error, RecorderLoopUnavailableError)


def test_nobody_listens_after_the_end_of_a_run(make: Make) -> None:
    """What is asked from then on is the asker's own business."""
    core = make()
    start_and_step(core)
    end(core)
    assert core.inbox.ask(object()) is False


def test_a_recorder_that_is_stopping_is_asked_as_well(make: Make) -> None:
    """What was accepted is still being processed: a flush and a snapshot wait for it."""
    core = make()
    start_and_step(core)
    core.entry.put(Tick())
    core.stop()
    flush = core.flush()
    assert not flush.done()
    with pytest.raises(RecorderTimeoutError):
        core.snapshots()
    end(core)
    assert flush.done()


def test_a_request_that_nobody_waits_for_is_taken_back(make: Make) -> None:
    """On its way to the actor, and when the actor has it but has not answered it."""
    core = make()
    start_and_step(core)
    run = core._run
    assert run is not None
    requests = [_SnapshotRequest(dict) for _ in range(3)]
    for request in requests[:2]:
        run.inbox.ask(request)
    run._fetch_requests()
    run.inbox.ask(requests[2])
    for request in requests[1:]:
        run.forget(request)
    end(core)
    assert [request.reply.is_set for request in requests] == [True, False, False]


# --- reading ---------------------------------------------------------------------------------------


def test_a_snapshot_is_asked_of_the_actor(make: Make, home: Home) -> None:
    """Where one is at work in a loop that somebody runs, and by another thread; else it is taken at once."""
    core = make()
    core.register_metric(Count())
    plain = {"count": {"name": "count", "dimensions": {"total": 0}}}
    assert core.snapshots() == plain
    core.start()
    home.own_loop = True
    assert core.snapshots() == plain
    home.own_loop, home.the_hub.loop.running = False, False
    assert core.snapshots() == plain
    home.closed = True
    assert core.snapshots() == plain
    assert not core.inbox.requests
    home.closed, home.the_hub.loop.running = False, True
    with pytest.raises(RecorderTimeoutError) as caught:
        core.snapshots()
    assert str(caught.value) == "get_metric_snapshots() was not answered within 0.01 s"
    assert home.the_hub.calls[0] == core._run._look_in  # type: ignore[union-attr] # there is one by now
    assert not core.inbox.requests  # nobody waits for it any more
    end(core)
    assert core.snapshots() == plain


@pytest.mark.anyio
async def test_an_awaited_snapshot_is_asked_of_the_actor(make: Make, home: Home) -> None:
    """On its own loop as well; a hook of the same recorder is told at once."""
    core = make()
    core.register_metric(Count())
    plain = {"count": {"name": "count", "dimensions": {"total": 0}}}
    assert await core.asnapshots() == plain
    core.start()
    home.own_loop = True
    with pytest.raises(RecorderTimeoutError) as caught:
        await core.asnapshots()
    assert str(caught.value) == "aget_metric_snapshots() was not answered within 0.01 s"
    assert home.the_hub.calls[0] == core._run._look_in  # type: ignore[union-attr] # there is one by now
    assert not core.inbox.requests
    run = core._run
    assert run is not None
    run.task = home.the_hub.loop.task = object()
    with pytest.raises(RecorderWouldDeadlockError) as deadlock:
        await core.asnapshots()
    assert str(deadlock.value) == (
        "aget_metric_snapshots() in a hook of the same recorder would wait for itself; "
        "call get_metric_snapshots() there"
    )
    end(core)


@pytest.mark.anyio
async def test_a_snapshot_without_a_limit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until it is answered, with what was taken then; an exception comes to whoever asked."""
    core = make(drain_timeout=None)
    core.register_metric(Count())
    core.start()
    answers: list[Any] = []

    async def ask() -> None:
        try:
            answers.append(await core.asnapshots())
        except RecorderUnexpectedError as exc:
            answers.extend((str(exc), exc.cause))

    async def answer() -> None:
        while not core.inbox.requests:
            await anyio.sleep(0)
        core.inbox.requests.pop(0).answer(None)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(answer)

        error = ArithmeticError()

        def broken() -> Any:
            raise error

        monkeypatch.setattr(core.dispatcher, "snapshots", broken)
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(answer)
    plain = {"count": {"name": "count", "dimensions": {"total": 0}}}
    assert answers == [plain, "taking the snapshots: ArithmeticError()", error]
    end(core)


def test_ctrl_c_while_the_snapshots_are_taken(make: Make) -> None:
    """Whoever waits is told, in the thread where it waits; the exception itself belongs to the one that it hit."""
    core = make()

    def interrupted() -> Any:
        raise KeyboardInterrupt

    request = _SnapshotRequest(interrupted)
    with pytest.raises(KeyboardInterrupt):
        request.answer(None)
    reply = request.reply.peek()
    assert isinstance(reply, RecorderUnexpectedError)
    assert isinstance(reply.cause, KeyboardInterrupt)
    assert core.flush().wait().success


@pytest.fixture(params=["get", "aget"])
def snapshots(request: pytest.FixtureRequest) -> Callable[[RecorderCore], Any]:
    """The two forms of reading; one contract."""

    def read(core: RecorderCore) -> Any:
        return core.snapshots() if request.param == "get" else anyio.run(core.asnapshots)

    return read


def test_a_snapshot_of_a_recorder_whose_loop_has_ended(
    make: Make, home: Home, snapshots: Callable[[RecorderCore], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop ends without a word while somebody waits: the wait finds out, and gets what there is."""
    monkeypatch.setattr("mvx.common.metrics._waiting.HEARTBEAT", 0.001)
    core = make(drain_timeout=None)
    core.register_metric(Count())
    core.start()

    def end_of_the_loop(callback: Callable[[], object]) -> None:
        home.the_hub.gone = True

    monkeypatch.setattr(home.the_hub, "call_soon", end_of_the_loop)
    assert snapshots(core) == {"count": {"name": "count", "dimensions": {"total": 0}}}
    assert state(core) is S.FAILURE


def test_a_snapshot_of_a_recorder_that_listens_no_more(make: Make, snapshots: Callable[[RecorderCore], Any]) -> None:
    """Every event has been dealt with: there is nothing to wait for, though the hook has still to run."""
    core = make(drain_timeout=0.001)
    core.register_metric(Count())
    core.start()
    core.inbox.deaf = True
    assert snapshots(core) == {"count": {"name": "count", "dimensions": {"total": 0}}}
    end(core)


def test_a_snapshot_that_may_take_no_time(make: Make, snapshots: Callable[[RecorderCore], Any]) -> None:
    """A limit of 0 is one."""
    core = make(drain_timeout=0.0)
    core.start()
    with pytest.raises(RecorderTimeoutError, match=r"within 0 s$"):
        snapshots(core)
    end(core)


def test_who_runs_the_own_task(make: Make, home: Home) -> None:
    """Only the task of the run under way, on its own loop."""
    core = make()
    home.own_loop = True
    assert core.in_own_task() is False
    core.start()
    run = core._run
    assert run is not None
    assert core.in_own_task() is False
    run.task = task = object()
    assert core.in_own_task() is False
    home.the_hub.loop.task = object()
    assert core.in_own_task() is False
    home.the_hub.loop.task = task
    assert core.in_own_task() is True
    home.own_loop = False
    assert core.in_own_task() is False
    end(core)


def test_the_ledger_of_a_recorder_counts_over_all_its_runs(make: Make) -> None:
    """With the capacity as it is, and what waits in the inbox of the moment."""
    core = make(capacity=7)
    for runs in range(1, 4):
        core.start()
        core.entry.put(Tick())
        statistics = core.statistics()
        assert (statistics.capacity, statistics.pending, statistics.accepted) == (7, 1, runs)
        run = core._run
        assert run is not None
        run._started = True
        core.stop()
        end(core)
        assert core.statistics().abandoned == runs


# --- the loop that ends without a word --------------------------------------------------------------


def test_a_check_of_a_loop_that_is_there(make: Make, home: Home) -> None:
    """A call that got lost is made up for in the loop; before the first run and after the last, nothing is."""
    core = make()
    core.check_loop()
    assert state(core) is S.VIRGIN
    assert home.the_hub.calls == []
    core.start()
    core.check_loop()
    run = core._run
    assert run is not None
    assert home.the_hub.calls == [run.heal]
    end(core)
    home.the_hub.gone = True
    core.check_loop()
    assert state(core) is S.CANCELLED
    assert home.the_hub.calls == [run.heal]


@pytest.mark.parametrize("gone", ["hub", "home"])
@pytest.mark.parametrize("started", [False, True])
def test_a_check_of_a_loop_that_has_ended(make: Make, home: Home, gone: str, started: bool) -> None:
    """FAILURE, with the reason, and what was pending abandoned; a reading of before is forgotten."""
    core = make()
    if started:
        core.start()
    core.inbox._late.append(Tick())
    assert core.statistics().accepted == 1
    home.the_hub.gone, home.closed = gone == "hub", gone == "home"
    core.check_loop()
    assert state(core) is S.FAILURE
    assert str(core.error) == GONE
    assert core.inbox.sealed
    statistics = core.statistics()
    assert (statistics.abandoned, statistics.pending, statistics.accepted) == (1, 0, 1)


def test_a_loop_that_ends_in_the_midst_of_an_event(make: Make, home: Home) -> None:
    """In a hook, say: the event was handled as far as it went, those behind it are abandoned, nothing is under way."""
    core = make()
    start_and_step(core)
    for n in range(3):
        core.entry.put(Tick(n))
    run = core._run
    assert isinstance(run, ActorRun)
    run._event = core.inbox.events.popleft()
    core.ledger.taken += 1
    home.the_hub.gone = True
    core.check_loop()
    statistics = core.statistics()
    assert (statistics.processed, statistics.abandoned, run.lost) == (1, 2, 2)
    assert balanced(statistics)


def test_an_event_that_found_the_loop_gone_was_not_accepted(make: Make, home: Home) -> None:
    """Though a reading had seen it waiting: it is rejected, once, and nothing else was accepted."""
    core = make()
    start_and_step(core)
    core.inbox.nap = [None]
    home.the_hub.gone = True
    readings: list[int] = []
    plain = core.inbox._bell

    def ring() -> bool:
        readings.append(core.statistics().accepted)
        return plain()

    core.inbox._bell = ring
    with pytest.raises(RecorderInvalidStateError) as caught:
        core.entry.put(Tick())
    assert readings == [1]
    assert str(caught.value.cause) == GONE
    statistics = core.statistics()
    assert (statistics.offered, statistics.accepted, statistics.rejected, statistics.abandoned) == (1, 0, 1, 0)


# --- over a restart ---------------------------------------------------------------------------------


def restarted(core: RecorderCore) -> None:
    """Stop and start again."""
    core.stop()
    end(core)
    start_and_step(core)


def test_an_event_held_up_over_a_restart_goes_to_the_new_run(make: Make) -> None:
    """Its producer was sent away by the old inbox, and offers it again."""
    core = make()
    start_and_step(core)
    old = core.inbox
    restarted(core)
    assert old is not core.inbox
    assert old.put(Tick(1)) is False
    core.put_again(Tick(1))
    assert list(core.inbox.events) == [Tick(1)]
    assert core.statistics().rejected == 0
    end(core)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["put", "put_when_room"])
async def test_a_restart_in_the_midst_of_an_offer(make: Make, form: str) -> None:
    """The inbox that refused is not the one of now any more: once more, to that one; a class stays known."""
    core = make()
    start_and_step(core)
    old = core.inbox
    meanwhile = [lambda: restarted(core)]

    class Interposed(type(old)):  # type: ignore[misc] # an inbox at whose refusal something happens
        __slots__ = ()

        def put(self, event: Any) -> bool:
            meanwhile.pop()()
            return False

        async def put_when_room(self, event: Any) -> bool:
            meanwhile.pop()()
            return False

    old.__class__ = Interposed
    if form == "put":
        core.put_again(Tock())
    else:
        await core.put_when_room(Tock())
    assert list(core.inbox.events) == [Tock()]
    assert Tock in core.home.known
    assert core.statistics().rejected == 0
    end(core)


@pytest.mark.anyio
async def test_an_offer_to_what_has_ended(make: Make) -> None:
    """Refused, with the state and what it takes, and counted once for each."""
    core = make()
    start_and_step(core)
    core.stop()
    end(core)
    for _ in range(2):
        with pytest.raises(RecorderInvalidStateError) as caught:
            core.put_again(Tick())
        assert caught.value.details["recorder_state"] == "STOPPED"
        assert str(caught.value).startswith("register_event() is not allowed in recorder state 'STOPPED'")
        assert caught.value.cause is None
    with pytest.raises(RecorderInvalidStateError):
        await core.put_when_room(Tick())
    assert core.statistics().rejected == 3


Looks = tuple[list[float], list[Callable[[], object]]]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """How long a refused emitter rests between two looks, and what happens in each of those rests."""
    rests: list[float] = []
    happens: list[Callable[[], object]] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        if happens:
            happens.pop(0)()

    monkeypatch.setattr("mvx.common.metrics._core.time", SimpleNamespace(sleep=sleep))
    return rests, happens


def test_a_refusal_names_a_state_that_refuses(make: Make, looks: Looks) -> None:
    """The entry is closed and the state accepts, as while a stop is under way: the emitter waits for what it becomes."""
    core = make()
    start_and_step(core)
    core.inbox.close()
    rests, happens = looks
    happens[:] = [lambda: None, core.stop]
    with pytest.raises(RecorderInvalidStateError) as caught:
        core.put_again(Tick())
    assert caught.value.details["recorder_state"] == "STOPPING"
    assert rests == [0, 0]
    end(core)


def test_what_has_ended_refuses_at_once(make: Make, looks: Looks) -> None:
    """Nothing is under way that would be worth another look."""
    core = make()
    start_and_step(core)
    core.stop()
    end(core)
    with pytest.raises(RecorderInvalidStateError):
        core.put_again(Tick())
    assert looks[0] == []


def test_a_refusal_that_becomes_a_restart(make: Make, looks: Looks) -> None:
    """There is a new inbox by then: the event goes there."""
    core = make()
    start_and_step(core)
    core.inbox.close()
    rests, happens = looks
    happens[:] = [lambda: restarted(core)]
    core.put_again(Tick())
    assert list(core.inbox.events) == [Tick()]
    assert core.statistics().rejected == 0
    assert rests == [0]
    end(core)


def test_a_refusal_does_not_wait_for_ever(make: Make, looks: Looks) -> None:
    """Whoever was at the stop may have been hit by an exception: the event is refused all the same."""
    core = make()
    start_and_step(core)
    core.inbox.close()
    with pytest.raises(RecorderInvalidStateError) as caught:
        core.put_again(Tick())
    assert caught.value.details["recorder_state"] == "RUNNING"
    assert core.statistics().rejected == 1
    assert len(looks[0]) == MAX_LOOKS
    end(core)


# --- fork -------------------------------------------------------------------------------------------


def test_a_virgin_is_a_virgin_in_a_forked_child(make: Make, home: Home) -> None:
    """With its metrics, an inbox of its own, a free lock and counts at zero."""
    core = make()
    core.register_metric(count := Count())
    core.ledger.rejected.increment()
    old, held = core.inbox, core._lock
    thread = threading.Thread(target=held.acquire)
    thread.start()
    thread.join()
    core.after_fork_in_child()
    assert core._lock is not held
    assert state(core) is S.VIRGIN
    assert core.inbox is not old
    assert core.statistics().offered == 0
    assert core.dispatcher.metrics() == (count,)
    assert core.entry.put(Tick()) is True
    assert state(core) is S.STARTING
    assert list(core.inbox.events) == [Tick()]
    end(core)


def test_a_recorder_at_work_is_a_virgin_in_a_forked_child(make: Make) -> None:
    """What is pending belongs to the parent, where the run goes on."""
    core = make()
    start_and_step(core)
    core.entry.put(Tick())
    run, old, owed = core._run, core.inbox, core.flush()
    assert run is not None
    run._fetch_requests()
    asked, stopping = core.flush(), run.stopping
    core.after_fork_in_child()
    assert state(core) is S.VIRGIN
    assert core.error is None
    assert core.statistics().offered == 0
    assert run.state is S.FAILURE
    assert core.inbox is not old
    assert old.sealed
    reason = "event loop unavailable: the recorder's event loop stayed in the parent process at a fork"
    for handle in (owed, asked, stopping):
        result = handle.wait(0.0)
        assert not result.success
        assert str(result.error) == reason
    assert str(run.error) == reason
    run.conclude()
    run.inbox._shut_stream()  # the parent's affair, if this were a child
    assert state(core) is S.VIRGIN
    assert core.statistics().accepted == 0


def test_what_is_the_parents_is_never_finalised_in_a_forked_child(make: Make, home: Home) -> None:
    """Its streams and tasks belong to a loop that the two processes share the pipes of."""
    core = make()
    core.start()
    run = weakref.ref(core._run)
    home.launched.clear()
    core.after_fork_in_child()
    gc.collect()
    kept = run()
    assert kept is not None
    kept.inbox._shut_stream()


def test_a_start_under_way_has_failed_in_a_forked_child(make: Make) -> None:
    """Whoever waits for it there is told."""
    core = make()
    start = core.start()
    run = core._run
    assert run is not None
    core.after_fork_in_child()
    assert isinstance(start.wait(0.0).error, RecorderLoopUnavailableError)
    assert state(core) is S.VIRGIN
    run.conclude()
    run.inbox._shut_stream()  # the parent's affair, if this were a child
    assert run.state is S.FAILURE


def test_what_had_ended_has_ended_in_a_forked_child(make: Make) -> None:
    """STOPPED stays STOPPED and FAILURE stays FAILURE; the counts begin at zero all the same."""
    core = make()
    start_and_step(core)
    core.stop()
    end(core)
    core.ledger.rejected.increment()
    core.after_fork_in_child()
    assert state(core) is S.STOPPED
    assert core.statistics().offered == 0
    start_and_step(core)
    assert core.entry.put(Tick()) is True
    end(core)


def test_a_recorder_whose_loop_stays_in_the_parent(make: Make, home: Home) -> None:
    """It is a failure in the child, at once, and says why."""
    home.survives_fork = False
    core = make()
    start_and_step(core)
    run = core._run
    assert run is not None
    core.after_fork_in_child()
    assert state(core) is S.FAILURE
    assert isinstance(core.error, RecorderLoopUnavailableError)
    reason = "event loop unavailable: the recorder's event loop stayed in the parent process at a fork"
    assert str(core.error) == reason
    assert core.inbox.sealed
    assert core.entry.put(Tick()) is False
    with pytest.raises(RecorderInvalidStateError) as caught:
        core.put_again(Tick())
    assert str(caught.value.cause) == reason
    run.conclude()
    run.inbox._shut_stream()  # the parent's affair, if this were a child


# --- diagnostics ------------------------------------------------------------------------------------


def test_what_a_recorder_logs_says_whose_it_is(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Its entity and its namespace, whoever logs: here the dispatcher."""
    core = make()
    core.register_metric(Failing(ValueError()))
    core.dispatcher.dispatch(iter([Tick()]).__next__, 1)
    (record,) = caplog.records
    assert (vars(record)["entity_id"], vars(record)["namespace"]) == ("x", "n")
    assert core.ledger.metric_errors.value() == 1


def test_the_policies_reach_the_dispatcher(make: Make) -> None:
    """As they were given."""
    core = make()
    assert core.dispatcher.policy is FailurePolicy.ISOLATE
    assert core.dispatcher._quarantine_after == 5
    assert not isinstance(core.error, RecorderUnexpectedError)
