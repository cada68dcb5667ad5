"""Whatever comes in whatever order: hostile values and tags, a clock that does as it likes, copies, merges, readings."""

from __future__ import annotations

import copy
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvx.common.metrics.instruments import snapshot_delta
from tests.instruments.events import KINDS, MANY, Attempt, Clock
from tests.instruments.test_tags import NORMALISED

VALUES: list[Any] = [
    0,
    1,
    -1,
    0.5,
    -0.0,
    1.7e308,
    -1.7e308,
    5e-324,
    -5e-324,
    10**300,
    math.nan,
    math.inf,
    None,
    True,
    "1",
    Decimal("1.5"),
]

attempts = st.builds(
    Attempt,
    seconds=st.sampled_from(VALUES),
    backend=st.sampled_from([value for value, _ in NORMALISED]),
    ok=st.booleans(),
    region=st.sampled_from(["eu", "us", 1, True]),
)
steps = st.lists(
    st.one_of(
        attempts,
        attempts,
        st.sampled_from([0.0, 0.3, 5.0, 10.0, 100.0, 1e6, -3.0]),
        st.sampled_from(["copy", "merge", "read", "read"]),
    ),
    max_size=40,
)
options: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"tags": st.sampled_from([("backend",), ("backend", "region")]), "max_series": st.sampled_from([1, 2, 5])},
    optional={"expire_after": st.just(10)},
) | st.just({})


@pytest.mark.parametrize("kind", KINDS)
@given(steps, options, st.sampled_from([-50.0, 0.0, 1e9]), st.booleans())
def test_every_event_is_in_the_totals_once(
    kind: str, steps: list[Any], options: dict[str, Any], start: float, only_ok: bool
) -> None:
    """Or it is invalid; a reading is JSON and changes nothing, and so does a delta, which sees no reset."""
    clock = Clock(start)
    options = options | {"clock": clock} | ({"when": lambda event: event.ok} if only_ok else {})
    metric = KINDS[kind](**options)
    earlier, meant = None, 0
    for step in [*steps, "read"]:
        if isinstance(step, Attempt):
            meant += metric.handle_event(step)
        elif isinstance(step, float):
            clock.now += step
        elif step == "copy":
            metric = copy.copy(metric)
        elif step == "merge" and hasattr(metric, "merge"):
            other = KINDS[kind](**options)
            for backend in ("disk", "tape", None):
                meant += other.handle_event(Attempt(backend=backend))
            metric.merge(other)
        elif step == "read":
            shown = metric.snapshot()
            as_json = json.dumps(shown, allow_nan=False)
            assert json.loads(as_json) == shown
            delta = snapshot_delta(earlier, shown)
            json.dumps(delta, allow_nan=False)
            assert json.dumps(metric.snapshot()) == json.dumps(shown) == as_json
            assert delta["reset"] is False
            _check(kind, shown, options, meant)
            earlier = shown


def _check(kind: str, shown: dict[str, Any], options: dict[str, Any], meant: int) -> None:
    dimensions = shown["dimensions"]
    assert len(shown["series"]) <= options.get("max_series", 0) + 1
    if kind != "updown":
        many = MANY[kind] if kind != "sum" else "count"
        assert dimensions[many] + shown["invalid"] == meant
        living = sum(entry[many] for entry in shown["series"])
        assert living <= dimensions[many] if "expire_after" in options else living == dimensions[many]
    if kind == "summary" and dimensions["count"]:
        # As floats: the extremes may be ints that no float equals.
        ascending = [float(dimensions[key]) for key in ("min", "p50", "p90", "p95", "p99", "max")]
        assert ascending == sorted(ascending)
    if kind == "rate":
        assert min(dimensions.values()) >= 0
