"""A process made by multiprocessing, with the start method fork, emits to the recorder that it inherited, and ends."""

import multiprocessing

from reliability.common import PATIENCE, Emitter, Seen, new_recorder, new_runtime, perform, tell
from reliability.situation import PROCESSES, Situation

SITUATION = Situation(
    "a process that `multiprocessing` has forked emits 100 events and returns from its target",
    PROCESSES,
    long=10,
    quick=1,
)


def once() -> None:
    runtime = new_runtime()
    recorder = new_recorder(runtime)
    recorder.register_metric(metric=Seen())
    emitter = Emitter(recorder)
    emitter.emit_all(100)
    recorder.get_metric_snapshots()
    process = multiprocessing.get_context("fork").Process(target=emitter.emit_all, args=(100,))
    process.start()
    process.join(PATIENCE)
    if process.exitcode is None:
        tell(f"the child did not end within {PATIENCE:g} s and was killed")
        process.kill()
        process.join()
    else:
        tell(f"the child ended with exit code {process.exitcode}")
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
