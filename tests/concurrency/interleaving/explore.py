"""Every interleaving of a few threads, tried on the code itself: systematic concurrency testing.

A scenario is run again and again, each time from scratch and with another schedule, until every schedule
with at most so many preemptions has been run.  The method is that of CHESS: M. Musuvathi and S. Qadeer,
"Iterative Context Bounding for Systematic Testing of Multithreaded Programs", PLDI 2007.  Nearly every
fault of a concurrent program shows itself with two preemptions already; a switch away from a thread that
cannot go on is free.

The modules beside this one: ``points`` says where a thread may be preempted, ``tracing`` sees it get there,
``stage`` runs the threads of one schedule, ``schedule`` has the next one, and ``locks`` and ``loop`` stand in for
what would block.  ``scenarios`` is what is explored, and ``mutants`` are faults that have to be found.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from tests.concurrency.interleaving.locks import Replacements, staged
from tests.concurrency.interleaving.points import Points
from tests.concurrency.interleaving.scenario import Scenario
from tests.concurrency.interleaving.schedule import Replay
from tests.concurrency.interleaving.stage import Stage


def explore(
    make: Callable[[Stage], Scenario],
    *,
    preemptions: int,
    points: Points = Points.COLLECTOR,
    time_passes: bool = False,
    replace: Callable[[Stage], Replacements] = lambda _: {},
    only: Replay | None = None,
) -> int:
    """Run every schedule of the scenario with at most so many preemptions; return how many were run.

    When an attribute turns out to be shared that was not thought to be, the exploration begins again.

    :param make: makes the scenario; called anew for each schedule
    :param time_passes: whether a wait may run out
    :param replace: what of the package's surroundings is replaced
    :param only: run this one schedule, of an earlier failure; what it says must be the same again
    :raises Broken: with the first schedule that goes wrong
    """
    stage = Stage(preemptions=preemptions, points=points, time_passes=time_passes)
    search, tracing = stage.search, stage.tracing
    schedules = 0
    collecting = gc.isenabled()
    gc.disable()  # the collector's finalizers would come at other moments in each schedule
    # No threads are switched in this one, but it makes the scenario and ends what is left of it: 3.12 crashes when
    # a coroutine that has been traced goes on in a thread that is not.
    traced_by = sys.gettrace()
    tracing.begin()
    try:
        with staged(stage, replace(stage)):
            if only is not None:
                tracing.shared |= only.shared
                search.lay_down(only.choices)
            more = True
            while more:
                tracing.has_learnt = False
                stage.run(make)
                schedules += 1
                if schedules % 2000 == 0:
                    gc.collect()
                if tracing.has_learnt:
                    search.begin_again()
                elif not search.advance():
                    more = False
                more = more and only is None
    finally:
        stage.close()
        sys.settrace(traced_by)
        if collecting:
            gc.enable()
    return schedules
