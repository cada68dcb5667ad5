"""Whatever a metric or a hook raises, wherever it does: nobody else notices, and everything is accounted for.

Each trial has a recorder with a culprit of its own, on one stage with a neighbour; see hostile.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from mvx.common.metrics import (
    FailurePolicy,
    MetricsRecorder,
    MetricsRuntimeRecorderStartupError,
    RecorderDispatcherCancelledError,
    RecorderInvalidStateError,
    RecorderOnStartingHookFailedError,
    RecorderOnStoppedHookFailedError,
    RecorderState,
    RecorderUnexpectedError,
)
from mvx.common.metrics._recorder import core_of
from tests.conftest import Effort, Tally
from tests.faults.hostile import (
    BUILT_IN,
    KINDS,
    POLICIES,
    RAISES,
    Afflicted,
    Moody,
    Part,
    Stage,
    Theatre,
    Trouble,
    causes,
    every_home,
    stray_cancellation,
    theatre_for,
    told,
)
from tests.support import Count, Seen, Tick, balanced

TRIED = "hostile metrics, hooks and events"
N = 4
"""Events of each trial."""
QUARANTINE_AFTER = 2


pytest_generate_tests = every_home
WITH_UVLOOP = True


@pytest.fixture
def theatre(anyio_backend: tuple[str, dict[str, Any]], effort: Effort) -> Iterator[Theatre]:
    with theatre_for(anyio_backend, effort) as theatre:
        yield theatre


def options_for(policy: FailurePolicy) -> dict[str, Any]:
    return {"failure_policy": policy, "quarantine_after": QUARANTINE_AFTER}


async def emit(recorder: MetricsRecorder, count: int = N) -> list[BaseException]:
    """Emit as production does, one event at a time, and return what it was told."""
    answers: list[BaseException] = []
    for n in range(count):
        answer = told(lambda: recorder.register_event(Tick(n)), RecorderInvalidStateError)
        if answer is not None:
            answers.append(answer)
        await recorder.flush()
    return answers


async def ended_by(recorder: MetricsRecorder, trouble: Trouble, answers: list[BaseException]) -> None:
    """Check that the recorder has ended because of ``trouble``, and has told so each time it was asked."""
    run = core_of(recorder)._run
    assert run is not None
    await run.stopping  # a flush does not wait for _on_stopped()
    assert recorder.get_status() is RecorderState.FAILURE
    for answer in answers:
        assert isinstance(answer, RecorderInvalidStateError)
        assert isinstance(answer.cause, RecorderUnexpectedError)
        assert trouble.is_cause_of(answer)


def stopped_well(part: Part) -> None:
    assert part.refused is None
    if part.spoilt is not None:
        raise part.spoilt
    assert part.recorder.get_status() is RecorderState.STOPPED


def spoilt_by(part: Part, trouble: Trouble) -> None:
    """Check that the stop said why the recorder had not ended well."""
    assert part.refused is None
    assert trouble.is_cause_of(part.spoilt)


@RAISES
@pytest.mark.parametrize("place", ["handle_event", "truth", "event_types", "subclass check"])
def test_a_metric_that_raises_on_events(
    theatre: Theatre, home: str, place: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """The other metrics see every event; the failing one is treated as the policy says; the neighbour lives on."""

    async def scene(stage: Stage) -> None:
        # Without a hook nobody asks for the truth of an answer.
        kinds = (Afflicted,) if place == "truth" else KINDS
        for trouble, policy, kind in theatre.mixed(troubles, POLICIES, kinds):
            with stage.trial(place, trouble.name, policy, kind.__name__):
                moody, before, after = Moody(place, trouble), Seen("before"), Seen("after")

                async def act(recorder: Afflicted) -> None:
                    for metric in (before, moody, after):
                        recorder.register_metric(metric)
                    moody.armed = True
                    answers = await emit(recorder)
                    if policy is FailurePolicy.FAIL:
                        await failed_at_once(recorder, trouble, answers)
                        return
                    assert not answers
                    assert recorder.get_status() is RecorderState.RUNNING
                    assert len(before.events) == len(after.events) == recorder.statistics().processed == N
                    if place in ("handle_event", "truth"):
                        await was_asked(recorder, moody, policy)

                part = await stage.play(kind, act, **options_for(policy))
                if policy is FailurePolicy.FAIL:
                    spoilt_by(part, trouble)
                else:
                    stopped_well(part)
                assert balanced(part.recorder.statistics())
                assert part.recorder.called["_on_stopped"] == 1
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


async def failed_at_once(recorder: MetricsRecorder, trouble: Trouble, answers: list[BaseException]) -> None:
    """Check what there is to be seen of a recorder that has ended with its first event."""
    await ended_by(recorder, trouble, answers)
    assert len(answers) == N - 1
    statistics = recorder.statistics()
    assert (statistics.processed, statistics.rejected, statistics.metric_errors) == (1, N - 1, 1)


async def was_asked(recorder: MetricsRecorder, moody: Moody, policy: FailurePolicy) -> None:
    """Check how often a metric that raised each time was asked."""
    errors = recorder.statistics().metric_errors
    snapshot = (await recorder.aget_metric_snapshots())["moody"]
    if policy is FailurePolicy.ISOLATE:
        assert errors == moody.calls == N
        assert "quarantined" not in snapshot
        return
    assert errors == moody.calls == QUARANTINE_AFTER
    assert snapshot["quarantined"]["failures"] == QUARANTINE_AFTER
    assert moody.trouble.is_described_by(snapshot["quarantined"]["error"])


@pytest.mark.parametrize("place", ["event_types", "subclass check"])
@pytest.mark.parametrize("policy", [FailurePolicy.ISOLATE, FailurePolicy.QUARANTINE])
def test_a_metric_that_cannot_say_what_it_wants_for_once(
    theatre: Theatre, home: str, place: str, policy: FailurePolicy
) -> None:
    """The failing one sees the next event, like one that fails in handling them."""

    async def scene(stage: Stage) -> None:
        for kind in KINDS:
            with stage.trial(place, policy, kind.__name__):
                moody = Moody(place, BUILT_IN[0])

                async def act(recorder: Afflicted) -> None:
                    recorder.register_metric(moody)
                    moody.armed = True
                    assert not await emit(recorder, 1)
                    moody.armed = False
                    assert not await emit(recorder, 2)
                    assert moody.total == 2
                    assert recorder.statistics().metric_errors == 1

                stopped_well(await stage.play(kind, act, **options_for(policy)))
                await stage.neighbour_is_well()

    theatre.show(home, scene)


@RAISES
def test_a_snapshot_that_raises(theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally) -> None:
    """It is replaced by one that says so, to whoever asks and under every policy; the others are shown."""

    async def scene(stage: Stage) -> None:
        for trouble, policy, kind in theatre.mixed(troubles, POLICIES, KINDS):
            with stage.trial(trouble.name, policy, kind.__name__):

                async def act(recorder: Afflicted) -> None:
                    moody = Moody("snapshot", trouble)
                    recorder.register_metric(moody)
                    recorder.register_metric(Count())
                    moody.armed = True
                    recorder.register_event(Tick())
                    for snapshots in (await recorder.aget_metric_snapshots(), recorder.get_metric_snapshots()):
                        assert snapshots["count"]["dimensions"] == {"total": 1}
                        assert snapshots["moody"]["name"] == "moody"
                        assert trouble.is_described_by(snapshots["moody"]["error"])
                    assert recorder.statistics().metric_errors == 2
                    assert recorder.get_status() is RecorderState.RUNNING

                stopped_well(await stage.play(kind, act, **options_for(policy)))
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
def test_a_change_hook_that_raises(theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally) -> None:
    """It is called for the next event all the same, unless the policy is FAIL; each failure is counted."""

    async def scene(stage: Stage) -> None:
        for trouble, policy in theatre.mixed(troubles, POLICIES):
            with stage.trial(trouble.name, policy):
                count = Count()

                async def act(recorder: Afflicted) -> None:
                    recorder.register_metric(count)
                    answers = await emit(recorder)
                    statistics = recorder.statistics()
                    assert balanced(statistics)
                    calls = recorder.called["_on_metric_changed"]
                    assert statistics.processed == statistics.hook_errors == count.total == calls
                    if policy is FailurePolicy.FAIL:
                        await ended_by(recorder, trouble, answers)
                        assert calls == 1
                    else:
                        assert not answers
                        assert recorder.get_status() is RecorderState.RUNNING
                        assert calls == N

                part = await stage.play(
                    Afflicted, act, place="_on_metric_changed", trouble=trouble, **options_for(policy)
                )
                if policy is FailurePolicy.FAIL:
                    spoilt_by(part, trouble)
                else:
                    stopped_well(part)
                assert part.recorder.called["_on_stopped"] == 1
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
@pytest.mark.parametrize("place", ["__init__", "_on_starting"])
def test_a_start_that_raises(
    theatre: Theatre, home: str, place: str, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """Whoever starts the recorder is told, its stop hook does not run, and in a runtime its id is free again."""
    if place == "__init__" and home != "runtime":
        pytest.skip("then there is no recorder: whoever calls the class gets its own exception")

    async def act(recorder: Afflicted) -> None:
        pytest.fail("started")

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):
            with stage.trial(trouble.name):
                part = await stage.play(Afflicted, act, place=place, trouble=trouble)
                assert trouble.is_cause_of(part.refused)
                expected = MetricsRuntimeRecorderStartupError if stage.runtime else RecorderOnStartingHookFailedError
                assert type(part.refused) is expected
                if part.recorder is not None:
                    assert part.recorder.get_status() is RecorderState.FAILURE
                    assert part.recorder.called == {"__init__": 1, "_on_starting": 1}
                    assert part.recorder.statistics().hook_errors == 1
                    answer = told(lambda: part.recorder.register_event(Tick()), RecorderInvalidStateError)
                    assert trouble.is_cause_of(answer)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
def test_a_stop_hook_that_raises(theatre: Theatre, home: str, troubles: tuple[Trouble, ...], tally: Tally) -> None:
    """Everything has been processed by then; the stop says what the hook raised."""

    async def scene(stage: Stage) -> None:
        for trouble, kind in theatre.mixed(troubles, KINDS):
            with stage.trial(trouble.name, kind.__name__):

                async def act(recorder: Afflicted) -> None:
                    for n in range(N):
                        recorder.register_event(Tick(n))

                part = await stage.play(kind, act, place="_on_stopped", trouble=trouble)
                spoilt_by(part, trouble)
                error: Any = part.spoilt
                while type(error) is not RecorderOnStoppedHookFailedError:
                    error = error.cause
                assert part.recorder.get_status() is RecorderState.FAILURE
                statistics = part.recorder.statistics()
                assert balanced(statistics)
                assert (statistics.processed, statistics.hook_errors) == (N, 1)
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))


@RAISES
def test_errors_of_every_kind_can_be_logged_and_copied(
    theatre: Theatre, troubles: tuple[Trouble, ...], tally: Tally
) -> None:
    """What production is told can be turned into a record of the log, whatever the culprit raised."""

    async def act(recorder: Afflicted) -> None:
        recorder.register_metric(Count())
        answers = await emit(recorder, 2)
        payload: Any = answers[0].to_log_payload()  # type: ignore[attr-defined] # checked by told()
        assert payload["kind"] == "RecorderInvalidStateError"
        assert len(str(payload)) < 2000
        assert str(answers[0])
        assert repr(answers[0])

    async def scene(stage: Stage) -> None:
        for trouble in theatre.some(troubles):
            with stage.trial(trouble.name):
                part = await stage.play(
                    Afflicted, act, place="_on_metric_changed", trouble=trouble, failure_policy=FailurePolicy.FAIL
                )
                error: Any = part.spoilt
                assert len(str(error.to_log_payload())) < 2000
                assert list(causes(error.fresh()))[1:] == list(causes(error))[1:]

    tally(TRIED, theatre.show("runtime", scene))


def test_a_cancelled_error_is_no_cancellation(theatre: Theatre, home: str, tally: Tally) -> None:
    """A hook that raises what a cancelled task is told, without having been cancelled, has failed, and that is all."""
    trouble = Trouble("own", lambda: stray_cancellation(theatre.backend), type(stray_cancellation(theatre.backend)))
    grouped = Trouble(
        "group", lambda: BaseExceptionGroup("x", [stray_cancellation(theatre.backend)]), BaseExceptionGroup
    )

    async def scene(stage: Stage) -> None:
        for each, place in itertools.product((trouble, grouped), ("_on_starting", "_on_metric_changed", "_on_stopped")):
            with stage.trial(each.name, place):

                async def act(recorder: Afflicted) -> None:
                    recorder.register_metric(Count())
                    assert not await emit(recorder)
                    assert recorder.get_status() is RecorderState.RUNNING

                part = await stage.play(Afflicted, act, place=place, trouble=each)
                if place == "_on_metric_changed":
                    stopped_well(part)
                else:
                    error = part.refused or part.spoilt
                    assert each.is_cause_of(error)
                    assert not any(isinstance(cause, RecorderDispatcherCancelledError) for cause in causes(error))
                await stage.neighbour_is_well()

    tally(TRIED, theatre.show(home, scene))
