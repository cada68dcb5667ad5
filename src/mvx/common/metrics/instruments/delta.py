"""What happened between two snapshots."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from mvx.common.metrics._text import show

from . import histogram, rate, ratio, summary

Values = Mapping[str, Any]

_META = {"tags", "started"}
_COUNTS = ("invalid", "overflowed", "expired")
_NEEDED = {"name", "kind", "started", "series", *_COUNTS}


class _Kind(NamedTuple):
    difference: Callable[[Values, Values], dict[str, Any]]
    growing: str
    """One of the values, which falls only when counting begins anew."""
    flat: Callable[[Values], dict[str, Any]] = dict
    """The values that are dimensions."""


def _subtracting(*keys: str) -> Callable[[Values, Values], dict[str, Any]]:
    """Return what subtracts these values and lets the others pass."""

    def difference(earlier: Values, later: Values) -> dict[str, Any]:
        return {key: value - earlier[key] if key in keys else value for key, value in later.items()}

    return difference


_KINDS = {
    "counter": _Kind(_subtracting("total"), "total"),
    "sum": _Kind(_subtracting("total", "count"), "count"),
    "updown": _Kind(_subtracting("up", "down"), "up"),
    "gauge": _Kind(_subtracting("count"), "count"),
    "histogram": _Kind(histogram.difference, "count", histogram.flat),
    "summary": _Kind(summary.difference, "count", summary.flat),
    "rate": _Kind(rate.difference, "total"),
    "ratio": _Kind(ratio.difference, "events"),
}


def snapshot_delta(earlier: Mapping[str, Any] | None, later: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an instrument has measured between two of its snapshots, in the shape of a snapshot.

    Counts, sums and buckets are subtracted, and what follows from them is computed anew: means, ratios, deviation
    and quantiles.  Levels are those of ``later``: a gauge's ``last``, ``min`` and ``max``, the ``value``, ``min``
    and ``max`` of an UpDownCounter, and the rates and shares of sliding windows.  The ``min`` and ``max`` of a Summary
    are exact if they are new extremes, and otherwise within its accuracy; those of a Histogram are None
    unless they are new extremes.

    A counter reset is recognised by another ``started``, and by a count that has fallen; what ``later``
    shows is then all of it.  ``reset`` says whether that goes for the whole instrument.  A series
    that has expired in between is missing from ``series``, yet it is in ``dimensions`` and ``overall``.
    Neither snapshot is changed, nor need its instrument be at rest.

    :param earlier: a snapshot, also one that has been JSON meanwhile; None: all since the start
    :param later: one that was taken after it
    :raises TypeError: if one is not a mapping
    :raises ValueError: if they are not two snapshots of one instrument: another name, kind, or buckets
    """
    _check("later", later)
    kind = _KINDS[later["kind"]]
    if earlier is not None:
        _check("earlier", earlier)
        for key in ("name", "kind"):
            if earlier[key] != later[key]:
                raise ValueError(f"argument 'earlier' must have the {key} {later[key]!r}, got {show(earlier[key])}")
    before_all = None if earlier is None else _overall(earlier)
    after_all = _overall(later)
    anew = earlier is None or earlier["started"] != later["started"] or _fell(kind, before_all, after_all)
    before = {} if earlier is None or anew else {_key(entry): entry for entry in earlier["series"]}
    delta = dict(later)
    delta["reset"] = anew and earlier is not None
    overall = _between(kind, None if anew else before_all, after_all)
    delta["dimensions"] = kind.flat(overall)
    if "overall" in later:
        delta["overall"] = overall
    delta["series"] = [
        {
            "tags": dict(entry["tags"]),
            "started": entry["started"],
            **_between(kind, _same(kind, before.get(_key(entry)), entry), _values(entry)),
        }
        for entry in later["series"]
    ]
    if earlier is not None and not anew:
        for key in _COUNTS:
            delta[key] = later[key] - earlier[key]
    return delta


def _check(argument: str, snapshot: object) -> None:
    wanted = f"argument {argument!r} must be an instrument's snapshot, got {show(snapshot)}"
    if not isinstance(snapshot, Mapping):
        raise TypeError(wanted)
    if (
        not snapshot.keys() >= _NEEDED
        or snapshot["kind"] not in list(_KINDS)
        or not (snapshot["series"] or "overall" in snapshot)
    ):
        raise ValueError(wanted)


def _overall(snapshot: Mapping[str, Any]) -> Values:
    overall: Values | None = snapshot.get("overall")
    return _values(snapshot["series"][0]) if overall is None else overall


def _values(entry: Mapping[str, Any]) -> Values:
    return {key: value for key, value in entry.items() if key not in _META}


def _same(kind: _Kind, earlier: Mapping[str, Any] | None, later: Mapping[str, Any]) -> Values | None:
    """Return the values of the earlier state of a series, or None if it has begun since."""
    if earlier is None or earlier["started"] != later["started"] or _fell(kind, earlier, later):
        return None
    return _values(earlier)


def _fell(kind: _Kind, earlier: Values | None, later: Values) -> bool:
    return earlier is not None and later[kind.growing] < earlier[kind.growing]


def _between(kind: _Kind, earlier: Values | None, later: Values) -> dict[str, Any]:
    return dict(later) if earlier is None else kind.difference(earlier, later)


def _key(entry: Mapping[str, Any]) -> Hashable:
    # With the types, which tell True from 1.
    return frozenset((name, type(label), label) for name, label in entry["tags"].items())
