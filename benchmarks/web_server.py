"""The server of ``bench_web``: each request emits a few events, in the handler, on the server's loop."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from benchmarks.bench_web import EVENTS_A_REQUEST
from benchmarks.contenders import CONTENDERS, open_contender

Message = dict[str, Any]
ANSWER = b"saved\n"


def application(emit: Callable[[Any], object], items: Any) -> Any:
    """Make an ASGI application; written by hand, so that nothing but the emits differs."""
    coming = itertools.cycle(items)

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        for _ in range(EVENTS_A_REQUEST):
            emit(next(coming))
        headers = [(b"content-length", str(len(ANSWER)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})

    return app


def main(name: str, port: int) -> None:
    """Serve until SIGTERM."""
    with contextlib.ExitStack() as stack:
        if name in CONTENDERS:
            subject = stack.enter_context(open_contender(name))
            app = application(subject.emit, subject.items)
        else:
            app = application(lambda item: None, (None,))
        # The same loop for all: what is compared is what an emit adds.
        uvicorn.run(app, port=port, log_level="error", lifespan="off", loop="asyncio", http="h11")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
