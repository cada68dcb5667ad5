"""observe(): blocks and plain functions, what it finds its emitter by, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from mvx.common.metrics import MetricEvent, MetricsEmitter, MetricsRuntime, Outcome, observe
from tests.emitting.stage import Clock, Component, Ended, Listener, logged
from tests.support import DEADLINE, Seen, run_threads

is_anyio = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listener() -> Listener:
    return Listener()


def ends(function: Callable[..., Any], *args: Any) -> BaseException:
    """What a call raises."""
    try:
        function(*args)
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def frames_of(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


# --- a block -------------------------------------------------------------------------------------


def test_a_block_that_ends_well(listener: Listener, clock: Clock) -> None:
    """One event, with the seconds by the clock."""
    with observe(MetricsEmitter(listener), Ended, clock=clock):
        clock.passes(2.5)
        assert listener.events == []
    assert listener.only() == Outcome(status="ok", seconds=2.5, error=None)


def test_a_block_that_fails(listener: Listener, clock: Clock) -> None:
    """The exception passes, the very object, without another frame in its traceback or another context."""
    error = ValueError("x")

    def work() -> None:
        with observe(listener, Ended, clock=clock):
            clock.passes(0.5)
            raise error

    assert ends(work) is error
    assert frames_of(error) == ["ends", "work"]
    assert error.__context__ is None
    assert listener.only() == Outcome(status="error", seconds=0.5, error=ValueError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError()])
def test_a_block_that_is_not_wanted_any_more(error: BaseException, listener: Listener) -> None:
    """It is cancelled, and what cancels it passes."""

    def work() -> None:
        with observe(listener, Ended):
            raise error

    assert ends(work) is error
    assert listener.told == [("cancelled", None)]


def test_a_block_within_a_function_that_returns(listener: Listener) -> None:
    """Return, break and continue end a block well."""

    def work() -> int:
        for n in range(3):
            with observe(listener, Ended):
                if n == 0:
                    continue
                return n
        return -1

    assert work() == 1
    assert listener.told == [("ok", None)] * 2


@is_anyio
async def test_an_asynchronous_block(listener: Listener, clock: Clock) -> None:
    """The same with ``async with``, which is no checkpoint."""
    error = OSError()
    timed = observe(listener, Ended, clock=clock)
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with timed:
            clock.passes(1.0)
        with pytest.raises(OSError) as caught:
            async with timed:
                raise error
    assert not scope.cancelled_caught
    assert caught.value is error
    assert error.__context__ is None
    assert listener.outcomes == [
        Outcome(status="ok", seconds=1.0, error=None),
        Outcome(status="error", seconds=0.0, error=OSError),
    ]


def test_the_clock_is_monotonic_by_default(listener: Listener) -> None:
    """Real seconds, never negative."""
    with observe(listener, Ended):
        pass
    assert 0 <= listener.only().seconds < DEADLINE


def test_make_event_may_have_nothing_to_say(listener: Listener) -> None:
    """None emits nothing, and nothing went wrong."""
    emitter = MetricsEmitter(listener)
    with observe(emitter, lambda outcome: None):
        pass
    assert (listener.events, emitter.swallowed) == ([], 0)


def test_a_closure_sees_what_the_block_did(listener: Listener) -> None:
    """Variables as they are at its end."""
    size = 0
    seen = []

    def make(outcome: Outcome) -> MetricEvent:
        seen.append(size)
        return Ended(outcome)

    with observe(listener, make):
        size = 7
    assert seen == [7]


def test_nothing_is_kept_of_an_exception(listener: Listener) -> None:
    """Neither the outcome nor the observation keeps it alive, or the frames that it came through."""

    class Precious:
        pass

    timed = observe(listener, Ended)
    precious = Precious()
    gone = weakref.ref(precious)

    def work(kept: object) -> None:
        with timed:
            raise ValueError

    with contextlib.suppress(ValueError):
        work(precious)
    del precious
    gc.collect()
    assert gone() is None
    assert timed._under_way == {}


# --- one observation, many blocks ----------------------------------------------------------------


def test_blocks_within_each_other(listener: Listener, clock: Clock) -> None:
    """One observation in one function, and in one that this calls."""
    timed = observe(listener, Ended, clock=clock)

    def work() -> None:
        with timed:
            clock.passes(4.0)

    with timed:
        clock.passes(1.0)
        with timed:
            clock.passes(2.0)
        work()
        with timed, timed:
            clock.passes(0.25)
    assert [outcome.seconds for outcome in listener.outcomes] == [2.0, 4.0, 0.25, 0.25, 7.25]


def test_blocks_of_generators_end_in_any_order(listener: Listener, clock: Clock) -> None:
    """Each has the time since its own begin, not that of whichever was entered last."""
    timed = observe(listener, Ended, clock=clock)

    def rows() -> Iterator[None]:
        with timed:
            yield

    first, second = rows(), rows()
    next(first)
    clock.passes(1.0)
    next(second)
    clock.passes(2.0)
    next(first, None)
    clock.passes(4.0)
    next(second, None)
    assert [outcome.seconds for outcome in listener.outcomes] == [3.0, 6.0]


def test_many_threads_share_an_observation(listener: Listener, fast_switching: None) -> None:
    """As decorator and as block at once: one event for each, none mixed up."""
    times = threading.local()
    timed = observe(listener, Ended, clock=lambda: times.now)
    rounds = 300

    @timed
    def work(seconds: float) -> None:
        times.now += seconds

    def body(seconds: float) -> Callable[[], None]:
        def run() -> None:
            times.now = 0.0
            for _ in range(rounds):
                work(seconds)
                with timed:
                    times.now += seconds

        return run

    run_threads(*[body(2.0**power) for power in range(4)])
    seconds = [outcome.seconds for outcome in listener.outcomes]
    assert {value: seconds.count(value) for value in set(seconds)} == {1.0: 600, 2.0: 600, 4.0: 600, 8.0: 600}
    assert timed._under_way == {}


@is_anyio
async def test_many_tasks_share_an_observation(listener: Listener, clock: Clock) -> None:
    """They begin one after the other, and end in the opposite order and in the same."""
    timed = observe(listener, Ended, clock=clock)
    gates = [anyio.Event() for _ in range(6)]
    entered = [anyio.Event() for _ in range(6)]

    async def work(number: int) -> None:
        if number % 2:
            with timed:
                entered[number].set()
                await gates[number].wait()
        else:
            async with timed:
                entered[number].set()
                await gates[number].wait()

    tasks: list[int] = []

    async def run(number: int) -> None:
        await work(number)
        tasks.append(number)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(run, number)
            await entered[number].wait()
            clock.passes(1.0)
        for number in (5, 4, 3, 0, 1, 2):
            gates[number].set()
            while number not in tasks:
                await anyio.sleep(0)
            clock.passes(8.0)
    # Task n began at second n; they ended at the seconds 6, 14, 22, 30, 38 and 46.
    assert [outcome.seconds for outcome in listener.outcomes] == [1.0, 10.0, 19.0, 30.0, 37.0, 44.0]


def test_an_exit_stack_enters_and_leaves(listener: Listener, clock: Clock) -> None:
    """Other frames than that of a ``with``; also moved to another stack, and left by hand."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(observe(listener, Ended, clock=clock))
        clock.passes(1.0)
        kept = stack.pop_all()
    assert listener.events == []
    clock.passes(1.0)
    kept.close()
    by_hand = observe(listener, Ended, clock=clock)
    by_hand.__enter__()
    clock.passes(3.0)
    by_hand.__exit__(None, None, None)
    by_hand.__exit__(None, None, None)  # once too often: nothing has begun
    assert [outcome.seconds for outcome in listener.outcomes] == [2.0, 3.0]


