"""The trace function: sees every instruction of the package's code, and stops where another thread might go on.

A preemption is put off from the point at which the interpreter could change threads until just before the next
instruction that touches something shared; in between it makes no difference.  Which attributes are shared is learnt
from what the threads do, in this schedule and earlier ones.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any, Protocol

from tests.concurrency.interleaving.points import CALLS, POINT, TOUCHES, WRITES, Points, is_interleaved, is_traced, plan
from tests.concurrency.interleaving.thread import Thread

_WRITTEN = 1 << 30
"""Beside the bits of the threads that use an attribute: one of them assigns it."""


class Host(Protocol):
    """Whose threads are traced."""

    running: Thread | None
    over: bool
    """Whether the schedule is; then nothing matters any more."""
    interrupted: bool
    """Whether there has been a Ctrl-C in this schedule."""

    def may_preempt(self, me: Thread, frame: FrameType) -> None:
        """The running thread may be preempted right here, or hit by Ctrl-C."""
        ...


class Tracing:
    """The trace functions, one for each piece of code, and what they have learnt."""

    def __init__(self, host: Host, points: Points) -> None:
        self.shared: set[str] = set()
        """The attributes that threads have been seen to share."""
        self.has_learnt = False
        """Whether there are more of them than when this was last set to False."""
        self.whole = False
        """Whether to look at every instruction, because Ctrl-C may come before it."""
        self._host = host
        self._points = points
        # By id(), as code is slow to hash; the tracer keeps the code alive.
        self._tracers: dict[int, tuple[Any, CodeType]] = {}
        self._users: dict[str, int] = {}

    def begin(self) -> None:
        """Trace the calling thread, also after an exception of the explorer's own.

        The interpreter gives a trace function up when that raises.
        """
        if sys.gettrace() != self._trace_call:
            sys.settrace(self._trace_call)

    def _trace_call(self, frame: FrameType, event: str, arg: object) -> Any:
        if self._host.over:
            return None
        code = frame.f_code
        tracer = self._tracers.get(id(code))
        if tracer is None:
            made = self._make_tracer(code) if is_traced(code) else None
            tracer = self._tracers[id(code)] = made, code
        if not tracer[0]:
            return None
        frame.f_trace_lines = False
        # Only a frame that has a trace function already gets to ask for instructions in 3.13, once for its code.
        frame.f_trace = tracer[0]
        frame.f_trace_opcodes = True
        me = self._host.running
        assert me is not None
        me.at_point = True
        if me.call is not None:
            caller, (called_by, start, end, dirty) = frame.f_back, me.call
            if caller is not None and caller.f_code is called_by and start <= caller.f_lasti < end:
                # Entered by the very call, which has touched nothing yet.
                me.dirty = me.pending = dirty
            me.call = None
        me.pending = me.pending or me.dirty
        return tracer[0]

    def _make_tracer(self, code: CodeType) -> Any:
        look_up = plan(code, self._points, whole=self.whole).get
        shared, host = self.shared, self._host

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if host.over:
                return trace
            me = host.running
            assert me is not None
            if event == "return":
                me.at_point = True
                me.pending = me.pending or me.dirty
            elif event == "opcode" and (found := look_up(frame.f_lasti)) is not None:
                does, name, end = found
                if does & POINT and me.dirty:
                    me.pending = True
                if me.interruptible and me.at_point and not host.interrupted:
                    # Not put off until something shared is touched: it matters in which `try` it is.
                    me.at_point = me.pending = me.dirty = False
                    host.may_preempt(me, frame)
                if does & TOUCHES and (name is None or name in shared or self._is_shared(name, me, does)):
                    if me.pending:
                        me.pending = me.dirty = False
                        host.may_preempt(me, frame)
                    if does & CALLS:
                        me.call = code, frame.f_lasti, end, me.dirty
                        me.pending = me.at_point = True
                    me.dirty = True
            return trace

        return trace

    def _is_shared(self, name: str, me: Thread, does: int) -> bool:
        """Take note of a use of an attribute; return whether one thread assigns it and another one uses it."""
        users = self._users.get(name, 0) | me.bit
        if does & WRITES:
            users |= _WRITTEN
        self._users[name] = users
        used = users & ~_WRITTEN
        if not users & _WRITTEN or used & (used - 1) == 0:
            return False
        self.shared.add(name)
        self.has_learnt = True
        return True


def see_instructions(frame: FrameType | None, *, on: bool) -> None:
    """Have the trace function told of each instruction of ``frame`` and its callers, or not.

    From 3.13 on that is a property of their code: who goes on after an interrupt has to ask again.
    """
    while frame is not None:
        if is_interleaved(frame.f_code):
            frame.f_trace_opcodes = on
        frame = frame.f_back


def _ask_for_instructions() -> None:
    """Have 3.12 trace instructions, which it does only if some frame has asked for them before settrace().

    Once and here, where nobody is being traced: a frame that asks while its own thread is not being traced,
    but another one is, makes it crash.
    """
    sys._getframe().f_trace_opcodes = True


_ask_for_instructions()
