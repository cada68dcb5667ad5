"""A runtime's machinery: one daemon thread, one event loop, an anyio portal and a task group in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal

from ._backends import LoopGoneError
from ._fork import never_finalise
from ._hosting import GroupHome, Main
from ._hub import LoopHub, hub_of
from ._waiting import OneShot, current_loop


class Engine:
    """Runs from :meth:`start` to :meth:`end` and is not used again.

    anyio's own ``start_blocking_portal`` keeps the interpreter from exiting when it is left open,
    and joins without a limit; so the thread is ours, a daemon, and whoever waits for it does so on
    :attr:`ready` and :attr:`ended`, with a limit.
    """

    hub: LoopHub
    home: GroupHome
    portal: BlockingPortal

    def __init__(
        self,
        *,
        name: str,
        backend: str,
        backend_options: dict[str, Any],
        ended: Callable[[BaseException | None], object],
    ) -> None:
        """Make an engine that stands still.

        :param ended: called in its thread when the loop has ended, with what ended it if that was
            not :meth:`end`, before :attr:`ended` is set
        """
        self._backend = backend
        self._backend_options = backend_options
        self.given_up = False
        """Whether it is to end as soon as it has come up."""
        self._tell_end = ended
        self.ready: OneShot[BaseException | None] = OneShot()
        """Set when the loop runs, or to the reason why it does not."""
        self.ended: OneShot[BaseException | None] = OneShot()
        """Set when the loop has ended, to what ended it if that was not :meth:`end`."""
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, without waiting."""
        self.thread.start()

    def submit(self, function: Main, *, name: str) -> None:
        """Run ``function()``, which must let nothing out, in the task group; from any thread, without waiting.

        :raises LoopGoneError: if the loop has ended
        """
        self.home.launch(function, name=name, ended=_nothing)

    async def end(self) -> None:
        """Let the thread come to its end, cancelling what still runs in the task group; in the loop."""
        await self.portal.stop(cancel_remaining=True)

    async def joined(self, limit: float) -> None:
        """Wait up to ``limit`` seconds for the thread's last instructions, which come after :attr:`ended`."""
        deadline = time.monotonic() + limit
        while self.thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110 — no event tells a thread's end
            await anyio.sleep(0.001)

    def give_up(self) -> None:
        """Have an engine that did not come up in time end as soon as it does."""
        self.given_up = True

    @property
    def is_up(self) -> bool:
        """Whether the loop has come up, and did not fail to."""
        return self.ready.is_set and self.ready.peek() is None

    def leave_behind(self) -> None:
        """In a forked child: keep everything from being finalised, and let nobody wait for the thread."""
        never_finalise(self)
        self.ready.set(LoopGoneError("the thread stayed in the parent process at a fork"))
        self.ended.set(None)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            anyio.run(self._main, backend=self._backend, backend_options=self._backend_options)
        except BaseException as exc:
            failure = exc
        finally:
            if self.is_up:
                self.hub.close()
            self._tell_end(failure)
            self.ready.set(failure)
            self.ended.set(failure)

    async def _main(self) -> None:
        self.hub = hub_of(current_loop(), may_block=True)
        async with BlockingPortal() as self.portal, anyio.create_task_group() as group:
            self.home = GroupHome(self.hub, group, shielded=False)
            self.ready.set(None)
            try:
                if not self.given_up:
                    await self.portal.sleep_until_stopped()
            finally:
                self.hub.wind_up()
            group.cancel_scope.cancel()


def _nothing() -> None:
    pass
