"""Events that bite, and metrics that cannot be registered: what production is told, and what the recorder makes of them."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from mvx.common.metrics import (
    Metric,
    MetricEvent,
    MetricsRecorder,
    MetricsRuntime,
    MetricsRuntimeRecorderStartupError,
    OverflowPolicy,
    RecorderInvalidStateError,
    RecorderQueueOverflowError,
    RecorderState,
)
from mvx.common.metrics.instruments import Counter
from tests.conftest import Effort, Tally
from tests.faults.hostile import (
    KINDS,
    RAISES,
    TROUBLES,
    Afflicted,
    Moody,
    Stage,
    Theatre,
    Trouble,
    Unhooked,
    causes,
    every_home,
    theatre_for,
    told,
)
from tests.support import DEADLINE, Count, Gate, Journal, Seen, Tick, balanced

TRIED = "hostile metrics, hooks and events"


pytest_generate_tests = every_home


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


@pytest.fixture
def backend(theatre: Theatre) -> dict[str, Any]:
    return theatre.keywords


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException] | None]:
    """What finalizers have raised: the interpreter tells nobody else."""
    raised: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: raised.append(about.exc_type))
    return raised


# --- events that must be left alone --------------------------------------------------------------


class Prickly(MetricEvent):
    """Ends the program when anything but its class and its type is looked at."""

    touched: list[str] = []  # noqa: RUF012 — one list for all: who has touched any of them

    @property
    def event_type(self) -> str:
        return "test.prickly"

    def _bite(self, how: str) -> Any:
        Prickly.touched.append(how)
        raise SystemExit(3)

    def __getattr__(self, name: str) -> Any:
        self._bite(f"attribute {name}")


for _name in ("eq", "ne", "hash", "bool", "len", "repr", "str", "iter", "copy", "reduce_ex", "format", "sizeof"):
    setattr(Prickly, f"__{_name}__", lambda self, *_, how=_name: self._bite(how))


class Tolerant(Count):
    """Counts whatever it is shown, and fails on every other one."""

    event_types = None  # type: ignore[assignment] # every event

    def handle_event(self, event: MetricEvent) -> bool:
        super().handle_event(event)
        if self.total % 2:
            raise ValueError("odd")
        return True


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_an_event_is_never_compared_hashed_or_shown(theatre: Theatre, policy: OverflowPolicy, tally: Tally) -> None:
    """Accepted, dropped, evicted, refused, processed, failed on or abandoned: nothing of it but its class is used."""
    Prickly.touched.clear()

    async def scene(stage: Stage) -> None:
        with stage.trial(policy):
            recorder: Journal

            async def act(made: Journal) -> None:
                nonlocal recorder
                recorder = made
                recorder.register_metric(Tolerant("tolerant"))
                recorder.register_metric(Count())
                recorder.changed = Gate()
                for _ in range(12):
                    told(lambda: recorder.register_event(Prickly()), RecorderQueueOverflowError)
                await anyio.to_thread.run_sync(recorder.changed.reached.wait, DEADLINE)
                for _ in range(12):
                    told(lambda: recorder.register_event(Prickly()), RecorderQueueOverflowError)
                recorder.changed.open()
                assert (await recorder.flush()).success
                await recorder.aregister_event(Prickly())
                assert (await recorder.flush()).success
                recorder.changed = Gate()
                for _ in range(4):
                    recorder.register_event(Prickly())

            part = await stage.play(
                Journal,
                act,
                queue_max_size=4,
                queue_overflow_policy=policy,
                block_timeout=0.001,
                drain_timeout=0.01,
                linger=0,
            )
            assert isinstance(part.spoilt.__cause__, BaseException)  # type: ignore[union-attr] # its drain ran out of time
            statistics = recorder.statistics()
            assert balanced(statistics)
            assert statistics.abandoned > 0
            assert statistics.metric_errors > 0
            assert told(lambda: recorder.register_event(Prickly()), RecorderInvalidStateError)
            await stage.neighbour_is_well()

    tally(TRIED, theatre.show("runtime", scene))
    assert Prickly.touched == []


class Chameleon(MetricEvent):
    """Its class cannot be asked for any more when it has been asked for several times."""

    event_type = "test.chameleon"

    def __init__(self, trouble: Trouble, patience: int) -> None:
        object.__setattr__(self, "trouble", trouble)
        object.__setattr__(self, "left", patience)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            left = object.__getattribute__(self, "left")
            if not left:
                object.__getattribute__(self, "trouble").strike()
            object.__setattr__(self, "left", left - 1)
        return object.__getattribute__(self, name)


@RAISES
def test_an_event_whose_class_cannot_be_asked_for(
    theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """It is bad input for production, or one more event for the recorder, which goes on in either case."""

    async def scene(stage: Stage) -> None:
        for trouble, patience, kind in theatre.mixed(troubles, range(8), KINDS):
            with stage.trial(trouble.name, f"asked for {patience} times", kind.__name__):
                count = Count()

                async def act(recorder: MetricsRecorder) -> None:
                    recorder.register_metric(count)
                    refused = 0
                    # The first of a class is looked at more closely than the second.
                    for _ in range(2):
                        try:
                            recorder.register_event(Chameleon(trouble, patience))
                        except (TypeError, ValueError):
                            refused += 1
                    assert (await recorder.flush()).success
                    recorder.register_event(Tick())
                    assert (await recorder.flush()).success
                    assert recorder.get_status() is RecorderState.RUNNING
                    assert count.total == 1
                    statistics = recorder.statistics()
                    assert balanced(statistics)
                    assert statistics.processed == 3 - refused

                part = await stage.play(kind, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


# --- bad input -----------------------------------------------------------------------------------


class Nameless(MetricEvent):
    """Its type cannot be asked for."""

    trouble: Trouble | None = None

    @property
    def event_type(self) -> str:
        if self.trouble is not None:
            self.trouble.strike()
        return "test.nameless"


@RAISES
def test_an_event_whose_type_cannot_be_asked_for(
    theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """Production gets a ValueError whatever the event raised; nothing is counted; the next of the class is welcome."""

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):
            with stage.trial(trouble.name):

                class Awkward(Nameless):
                    pass

                async def act(recorder: MetricsRecorder) -> None:
                    event = Awkward()
                    event.trouble = trouble
                    for emit in (recorder.register_event, recorder.aregister_event):
                        with pytest.raises(ValueError, match="event_type raised") as caught:
                            answer = emit(event)
                            if answer is not None:
                                await answer
                        assert trouble.is_cause_of(caught.value)
                        assert len(str(caught.value)) < 1000
                    assert recorder.statistics().offered == 0
                    recorder.register_event(Awkward())
                    assert (await recorder.flush()).success
                    assert recorder.statistics().processed == 1

                part = await stage.play(Unhooked, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
@pytest.mark.parametrize("place", ["metric_name", "event_types"])
def test_a_metric_that_cannot_be_registered(
    theatre: Theatre, home: str, place: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """Production gets a ValueError whatever the metric raised, and nothing has been registered."""

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):
            with stage.trial(trouble.name):

                async def act(recorder: MetricsRecorder) -> None:
                    moody = Moody(place, trouble)
                    moody.armed = True
                    with pytest.raises(ValueError, match=f"{place} raised") as caught:
                        recorder.register_metric(moody)
                    assert trouble.is_cause_of(caught.value)
                    assert len(str(caught.value)) < 1000
                    assert not list(recorder.iter_metrics())
                    moody.armed = False
                    recorder.register_metric(moody)
                    recorder.register_event(Tick())
                    assert (await recorder.flush()).success
                    assert moody.total == 1

                part = await stage.play(Unhooked, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
def test_an_event_class_that_cannot_say_what_it_is_a_base_of(
    theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """Python asks it about everything that is no event; whoever emits such a thing is told what is wrong all the same."""

    # A RecursionError cannot be told from one of the caller's own, who may have emitted an event.
    troubles = tuple(trouble for trouble in troubles if trouble.kind is not RecursionError)

    async def scene(stage: Stage) -> None:
        for trouble, kind in theatre.mixed(troubles, KINDS):
            with stage.trial(trouble.name, kind.__name__):

                async def act(recorder: MetricsRecorder, trouble: Trouble = trouble) -> None:
                    judge = biased(trouble)
                    try:
                        for wrong in (7, "tick", object(), Tick):
                            with pytest.raises(TypeError, match="argument 'event' must be a MetricEvent, got"):
                                recorder.register_event(wrong)  # type: ignore[arg-type] # because that is the mistake
                        count = Count()
                        count.event_types = (int,)  # type: ignore[assignment,misc] # likewise
                        with pytest.raises(TypeError, match="must hold MetricEvent classes only, got <class 'int'>"):
                            recorder.register_metric(count)
                        with pytest.raises(TypeError, match="'on' must be a MetricEvent class or a tuple of them"):
                            Counter("count", on=int)  # type: ignore[type-var] # likewise
                        recorder.register_metric(seen := Seen())
                        recorder.register_event(Mock(spec=Tick, event_type="test.tick"))
                        recorder.register_event(Tick())
                        assert (await recorder.flush()).success
                        assert len(seen.events) == 2
                    finally:
                        judge.armed = False

                part = await stage.play(kind, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


def biased(trouble: Trouble) -> Any:
    """Return an event class that fails as long as it is armed when it is asked about others."""

    class Biased(MetricEvent):
        armed = True

        @classmethod
        def __subclasshook__(cls, other: type) -> Any:
            if cls.armed:
                trouble.strike()
            return NotImplemented

    return Biased


def test_ctrl_c_in_bad_input_stays_ctrl_c() -> None:
    """In the main thread a KeyboardInterrupt belongs to the program, wherever it hits."""

    async def main() -> None:
        recorder = MetricsRecorder("x")
        event = Nameless()
        event.trouble = Trouble("", KeyboardInterrupt, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            recorder.register_event(event)
        moody = Moody("metric_name", event.trouble)
        moody.armed = True
        with pytest.raises(KeyboardInterrupt):
            recorder.register_metric(moody)
        assert recorder.get_status() is RecorderState.VIRGIN

    anyio.run(main)


class Text(str):
    """A text that cannot be compared, hashed, stripped or shown, once it has been armed."""

    __slots__ = ("armed",)

    def _bite(self, *_: object, **__: object) -> Any:
        if getattr(self, "armed", False):
            raise SystemExit(3)
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        self._bite()
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        self._bite()
        return str.__hash__(self)

    def __repr__(self) -> str:
        self._bite()
        return str.__repr__(self)

    def __str__(self) -> str:
        self._bite()
        return str.__str__(self)


def test_a_name_that_is_more_than_a_text(theatre: Theatre, home: str) -> None:
    """A subclass of str is taken for the text that it is: what else it can do does not matter."""
    name = Text("prickly")

    class Named(Count):
        @property
        def metric_name(self) -> str:
            return name

        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            raise ValueError("logged with the metric's name")

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            name.armed = False  # type: ignore[attr-defined] # a slot
            recorder.register_metric(Named())
            name.armed = True  # type: ignore[attr-defined] # a slot
            recorder.register_event(Tick())
            assert (await recorder.flush()).success
            assert (await recorder.aget_metric_snapshots())["prickly"]["dimensions"] == {"total": 1}
            assert recorder.get_status() is RecorderState.RUNNING

        for kind in KINDS:
            with stage.trial(kind.__name__):
                part = await stage.play(kind, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    theatre.show(home, scene)


class Porcupine(Count):
    """A metric that cannot be compared, hashed or shown, and is false."""

    def __eq__(self, other: object) -> bool:
        raise SystemExit(3)

    def __hash__(self) -> int:
        raise SystemExit(3)

    def __repr__(self) -> str:
        raise SystemExit(3)

    def __bool__(self) -> bool:
        raise SystemExit(3)

    def __len__(self) -> int:
        raise SystemExit(3)


def test_a_metric_is_never_compared_hashed_or_shown(theatre: Theatre, home: str) -> None:
    """Registered, replaced, failed, iterated over: a recorder uses what a Metric has, and nothing else."""

    class Failing(Porcupine):
        def handle_event(self, event: MetricEvent) -> bool:
            super().handle_event(event)
            raise ValueError("no")

        def snapshot(self) -> Any:
            raise ValueError("no")

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            metrics = [Porcupine("a"), Failing("b"), Porcupine("a"), Porcupine("c")]
            for metric in metrics:
                recorder.register_metric(metric)
            recorder.register_event(Tick())
            snapshots = await recorder.aget_metric_snapshots()
            assert [snapshots[name]["dimensions"].get("total") for name in "abc"] == [1, None, 1]
            assert [id(metric) for metric in recorder.iter_metrics()] == [id(metrics[n]) for n in (2, 1, 3)]

        for kind in KINDS:
            with stage.trial(kind.__name__):
                part = await stage.play(kind, act)
                assert part.spoilt is None
                await stage.neighbour_is_well()

    theatre.show(home, scene)


def test_a_metric_that_registers_itself_while_it_is_asked_for_its_name(theatre: Theatre, home: str) -> None:
    """An endless recursion of the user's own ends in a ValueError, and the recorder takes the next metric."""

    async def scene(stage: Stage) -> None:
        async def act(recorder: MetricsRecorder) -> None:
            class Vain(Count):
                @property
                def metric_name(self) -> str:
                    recorder.register_metric(self)
                    return "vain"

            with pytest.raises((ValueError, RecursionError)):
                recorder.register_metric(Vain())
            recorder.register_metric(Count())
            recorder.register_event(Tick())
            assert (await recorder.aget_metric_snapshots())["count"]["dimensions"] == {"total": 1}

        assert (await stage.play(Unhooked, act)).spoilt is None
        await stage.neighbour_is_well()

    theatre.show(home, scene)


