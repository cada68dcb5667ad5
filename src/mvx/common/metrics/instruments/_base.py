"""What all instruments have in common."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Generic, Self, TypeVar, final

from mvx.common.metrics._event import MetricEvent
from mvx.common.metrics._log import emit
from mvx.common.metrics._metric import Metric
from mvx.common.metrics._text import show

from ._numbers import LARGEST, converted, fault_of
from ._options import E, Options
from ._state import State, mark
from ._tags import SeriesTable

S = TypeVar("S", bound=State)
Handler = Callable[[MetricEvent], bool]


class Instrument(Metric, Generic[E, S]):
    """A metric that is told at construction what to look at.

    It belongs to one recorder, which hands it events of the classes that it names, one at a time; it
    has no lock and does not check the class again.  What a callable of the user's raises goes out to the
    recorder, whose FailurePolicy decides; the event then has changed nothing.  A snapshot may be
    read from another thread while no event is being handled, as a recorder does.

    A copy is an instrument of its own, with the clock and the functions of this one, which goes on from what this one
    has measured; it can be pickled if the functions among its options can.
    """

    kind: ClassVar[str]
    """What the snapshots call this kind of instrument."""

    def __init__(self, options: Options[E]) -> None:
        self._options = options
        self._started = mark()
        self._invalid = 0
        self._overall = self._new()
        """Everything measured; of an untagged instrument, its one series."""
        self._table: SeriesTable[S] | None = None
        if options.tags:
            self._table = SeriesTable(options, new=self._new, retire=self._retire)
        # In the instance, where Metric has a class attribute.
        vars(self)["event_types"] = options.events
        self._arm()

    def _arm(self) -> None:
        """Make what handles events, and put it where it is called without a detour."""
        record = self._untagged() if self._table is None else self._tagged(self._table.find)
        self._record: Handler = _only(self._options.when, record)
        if type(self).handle_event is Instrument.handle_event:  # not if a subclass has ideas of its own
            vars(self)["handle_event"] = self._record

    @property
    def metric_name(self) -> str:
        """The name under which a recorder keeps this instrument."""
        return self._options.name

    def handle_event(self, event: MetricEvent) -> bool:
        """Measure ``event``, which is of a class that the instrument names; return whether it was meant.

        Not while another event is being handled, or a snapshot read; a recorder sees to that.

        :raises Exception: what a callable among the options raises, or AttributeError from an event
            that lacks an attribute; nothing has been measured then
        """
        return self._record(event)

    # --- what a kind defines ---------------------------------------------------------------------

    @abstractmethod
    def _new(self) -> S:
        """Return the state of a series that has measured nothing."""
        ...

    @abstractmethod
    def _tagged(self, find: Callable[[Any], S]) -> Callable[[Any], bool]:
        """Return what measures an event in the series that ``find`` finds, and in the overall state."""
        ...

    @abstractmethod
    def _untagged(self) -> Callable[[Any], bool]:
        """Return what measures an event in the overall state."""
        ...

    def _retire(self, series: S) -> None:
        """Take notice that a series has expired."""

    def _total(self) -> S:
        """Return the state over all series, expired ones included; not to be changed."""
        return self._overall

    def _values(self, state: S) -> dict[str, Any]:
        """Return a state's values for the snapshot."""
        return state.values()

    def _dimensions(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the values that are plain numbers."""
        return dict(values)

    # --- for the kinds ---------------------------------------------------------------------------

    def _measuring(self, measure: Callable[[float], None]) -> Callable[[Any], bool]:
        """Return what hands the value of an event to ``measure``, if it is a finite number."""
        value_of, reject = self._options.value_of, self._reject

        def measure_all(event: Any) -> bool:
            raw = number = value_of(event)
            if number.__class__ is not float and number.__class__ is not int:
                number = converted(number)
            if not -LARGEST <= number <= LARGEST:
                return reject(raw)
            measure(number)
            return True

        return measure_all

    def _reject(self, value: object) -> bool:
        """Count a value that is not to be measured; log the first."""
        self._invalid += 1
        if self._invalid == 1:
            name = self._options.name
            emit(
                logging.WARNING,
                "instrument %r: %s is %s; it is counted as invalid and not measured, and so is what follows like it",
                name,
                show(value),
                fault_of(value),
                fields={"metric_name": name, "invalid_value": show(value)},
            )
        return True

    # --- reading ---------------------------------------------------------------------------------

    @final
    def snapshot(self) -> dict[str, Any]:
        """Return what has been measured, as JSON values; reading changes nothing.

        In any thread, as long as no event is being handled: a recorder's ``get_metric_snapshots`` sees to that.

        The keys: ``name``, ``kind``, ``unit``, ``description``; ``started``, Unix seconds, which differs
        when counting began anew; ``dimensions``, the values over all series, each a number or None;
        ``series``, each with its ``tags``, its own ``started`` and all values of its kind; ``overall``,
        only with tags, all values over all series; ``invalid``, how many values were no numbers to
        measure; ``overflowed``, how many events went to the overflow series; ``expired``, how many
        series have ended because they were idle.
        """
        options, table = self._options, self._table
        overall = self._values(self._total())
        snapshot: dict[str, Any] = {
            "name": options.name,
            "kind": self.kind,
            "unit": options.unit,
            "description": options.description,
            "started": self._started,
            "dimensions": self._dimensions(overall),
            "series": [{"tags": {}, "started": self._started, **overall}],
            "invalid": self._invalid,
            "overflowed": 0,
            "expired": 0,
        }
        if table is not None:
            living, ended = table.parted()
            snapshot["series"] = [
                {"tags": tags, "started": state.started, **self._values(state)} for tags, state in living
            ]
            snapshot["overflowed"] = table.overflowed
            snapshot["expired"] = table.expired + len(ended)
            snapshot["overall"] = overall
        return snapshot

    # --- copies ----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what handles events: it is about this very instrument."""
        return {key: value for key, value in vars(self).items() if key not in {"_record", "handle_event"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from what another instrument has measured."""
        vars(self).update(state)
        self._arm()

    def __copy__(self) -> Self:
        """Return an instrument of its own; a shallow copy would count into the series of this one."""
        return deepcopy(self)

    def __repr__(self) -> str:
        """Name the kind and the instrument."""
        return f"<{type(self).__name__} {self._options.name!r}>"


def _only(when: Callable[[Any], object] | None, record: Callable[[Any], bool]) -> Handler:
    if when is None:
        return record
    meant = when

    def record_if_meant(event: MetricEvent) -> bool:
        return record(event) if meant(event) else False

    return record_if_meant
