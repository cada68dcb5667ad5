"""Processes of the standard library, forked or spawned, with or without a shutdown of their own."""

import multiprocessing
import sys

from tests.processes.programs.common import DEADLINE, VARIANT, Witness, become, new_runtime, report
from tests.support import Tick

METHOD = VARIANT
FORGET = sys.argv[3] == "forget"


def emit(recorder: Witness, count: int) -> None:
    for n in range(count):
        recorder.register_event(Tick(n))


def use_inherited() -> None:
    become("child")
    emit(recorder, 40)
    if not FORGET:
        runtime.shutdown()


def use_own() -> None:
    become("child")
    own_runtime = new_runtime()
    emit(own_runtime.create_recorder("own", factory=Witness), 40)
    if not FORGET:
        own_runtime.shutdown()


if __name__ == "__main__":
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=Witness)
    emit(recorder, 10)
    recorder.flush().wait(DEADLINE)
    context = multiprocessing.get_context(METHOD)
    process = context.Process(target=use_inherited if METHOD == "fork" else use_own)  # type: ignore[attr-defined] # because a base context knows no Process
    process.start()
    emit(recorder, 10)
    process.join()
    report("child ended", code=process.exitcode)
    emit(recorder, 10)
