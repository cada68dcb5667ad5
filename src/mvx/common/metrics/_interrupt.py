"""What may cut a call short: the exceptions of user code, Ctrl-C, the end of the stack."""

from __future__ import annotations

import threading


def is_for_the_thread(error: BaseException) -> bool:
    """Whether ``error`` is Ctrl-C, which only the main thread gets, rather than some user code's own doing."""
    return holds(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether ``error`` is of a kind, or a group with one of the kind in it."""
    # Not by recursion: groups may be nested deeper than the stack.
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseExceptionGroup):
            if isinstance(one, kind):
                return True
        else:
            # Neither its split() nor its own attribute: a subclass may have spoilt them.
            waiting.extend(vars(BaseExceptionGroup)["exceptions"].__get__(one))
    return False


def forget_traceback(error: BaseException) -> None:
    """Cut ``error``, which has been dealt with, off from the frames that it came through.

    They keep alive whatever their variables hold, and one and the same object that is raised again and again
    gets longer with each time.
    """
    # Not by the attribute: a class may have its own ideas about that.
    BaseException.with_traceback(error, None)


STACK_TO_SPARE = 64
"""More frames than any operation goes down, a debugging event loop and a log record included."""


def ensure_stack(frames: int = STACK_TO_SPARE) -> None:
    """Raise RecursionError now rather than in the midst of what cannot be left half done.

    Undoing needs stack, too: where it ends, an operation can be neither completed nor taken back.
    """
    if frames:
        ensure_stack(frames - 1)
