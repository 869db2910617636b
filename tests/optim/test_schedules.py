"""Schedules against closed forms and PyTorch's, step by step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.core.duration import Duration
from layernet.errors import ContractError
from layernet.optim.schedules import Constant, Cosine, Exponential, MultiStep, Schedule, Step


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
        (lambda: Step(epochs(1), gamma=0.0), "gamma must be positive, got 0"),
        (lambda: MultiStep([]), "at needs at least one duration"),
        (lambda: Cosine(1.5), "min_factor must lie in 0..1, got 1.5"),
        (lambda: Cosine(warmup=steps(0)), "warmup must be longer than nothing"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
