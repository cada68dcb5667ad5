"""Argument checks: what passes comes back, what does not is named in the error."""

from __future__ import annotations

import math
import re
from collections import UserDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from mvx.common.metrics import FailurePolicy, OverflowPolicy
from mvx.common.metrics import _validation as valid


def _overflow(argument: str, value: object) -> OverflowPolicy:
    return valid.member(argument, value, OverflowPolicy)


def _entity(_argument: str, value: object) -> str:
    return valid.entity_id(value)


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (valid.identifier, "orders", "orders"),
        (valid.identifier, "\t orders\n", "orders"),
        (valid.text, "", ""),
        (valid.text, " a ", " a "),
        (valid.given, " ", " "),
        (valid.options, None, {}),
        (valid.options, {"debug": True}, {"debug": True}),
        (valid.options, UserDict(debug=True), {"debug": True}),
        (valid.positive_int, 1, 1),
        (valid.positive_int, 10**30, 10**30),
        (valid.seconds, 0, 0.0),
        (valid.seconds, 3, 3.0),
        (valid.seconds, 0.25, 0.25),
        (valid.optional_seconds, None, None),
        (valid.optional_seconds, 2, 2.0),
        (_overflow, OverflowPolicy.BLOCK, OverflowPolicy.BLOCK),
        (_entity, " x ", "x"),
    ],
)
def test_a_good_value_comes_back(check: Callable[[str, object], Any], value: object, result: object) -> None:
    """A check returns the value in the form that the library works with."""
    returned = check("name", value)
    assert returned == result
    assert type(returned) is type(result)


@pytest.mark.parametrize(
    ("check", "value", "kind"),
    [
        (valid.identifier, None, ValueError),
        (valid.identifier, "", ValueError),
        (valid.identifier, " \n\t", ValueError),
        (valid.identifier, 1, TypeError),
        (valid.identifier, b"orders", TypeError),
        (valid.text, None, TypeError),
        (valid.text, 1.5, TypeError),
        (valid.given, None, ValueError),
        (valid.given, ["x"], TypeError),
        (valid.options, [("debug", True)], TypeError),
        (valid.options, "debug", TypeError),
        (valid.function, None, TypeError),
        (valid.function, "MetricsRecorder", TypeError),
        (valid.positive_int, True, TypeError),
        (valid.positive_int, False, TypeError),
        (valid.positive_int, 1.0, TypeError),
        (valid.positive_int, "1", TypeError),
        (valid.positive_int, None, TypeError),
        (valid.positive_int, 0, ValueError),
        (valid.positive_int, -7, ValueError),
        (valid.seconds, True, TypeError),
        (valid.seconds, "1", TypeError),
        (valid.seconds, None, TypeError),
        (valid.seconds, Decimal(1), TypeError),
        (valid.seconds, -0.001, ValueError),
        (valid.seconds, math.inf, ValueError),
        (valid.seconds, math.nan, ValueError),
        (valid.optional_seconds, False, TypeError),
        (valid.optional_seconds, -1, ValueError),
        (valid.optional_seconds, math.inf, ValueError),
        (_overflow, "DROP", TypeError),
        (_overflow, None, TypeError),
        (_overflow, FailurePolicy.FAIL, TypeError),
        (_overflow, OverflowPolicy, TypeError),
    ],
)
def test_a_bad_value_is_named(check: Callable[[str, object], Any], value: object, kind: type[Exception]) -> None:
    """The error is of the documented type and its message names the argument and the value."""
    with pytest.raises(kind, match=rf"^argument 'the_name' must be .*, got {re.escape(repr(value))}$"):
        check("the_name", value)


@pytest.mark.parametrize(("value", "kind"), [(None, ValueError), (7, TypeError), (b"x", TypeError)])
def test_a_bad_entity_id_is_named(value: object, kind: type[Exception]) -> None:
    """None and what is not a str are refused by name."""
    with pytest.raises(kind, match=rf"argument 'entity_id' must be a str, got {re.escape(repr(value))}"):
        valid.entity_id(value)


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_a_blank_entity_id_is_generated(blank: str) -> None:
    """Eight hexadecimal digits stand in for a blank id, other ones each time."""
    first, second = valid.entity_id(blank), valid.entity_id(blank)
    assert re.fullmatch("[0-9a-f]{8}", first)
    assert re.fullmatch("[0-9a-f]{8}", second)
    assert first != second


def test_options_are_a_copy() -> None:
    """Changing the mapping afterwards changes nothing."""
    given = {"debug": True}
    kept = valid.options("backend_options", given)
    given["debug"] = False
    assert kept == {"debug": True}


def test_a_huge_int_is_no_number_of_seconds() -> None:
    """An int beyond what a float can hold is out of range, not an OverflowError."""
    with pytest.raises(ValueError, match="argument 'linger' must be a finite number of seconds"):
        valid.seconds("linger", 10**400)


def test_function_takes_whatever_can_be_called() -> None:
    """A class, a lambda, a bound method."""
    callables: list[object] = [dict, lambda: None, [].append]
    for value in callables:
        valid.function("factory", value)
