"""A fault that is planted in the code itself, for the explorer to find."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Mutant:
    """A method with some of its text replaced, and the scenario that finds that out."""

    name: str
    owner: type[Any]
    method: str
    old: str
    new: str
    case: str
    preemptions: int
    """As many as it takes; with fewer it goes unnoticed."""
    short: bool = True
    """Whether finding it takes no longer than the profile of every day allows."""

    def plant(self, patch: pytest.MonkeyPatch) -> None:
        """Put the mutant in the place of the method."""
        function = inspect.unwrap(vars(self.owner)[self.method])
        source = textwrap.dedent(inspect.getsource(function))
        assert self.old in source, f"{self.method}() has been changed, so this mutant has to be changed as well"
        # At the same lines of the same file: that is where the explorer looks, and what it reports.
        text = "\n" * (function.__code__.co_firstlineno - 1) + source.replace(self.old, self.new, 1)
        flags = __future__.annotations.compiler_flag
        code = compile(text, inspect.getfile(function), "exec", flags=flags, dont_inherit=True)
        space: dict[str, Any] = {}
        exec(code, vars(sys.modules[self.owner.__module__]), space)
        patch.setattr(self.owner, self.method, space[self.method])
