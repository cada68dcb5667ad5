"""Sub-interpreters of both kinds refuse the library with a clear error, while the main interpreter works on."""

import os
import sys
import threading
from typing import Any

from tests.processes.programs.common import (
    BACKENDS,
    DEADLINE,
    NAME,
    VARIANT,
    Witness,
    become,
    exit_code_of,
    new_runtime,
    report,
    report_statistics,
    total_of,
)
from tests.support import Tick

# What runs in the sub-interpreter, which shares nothing with this one but the standard streams.
INSIDE = """
import sys
sys.path[:] = {path!r}
sys.argv[:] = ["sub", {name!r}]

def tell(what, **values):
    import json, os
    os.write(1, (json.dumps(dict(role="sub", what=what, **values)) + "\\n").encode())

try:
    import anyio
except ImportError as exc:
    tell("no anyio", error=repr(exc))
else:
    def attempt(what, function):
        try:
            function()
        except Exception as exc:
            tell(what, error=type(exc).__name__, message=str(exc))
        else:
            tell(what, error=None)

    from mvx.common.metrics import MetricsRecorder, MetricsRuntime

    def enter():
        with MetricsRuntime(namespace="sub", **options):
            pass

    async def start_on_a_loop():
        await MetricsRuntime(namespace="sub", **options).astart()

    async def make_on_a_loop():
        MetricsRecorder("sub")

    def on_a_loop(function):
        anyio.run(function, **loop_options)

    options, loop_options = {options!r}, {loop_options!r}
    runtime = MetricsRuntime(namespace="sub", **options)
    attempt("start", runtime.start)
    tell("state", state=runtime.get_status())
    attempt("create_recorder", lambda: runtime.create_recorder("r"))
    attempt("shutdown", runtime.shutdown)
    attempt("block", enter)
    attempt("recorder", lambda: MetricsRecorder("sub"))
    try:
        on_a_loop(anyio.lowlevel.checkpoint)
    except Exception as exc:
        tell("no loop", error=repr(exc))
    else:
        attempt("astart", lambda: on_a_loop(start_on_a_loop))
        attempt("recorder on a loop", lambda: on_a_loop(make_on_a_loop))
    tell("end")
"""


def interpreters() -> Any:
    """Return the module of CPython's that makes sub-interpreters; it has no public one in these versions."""
    if sys.version_info >= (3, 13):
        import _interpreters as module  # noqa: PLC0415 — only where it is there
    else:
        import _xxsubinterpreters as module  # type: ignore[import-not-found] # noqa: PLC0415 — likewise, and without types
    return module


def new_interpreter() -> Any:
    """Return the id of a new one: isolated, or of the kind that an embedding server makes."""
    if sys.version_info >= (3, 13):
        return interpreters().create(VARIANT)
    return interpreters().create(isolated=VARIANT == "isolated")


def live_in_another() -> None:
    """One life of a sub-interpreter."""
    interpreter = new_interpreter()
    options = dict(BACKENDS[NAME])
    code = INSIDE.format(
        path=sys.path,
        name=NAME,
        options=options,
        loop_options=options,
    )
    failure = interpreters().run_string(interpreter, code)
    if failure is not None:
        report("failed", error=str(failure))
    interpreters().destroy(interpreter)


def emit(count: int) -> None:
    for n in range(count):
        recorder.register_event(Tick(n))


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
emit(10)
live_in_another()
emit(10)
# In a thread of its own, as an embedding server would.
thread = threading.Thread(target=live_in_another)
thread.start()
thread.join(DEADLINE)
emit(10)
report("snapshot", total=total_of(recorder))
child = os.fork()
if child == 0:
    become("child")
    emit(5)
    sys.exit(0)
report("child ended", code=exit_code_of(child))
runtime.create_recorder("second", factory=Witness).register_event(Tick())
runtime.shutdown()
report_statistics("end", recorder, state=runtime.get_status())
