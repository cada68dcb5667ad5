"""One event, "a document was saved", as every kind of class that it may be; a function makes each, to be timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mvx.common.metrics import MetricEvent

EVENT_TYPE = "documents.saved"


def dataclass_slots() -> type[Any]:
    """What the documentation uses."""
    from dataclasses import dataclass  # noqa: PLC0415 — each kind brings its own

    @dataclass(frozen=True, slots=True)
    class Saved(MetricEvent):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def dataclass_dict() -> type[Any]:
    """Without slots."""
    from dataclasses import dataclass  # noqa: PLC0415 — each kind brings its own

    @dataclass(frozen=True)
    class Saved(MetricEvent):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def dataclass_mutable() -> type[Any]:
    """Not frozen: immutable by agreement."""
    from dataclasses import dataclass  # noqa: PLC0415 — each kind brings its own

    @dataclass(slots=True)
    class Saved(MetricEvent):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def attrs_frozen() -> type[Any]:
    """With the slots that attrs makes by default."""
    import attrs  # noqa: PLC0415 — each kind brings its own

    @attrs.frozen
    class Saved(MetricEvent):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def attrs_define() -> type[Any]:
    """Not frozen: immutable by agreement."""
    import attrs  # noqa: PLC0415 — each kind brings its own

    @attrs.define
    class Saved(MetricEvent):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def slotted() -> type[Any]:
    """Written by hand, immutable by agreement."""

    class Saved(MetricEvent):
        __slots__ = ("outcome", "seconds")
        event_type = EVENT_TYPE

        def __init__(self, outcome: str, seconds: float) -> None:
            self.outcome = outcome
            self.seconds = seconds

    return Saved


def named_tuple() -> type[Any]:
    """A tuple with names, and a MetricEvent on top."""
    from typing import NamedTuple  # noqa: PLC0415 — each kind brings its own

    class Fields(NamedTuple):
        outcome: str
        seconds: float

    class Saved(Fields, MetricEvent):
        __slots__ = ()
        event_type = EVENT_TYPE

    return Saved


def msgspec_struct(**options: bool) -> type[Any]:
    """With a metaclass that is both, of which a program needs one."""
    from abc import ABCMeta  # noqa: PLC0415 — each kind brings its own

    import msgspec  # noqa: PLC0415 — each kind brings its own

    class EventStructMeta(msgspec.StructMeta, ABCMeta):
        pass

    class EventStruct(msgspec.Struct, MetricEvent, metaclass=EventStructMeta, frozen=True):
        pass

    class Saved(EventStruct, frozen=True, **options):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


def msgspec_untracked() -> type[Any]:
    """Out of the garbage collector's sight: for fields that refer to nothing which could refer back."""
    return msgspec_struct(gc=False)


def msgspec_registered() -> type[Any]:
    """A virtual subclass, which a type checker does not take for an event."""
    import msgspec  # noqa: PLC0415 — each kind brings its own

    @MetricEvent.register
    class Saved(msgspec.Struct, frozen=True):
        event_type = EVENT_TYPE
        outcome: str
        seconds: float

    return Saved


KINDS: dict[str, Callable[[], type[Any]]] = {
    "dataclass-slots": dataclass_slots,
    "dataclass": dataclass_dict,
    "dataclass-mutable": dataclass_mutable,
    "attrs-frozen": attrs_frozen,
    "attrs-define": attrs_define,
    "slotted-class": slotted,
    "named-tuple": named_tuple,
    "msgspec": msgspec_struct,
    "msgspec-untracked": msgspec_untracked,
    "msgspec-registered": msgspec_registered,
}
"""Every kind, the documentation's first."""
