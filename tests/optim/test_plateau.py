"""Plateau against PyTorch's ReduceLROnPlateau and against counting, over drawn values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.core.duration import Duration
from layernet.errors import ContractError, UsageError
from layernet.optim.plateau import Best, Plateau

LOSS: dict[str, Any] = {"watch": "val.loss", "mode": "min"}
VALUES = st.lists(
    st.one_of(st.floats(-3, 3), st.sampled_from([1.0, 1.0001, 0.9999, 0.0, math.nan, math.inf, -math.inf])), max_size=40
)
OPTIONS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["min", "max"]),
        "factor": st.sampled_from([0.1, 0.5, 0.9]),
        "patience": st.integers(0, 4),
        "threshold": st.sampled_from([0.0, 1e-4, 0.1, 0.5]),
        "threshold_mode": st.sampled_from(["rel", "abs"]),
        "cooldown": st.integers(0, 3),
        "min_factor": st.sampled_from([0.0, 0.2]),
    }
)


def factors(schedule: Plateau, values: list[float], every: int = 5) -> list[float]:
    """The factor of the step after each evaluation, one every `every` steps."""
    schedule.bind(1000, 10)
    found = []
    for index, value in enumerate(values, 1):
        schedule.observe({"step": index * every, "val.loss": value})
        found.append(schedule(index * every))
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(VALUES, OPTIONS)
def test_it_is_torchs(values: list[float], options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = {name: value for name, value in options.items() if name != "min_factor"}
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **theirs, min_lr=options["min_factor"], eps=0.0)
    expected = []
    for value in values:
        schedule.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert factors(Plateau(**options, watch="val.loss"), values) == expected


def test_by_hand() -> None:
    values = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.5, 0.6]
    assert factors(Plateau(factor=0.5, patience=1, **LOSS), values) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    cooled = Plateau(factor=0.5, patience=1, cooldown=2, **LOSS)
    assert factors(cooled, values[:7]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert factors(Plateau(factor=0.5, patience=0, min_factor=0.3, **LOSS), [1.0] * 4) == [1, 0.5, 0.3, 0.3]
    rising = Plateau("max", 0.5, 0, watch="val.loss")
    assert factors(rising, [0.1, 0.2, 0.3, math.nan, 0.3]) == [1, 1, 1, 0.5, 0.25]


def test_a_lowering_holds_from_its_evaluation_on_and_what_was_before_stays() -> None:
    schedule = Plateau(factor=0.5, patience=0, **LOSS)
    factors(schedule, [1.0, 2.0, 2.0], every=5)
    assert [schedule(step) for step in (0, 9, 10, 14, 15, 999)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert schedule.bind(1000, 10)(999) == 1  # a new training starts anew


def test_warm_up_comes_first_and_what_is_measured_in_it_does_not_count() -> None:
    schedule = Plateau(factor=0.5, patience=0, warmup=Duration(12, "steps"), **LOSS)
    assert factors(schedule, [0.1, 0.2, 1.0, 1.0]) == [6 / 12, 11 / 12, 1.0, 0.5]


@pytest.mark.parametrize(("mode", "first", "better"), [("min", math.inf, -math.inf), ("max", -math.inf, math.inf)])
def test_infinite_values_have_an_order_too(mode: Any, first: float, better: float) -> None:
    best = Best(mode, 1.0, "rel")
    assert [best.improved(value) for value in (math.nan, first, 1.0, better, better)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_misuse_is_explained() -> None:
    with pytest.raises(ContractError, match="does not know what it follows; outside a config give watch"):
        Plateau().bind(10, 5)
    with pytest.raises(UsageError, match=r"follows 'val\.los', which is not measured; did you mean 'val\.loss'"):
        Plateau("min", watch="val.los").bind(10, 5).observe({"step": 1, "val.loss": 1.0})
    for options, message in [
        ({"mode": "least"}, "mode must be auto, min or max, got 'least'"),
        ({"factor": 1.0}, "factor must lie between 0 and 1, got 1"),
        ({"patience": -1}, "patience must be at least 0, got -1"),
        ({"cooldown": -1}, "cooldown must be at least 0"),
        ({"threshold": -1.0}, "threshold must be finite and not negative"),
        ({"threshold_mode": "relative"}, "threshold_mode must be rel or abs, got 'relative'"),
        ({"min_factor": 2.0}, "min_factor must lie in 0..1, got 2"),
        ({"warmup": 3}, "warmup must be a duration"),
    ]:
        with pytest.raises(ValueError, match=message):
            Plateau(**options)