@RAISES
def test_a_recorder_class_that_does_not_call_its_base(
    theatre: Theatre, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """A factory must return a recorder that has been made: anything else is refused, and the id is free again."""

    class Hollow(MetricsRecorder):
        def __init__(self, entity_id: str) -> None:
            pass

        async def _on_starting(self) -> None:
            pytest.fail("started")

    class Wrong:
        def __init__(self, trouble: Trouble) -> None:
            self.trouble = trouble

        def __repr__(self) -> str:
            self.trouble.strike()

    def none(*_: object, **__: object) -> None:
        return None

    async def scene(stage: Stage) -> None:
        assert stage.runtime is not None
        wrong: list[Callable[..., Any]] = [lambda *_, trouble=each, **__: Wrong(trouble) for each in troubles]
        factories: list[Callable[..., Any]] = [Hollow, none, *wrong]
        for factory in factories:
            with stage.trial(factory):
                for _ in range(2):  # the second says that the id was free
                    with pytest.raises(MetricsRuntimeRecorderStartupError) as caught:
                        await stage.runtime.acreate_recorder("odd", factory=factory)
                    assert any(isinstance(cause, (TypeError, AttributeError)) for cause in causes(caught.value))
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show("runtime", scene))


# --- finalizers ----------------------------------------------------------------------------------