@is_anyio
async def test_an_asynchronous_exit_stack_enters_and_leaves(listener: Listener) -> None:
    """With an observation of its own for each block."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(observe(listener, Ended))
        stack.enter_context(observe(listener, Ended))
    assert listener.told == [("ok", None)] * 2


# --- functions -----------------------------------------------------------------------------------


def test_a_function_is_timed(listener: Listener, clock: Clock) -> None:
    """And gets its arguments, and returns what it returned."""

    @observe(listener, Ended, clock=clock)
    def add(one: int, *, other: int = 1) -> int:
        """Add."""
        clock.passes(1.5)
        return one + other

    assert add(2, other=3) == 5
    assert listener.only() == Outcome(status="ok", seconds=1.5, error=None)


def test_a_function_stays_what_it_was(listener: Listener) -> None:
    """Its name, docstring, signature and annotations, and what is behind it."""

    def add(one: int, *, other: int = 1) -> int:
        """Add."""
        return one + other

    timed = observe(listener, Ended)(add)
    assert (timed.__name__, timed.__qualname__, timed.__doc__, timed.__module__) == (
        add.__name__,
        add.__qualname__,
        add.__doc__,
        add.__module__,
    )
    assert inspect.signature(timed) == inspect.signature(add)
    assert inspect.unwrap(timed) is add
    assert inspect.isfunction(timed)
    assert not inspect.iscoroutinefunction(timed)


def test_a_function_that_raises(listener: Listener) -> None:
    """The very exception passes, with one more frame, that of the wrapper."""
    error = KeyError("x")

    @observe(listener, Ended)
    def work() -> None:
        raise error

    assert ends(work) is error
    assert frames_of(error) == ["ends", "timed", "work"]
    assert error.__context__ is None
    assert listener.told == [("error", KeyError)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_a_function_that_is_not_wanted_any_more(error: BaseException, listener: Listener) -> None:
    """It is cancelled, like a block."""

    @observe(listener, Ended)
    def work() -> None:
        raise error

    assert ends(work) is error
    assert listener.told == [("cancelled", None)]


def test_stop_iteration_passes_a_function(listener: Listener) -> None:
    """As from any function."""
    work = observe(listener, Ended)(lambda: next(iter(())))
    assert isinstance(ends(work), StopIteration)
    assert listener.told == [("error", StopIteration)]


def test_recursion_is_many_calls(listener: Listener, clock: Clock) -> None:
    """Each call is timed for itself."""

    @observe(listener, Ended, clock=clock)
    def down(depth: int) -> None:
        clock.passes(1.0)
        if depth:
            down(depth - 1)

    down(2)
    assert [outcome.seconds for outcome in listener.outcomes] == [1.0, 2.0, 3.0]


def test_partials_and_objects_are_functions_too(listener: Listener) -> None:
    """Whatever can be called."""

    class Adder:
        def __call__(self, one: int) -> int:
            return one + 1

    timed = observe(listener, Ended)
    assert timed(functools.partial(int, base=2))("101") == 5
    assert timed(Adder())(1) == 2
    assert timed(len)("abc") == 3
    assert timed("abc".upper)() == "ABC"
    assert len(listener.events) == 4


def test_without_a_recorder_a_function_is_not_wrapped() -> None:
    """Where that is known as it is decorated, it costs nothing at all."""

    def work() -> None: ...

    for nobody in (None, MetricsEmitter(None)):
        assert observe(nobody, Ended)(work) is work


def test_without_a_recorder_nothing_is_called() -> None:
    """Neither the clock nor what makes the event."""

    calls: list[object] = []

    def note(*args: object) -> Any:
        calls.append(args)

    for nobody in (None, MetricsEmitter(None)):
        with observe(nobody, note, clock=note):
            pass

    class Quiet(Component):
        @observe("_metrics", note, clock=note)
        def work(self) -> int:
            return 3

        @observe("_metrics.recorder", note, clock=note)
        def rows(self) -> Iterator[int]:
            yield 3

    assert Quiet().work() == 3
    assert list(Quiet().rows()) == [3]
    assert calls == []


@is_anyio
async def test_without_a_recorder_an_asynchronous_block_does_nothing() -> None:
    """Like a synchronous one."""
    with pytest.raises(ValueError, match="through"):
        async with observe(None, Ended):
            raise ValueError("through")


# --- methods -------------------------------------------------------------------------------------


class Shop(Component):
    """Methods of every kind, with their emitter on the instance or the class."""

    shared: Any = None

    @observe("_metrics", Ended)
    def sell(self, what: str, *, fail: bool = False) -> str:
        if fail:
            raise LookupError(what)
        return what

    @classmethod
    @observe("shared", Ended)
    def below(cls) -> type:
        return cls

    @observe("shared", Ended)
    @classmethod
    def above(cls) -> type:
        return cls

    @property
    @observe("_metrics", Ended)
    def stock(self) -> int:
        return 3

    @observe("_metrics.recorder", Ended)
    def dotted(self) -> None: ...

    @observe("missing", Ended)
    def lost(self) -> int:
        return 4


def test_a_method_finds_the_emitter_of_its_instance() -> None:
    """Each instance its own; one without a recorder is quiet."""
    one, other = Listener(), Listener()
    shops = Shop(one), Shop(other), Shop()
    assert [shop.sell("tea") for shop in shops] == ["tea"] * 3
    with pytest.raises(LookupError):
        shops[0].sell("salt", fail=True)
    assert one.told == [("ok", None), ("error", LookupError)]
    assert other.told == [("ok", None)]


@pytest.mark.parametrize("name", ["below", "above"])
def test_a_class_method_finds_the_emitter_of_its_class(name: str, listener: Listener) -> None:
    """On either side of ``@classmethod``."""

    class Corner(Shop):
        shared = MetricsEmitter(listener)

    assert getattr(Corner, name)() is Corner
    assert getattr(Corner(), name)() is Corner
    assert getattr(Shop, name)() is Shop
    assert listener.told == [("ok", None)] * 2


def test_a_static_method_takes_the_emitter_itself(listener: Listener) -> None:
    """On either side of ``@staticmethod``."""

    class Corner:
        @staticmethod
        @observe(listener, Ended)
        def below(one: int) -> int:
            return one

        @observe(listener, Ended)
        @staticmethod
        def above(one: int) -> int:
            return one

    assert (Corner.below(1), Corner.above(2), Corner().above(3)) == (1, 2, 3)
    assert len(listener.events) == 3


def test_a_property_is_timed_below_its_decorator(listener: Listener) -> None:
    """As its getter."""
    assert Shop(listener).stock == 3
    assert listener.told == [("ok", None)]


def test_an_attribute_may_hold_a_recorder(listener: Listener) -> None:
    """As the documented components have it; and dots lead on to it."""
    Shop(listener).dotted()

    class Documented:
        def __init__(self, recorder: Listener | None) -> None:
            self._metrics_recorder = recorder

        @observe("_metrics_recorder", Ended)
        def save(self) -> None: ...

    Documented(listener).save()
    Documented(None).save()
    assert listener.told == [("ok", None)] * 2


def test_a_misspelt_attribute_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Production goes on; the log says what was looked for, and where, once a minute."""
    shop = Shop(Listener())
    assert [shop.lost(), shop.lost()] == [4, 4]
    (record,) = logged(caplog, "observe('missing', …) found no emitter for a call of Shop.lost")
    assert record.exc_info is not None
    assert record.exc_info[0] is AttributeError


