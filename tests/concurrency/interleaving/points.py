"""Where a thread can be preempted, and where it makes a difference: what each instruction does.

CPython 3.11 to 3.13 with the interpreter lock looks at its eval breaker, and so can change threads or run
a signal handler, at three places only: when a function is entered, at a backward jump, and after a call.
``test_interleavings.py`` measures that.

A switch between two instructions that touch nothing shared makes no difference.  Shared is every call into C,
every subscript and container operation, and every attribute that is assigned outside of a constructor and that
one thread has been seen to assign and another to use.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from enum import Enum, auto
from types import CodeType, FrameType
from typing import Final, TypeVar

from mvx.common.metrics import (
    _actor,
    _copying,
    _core,
    _dispatch,
    _hub,
    _inbox,
    _lifecycle,
    _plain,
    _recorder,
    _room,
    _rounds,
    _run,
    _statistics,
    _timetable,
    _waiting,
)

F = TypeVar("F", bound=Callable[..., object])

MODULES: Final = (
    _actor,
    _copying,
    _core,
    _dispatch,
    _hub,
    _inbox,
    _lifecycle,
    _plain,
    _recorder,
    _room,
    _rounds,
    _run,
    _statistics,
    _timetable,
    _waiting,
)
"""The code in which threads are switched."""


class Points(Enum):
    """Where a thread may be preempted."""

    BREAKER = auto()
    """Where the interpreter looks at its eval breaker."""
    COLLECTOR = auto()
    """There, and where 3.11 runs the garbage collector: at each allocation of a container.

    The collector runs finalizers, and in these the eval breaker is looked at again.  From 3.12 on it runs
    where the eval breaker is looked at, and this is the same as BREAKER.
    """
    EVERY = auto()
    """Before every instruction that touches something shared.

    That is what a Python without the interpreter lock could do, with each such instruction still one step.
    """


# What an instruction does; plain numbers, because the trace function has no time to lose.
POINT: Final = 1
"""May be preempted before it."""
TOUCHES: Final = 2
"""Reads or writes something that other threads may see."""
CALLS: Final = 4
"""May be preempted after it."""
WRITES: Final = 8
"""Assigns the attribute that it touches."""

Plan = dict[int, tuple[int, str | None, int]]
"""What each instruction does, the attribute that it does it to, and where the next instruction is; by its offset."""

_CALLING: Final = frozenset({"CALL", "CALL_KW", "CALL_FUNCTION_EX", "BEFORE_WITH"})
_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"})
_CONTAINERS: Final = frozenset(
    {
        "BINARY_SUBSCR",
        "STORE_SUBSCR",
        "DELETE_SUBSCR",
        "BINARY_SLICE",
        "STORE_SLICE",
        "CONTAINS_OP",
        "GET_ITER",
        "FOR_ITER",
        "LIST_EXTEND",
        "SET_UPDATE",
        "DICT_UPDATE",
        "DICT_MERGE",
        "UNPACK_SEQUENCE",
        "UNPACK_EX",
    }
)
_ALLOCATES: Final = frozenset(
    {
        "BUILD_LIST",
        "BUILD_TUPLE",
        "BUILD_MAP",
        "BUILD_SET",
        "BUILD_SLICE",
        "BUILD_CONST_KEY_MAP",
        "LIST_TO_TUPLE",
        "MAKE_FUNCTION",
        "GET_ITER",
        "UNPACK_EX",
        "RETURN_GENERATOR",
        "BINARY_SLICE",
        "BINARY_SUBSCR",
    }
)
_CONSTRUCTORS: Final = frozenset({"__init__", "reset", "after_fork", "after_fork_in_child"})
"""What runs while no other thread knows the object."""

_COLLECTS_ANYWHERE: Final = sys.version_info < (3, 12)
_files: Final = frozenset(str(module.__file__) for module in MODULES)
_interleaved: Final[set[CodeType]] = set()
_data: Final[set[str]] = set()
"""The attributes that the code assigns, and that are no methods therefore."""
_changing: Final[set[str]] = set()
"""Those of them that it assigns outside of a constructor."""


def interleaved(function: F) -> F:
    """Switch threads in ``function``, too: a stand-in that takes the steps of the protocol itself."""
    for code in _codes(inspect.unwrap(function).__code__):
        _interleaved.add(code)
        _note_assignments(code)
    return function


def is_interleaved(code: CodeType) -> bool:
    """Whether threads are switched in this code or in what it calls."""
    return code.co_filename in _files or code in _interleaved


def is_traced(code: CodeType) -> bool:
    """Whether threads are switched in this code itself."""
    return is_interleaved(code) and code.co_name not in _CONSTRUCTORS


def innermost(frame: FrameType | None) -> FrameType | None:
    """The frame or the nearest of its callers in the package's own code."""
    while frame is not None and frame.f_code.co_filename not in _files:
        frame = frame.f_back
    return frame


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _note_assignments(code: CodeType) -> None:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_ATTR", "DELETE_ATTR"):
            _data.add(instruction.argval)
            if code.co_name not in _CONSTRUCTORS:
                _changing.add(instruction.argval)


for _module in MODULES:
    for _code in _codes(compile(inspect.getsource(_module), str(_module.__file__), "exec")):
        _note_assignments(_code)


def plan(code: CodeType, points: Points, *, whole: bool) -> Plan:
    """Say what the instructions of ``code`` do.

    :param whole: whether to include those that do nothing of interest, because Ctrl-C may come before them
    """
    planned: Plan = {}
    before: dis.Instruction | None = None
    prefix: list[int] = []
    instructions = list(dis.get_instructions(code))
    ends = [*(instruction.offset for instruction in instructions[1:]), len(code.co_code)]
    for instruction, end in zip(instructions, ends, strict=True):
        if instruction.opname == "EXTENDED_ARG":
            # Seen in place of the instruction that it belongs to.
            prefix.append(instruction.offset)
            continue
        does, name = _touched(instruction, before, in_constructor=code.co_name in _CONSTRUCTORS)
        if points is Points.EVERY or _is_point(instruction, points):
            does |= POINT
        if does & ~POINT or (does and points is not Points.EVERY) or whole:
            for offset in (*prefix, instruction.offset):
                planned[offset] = does, name, end
        prefix.clear()
        before = instruction
    return planned


def _touched(
    instruction: dis.Instruction, before: dis.Instruction | None, *, in_constructor: bool
) -> tuple[int, str | None]:
    """What an instruction does to something shared, and to which attribute if it is one."""
    opname = instruction.opname
    if opname in _CALLING:
        return TOUCHES | CALLS, None
    if opname in _ATTRIBUTES:
        if in_constructor or instruction.argval not in _changing:
            return 0, None
        return TOUCHES if opname.startswith("LOAD") else TOUCHES | WRITES, instruction.argval
    if opname in _CONTAINERS:
        return TOUCHES, None
    asks_for_truth = ("JUMP_IF" in opname and not opname.endswith("NONE")) or opname == "TO_BOOL"
    if asks_for_truth and before is not None and before.opname == "LOAD_ATTR":
        return TOUCHES, None  # the truth of a container is its length
    return 0, None


def _is_point(instruction: dis.Instruction, points: Points) -> bool:
    opname = instruction.opname
    if "JUMP_BACKWARD" in opname and "NO_INTERRUPT" not in opname:
        return True
    if points is not Points.COLLECTOR or not _COLLECTS_ANYWHERE:
        return False
    makes_a_bound_method = opname == "LOAD_ATTR" and instruction.argval not in _data
    return opname in _ALLOCATES or makes_a_bound_method
