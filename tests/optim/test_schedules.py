"""Schedules against closed forms and PyTorch's, step by step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.core.duration import Duration
from layernet.errors import ContractError
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


def epochs(count: float) -> Duration:
    return Duration(count, "epochs")


def steps(count: int) -> Duration:
    return Duration(count, "steps")


def factors(schedule: Schedule, total: int = 60, per_epoch: int = 10) -> list[float]:
    schedule.bind(total, per_epoch)
    return [schedule(step) for step in range(total)]


def torch_factors(name: str, options: dict, total: int, every: int = 1) -> list[float]:
    """PyTorch's learning rate at each update, its schedule moved on once every `every` updates."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    found = []
    for step in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            theirs.step()
    return found


def test_constant():
    assert factors(Constant()) == [1.0] * 60


def test_step_lowers_at_the_end_of_each_stretch():
    found = factors(Step(epochs(2), gamma=0.5))
    assert found == [0.5 ** (step // 20) for step in range(60)]
    assert found == pytest.approx(torch_factors("StepLR", {"step_size": 2, "gamma": 0.5}, 60, every=10), rel=1e-14)
    assert factors(Step(steps(7)))[6:8] == [1.0, 0.1]


def test_multistep_lowers_at_each_time():
    found = factors(MultiStep([steps(35), epochs(1)], gamma=0.1))
    assert found == pytest.approx([1.0] * 10 + [0.1] * 25 + [0.01] * 25, rel=1e-15)
    expected = torch_factors("MultiStepLR", {"milestones": [10, 35], "gamma": 0.1}, 60)
    assert found == pytest.approx(expected, rel=1e-14)


def test_exponential_is_smooth_and_meets_torch_at_whole_epochs():
    found = factors(Exponential(0.5))
    assert found == pytest.approx([0.5 ** (step / 10) for step in range(60)], rel=1e-15)
    assert found[::10] == pytest.approx(torch_factors("ExponentialLR", {"gamma": 0.5}, 60, every=10)[::10], rel=1e-14)
    each = factors(Exponential(0.9, every=steps(1)))
    assert each == pytest.approx(torch_factors("ExponentialLR", {"gamma": 0.9}, 60), rel=1e-13)


@pytest.mark.parametrize("min_factor", [0.0, 0.1])
def test_cosine(min_factor):
    found = factors(Cosine(min_factor))
    expected = torch_factors("CosineAnnealingLR", {"T_max": 60, "eta_min": min_factor}, 60)
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-13)
    assert (found[0], found[30]) == pytest.approx((1.0, (1 + min_factor) / 2))
    schedule = Cosine(min_factor).bind(60, 10)
    assert schedule(60) == schedule(1000) == pytest.approx(min_factor)


@pytest.mark.parametrize("power", [0.5, 1.0, 4.0])
def test_polynomial(power):
    found = factors(Polynomial(power), 100)
    expected = torch_factors("PolynomialLR", {"total_iters": 100, "power": power}, 100)
    assert found == pytest.approx(expected, abs=1e-13)
    schedule = Polynomial(power, 0.2).bind(100, 10)
    assert schedule(25) == pytest.approx(0.2 + 0.8 * 0.75**power, rel=1e-14)
    assert (schedule(0), schedule(100), schedule(999)) == (1.0, 0.2, 0.2)


def test_caffes_inv_and_sigmoid_by_their_formulas():
    assert factors(Inv(1e-2, 0.75)) == pytest.approx([(1 + 1e-2 * t) ** -0.75 for t in range(60)], rel=1e-14)
    assert factors(Inv(0.5, 1.0, steps(2)))[:4] == [0.5, 1.0, 1.0, 1 / 1.5]
    # Caffe: 1 / (1 + exp(-gamma (iter - stepsize))), with gamma -0.2
    expected = [1 / (1 + math.exp(0.2 * (t - 30))) for t in range(60)]
    assert factors(SigmoidDecay(0.2, epochs(3))) == pytest.approx(expected, rel=1e-13)
    assert factors(SigmoidDecay(1e6, steps(3)), 6)[1:5] == [1.0, 1.0, 0.5, 0.0]  # nothing overflows


def cuda_convnet(form: str, by: float, stairs: int, progress: float) -> float:
    """lr.cu, retold: rates of the stairs, then the first stair whose end is not passed."""
    if form == "linear":
        return 1 * (1 - progress) + (1 / by) * progress
    if form == "exp":
        return float((1 / by) ** progress)
    rates = [(1 / by) ** (i / (stairs - 1)) for i in range(stairs - 1)] + [1 / by]
    return next(rate for i, rate in enumerate(rates) if progress <= (i + 1) / stairs)


@pytest.mark.parametrize(("form", "stairs"), [("linear", None), ("exp", None), ("dexp", 2), ("dexp", 4), ("dexp", 10)])
def test_decay_is_cuda_convnets(form, stairs):
    found = factors(Decay(form, 250.0, stairs), 100)
    expected = [cuda_convnet(form, 250.0, stairs or 0, t / 100) for t in range(100)]
    assert found == pytest.approx(expected, rel=1e-13)
    assert Decay(form, 250.0, stairs).bind(100, 10)(100) == pytest.approx(1 / 250, rel=1e-13)
    if form == "dexp":
        assert len(set(found)) == stairs
        assert factors(Decay(form, 8.0, 2), 10)[5:7] == [1.0, 1 / 8]  # the end belongs to the stair


@pytest.mark.parametrize("total", [3, 60, 97])
@pytest.mark.parametrize("options", [{}, {"pct_start": 0.45, "div_factor": 10.0, "final_div_factor": 100.0}])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_one_cycle(total, options, anneal):
    found = factors(OneCycle(anneal_strategy=anneal, **options), total)
    theirs = {"max_lr": 1.0, "total_steps": total, "anneal_strategy": anneal, "cycle_momentum": False, **options}
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **theirs)
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        schedule.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(expected, abs=1e-13)


