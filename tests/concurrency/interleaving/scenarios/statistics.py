"""What holds of every reading of the ledger."""

from __future__ import annotations

from mvx.common.metrics import RecorderStatistics

GROWING = (
    "offered",
    "accepted",
    "processed",
    "dropped",
    "rejected",
    "evicted",
    "abandoned",
    "metric_errors",
    "unmatched",
    "high_water",
)


def holds(statistics: RecorderStatistics) -> bool:
    s = statistics
    return s.offered == s.accepted + s.dropped + s.rejected and s.accepted == (
        s.processed + s.pending + s.evicted + s.abandoned
    )
