"""Which interpreter of the process this is.

Sub-interpreters are refused: an isolated one may not start the daemon thread that a runtime lives on,
and none of them takes part in the process's forks and its exit, on which the promises about
pending events rest.
"""

from __future__ import annotations

import importlib
from functools import cache

REFUSAL = "mvx.common.metrics works in the main interpreter of a process only, and this is a sub-interpreter"

# CPython has no public way to ask before 3.14; the second name is that of 3.11 and 3.12.
_MODULES = ("_interpreters", "_xxsubinterpreters")


@cache
def in_subinterpreter() -> bool:
    """Return whether this is another interpreter than the process's main one."""
    for name in _MODULES:
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
