"""Showing values that may not want to be shown."""

from __future__ import annotations

LIMIT = 200
"""Characters of a value that an error's message shows at most."""


def show(value: object) -> str:
    """Return ``repr(value)``, shortened, whatever that raises: a message about a fault must not add one."""
    try:
        text = repr(value)
    except Exception as exc:
        text = f"<{type(value).__qualname__} whose repr() raised {type(exc).__qualname__}>"
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"


def say(error: BaseException) -> str:
    """Return ``str(error)`` in the same way."""
    try:
        return str(error)
    except Exception as exc:
        return f"<{type(error).__qualname__} whose str() raised {type(exc).__qualname__}>"
