"""An application under gunicorn: a preforking server, whose workers emit into a runtime.

The arguments: the backend of the runtime, the kind of worker, where the runtime is made, the path of the
server's socket, and the number of requests after which a worker is replaced, 0 for never.
"""

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped] # because it ships no types

from mvx.common.metrics import MetricsRuntime
from tests.processes.programs.common import (
    Witness,
    become,
    new_runtime,
    report,
    report_statistics,
    total_of,
)
from tests.support import Tick

WORKER, PLACE, PATH, MAX_REQUESTS = sys.argv[2:6]
EACH = 50
"""Events emitted for a request."""
BEFORE = 7
"""Events emitted where the runtime is made."""

runtime: MetricsRuntime
recorder: "Serving"


class Serving(Witness):
    """Says whose events it counts."""

    async def _on_stopped(self) -> None:
        report_statistics("stopped", self, total=self.count.total, pid=os.getpid())


def make() -> None:
    global runtime, recorder  # noqa: PLW0603 — an application has them in its module
    runtime = new_runtime()
    # Long enough for everything to be still pending when the worker is told to end.
    recorder = runtime.create_recorder("requests", factory=Serving, linger=60)
    for n in range(BEFORE):
        recorder.register_event(Tick(n))
    recorder.flush().wait()


def handle(path: str) -> dict[str, object]:
    """What the application does for a request."""
    for n in range(EACH):
        recorder.register_event(Tick(n))
    answer: dict[str, object] = {"pid": os.getpid()}
    if path == "/snapshot":
        answer["total"] = total_of(recorder)
        answer["accepted"] = recorder.statistics().accepted
    return answer


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = json.dumps(handle(environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    body = json.dumps(handle(scope["path"])).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def live(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """The application's life: uvicorn ends a worker by the signal that it got, and no exit callback runs then."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            if PLACE != "handler":
                await runtime.ashutdown()
                report("shut down", state=runtime.get_status(), pid=os.getpid())
            await send({"type": "lifespan.shutdown.complete"})
            return


class Server(BaseApplication):  # type: ignore[misc] # because of the same
    """Gunicorn, told by this program what a command line would tell it."""

    def load_config(self) -> None:
        settings: dict[str, object] = {
            "bind": f"unix:{PATH}",
            "workers": 2,
            "worker_class": "uvicorn_worker.UvicornWorker" if WORKER == "uvicorn" else "sync",
            "preload_app": PLACE == "preload",
            "max_requests": int(MAX_REQUESTS),
            "graceful_timeout": 60,  # longer than the test waits: a worker that does not end is its failure
            "loglevel": "error",
            "control_socket_disable": True,
            "post_fork": self.post_fork,
            "post_worker_init": self.post_worker_init,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:  # older versions know no control socket
                self.cfg.set(name, value)

    def load(self) -> object:
        if PLACE in ("preload", "worker"):
            make()
        return asgi if WORKER == "uvicorn" else wsgi

    @staticmethod
    def post_fork(_server: object, _worker: object) -> None:
        become("worker")
        if PLACE in ("post_fork", "handler"):
            make()

    @staticmethod
    def post_worker_init(_worker: object) -> None:
        if PLACE == "handler":
            # Uvicorn puts its own in its place, and this one back when it has served, to send itself the signal again.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


# Until gunicorn has given a worker handlers of its own, it has those of the master, which do nothing there: a worker
# told to end as it starts would never hear of it, and be killed when the time for a graceful end is over. So the signal
# waits in a new worker until it has been set up.
os.register_at_fork(
    before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
    after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]),
)
Server().run()
