"""How much latency does an emit add to a request of an asyncio web server?  uvicorn and a loopback client."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time

from benchmarks.workload import Figures, Settings, answer, percentile

CONTENDERS = ("none", "asyncio", "uvloop", "trio", "mvx-common", "prometheus-labels", "opentelemetry")
EVENTS_A_REQUEST = 10


def measure(told: Settings) -> Figures:
    """Ask one thing after the other over one connection; the server lives in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.web_server", told.contender, str(port)], stdin=subprocess.PIPE
    )
    try:
        connection = _connected(port)
        for _ in range(told.times(500, 50)):
            _ask(connection)
        costs = sorted(_ask(connection) for _ in range(told.times(5_000, 300)))
    finally:
        server.terminate()
        server.wait(30)
    return {f"p{share * 100:g}_us": percentile(costs, share) / 1e3 for share in (0.5, 0.99)}


def _connected(port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.connect()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return connection


def _ask(connection: http.client.HTTPConnection) -> int:
    began = time.perf_counter_ns()
    connection.request("GET", "/")
    connection.getresponse().read()
    return time.perf_counter_ns() - began


if __name__ == "__main__":
    answer(measure)
