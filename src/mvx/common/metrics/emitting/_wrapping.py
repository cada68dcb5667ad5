"""Functions of each kind, timed: a wrapper is of its function's kind, and does what a ``with`` around the body would.

A generator is driven by hand and not by ``yield from``, which would close it where somebody throws a GeneratorExit
into it, and lose what it then returns.  So the body decides how it ends, as it would undecorated.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import CodeType, CoroutineType, TracebackType, coroutine
from typing import Any

from ._emitter import MetricsEmitter
from ._timing import Timing

Function = Callable[..., Any]
Find = Callable[[tuple[Any, ...]], MetricsEmitter | None]
"""Returns the emitter for a call with such arguments, or None where nobody listens."""


def wrapped(function: Function, find: Find, timing: Timing) -> Function:
    """Return ``function``, timed by ``timing``; of the same kind, under the same name."""
    for is_of_kind, wrap in _KINDS:
        # An instance with a __call__ of a kind is not itself of that kind to inspect.
        if is_of_kind(function) or is_of_kind(getattr(type(function), "__call__", None)):  # noqa: B004 — not whether, but what
            return functools.wraps(function)(wrap(function, find, timing))
    return functools.wraps(function)(_plain(function, find, timing))


def _plain(function: Function, find: Find, timing: Timing) -> Function:
    def timed(*args: Any, **kwargs: Any) -> Any:
        emitter = find(args)
        if emitter is None:
            return function(*args, **kwargs)
        began = timing.begin()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            timing.end(emitter, began, exc)
            raise
        if type(result) is CoroutineType:
            # It has only been made.  A wrong time would be worse than none.
            emitter.emit_lazily(_refuse_coroutine, function)
        else:
            timing.end(emitter, began, None)
        return result

    return timed


def _refuse_coroutine(function: Function) -> None:
    name = getattr(function, "__qualname__", function)
    msg = f"{name} has returned a coroutine without being a coroutine function; put observe() right above 'async def'"
    raise TypeError(msg)


def _coroutine_function(function: Function, find: Find, timing: Timing) -> Function:
    async def timed(*args: Any, **kwargs: Any) -> Any:
        emitter = find(args)
        if emitter is None:
            return await function(*args, **kwargs)
        began = timing.begin()
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            timing.end(emitter, began, exc)
            raise
        timing.end(emitter, began, None)
        return result

    return timed


def _generator_function(function: Function, find: Find, timing: Timing) -> Function:
    def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        emitter = find(args)
        began = None if emitter is None else timing.begin()
        sent = thrown = None
        while True:
            try:
                # No variable for the item: nothing may keep it alive that would not without the wrapper.
                sent = yield (body.send(sent) if thrown is None else body.throw(thrown))
                thrown = None
            except BaseException as exc:
                if body.gi_frame is None:
                    thrown = None  # it may be the same exception, whose traceback holds this frame
                    returned = isinstance(exc, StopIteration)
                    if emitter is not None:
                        timing.end(emitter, began, None if returned else exc)
                    if isinstance(exc, StopIteration):
                        return exc.value
                    raise
                # Not the body's, which is suspended: thrown into the wrapper.  It is handed on outside of this
                # handler, lest it become the context of whatever the body raises later.
                thrown = _as_it_came(exc)

    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType) and code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return coroutine(timed)
    return timed


def _async_generator_function(function: Function, find: Find, timing: Timing) -> Function:
    async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        emitter = find(args)
        began = None if emitter is None else timing.begin()
        step = _first_step(body)
        while True:
            thrown = None
            try:
                sent = yield await step
            except BaseException as exc:
                if body.ag_frame is None:
                    del step  # it may hold the same exception
                    returned = isinstance(exc, StopAsyncIteration)
                    if emitter is not None:
                        timing.end(emitter, began, None if returned else exc)
                    if returned:
                        return
                    raise
                thrown = _as_it_came(exc)
            step = body.asend(sent) if thrown is None else body.athrow(thrown)

    return timed


def _first_step(body: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Begin an async generator unheard of by the event loop.

    A loop closes at its end what has been left open, all at once: the wrapper, which closes its body, and the body
    would get in each other's way.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.asend(None)  # it looks for the hooks here, and runs when it is awaited
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _as_it_came(error: BaseException) -> BaseException:
    """Take the wrapper's frame off from what has been thrown into it."""
    traceback: TracebackType | None = vars(BaseException)["__traceback__"].__get__(error)
    return BaseException.with_traceback(error, None if traceback is None else traceback.tb_next)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Function, Find, Timing], Function]], ...] = (
    (inspect.iscoroutinefunction, _coroutine_function),
    (inspect.isasyncgenfunction, _async_generator_function),
    (inspect.isgeneratorfunction, _generator_function),
)
