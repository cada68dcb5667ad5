"""A recorder on its way into a runtime's registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import anyio

from ._core import RecorderCore
from ._hosting import BIRTH, Birth, Home
from ._lifecycle import RecorderState
from ._recorder import MetricsRecorder, core_of
from ._text import show
from ._waiting import OneShot
from .errors import MetricsRuntimeError, MetricsRuntimeRecorderStartupError


class Registry(Protocol):
    """Where a creation ends."""

    def creation_ended(self, creation: Creation, recorder: MetricsRecorder | None) -> bool:
        """Free the id, and register ``recorder`` under it if there is one; return whether it was registered."""
        ...

    def not_registered(self, recorder_id: str, recorder: MetricsRecorder) -> None:
        """``recorder`` was told to end, but its hook may take its time over that."""
        ...


class Creation:
    """Calls the factory and starts the recorder, in the runtime's loop; can be given up at any time."""

    def __init__(
        self,
        recorder_id: str,
        *,
        factory: Callable[..., Any],
        entity_id: str,
        options: dict[str, Any],
        more_options: dict[str, Any],
        home: Home,
        registry: Registry,
    ) -> None:
        """Prepare a creation.

        :param options: passed to the factory as far as its signature takes them, and to the recorder
            where the factory does not pass them on
        :param more_options: passed to the factory whatever its signature says
        """
        self.recorder_id = recorder_id
        self.given_up = False
        self.outcome: OneShot[MetricsRecorder | MetricsRuntimeError] = OneShot()
        """The recorder, or why there is none."""
        self._factory = factory
        self._entity_id = entity_id
        self._options = options
        self._more_options = more_options
        self._home = home
        self._registry = registry
        self._scope: anyio.CancelScope | None = None
        self._right_to_free_the_id = [None]

    def claim_id(self) -> bool:
        """Return whether nobody has freed the id before; whoever is told so must free it.  From any thread."""
        try:
            self._right_to_free_the_id.pop()
        except IndexError:
            return False
        return True

    def give_up(self) -> None:
        """Cancel it; in the loop."""
        self.given_up = True
        if self._scope is not None:
            self._scope.cancel()

    @property
    def needs_no_loop(self) -> bool:
        """Whether nobody can tell in which thread it is done: no code of the user's has a part in it."""
        return self._factory is MetricsRecorder

    def run_here(self) -> None:
        """Create, start and register the recorder in the calling thread, and set the outcome."""
        recorder: MetricsRecorder | None = None
        failure: BaseException | None = None
        try:
            recorder = self._make()
            failure = recorder.start().wait().error
        except Exception as exc:
            failure = exc
        except BaseException:  # Ctrl-C, say: nobody will know of the recorder
            if recorder is not None:
                recorder.stop()
            raise
        self._end(recorder, failure)

    async def run(self) -> None:
        """Create, start and register the recorder, and set the outcome; lets nothing out."""
        recorder: MetricsRecorder | None = None
        failure: BaseException | None = None
        with anyio.CancelScope() as self._scope:
            if self.given_up:
                self._scope.cancel()
            try:
                recorder = self._make()
                await anyio.lowlevel.checkpoint_if_cancelled()
                error = (await recorder.start()).error
                # What the hook raised, rather than that it raised.
                failure = error if error is None or error.cause is None else error.cause
            except BaseException as exc:
                failure = exc
        self._end(recorder, failure)

    def _end(self, recorder: MetricsRecorder | None, failure: BaseException | None) -> None:
        if self._registry.creation_ended(self, recorder if failure is None else None) and recorder is not None:
            self.outcome.set(recorder)
            return
        if recorder is not None:
            if recorder.get_status() is RecorderState.RUNNING:
                recorder.stop()  # what _on_starting() has begun is to be ended in order
            else:
                core_of(recorder).interrupt()
            self._registry.not_registered(self.recorder_id, recorder)
        self.outcome.set(MetricsRuntimeRecorderStartupError(self.recorder_id, cause=failure))

    def _make(self) -> MetricsRecorder:
        birth = BIRTH.set(Birth(home=self._home, options=self._options))
        try:
            made: object = self._factory(
                self._entity_id, **_taken_by(self._factory, self._options), **self._more_options
            )
        finally:
            BIRTH.reset(birth)
        if not isinstance(made, MetricsRecorder) or not _is_new(core_of(made), self._home):
            msg = f"argument 'factory' must return a new MetricsRecorder made in the call, got {show(made)}"
            raise TypeError(msg)
        return made


def _is_new(core: RecorderCore, home: Home) -> bool:
    return core.home is home and core.claim()


def _taken_by(factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return those of ``options`` that the signature of ``factory`` takes."""
    if factory is MetricsRecorder:
        return options
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return options
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return options
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    return {name: value for name, value in options.items() if name in names}
