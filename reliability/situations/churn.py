"""Ten thousand recorders are made, used once and removed again."""

import gc
import threading
from pathlib import Path

from reliability.common import Emitter, Seen, figure, new_recorder, new_runtime, perform, scaled
from reliability.situation import ENDS, Situation

SITUATION = Situation("10 000 recorders are created, used and removed", ENDS, long=1, quick=0, deadline=120.0)
ROUNDS = 2
RECORDERS = 5_000


def resident_kib() -> int:
    """Return the memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def once() -> None:
    runtime = new_runtime()
    seen = Seen()
    emitter: Emitter | None = None
    before = threads = 0
    for number in range(ROUNDS):
        for n in range(scaled(RECORDERS)):
            # Not kept in mind, because it is about what the library keeps in mind.
            recorder = new_recorder(runtime, f"recorder {n}", is_known=False)
            recorder.register_metric(metric=seen)
            emitter = emitter or Emitter(recorder)
            emitter.recorder = recorder
            emitter.emit()
            runtime.stop_and_remove_recorder(f"recorder {n}")
        gc.collect()
        # The first round fills caches and pools; what grows after it goes on growing.
        if number == 0:
            before, threads = resident_kib(), threading.active_count()
    figure("KiB of memory more than after the first 5 000", resident_kib() - before)
    figure("threads more than after the first 5 000", threading.active_count() - threads)
    runtime.shutdown()


if __name__ == "__main__":
    perform(once)
