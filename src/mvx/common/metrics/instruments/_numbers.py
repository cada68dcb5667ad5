"""What counts as a measured number."""

from __future__ import annotations

import math
import numbers
import sys
from typing import Any

LARGEST = sys.float_info.max
"""Above this a number is as good as infinite: sums with floats would fail."""

NAN = math.nan


def converted(value: object) -> float:
    """Return ``value`` as exactly an int or a float; what is no number becomes NaN, which fails every comparison.

    A number is an int, a float, or another ``numbers.Number`` that ``float()`` takes: a Decimal, a
    Fraction, a scalar of numpy.  What is integral stays exact.  A bool is a flag and not a number.
    """
    if isinstance(value, bool):
        return NAN
    if isinstance(value, int):
        return int(value)
    if isinstance(value, numbers.Number):
        number: Any = value
        try:
            return int(number) if isinstance(number, numbers.Integral) else float(number)
        except (TypeError, ValueError, OverflowError):  # complex, a signalling NaN, a Fraction too large
            return NAN
    return NAN


def fault_of(value: object) -> str:
    """Say what is wrong with a value that was refused."""
    number = converted(value)
    if isinstance(value, (bool, complex)) or not isinstance(value, numbers.Number):
        return "not a number"
    if -LARGEST <= number < 0:
        return "negative"
    return "not finite" if not -LARGEST <= number <= LARGEST else "too large to add"


def finite(number: float) -> float | None:
    """Return ``number``, or None where arithmetic has left the range of a float: JSON has no infinity."""
    return number if -LARGEST <= number <= LARGEST else None