def test_an_attribute_that_holds_something_else_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As is a call without an instance."""

    class Odd:
        _metrics = "recorder"

        @observe("_metrics", Ended)
        def work(*args: Any) -> int:
            return 5

    assert Odd().work() == 5
    assert logged(caplog, "found no emitter")
    assert Odd.work() == 5
    assert len(logged(caplog, "found no emitter")) == 2


def test_a_method_of_a_subclass_and_super(listener: Listener) -> None:
    """Both are timed, as both are called."""

    class Corner(Shop):
        @observe("_metrics", Ended)
        def sell(self, what: str, *, fail: bool = False) -> str:
            return super().sell(what, fail=fail)

    assert Corner(listener).sell("tea") == "tea"
    assert len(listener.events) == 2


def test_a_context_manager_is_timed_below_its_decorator(listener: Listener, clock: Clock) -> None:
    """The time of its block; what the block raises is its outcome."""

    @contextlib.contextmanager
    @observe(listener, Ended, clock=clock)
    def opened() -> Iterator[int]:
        clock.passes(1.0)
        yield 3
        clock.passes(4.0)

    with opened() as number:
        assert number == 3
        clock.passes(2.0)
    error = ValueError()
    with pytest.raises(ValueError) as caught, opened():
        raise error
    assert caught.value is error
    assert listener.outcomes == [
        Outcome(status="ok", seconds=7.0, error=None),
        Outcome(status="error", seconds=1.0, error=ValueError),
    ]


# --- what goes wrong in here ---------------------------------------------------------------------


def failing(*args: object) -> Any:
    """Raises whatever it is called with."""
    raise ZeroDivisionError("in what measures")


@pytest.mark.parametrize("error", [None, ValueError("in production")])
def test_a_make_event_that_raises_is_swallowed(
    error: Exception | None, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted and logged by the emitter; what the block raises passes, without a trace of that."""
    emitter = MetricsEmitter(listener)

    @observe(emitter, failing)
    def work() -> int:
        if error is not None:
            raise error
        return 3

    if error is None:
        assert work() == 3
    else:
        assert ends(work) is error
        assert (error.__context__, error.__cause__) == (None, None)
    assert emitter.swallowed == 1
    assert logged(caplog, "in what measures")


