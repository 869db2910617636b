"""Optimizers, schedules and averages over a hundred steps, options drawn: PyTorch's to 1e-12, or a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from layernet.config.names import BUILT_IN
from layernet.core.duration import Duration
from layernet.core.net import Net
from layernet.layers.linear import Linear
from layernet.optim.averaging import EMA, SWA, Average
from layernet.optim.optimizers import Lion
from layernet.optim.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Decay,
    Exponential,
    Inv,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    SigmoidDecay,
    Step,
)

STEPS = 100
BAR = 1e-12
ELSEWHERE = {"Lion"}  # torch has none
drawn = settings(max_examples=25, deadline=None, derandomize=True, database=None)

_factor = st.floats(0.05, 1.0)
_steps = st.integers(1, 60)


def test_every_optimizer_is_compared() -> None:
    pytest.importorskip("torch")
    from tests.pytorch.optimizers import OPTIMIZERS

    assert {entry.name for entry in OPTIMIZERS} | ELSEWHERE == set(BUILT_IN["optimizer"])


@pytest.mark.parametrize("name", sorted(set(BUILT_IN["optimizer"]) - ELSEWHERE))
def test_optimizers_are_torchs(name: str) -> None:
    pytest.importorskip("torch")
    from tests.pytorch.entry import Row, measure
    from tests.pytorch.optimizers import OPTIMIZERS, STEPS

    assert STEPS == 100
    row = Row(name)
    for entry in OPTIMIZERS:
        if entry.name == name:
            measure(entry, 12, row)
    assert row.draws >= 12
    assert row.worst <= BAR, row.worst_at


@drawn
@given(st.floats(1e-4, 0.1), st.floats(0, 0.99), st.floats(0, 0.99), st.just(0.0) | st.floats(0, 0.3), st.integers(0))
def test_lion_is_its_formula(lr: float, beta1: float, beta2: float, decay: float, number: int) -> None:
    net = Net([Linear(3, bias=False)], (2,)).bind("cpu", "float64")
    (param,) = net.params().values()
    optimizer = Lion(lr, (beta1, beta2), decay).attach(net)
    rng = np.random.default_rng(number % 2**32)
    w, m = param.data.copy(), np.zeros((3, 2))
    for step in range(STEPS):
        g, factor = rng.normal(size=(3, 2)), float(rng.uniform(0.1, 1))
        net.zero_grad()
        param.grad_buffer()[...] = g
        param.has_grad = True
        optimizer.step(factor, step)
        w = w * (1 - lr * factor * decay) - lr * factor * np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        np.testing.assert_allclose(param.data, w, rtol=0, atol=BAR)


def factors(schedule: Schedule, total: int = STEPS) -> list[float]:
    schedule.bind(total, 10)
    return [schedule(step) for step in range(total)]


def of_torch(name: str, **options: Any) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < STEPS:
            theirs.step()
    return found


def steps(count: int) -> Duration:
    return Duration(count, "steps")


@st.composite
def a_schedule(draw: Callable[..., Any], name: str) -> tuple[Schedule, str, dict[str, Any]]:
    """(ours, the name of torch's, its options)."""
    gamma, low = draw(_factor), draw(st.just(0.0) | st.floats(0, 0.9))
    if name == "Step":
        every = draw(_steps)
        return Step(steps(every), gamma), "StepLR", {"step_size": every, "gamma": gamma}
    if name == "MultiStep":
        at = draw(st.lists(_steps, min_size=1, max_size=4))
        return MultiStep([steps(n) for n in at], gamma), "MultiStepLR", {"milestones": at, "gamma": gamma}
    if name == "Exponential":
        gamma = 1 - gamma / 10
        return Exponential(gamma, steps(1)), "ExponentialLR", {"gamma": gamma}
    if name == "Cosine":
        return Cosine(low), "CosineAnnealingLR", {"T_max": STEPS, "eta_min": low}
    if name == "Polynomial":
        power = draw(st.floats(0.2, 4))
        return Polynomial(power), "PolynomialLR", {"total_iters": STEPS, "power": power}
    if name == "CosineRestarts":
        period, mult = draw(_steps), draw(st.integers(1, 3))
        options = {"T_0": period, "T_mult": mult, "eta_min": low}
        return CosineRestarts(steps(period), mult, low), "CosineAnnealingWarmRestarts", options
    options = {
        "pct_start": draw(st.floats(0.02, 0.98)),
        "anneal_strategy": draw(st.sampled_from(["cos", "linear"])),
        "div_factor": draw(st.floats(1.0, 100.0)),
        "final_div_factor": draw(st.floats(1.0, 1e5)),
    }
    theirs = {"max_lr": 1.0, "total_steps": STEPS, "cycle_momentum": False}
    return OneCycle(**options), "OneCycleLR", theirs | options


AS_TORCH = ["Step", "MultiStep", "Exponential", "Cosine", "Polynomial", "CosineRestarts", "OneCycle"]


@pytest.mark.parametrize("name", AS_TORCH)
def test_schedules_are_torchs(name: str) -> None:
    pytest.importorskip("torch")

    @seed(len(name))
    @drawn
    @given(a_schedule(name))
    def example(drawn_one: tuple[Schedule, str, dict[str, Any]]) -> None:
        ours, theirs, options = drawn_one
        np.testing.assert_allclose(factors(ours), of_torch(theirs, **options), rtol=0, atol=BAR)

    example()


FORMULAS: dict[str, tuple[Callable[[float, int], Schedule], Callable[[float, int, int], float]]] = {
    "Constant": (lambda a, n: Constant(), lambda a, n, t: 1.0),
    "Inv": (lambda a, n: Inv(a, n / 20), lambda a, n, t: (1 + a * t) ** (-n / 20)),
    "SigmoidDecay": (lambda a, n: SigmoidDecay(a, steps(n)), lambda a, n, t: 1 / (1 + math.exp(a * (t - n)))),
    "Decay, linear": (lambda a, n: Decay("linear", 1 / a), lambda a, n, t: 1 - t / STEPS * (1 - a)),
    "Decay, exp": (lambda a, n: Decay("exp", 1 / a), lambda a, n, t: a ** (t / STEPS)),
    "Decay, dexp": (
        lambda a, n: Decay("dexp", 1 / a, n + 1),
        lambda a, n, t: a ** (max(0, -(-t * (n + 1) // STEPS) - 1) / n),  # the end of a stair belongs to it
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@drawn
@given(a=_factor, n=_steps)
def test_schedules_are_their_formulas(name: str, a: float, n: int) -> None:
    make, formula = FORMULAS[name]
    np.testing.assert_allclose(factors(make(a, n)), [formula(a, n, t) for t in range(STEPS)], rtol=0, atol=BAR)


def test_every_schedule_is_compared() -> None:
    compared = {*AS_TORCH, *(name.partition(",")[0] for name in FORMULAS)}
    by_state = {"Plateau"}  # follows what is measured: tests of its own
    assert set(BUILT_IN["schedule"]) - by_state == compared


@pytest.mark.parametrize("kind", ["EMA", "SWA"])
@drawn
@given(decay=st.floats(0, 0.999), start=st.integers(1, 90), every=st.integers(1, 9))
def test_averages_are_torchs(kind: str, decay: float, start: int, every: int) -> None:
    torch = pytest.importorskip("torch")
    utils = torch.optim.swa_utils
    net = Net([Linear(3)], (2,)).bind("cpu", "float64")
    average: Average = EMA(decay) if kind == "EMA" else SWA(steps(start), steps(every))
    average.attach(net)
    model = torch.nn.Linear(2, 3, dtype=torch.float64)
    theirs = utils.AveragedModel(model, multi_avg_fn=utils.get_ema_multi_avg_fn(decay) if kind == "EMA" else None)
    rng = np.random.default_rng(start)
    taken = 0
    for step in range(1, STEPS + 1):
        weight = net.params()["linear_1.weight"].data
        weight[...] = rng.normal(size=weight.shape)
        average.update(step)
        if kind == "EMA" or (step >= start and (step - start) % every == 0):
            with torch.no_grad():
                model.weight.copy_(torch.tensor(weight))
            theirs.update_parameters(model)
            taken += 1
        if taken:
            with average.applied():
                np.testing.assert_allclose(weight, theirs.module.weight.detach().numpy(), rtol=0, atol=BAR)
    assert average.count == taken