def test_one_cycle_of_nothing_but_a_way_down_or_up():
    assert factors(OneCycle(pct_start=0.0, anneal_strategy="linear"), 11)[::5] == pytest.approx(
        [10 / 11, 5 / 11, 0], abs=1e-5
    )
    assert factors(OneCycle(pct_start=1.0), 11)[-1] == 1.0
    assert OneCycle(pct_start=1.0).bind(5, 5)(7) == pytest.approx(4e-6)


@pytest.mark.parametrize(("period", "mult", "low"), [(20, 1, 0.0), (7, 2, 0.1), (1, 1, 0.0), (5, 3, 0.5)])
def test_cosine_restarts(period, mult, low):
    found = factors(CosineRestarts(steps(period), mult, low), 100)
    options = {"T_0": period, "T_mult": mult, "eta_min": low}
    assert found == pytest.approx(torch_factors("CosineAnnealingWarmRestarts", options, 100), abs=1e-12)
    assert factors(CosineRestarts(epochs(2)))[18:22] == pytest.approx(factors(CosineRestarts(steps(20)))[18:22])


def test_warmup_is_linear_and_hands_over():
    found = factors(Cosine(warmup=epochs(2)))
    assert found[:20] == [(step + 1) / 20 for step in range(20)]
    assert found[20:] == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 40)) for t in range(40)], rel=1e-14)
    assert found[20] == 1.0
    # an exponential decay starts from 1 after the warm-up; steps stand where the config puts them
    assert factors(Exponential(0.5, warmup=steps(5)))[4:16:11] == [1.0, 0.5 ** (10 / 10)]
    assert factors(Step(epochs(2), 0.5, warmup=epochs(1)))[9:21:5] == [1.0, 1.0, 1.0]
    assert factors(Step(epochs(2), 0.5, warmup=epochs(1)))[20] == 0.5
    assert factors(MultiStep([epochs(2)], 0.5, warmup=epochs(1)))[19:21] == [1.0, 0.5]
    assert factors(Constant(warmup=steps(2)))[:3] == [0.5, 1.0, 1.0]


