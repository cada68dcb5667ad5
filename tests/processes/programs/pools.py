"""Pools of processes of the standard library: each worker has a runtime, and drains it when it ends by itself."""

import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Event

from tests.processes.programs.common import DEADLINE, VARIANT, Witness, become, new_runtime, report, report_statistics
from tests.support import Tick

METHOD = sys.argv[3] if len(sys.argv) > 3 else "fork"
WORKERS = 2
TASKS = 20
EACH = 50

recorder: Witness


def begin() -> None:
    """In each worker: a runtime of its own, or the one that it has inherited."""
    global recorder  # noqa: PLW0603 — because tasks find it nowhere else
    become("worker")
    if METHOD != "fork":
        recorder = new_runtime().create_recorder("r", factory=Witness, linger=5)


def work(first: int) -> tuple[int, int]:
    for n in range(EACH):
        recorder.register_event(Tick(first + n))
    return os.getpid(), EACH


def work_and_die(_: int) -> None:
    work(0)
    os.kill(os.getpid(), signal.SIGKILL)


def work_for_ever(begun: Event) -> None:
    begin()
    if VARIANT == "handled":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        work(0)
        begun.set()


def report_tasks(done: list[tuple[int, int]]) -> None:
    report("tasks", emitted=sum(count for _, count in done), workers=len({pid for pid, _ in done}))


def use_a_pool(pool: Pool, *, close: bool) -> None:
    report_tasks(pool.map(work, range(TASKS), chunksize=1))
    if close:
        pool.close()
    else:
        pool.terminate()
    pool.join()


def kill_a_process() -> None:
    """In the midst of its work, by SIGTERM."""
    begun = context.Event()
    process = context.Process(target=work_for_ever, args=(begun,))  # type: ignore[attr-defined] # because a base context knows no Process
    process.start()
    begun.wait(DEADLINE)
    process.terminate()
    process.join()
    report("process", code=process.exitcode)


if __name__ == "__main__":
    runtime = new_runtime()
    recorder = runtime.create_recorder("r", factory=Witness, linger=5)
    work(0)
    context = multiprocessing.get_context(METHOD)
    if VARIANT in ("closed", "terminated", "recycled"):
        per_child = 3 if VARIANT == "recycled" else None
        use_a_pool(context.Pool(WORKERS, begin, maxtasksperchild=per_child), close=VARIANT in ("closed", "recycled"))
    elif VARIANT == "executor":
        with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=begin) as executor:
            report_tasks(list(executor.map(work, range(TASKS))))
    elif VARIANT == "broken":
        with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=begin) as executor:
            try:
                executor.submit(work_and_die, 0).result()
            except Exception as exc:  # because it is what is reported
                report("broken", error=type(exc).__name__)
    else:
        kill_a_process()
    work(0)
    runtime.shutdown()
    report_statistics("end", recorder)
