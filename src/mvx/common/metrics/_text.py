"""Showing values that may not want to be shown."""

from __future__ import annotations

from ._interrupt import is_for_the_thread

LIMIT = 200
"""Characters of a value that an error's message shows at most."""


def show(value: object) -> str:
    """Return ``repr(value)``, shortened, whatever that raises: a message about a fault must not add one."""
    try:
        text = repr(value)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        text = f"<{type(value).__qualname__} whose repr() raised {type(exc).__qualname__}>"
    return _shortened(text)


def say(error: BaseException) -> str:
    """Return ``str(error)`` in the same way."""
    try:
        text = str(error)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        text = f"<{type(error).__qualname__} whose str() raised {type(exc).__qualname__}>"
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"