class Mortal(MetricEvent):
    """Does something when it dies."""

    def __init__(self, last_words: Callable[[], object]) -> None:
        self._last_words = last_words

    @property
    def event_type(self) -> str:
        return "test.mortal"

    def __del__(self) -> None:
        self._last_words()


@pytest.mark.parametrize("policy", OverflowPolicy)
def test_an_event_that_raises_when_it_dies(
    backend: dict[str, Any], policy: OverflowPolicy, unraisable: list[type[BaseException] | None], tally: Tally
) -> None:
    """In whichever thread that is, neither production nor the recorder gets to see it."""
    with MetricsRuntime(namespace="t", **backend) as runtime:
        for trouble in TROUBLES:
            recorder = runtime.create_recorder(
                "x",
                factory=Journal,
                queue_max_size=2,
                queue_overflow_policy=policy,
                block_timeout=0.001,
                drain_timeout=0.01,
                linger=0,
            )
            count = Count()
            recorder.register_metric(count)
            recorder.register_metric(Seen())
            recorder.changed = Gate()
            recorder.register_event(Tick())
            assert recorder.changed.reached.wait(DEADLINE)
            for _ in range(3):
                told(lambda: recorder.register_event(Mortal(trouble.strike)), RecorderQueueOverflowError)
            recorder.changed.open()
            assert recorder.flush().wait(DEADLINE).success
            recorder.register_metric(Seen())  # the old one, which has kept them, dies with its events
            recorder.register_event(Tick())
            assert recorder.flush().wait(DEADLINE).success
            assert recorder.get_status() is RecorderState.RUNNING
            assert balanced(recorder.statistics())
            assert count.total == 2
            runtime.stop_and_remove_recorder("x")
        gc.collect()
    assert len(unraisable) >= 3 * len(TROUBLES)
    assert {kind for kind in unraisable if kind} == {trouble.kind for trouble in TROUBLES}
    tally(TRIED, 3 * len(TROUBLES))


