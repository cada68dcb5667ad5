"""What does a request handler feel?  One emit every 100 µs, each timed alone, the clock's own cost taken off."""

from __future__ import annotations

import itertools
import time

from benchmarks.contenders import CONTENDERS as ALL
from benchmarks.contenders import open_contender
from benchmarks.workload import Figures, Settings, answer, percentile, timer_cost

CONTENDERS = tuple(ALL)
PACE_NS = 100_000
STOLEN_NS = 5_000
"""Longer than an interrupt of the system's own takes: then somebody else has had the processor."""


def measure(told: Settings) -> Figures:
    """Spin to the next due time, as a handler that has work to do, rather than sleep to it.

    A virtual machine's host takes the processor away for a while, some hundred times a second, and what runs next finds
    the caches cold: with more than one emit in a hundred behind such a break, the slowest percent would be the host's.
    So those are counted apart, of all contenders; with them it is ``p99_of_all_ns``.
    """
    clock, overhead = time.perf_counter_ns, timer_cost()
    costs, undisturbed = [], []
    with open_contender(told.contender) as subject:
        emit = subject.emit
        due = clock()
        for item in itertools.islice(itertools.cycle(subject.items), told.times(20_000, 2_000)):
            due += PACE_NS
            stolen = _spin(due)
            began = clock()
            emit(item)
            costs.append(clock() - began)
            if not stolen:
                undisturbed.append(costs[-1])
    calm = sorted(undisturbed or costs)
    figures = {f"p{share * 100:g}_ns": percentile(calm, share) - overhead for share in (0.5, 0.99, 0.999)}
    figures["p99_of_all_ns"] = percentile(sorted(costs), 0.99) - overhead
    figures["behind_a_break_%"] = 100 * (1 - len(undisturbed) / len(costs))
    return figures


def _spin(due: int) -> bool:
    """Work until ``due``; return whether the machine has taken the processor away meanwhile.

    While a thread waits for the interpreter, or the system lets another one run, its own clock stands still: what the
    contender's threads take is not the machine's.  Where the host stops the whole processor, it runs on.
    """
    clock, own_clock = time.perf_counter_ns, time.thread_time_ns
    own_began = own_clock()
    last = began = clock()
    longest = 0
    while last < due:
        now = clock()
        longest = max(longest, now - last)
        last = now
    return longest > STOLEN_NS and (last - began) - (own_clock() - own_began) < longest / 2


if __name__ == "__main__":
    answer(measure)