def test_a_warmup_longer_than_training_only_grows():
    found = factors(Cosine(warmup=epochs(10)))
    assert found == [(step + 1) / 100 for step in range(60)]
    assert Cosine(warmup=epochs(6)).bind(60, 10)(60) == 1.0


def test_stretches_shorter_than_a_step_last_one_step():
    assert factors(Step(epochs(0.01), 0.5), 3) == [1.0, 0.5, 0.25]


SCHEDULES = [
    lambda w: Constant(w),
    lambda w: Step(steps(5), 0.7, w),
    lambda w: MultiStep([steps(3), epochs(2)], 0.7, w),
    lambda w: Exponential(0.7, epochs(1), w),
    lambda w: Cosine(0.1, w),
    lambda w: Polynomial(2.0, 0.1, w),
    lambda w: Inv(0.1, 0.75, w),
    lambda w: SigmoidDecay(0.1, steps(20), w),
    lambda w: Decay("linear", 10.0, warmup=w),
    lambda w: Decay("exp", 10.0, warmup=w),
    lambda w: Decay("dexp", 10.0, 4, w),
]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sampled_from(SCHEDULES), st.integers(1, 40), st.integers(1, 60), st.integers(1, 12))
def test_factors_rise_to_at_most_one_and_then_never_rise(make, warmup, total, per_epoch):
    schedule = make(steps(warmup)).bind(total, per_epoch)
    found = [schedule(step) for step in range(total + 5)]
    assert all(0 < factor <= 1 for factor in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert found == [schedule(step) for step in range(total + 5)]  # a pure function of the step


def test_durations_may_be_text():
    assert Cosine(warmup="5 epochs").warmup == epochs(5)
    assert MultiStep(["3 steps"]).at == [steps(3)]


def test_misuse_is_explained():
    with pytest.raises(ContractError, match=r"Constant\(\) does not know how long training is"):
        Constant()(0)
    for make, message in [
        (lambda: Step(epochs(0)), "every must be longer than nothing, got 0 epochs"),
        (lambda: Step("five"), "expected a duration like"),
        (lambda: Step(5), "every must be a duration like .* got 5"),
        (lambda: Step(epochs(1), gamma=0.0), "gamma must be positive and finite, got 0"),
        (lambda: MultiStep([]), "at needs at least one duration"),
        (lambda: Cosine(1.5), "min_factor must lie in 0..1, got 1.5"),
        (lambda: Polynomial(0.0), "power must be positive and finite, got 0"),
        (lambda: Inv(math.inf), "gamma must be positive and finite, got inf"),
        (lambda: Inv(-1.0), "gamma must be positive and finite, got -1"),
        (lambda: SigmoidDecay(0.1, 5), "at must be a duration"),
        (lambda: Decay("const", 2.0), "form must be linear, exp or dexp, got 'const'"),
        (lambda: Decay("exp", 0.5), "by must be a finite number of at least 1, got 0.5"),
        (lambda: Decay("exp", 2.0, 4), "dexp takes steps, at least 2, and no other form does: got exp and 4"),
        (lambda: Decay("dexp", 2.0), "dexp takes steps, at least 2"),
        (lambda: Decay("dexp", 2.0, 1), "dexp takes steps, at least 2"),
        (lambda: OneCycle(1.5), "pct_start must lie in 0..1, got 1.5"),
        (lambda: OneCycle(anneal_strategy="exp"), "anneal_strategy must be cos or linear"),
        (lambda: OneCycle(div_factor=0.0), "div_factor must be positive and finite"),
        (lambda: CosineRestarts(epochs(1), 0), "mult must be at least 1, got 0"),
        (lambda: Cosine(warmup=steps(0)), "warmup must be longer than nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