@pytest.mark.parametrize("policy", OverflowPolicy)
@pytest.mark.parametrize("kind", KINDS)
def test_an_event_that_emits_another_when_it_dies(
    backend: dict[str, Any], policy: OverflowPolicy, kind: type[Afflicted]
) -> None:
    """Dropped, evicted or processed, in the emitter's thread or in the recorder's: every one is accounted for."""
    emitted = []

    def emit(generation: int) -> None:
        if generation < 5:
            emitted.append(generation)
            told(
                lambda: recorder.register_event(Mortal(lambda: emit(generation + 1))),
                RecorderQueueOverflowError,
                RecorderInvalidStateError,
            )

    with MetricsRuntime(namespace="t", **backend) as runtime:
        recorder = runtime.create_recorder(
            "x", factory=kind, queue_max_size=3, queue_overflow_policy=policy, block_timeout=0.001, linger=0
        )
        recorder.register_metric(Tolerant())
        for _ in range(40):
            emit(0)
        assert recorder.flush().wait(DEADLINE).success
        assert recorder.stop().wait(DEADLINE).success
        gc.collect()
        statistics = recorder.statistics()
        assert balanced(statistics)
        assert statistics.offered == len(emitted)
        assert statistics.high_water <= 3 + 1
    assert len(emitted) >= 40


