"""Showing values that may not want to be shown."""

from __future__ import annotations

from ._interrupt import is_for_the_thread

LIMIT = 200
"""Characters of a value that an error's message shows at most."""


def name_of(kind: type) -> str:
    """Return the qualified name of a class, which its metaclass may not want to tell."""
    name: str = vars(type)["__qualname__"].__get__(kind)
    return name


def show(value: object) -> str:
    """Return ``repr(value)``, shortened, whatever that raises: a message about a fault must not add one."""
    try:
        text = repr(value)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        text = f"<{name_of(type(value))} whose repr() raised {name_of(type(exc))}>"
    return _shortened(text)


def say(error: BaseException) -> str:
    """Return ``str(error)`` in the same way."""
    try:
        text = str(error)
    except BaseException as exc:
        if is_for_the_thread(exc):
            raise
        text = f"<{name_of(type(error))} whose str() raised {name_of(type(exc))}>"
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= LIMIT else text[: LIMIT - 1] + "…"