def test_a_clock_that_raises_is_swallowed(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """At the begin, at the end, or both: no event, and the emitter says why."""
    emitter = MetricsEmitter(listener)
    for times in ([], [1.0], [ZeroDivisionError(), 2.0]):
        left: list[Any] = list(times)

        def clock(left: list[Any] = left) -> float:
            now = left.pop(0) if left else OSError("no clock")
            if isinstance(now, Exception):
                raise now
            return float(now)

        with observe(emitter, Ended, clock=clock):
            pass
    assert emitter.swallowed == 3
    assert listener.events == []


def test_what_is_no_event_is_swallowed(backend: dict[str, Any]) -> None:
    """By a recorder that looks."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        emitter = MetricsEmitter(runtime.create_recorder("x"))
        with observe(emitter, lambda outcome: "no event"):  # type: ignore[arg-type, return-value] # because it returns a str
            pass
        assert emitter.swallowed == 1


def test_ctrl_c_in_make_event_passes(listener: Listener) -> None:
    """It is meant for the thread."""

    def interrupted(outcome: Outcome) -> MetricEvent:
        raise KeyboardInterrupt

    def work() -> None:
        with observe(listener, interrupted):
            pass

    assert isinstance(ends(work), KeyboardInterrupt)


# --- on real recorders ---------------------------------------------------------------------------


def test_a_runtimes_recorder_sees_the_outcomes(backend: dict[str, Any]) -> None:
    """On every backend."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder("x")
        seen = Seen()
        recorder.register_metric(seen)
        shop = Shop(recorder)
        shop.sell("tea")
        with contextlib.suppress(LookupError):
            shop.sell("salt", fail=True)
        recorder.flush().wait(DEADLINE)
        assert [event.outcome.status for event in seen.events if isinstance(event, Ended)] == ["ok", "error"]


# --- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 7, "Ended"])
def test_make_event_is_a_callable(wrong: Any) -> None:
    """Else it says so at once."""
    with pytest.raises(TypeError, match=f"argument 'make_event' must be callable, got {wrong!r}"):
        observe(None, wrong)


def test_make_event_is_no_coroutine_function() -> None:
    """Nobody would await it."""

    async def make(outcome: Outcome) -> MetricEvent:
        return Ended(outcome)

    with pytest.raises(TypeError, match="argument 'make_event' must return an event, not a coroutine"):
        observe(None, make)  # type: ignore[arg-type] # because it is asynchronous


def test_the_clock_is_a_callable() -> None:
    """Else it says so at once."""
    with pytest.raises(TypeError, match="argument 'clock' must be callable, got 3"):
        observe(None, Ended, clock=3)  # type: ignore[call-overload] # because 3 is no clock


def test_the_emitter_is_one() -> None:
    """Or a recorder, the name of an attribute, None."""
    with pytest.raises(
        TypeError, match="argument 'emitter' must be an emitter, a recorder, the name of an attribute or None, got 7"
    ):
        observe(7, Ended)  # type: ignore[call-overload] # because 7 is no recorder


@pytest.mark.parametrize("name", ["", "a-b", "a..b", "7", "a.", " a"])
def test_a_name_is_that_of_an_attribute(name: str) -> None:
    """Else it could never be found."""
    with pytest.raises(ValueError, match="argument 'emitter' must be the name of an attribute, got"):
        observe(name, Ended)


def test_a_mangled_name_must_be_written_out() -> None:
    """In a class, ``self.__metrics`` is another attribute than the string says."""
    with pytest.raises(ValueError, match="'__metrics' is another name; write '_NameOfTheClass__metrics'"):
        observe("__metrics", Ended)
    observe("__class__", Ended)


def test_a_name_makes_a_decorator_only() -> None:
    """A block has no instance to look at."""
    with pytest.raises(TypeError, match="context manager"), observe("_metrics", Ended):  # type: ignore[attr-defined] # because it is none
        pass


def test_a_static_method_has_no_instance() -> None:
    """So a name finds nothing there."""
    with pytest.raises(TypeError, match="a static method has no instance with an emitter"):
        observe("_metrics", Ended)(staticmethod(len))


def test_what_hides_the_function_goes_above(listener: Listener) -> None:
    """A property can be timed only below its decorator."""
    for target in (listener, None):
        for decorator in (property, functools.cached_property):
            with pytest.raises(TypeError, match=rf"put observe\(\) below @{decorator.__name__}, right above 'def'"):
                observe(target, Ended)(decorator(lambda self: 3))  # type: ignore[type-var] # because that is no function


def test_a_class_is_no_function(listener: Listener) -> None:
    """It would be one no more."""
    with pytest.raises(TypeError, match=r"observe\(\) would hide that Shop is a class"):
        observe(listener, Ended)(Shop)


def test_what_cannot_be_called_cannot_be_timed(listener: Listener) -> None:
    """The usual slip: the parentheses of the function."""
    with pytest.raises(TypeError, match="argument 'function' must be callable, got 3"):
        observe(listener, Ended)(3)  # type: ignore[type-var] # because 3 is no function


# --- copies --------------------------------------------------------------------------------------


def remember(outcome: Outcome) -> MetricEvent:
    return Ended(outcome)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_an_observation_times_on_its_own(duplicate: Any, listener: Listener) -> None:
    """With the same emitter; also of one that is under way."""
    timed = observe(listener, remember)
    with timed:
        other = duplicate(timed)
        with other:
            pass
        assert len(listener.events) == 1
    assert len(listener.events) == 2


def test_a_pickled_observation_comes_back_without_its_recorder(listener: Listener) -> None:
    """Like its emitter; a component that keeps one can be sent elsewhere."""
    timed = observe(listener, remember)
    with timed:
        there = pickle.loads(pickle.dumps(timed))
    with there:
        pass
    assert there(len) is not None
    assert len(listener.events) == 1
    by_name = pickle.loads(pickle.dumps(observe("_metrics", remember)))
    assert by_name(Shop.sell)(Shop(listener), "tea") == "tea"