def test_an_event_that_turns_on_its_recorder_when_it_dies(
    backend: dict[str, Any], unraisable: list[type[BaseException] | None]
) -> None:
    """A finalizer may call everything, also in the midst of the end: nothing hangs and the ledger balances."""

    def attack() -> None:
        recorder.flush()
        recorder.statistics()
        recorder.get_metric_snapshots()
        recorder.start()
        told(lambda: recorder.register_metric(Count("late")), RecorderInvalidStateError)
        recorder.stop()

    with MetricsRuntime(namespace="t", **backend) as runtime:
        for drain_timeout in (DEADLINE, 0.01):
            recorder = runtime.create_recorder("x", factory=Journal, drain_timeout=drain_timeout, linger=0)
            recorder.register_metric(Count())
            recorder.changed = Gate()
            recorder.register_event(Tick())
            for _ in range(5):
                told(lambda: recorder.register_event(Mortal(attack)), RecorderInvalidStateError)
            stop = recorder.stop()
            if drain_timeout > 1:
                recorder.changed.open()
            assert stop.wait(DEADLINE).success is (drain_timeout > 1)
            assert recorder.get_status() is RecorderState.STOPPED
            assert balanced(recorder.statistics())
            assert recorder.log[-1] == "stopped"
            told(lambda: runtime.stop_and_remove_recorder("x"))
    assert unraisable == []


def test_a_metric_that_raises_when_it_dies(
    backend: dict[str, Any], unraisable: list[type[BaseException] | None]
) -> None:
    """Replaced by another, it dies in the thread that replaced it or in the recorder's: nobody is told."""
    for trouble in TROUBLES:

        class Dying(Count):
            def __del__(self) -> None:
                trouble.strike()

        with MetricsRuntime(namespace="t", **backend) as runtime:
            recorder = runtime.create_recorder("x")
            for n in range(3):
                recorder.register_metric(Dying())
                recorder.register_event(Tick(n))
            metric: Metric = Count()
            recorder.register_metric(metric)
            recorder.register_event(Tick())
            assert recorder.get_metric_snapshots()["count"]["dimensions"]["total"] >= 1
            assert recorder.get_status() is RecorderState.RUNNING
    gc.collect()
    assert {trouble.kind for trouble in TROUBLES} <= set(unraisable)
