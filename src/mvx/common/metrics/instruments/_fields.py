"""What attributes the events of a class have, as far as the class itself can tell."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from functools import partialmethod
from types import FunctionType, MethodDescriptorType
from typing import Any

from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._text import name_of

_METHODS = (FunctionType, classmethod, staticmethod, partialmethod, MethodDescriptorType)
"""What gives something to be called; the last are those written in C, as a tuple's ``count``."""
_AFTER_THE_FIELDS = ("__post_init__", "__attrs_pre_init__", "__attrs_post_init__")
"""What dataclasses, attrs and msgspec call, besides the constructor that they make."""


def check_attribute(argument: str, path: str, events: Iterable[type[MetricEvent]]) -> None:
    """Check that every event of these classes has the attribute ``path``, as far as can be known.

    Of a dotted path only the first name is checked.  A class with a constructor of the user's, which may set anything,
    and one with a ``__getattr__`` cannot be known from outside: they are taken at the user's word.

    :raises ValueError: if a class has no such attribute, or has a method of that name
    """
    name = path.partition(".")[0]
    for event in events:
        if _is_method(event, name):
            msg = f"argument {argument!r}: {name_of(event)}.{name} is a method; pass a callable that calls it"
            raise ValueError(msg)
        names = _names_of(event)
        if name not in names and not _may_have_more(event):
            public = sorted(known for known in names if not known.startswith("_") and not _is_method(event, known))
            known = ", ".join(public) or "no attributes"
            msg = f"argument {argument!r}: {name_of(event)} has no attribute {name!r}; it has {known}"
            raise ValueError(msg)


def _is_method(event: type[Any], name: str) -> bool:
    return isinstance(inspect.getattr_static(event, name, None), _METHODS)


def _names_of(event: type[Any]) -> set[str]:
    """Return what an instance has: fields, slots, properties and class attributes."""
    names: set[str] = set(getattr(event, "__struct_fields__", ()))  # msgspec
    if dataclasses.is_dataclass(event):
        names.update(field.name for field in dataclasses.fields(event))
    for base in event.__mro__[:-1]:
        names.update(vars(base))
        names.update(field.name for field in vars(base).get("__attrs_attrs__", ()))
        # A dataclass also annotates what becomes no attribute, as an InitVar does; its fields are in already.
        if "__dataclass_fields__" not in vars(base):
            names.update(inspect.get_annotations(base))
    return names


def _may_have_more(event: type[Any]) -> bool:
    asked: object = event.__getattribute__
    # A tuple has one of its own, which does what any other does.
    if hasattr(event, "__getattr__") or asked not in (object.__getattribute__, tuple.__getattribute__):
        return True
    if not event.__dictoffset__:  # nothing but slots
        return False
    # Instances have a __dict__: all is told only if nobody but the declared fields is asked what to put into it.
    declared = any(_is_declared(base) for base in event.__mro__)
    return not declared or any(_may_set_more(base) for base in event.__mro__[:-1])


def _is_declared(base: type[Any]) -> bool:
    """Whether the class declares the fields of its instances."""
    own = vars(base)
    return "__dataclass_fields__" in own or "__attrs_attrs__" in own or "__struct_fields__" in own


def _may_set_more(base: type[Any]) -> bool:
    """Whether code of the user's runs as an instance is made."""
    own = vars(base)
    if any(name in own for name in _AFTER_THE_FIELDS):
        return True
    if "__dataclass_params__" in own:
        return not own["__dataclass_params__"].init
    init = own.get("__init__")
    if init is None or "__struct_fields__" in own:
        return False
    return not ("__attrs_attrs__" in own and init.__code__.co_filename.startswith("<attrs generated"))
