"""A runtime that every process makes as soon as it imports this module, and never shuts down."""

import multiprocessing

from tests.processes.programs.common import VARIANT, Witness, become, new_runtime, report
from tests.support import Tick


def work() -> None:
    become("child")
    for n in range(40):
        recorder.register_event(Tick(n))


if multiprocessing.current_process().name != "MainProcess":
    become("child")
runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
if __name__ == "__main__":
    process = multiprocessing.get_context(VARIANT).Process(target=work)  # type: ignore[attr-defined] # because a base context knows no Process
    process.start()
    process.join()
    report("child ended", code=process.exitcode)
