"""Argument checks that more than one constructor needs; each error names argument and value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from ._text import show

EnumT = TypeVar("EnumT", bound=Enum)


def _must_be(argument: str, wanted: str, value: object) -> str:
    return f"argument {argument!r} must be {wanted}, got {show(value)}"


def identifier(argument: str, value: object) -> str:
    """Return ``value`` stripped.

    :raises ValueError: if it is None or blank
    :raises TypeError: if it is not a str
    """
    stripped = given(argument, value).strip()
    if not stripped:
        raise ValueError(_must_be(argument, "a str that is not blank", value))
    return stripped


def entity_id(value: object) -> str:
    """Return ``value`` stripped, or eight random hexadecimal digits if it is blank.

    :raises ValueError: if it is None
    :raises TypeError: if it is not a str
    """
    return given("entity_id", value).strip() or os.urandom(4).hex()


def text(argument: str, value: object) -> str:
    """Return ``value``.

    :raises TypeError: if it is not a str
    """
    if not isinstance(value, str):
        raise TypeError(_must_be(argument, "a str", value))
    return value


def given(argument: str, value: object) -> str:
    """Return ``value``.

    :raises ValueError: if it is None
    :raises TypeError: if it is not a str
    """
    if value is None:
        raise ValueError(_must_be(argument, "a str", value))
    return text(argument, value)


def options(argument: str, value: object) -> dict[str, Any]:
    """Return ``value``, a mapping or None, as a dict of its own.

    :raises TypeError: if it is neither
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(_must_be(argument, "a mapping", value))
    return dict(value)


def function(argument: str, value: object) -> None:
    """Check that ``value`` can be called.

    :raises TypeError: if it cannot
    """
    if not callable(value):
        raise TypeError(_must_be(argument, "callable", value))


def positive_int(argument: str, value: object) -> int:
    """Return ``value``.

    :raises TypeError: if it is a bool or not an int
    :raises ValueError: if it is not above zero
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(_must_be(argument, "an int", value))
    if value <= 0:
        raise ValueError(_must_be(argument, "an int above zero", value))
    return value


def seconds(argument: str, value: object) -> float:
    """Return ``value`` as a float of seconds.

    :raises TypeError: if it is a bool or neither int nor float
    :raises ValueError: if it is negative, infinite or not a number
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(_must_be(argument, "a number of seconds", value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(_must_be(argument, "a finite number of seconds, zero or more", value))
    return number


def optional_seconds(argument: str, value: object) -> float | None:
    """Return ``value`` as a float of seconds, or None, which means no limit.

    :raises TypeError: if it is a bool or neither int, float nor None
    :raises ValueError: if it is negative, infinite or not a number
    """
    return None if value is None else seconds(argument, value)


def member(argument: str, value: object, enum: type[EnumT]) -> EnumT:
    """Return ``value``.

    :raises TypeError: if it is not a member of ``enum``
    """
    if not isinstance(value, enum):
        raise TypeError(_must_be(argument, f"a member of {enum.__name__}", value))
    return value
