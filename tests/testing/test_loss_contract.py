"""The contract of losses: what is right passes, and every broken promise is caught by the rule named after it."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import UsageError
from layernet.layers.activation import ReLU
from layernet.losses import BCEWithLogits, CrossEntropy, L2Penalty, Loss
from layernet.testing import CheckFailed, check_layer, check_loss, gradcheck, rules_losses, rules_penalties
from layernet.testing.alarms import alarms
from layernet.testing.cases import LOSSES
from tests.testing import broken_losses

MISTAKES = {**broken_losses.MISTAKES, **broken_losses.WRONG_PENALTIES}


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.label)
def test_every_loss_and_penalty_keeps_the_contract(case):
    for seed in range(3):
        check_loss(case.make(), case.shape, case.targets, seed=seed)


def test_a_hinge_that_is_flat_far_out_is_right():
    """With this seed all margins of the batch are kept there, and every gradient is zero: 1 in 16 700 checks."""
    case = next(case for case in LOSSES if case.label == "MultiMargin")
    assert alarms(case, 152) == []


@pytest.mark.parametrize("loss", MISTAKES, ids=lambda loss: loss.__name__)
def test_a_broken_promise_is_caught_by_its_rule(loss):
    shape, rule = MISTAKES[loss]
    with pytest.raises(CheckFailed) as caught:
        check_loss(loss(), shape)
    assert rule in {failure.rule for failure in caught.value.report.failures}, caught.value.report
    assert f"{loss.__name__}:" in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "mistakes"),
    [
        (rules_losses.RULES, broken_losses.MISTAKES),
        (rules_penalties.RULES, broken_losses.WRONG_PENALTIES),
    ],
)
def test_every_rule_catches_something(rules, mistakes):
    caught = {rule for _, rule in mistakes.values()}
    assert caught - {"gradient"} == {rule.__name__.replace("_", " ") for rule in rules}


def test_what_is_right_passes_with_its_report():
    for loss, shape in ((broken_losses.Squares(), (3, 4)), (broken_losses.Cube(), ()), (L2Penalty("*"), ())):
        report = check_loss(loss, shape)
        assert "contract rules asked" in str(report)


def test_targets_are_drawn_as_declared_or_given():
    check_loss(CrossEntropy(), (4,))
    check_loss(CrossEntropy(), (4,), np.eye(4)[[0, 2, 1]])
    check_loss(CrossEntropy(ignore_index=2), (3, 4), [[0, 1, 2], [2, 2, 3]])
    check_loss(BCEWithLogits(), (4,))


def test_a_layer_is_sent_to_its_own_check():
    with pytest.raises(UsageError, match="check_layer"):
        check_loss(ReLU(), (4,))
    with pytest.raises(UsageError, match="check_loss"):
        check_layer(CrossEntropy(), (4,))  # type: ignore[arg-type]


def test_a_number_is_no_shape():
    for ask in (check_layer, gradcheck, lambda layer, shape: Net([layer], shape)):
        with pytest.raises(UsageError, match=r"shape must be a shape, got 5; one axis is \(5,\)"):
            ask(ReLU(), 5)
    with pytest.raises(UsageError, match=r"shape must be a shape, got 'four'; for example \(28, 28, 1\)"):
        check_loss(CrossEntropy(), "four")


def test_an_exponential_that_is_meant_passes_with_smaller_outputs():
    class Exponential(broken_losses.Squares):
        """exp(outputs)"""

        def forward(self, outputs, target, ctx):
            ctx.save(ctx.xp.exp(outputs))
            return ctx.saved[0].sum(), outputs.size

        def backward(self, ctx):
            return ctx.saved[0]

    with pytest.raises(CheckFailed, match="far outputs: the sum is inf for outputs of up to 100 in float32"):
        check_loss(Exponential(), (4,))
    check_loss(Exponential(), (4,), largest=30.0)


def test_a_loss_on_labels_that_does_not_say_so_is_told_how():
    class Tail(Loss):
        def forward(self, outputs, target, ctx):
            return outputs[np.arange(len(target)), target].sum(), len(target)

        def backward(self, ctx):
            raise AssertionError("never reached")

    with pytest.raises(CheckFailed, match='a loss on class labels says targets = "classes" in its class'):
        check_loss(Tail(), (5,))
