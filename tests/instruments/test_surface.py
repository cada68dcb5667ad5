"""What the package of instruments shows, and what an import of it costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from mvx.common.metrics import Metric, instruments


def test_all_is_true() -> None:
    """``__all__`` names every public object and nothing else, once."""
    public = {
        name
        for name, value in vars(instruments).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert set(instruments.__all__) == public
    assert len(instruments.__all__) == len(public)


@pytest.mark.parametrize("name", [name for name in instruments.__all__ if inspect.isclass(getattr(instruments, name))])
def test_an_instrument_is_documented(name: str) -> None:
    """The class says what it is for, what its dimensions are, and what it raises; so do its methods."""
    kind = getattr(instruments, name)
    assert issubclass(kind, Metric)
    own = vars(kind)["__doc__"]
    for part in ("Dimensions: ``", ":raises TypeError:", ":raises ValueError:"):
        assert part in own
    for attribute in dir(kind):
        if not attribute.startswith("_") and callable(getattr(kind, attribute)):
            assert inspect.getdoc(getattr(kind, attribute)), f"{name}.{attribute} has no docstring"


@pytest.mark.parametrize("name", [name for name in instruments.__all__ if inspect.isclass(getattr(instruments, name))])
def test_the_common_options_are_alike(name: str) -> None:
    """They have the same names, defaults and order in every kind, and only the name is positional."""
    parameters = list(inspect.signature(getattr(instruments, name)).parameters.values())
    assert parameters[0].name == "name"
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[1:])
    common = ["tags", "when", "unit", "description", "max_series", "expire_after", "clock"]
    assert [parameter.name for parameter in parameters[-len(common) :]] == common
    reference = inspect.signature(instruments.Counter).parameters
    assert all(parameter.default == reference[parameter.name].default for parameter in parameters[-len(common) :])
    assert reference["max_series"].default == 1000


def modules_after(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys; {program}; print(json.dumps(list(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(json.loads(done.stdout))


def test_the_kernel_does_not_import_instruments() -> None:
    """Who does not use them does not pay for them; and they need nothing that is not there anyway."""
    kernel = modules_after("import mvx.common.metrics")
    assert not [name for name in kernel if name.startswith("mvx.common.metrics.instruments")]
    more = modules_after("import mvx.common.metrics.instruments") - kernel
    assert {name.partition(".")[0] for name in more if name.partition(".")[0] not in sys.stdlib_module_names} == {"mvx"}
