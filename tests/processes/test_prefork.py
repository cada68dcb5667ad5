"""Under gunicorn, a preforking server, each worker has a runtime of its own and loses nothing of what it accepted."""

from __future__ import annotations

import http.client
import importlib.util
import json
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Effort, Tally
from tests.processes.launch import BACKENDS, Outcome, Running
from tests.support import until

EACH, BEFORE = 50, 7
"""Events for a request, and events where the runtime is made, as in the program."""

START = ("-W", "ignore", "-m", "tests.processes.programs.prefork")
"""Without the development mode: in it, gunicorn complains of files of its own."""

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")
needs_uvicorn = pytest.mark.skipif(
    importlib.util.find_spec("uvicorn_worker") is None, reason="uvicorn-worker is not installed"
)


class Connection(http.client.HTTPConnection):
    """To a server on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=15)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(15)
        self.sock.connect(self._path)


class Server:
    """One run of the program, and a client."""

    def __init__(self, directory: str, backend: str, worker: str, place: str, max_requests: int = 0) -> None:
        self.path = str(Path(directory) / f"{backend}-{worker}-{place}-{max_requests}")
        self.running = Running("prefork", backend, worker, place, self.path, max_requests, start=START)
        self.requests: Counter[int] = Counter()
        """How many requests each worker, by its process id, has answered."""

    def is_up(self) -> bool:
        """Whether it takes connections."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.path)
        except OSError:
            return self.running.has_ended
        return True

    def ask(self, path: str = "/") -> dict[str, Any]:
        """Make one request and return the answer; again, if the worker that took the connection ended before the request."""
        while True:
            connection = Connection(self.path)
            try:
                connection.request("GET", path, headers={"Connection": "close"})
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
            except (ConnectionError, http.client.RemoteDisconnected):
                assert not self.running.has_ended
            else:
                break
            finally:
                connection.close()
        self.requests[answer["pid"]] += 1
        return answer

    def serve(self, count: int) -> None:
        """Make ``count`` requests; each fifth wants to see what has been counted so far."""
        until(self.is_up)
        for n in range(count):
            if n % 5 < 4:
                self.ask()
            else:
                self.check(self.ask("/snapshot"))

    def check(self, answer: dict[str, Any]) -> None:
        """A snapshot contains every event that its worker has accepted, and those that were counted before the fork."""
        emitted = EACH * self.requests[answer["pid"]]
        assert answer["total"] == emitted + BEFORE
        assert answer["accepted"] in (emitted, emitted + BEFORE)

    def end(self) -> Outcome:
        """Tell the master to end, wait for everybody, and check that every worker has drained."""
        self.running.send(signal.SIGTERM)
        outcome = self.running.finish(deadline=40)
        stopped = {r["pid"]: r for r in outcome.all("stopped", "worker")}
        for pid, count in self.requests.items():
            end = stopped[pid]
            assert end["accepted"] == end["offered"] == end["processed"]
            assert end["total"] == EACH * count + BEFORE
            assert end["accepted"] in (EACH * count, EACH * count + BEFORE)
            assert end["pending"] == end["abandoned"] == 0
        assert len(outcome.all("stopped", "worker")) == len(stopped)
        return outcome


Key = tuple[str, str, str, int]

SYNC: list[Key] = [
    ("asyncio", "sync", "preload", 0),
    ("trio", "sync", "worker", 0),
    ("asyncio", "sync", "post_fork", 5),
]
RELOADED: Key = ("asyncio", "sync", "worker", 0)
UVICORN: list[Key] = [
    ("asyncio", "uvicorn", "preload", 0),
    ("uvloop", "uvicorn", "post_fork", 0),
    ("trio", "uvicorn", "worker", 5),
    ("asyncio", "uvicorn", "handler", 0),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[Key, Server]]:
    """All of them, begun before the first test: most of their time they wait."""
    has_uvicorn = importlib.util.find_spec("uvicorn_worker") is not None
    keys = [key for key in (*SYNC, RELOADED, *(UVICORN if has_uvicorn else ())) if key[0] in BACKENDS]
    with tempfile.TemporaryDirectory() as directory:
        all_servers = {key: Server(directory, *key) for key in keys}
        yield all_servers
        for server in all_servers.values():
            server.running.abandon()


def server_of(servers: dict[Key, Server], key: Key) -> Server:
    """The server of one test."""
    if key not in servers:
        pytest.skip(f"{key[0]} is not installed")
    return servers[key]


@pytest.mark.parametrize("key", SYNC, ids=lambda key: "-".join(map(str, key)))
def test_sync_workers(servers: dict[Key, Server], key: Key, effort: Effort, tally: Tally) -> None:
    """A runtime made before the fork or after it: at SIGTERM, and when a worker is replaced, its exit drains."""
    # Each worker that was replaced has left a line in the pipe of the program's output, which holds some 200.
    count = effort(20, 500 if key[3] else 1000)
    server = server_of(servers, key)
    server.serve(count)
    outcome = server.end()
    assert server.requests.total() == count
    if key[3]:
        # Replaced again and again, with nobody's events lost.
        assert len(server.requests) >= count // key[3]
    if key[2] == "preload":
        master = outcome.one("stopped")
        assert master["accepted"] == master["processed"] == master["total"] == BEFORE
    tally("requests through gunicorn", count)


def test_a_reload(servers: dict[Key, Server], effort: Effort, tally: Tally) -> None:
    """At SIGHUP new workers take over, and the old ones drain."""
    count = effort(10, 500)
    server = servers[RELOADED]
    server.serve(count)
    before = set(server.requests)
    server.running.send(signal.SIGHUP)
    until(lambda: server.ask()["pid"] not in before)
    server.serve(count)
    server.end()
    assert set(server.requests) > before
    tally("requests through gunicorn", 2 * count)


@needs_uvicorn
@pytest.mark.parametrize("key", UVICORN, ids=lambda key: "-".join(map(str, key)))
def test_uvicorn_workers(servers: dict[Key, Server], key: Key, effort: Effort, tally: Tally) -> None:
    """The application's lifespan shuts its runtime down, or a handler makes SIGTERM an exit: nothing is lost."""
    count = effort(20, 1000)
    server = server_of(servers, key)
    server.serve(count)
    assert server.requests.total() == count
    if key[3]:
        # Until one that has had enough requests has been replaced; uvicorn looks now and then.
        until(lambda: len(server.requests) > 2 or not server.ask())
    outcome = server.end()
    if key[2] == "handler":
        assert outcome.all("shut down") == []
    else:
        assert {r["state"] for r in outcome.all("shut down", "worker")} == {"CLOSED"}
        assert {r["pid"] for r in outcome.all("shut down", "worker")} >= set(server.requests)
    tally("requests through gunicorn", count)
