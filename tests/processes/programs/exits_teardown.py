"""Objects that emit when they are finalised, which for some is when the interpreter takes itself apart."""

import builtins
import os
import sys
from typing import Any

import anyio

from mvx.common.metrics import MetricsRecorder, _inbox
from tests.processes.programs.common import NAME, Witness, new_event_loop, new_runtime
from tests.support import Tick


class LastWords:
    """Emits when it is finalised; keeps what it needs for that, since modules may be empty by then."""

    def __init__(self, name: str, recorder: MetricsRecorder, *, in_a_cycle: bool = False) -> None:
        self.name = name
        self.recorder = recorder
        self.event = Tick()
        self.write = os.write
        self.itself = self if in_a_cycle else None

    def __del__(self) -> None:
        try:
            self.recorder.register_event(self.event)
        except Exception as exc:
            said = type(exc).__name__
        else:
            said = "accepted"
        self.write(1, f'{{"role": "main", "what": "{self.name}", "said": "{said}"}}\n'.encode())


async def make_by_hand() -> Witness:
    made = Witness("by hand", linger=0)
    made.register_event(Tick())
    await made.flush()
    # Having answered, the actor goes to sleep.
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    return made


runtime = new_runtime()
recorder = runtime.create_recorder("r", factory=Witness)
for number in range(10):
    recorder.register_event(Tick(number))
early = LastWords("early", recorder)
del early
places: Any = {"builtins": builtins, "sys": sys, "library": _inbox}
for place, module in places.items():
    module.last_words = LastWords(place, recorder)
    module.last_words_in_a_cycle = LastWords(f"{place} cycle", recorder, in_a_cycle=True)
if NAME != "trio":
    # As some do: loops are closed under their recorders, or not even that.
    closed, left = new_event_loop(), new_event_loop()
    builtins.closed = LastWords("closed loop", closed.run_until_complete(make_by_hand()))  # type: ignore[attr-defined] # because it is put there
    builtins.left = LastWords("left loop", left.run_until_complete(make_by_hand()))  # type: ignore[attr-defined] # because it is put there
    closed.close()
