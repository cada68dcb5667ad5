"""Bells: any thread rings, a loop that watches a file descriptor wakes up, and nobody ever waits or takes a lock."""

from __future__ import annotations

import os
import socket
import sys
from typing import Protocol


class Bell(Protocol):
    """Rung by any thread, a signal handler or a finalizer; watched and silenced by one loop.

    Its descriptors are closed when nobody refers to it any more, and not before: a thread may be about to ring, and the
    system might have given the number to somebody else.
    """

    @property
    def reader(self) -> int | socket.socket:
        """Readable while the bell has been rung and not silenced."""
        ...

    def ring(self) -> None:
        """Wake whoever watches."""
        ...

    def silence(self) -> None:
        """Take all rings away."""
        ...


def new_bell() -> Bell:
    """Return a bell of the cheapest kind that the system has."""
    if sys.platform == "linux":
        try:
            return EventBell(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        except (AttributeError, OSError):  # a C library or a sandbox without it
            pass
    return SocketBell()


class EventBell:
    """A counter of the Linux kernel.  A snapshot under trio took 15 % longer with a pair of sockets."""

    __slots__ = ("reader",)

    def __init__(self, counter: int) -> None:
        """Take over a descriptor as :func:`os.eventfd` returns it, not blocking."""
        self.reader = counter

    def ring(self) -> None:
        try:
            os.eventfd_write(self.reader, 1)
        except BlockingIOError:
            pass  # rung often enough

    def silence(self) -> None:
        try:
            os.eventfd_read(self.reader)
        except BlockingIOError:
            pass  # it was not rung after all

    def __del__(self) -> None:
        os.close(self.reader)


class _End(socket.socket):
    """Left to the collector on purpose, so without a warning."""

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


class SocketBell:
    """A pair of sockets, for all other systems."""

    __slots__ = ("_writer", "reader")

    def __init__(self) -> None:
        """Open both."""
        self.reader, self._writer = (_End(fileno=end.detach()) for end in socket.socketpair())
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def ring(self) -> None:
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            pass  # rung often enough

    def silence(self) -> None:
        try:
            self.reader.recv(4096)  # what this leaves wakes the loop once more, in vain
        except BlockingIOError:
            pass  # it was not rung after all
