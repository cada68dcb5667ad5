"""All cases."""

from __future__ import annotations

from typing import Final

from tests.concurrency.interleaving.cases import Case
from tests.concurrency.interleaving.scenarios import (
    closing,
    full,
    hub,
    interrupts,
    ledger,
    plain,
    recorder,
    waiting,
    waking,
)

_AREAS: Final = (waking, closing, full, ledger, waiting, hub, recorder, plain, interrupts)

CASES: Final[dict[str, Case]] = {name: case for area in _AREAS for name, case in area.CASES.items()}
