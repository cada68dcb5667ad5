"""A process forks with events pending; the child emits, too, shuts the runtime down, and ends; so does the parent."""

import os
import signal

from reliability.common import PATIENCE, Emitter, Slow, look, new_recorder, new_runtime, perform, short, tell, until
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "`os.fork()` with 100 events pending; parent and child emit 100 more each and shut down",
    PROCESSES,
    long=10,
    quick=1,
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Slow(0.0005))
    emitter = Emitter(recorder)
    emitter.emit_all(100)
    child = os.fork()
    if not child:
        emitter.emit_all(100)
        try:
            runtime.shutdown()
        except Exception as error:
            tell(f"shutdown() in the child raises {short(error)}")
        else:
            tell("shutdown() in the child returns")
        look()
        os._exit(0)
    emitter.emit_all(100)
    ended = until(lambda: os.waitpid(child, os.WNOHANG)[0])
    if not ended:
        tell(f"the child did not end within {PATIENCE:g} s and was killed")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
