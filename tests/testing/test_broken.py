"""Every deliberately wrong layer and loss is rejected, by the right rule and with a message that says where and why."""

from __future__ import annotations

import json

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import Residual
from layernet.layers.linear import Linear
from layernet.losses import L1Penalty, Objective
from layernet.testing import CheckFailed, check_layer, check_net, gradcheck
from tests.testing import broken

MISTAKES = [
    # layer, shape, rule, tensor, what the message says
    (broken.WrongSign(), (5,), "gradient", "weight", "the opposite sign"),
    (broken.MeanForSum(), (5,), "gradient", "weight", "too small by a factor of 3 (N, the batch size)"),
    (broken.FactorTwo(), (5,), "gradient", "input", "too large by a factor of 2"),
    (broken.OneElement(100), (100,), "gradient", "weight", "weight[37, 58]"),
    (broken.Transposed(), (4,), "gradient", "weight", "transposed"),
    (broken.ForgottenBias(), (5,), "missing", "bias", "backward never adds a gradient"),
    (broken.ZeroBias(), (5,), "missing", "bias", "zero everywhere"),
    (broken.ZeroInput(), (5,), "missing", "input", "zero everywhere"),
    (broken.Overwritten(), (5,), "accumulation", "bias", "overwritten instead of added"),
    (broken.AlwaysAdded(), (5,), "nan", "bias", "use ctx.add_grad"),
    (broken.Single(), (5,), "gradient", "weight", "float32"),
    (broken.SingleGradient(), (5,), "precision", "weight", "float32"),
    (
        broken.NotANumber(),
        (5,),
        "nan",
        "weight",
        "1 of 20 elements of the gradient are not finite, the first at [0, 1]",
    ),
    (broken.WrongShape(), (5,), "contract", "", "backward returned"),
    (broken.WrongBiasShape(), (5,), "contract", "", "the gradient of Param"),
    (broken.SingleInputGradient(), (5,), "contract", "", "backward returned float32"),
    (broken.InfiniteOutput(), (5,), "nan", "output", "not finite"),
    (broken.UnkeyedNoise(), (50,), "determinism", "output", "ctx.rng"),
    (broken.KinksEverywhere(), (50,), "gradient", "input", "rough"),
    (broken.Staircase(), (5,), "gradient", "input", "flat here"),
    (broken.NoMeanTerm(), (5,), "gradient", "input", "a mean (or sum) over the others is missing"),
    (broken.NoVarianceTerm(), (4, 3), "gradient", "input", "points differ"),
    (broken.ForgottenGain(), (5,), "gradient", "input", "one factor for each entry of the last axis"),
    (broken.ForgottenStatistics(), (5,), "gradient", "input", "one factor for each entry of the last axis"),
    (broken.SoftplusAtOutput(), (5,), "gradient", "input", "points differ"),
    (broken.MeanPool1d(), (9,), "gradient", "input", "only elements at the border of axis 1"),
    (broken.WrongChild(), (5,), "gradient", "input", "points differ"),
    (broken.WeakBias(), (5,), "missing", "bias", "backward never adds a gradient"),
    (broken.Dead(), (5,), "nothing", "", "the check shows nothing"),
]


@pytest.mark.parametrize(
    ("layer", "shape", "rule", "tensor", "words"), MISTAKES, ids=[type(row[0]).__name__ for row in MISTAKES]
)
def test_a_wrong_layer_is_rejected_for_the_right_reason(layer, shape, rule, tensor, words):
    report = gradcheck(layer, shape)
    assert not report.ok
    assert not report
    found = [f for f in report.failures if f.rule == rule and f.tensor == tensor]
    assert found, report
    assert any(words in str(failure) for failure in found), report
    others = {f.tensor for f in report.failures} - {tensor}
    if rule in ("gradient", "missing", "accumulation", "precision") and not isinstance(layer, broken.Single):
        assert not others, report
    assert "FAILED" in str(report)
    json.dumps(report.as_dict())


@pytest.mark.parametrize("layer", [row[0] for row in MISTAKES], ids=[type(row[0]).__name__ for row in MISTAKES])
def test_a_wrong_layer_is_rejected_whatever_the_seed(layer):
    shape = next(row[1] for row in MISTAKES if row[0] is layer)
    for seed in range(1, 6):
        assert not gradcheck(layer, shape, seed=seed).ok


@pytest.mark.parametrize(("layer", "shape"), [(broken.Dense(), (5,)), (broken.BatchNorm(), (5,))])
def test_what_the_mistakes_were_made_in_is_right(layer, shape):
    for seed in range(5):
        report = gradcheck(layer, shape, seed=seed)
        assert report.ok, report


def test_a_slope_outside_the_subgradient_is_rejected_at_a_kink():
    report = gradcheck(broken.NoSubgradient(), x=[[0.0, 1.0, 2.0, 3.0, -1.0, 2.5]])
    (failure, _) = report.failures
    assert failure.index == (0, 0)
    assert "one-sided slopes" in failure.message


def test_a_gradient_that_is_nan_at_zeros_is_rejected():
    assert gradcheck(broken.ByDivision(), (5,)).ok  # inputs drawn without ties have no zero
    with pytest.raises(CheckFailed, match="nan where some inputs are zero, though the output is finite"):
        check_layer(broken.ByDivision(), (5,))


def test_ill_conditioned_points_are_named_with_their_values():
    report = gradcheck(broken.Wiggles(), (2,))
    counted = report.count("ill_conditioned") + report.count("kinks")
    assert counted
    if report.count("ill_conditioned"):
        (note, *_) = [note for note in report.notes if "ill-conditioned of" in note]
        assert "input (train)" in note
        assert "analytic" in note
        assert "at h = " in note
    assert note in str(report)
    assert note in report.as_dict()["notes"]


def test_a_tensor_without_any_gradient_is_noted_beside_others():
    report = gradcheck(L1Penalty("first.*"))
    assert report.ok
    zero = [note for note in report.notes if "no gradient was ever other than zero" in note]
    assert [note.rpartition("zero: ")[2] for note in zero] == ["second (Linear): bias", "second (Linear): weight"]
    assert not gradcheck(Linear(3), (4,)).notes


def test_inputs_of_nothing_but_kinks_prove_nothing():
    report = gradcheck(ReLU(), x=np.zeros((3, 4)))
    assert {f.rule for f in report.failures} == {"kinks"}
    assert "12 of 12 points" in str(report)


@pytest.mark.parametrize(
    ("loss", "cause"),
    [
        (broken.HalfSquare(), "too small by a factor of 2"),
        (broken.NoBatchFactor(), "too small by a factor of 12 (the number of outputs)"),
    ],
)
def test_a_wrong_loss_is_rejected(loss, cause):
    report = gradcheck(loss, (4,), targets=np.zeros((3, 4)))
    assert [f.cause for f in report.failures] == [cause]


def test_a_tied_layer_that_overwrites_is_rejected_in_its_net():
    net = Net([broken.Overwritten(5).named("first"), Tanh(), Ref("first")], (5,)).bind("cpu", "float64")
    report = gradcheck(net)
    assert {(f.rule, f.tensor) for f in report.failures} == {("accumulation", "bias"), ("gradient", "bias")}


def test_a_wrong_layer_deep_in_a_net_is_named_by_its_path():
    body = [Linear(5).named("right"), Tanh(), broken.WrongSign(5).named("wrong")]
    net = Net([Linear(5), Residual(body).named("block"), Linear(2)], (4,)).bind("cpu", "float64")
    x = np.random.default_rng(0).normal(size=(3, 4))
    report = check_net(net, [Objective(broken.HalfSquareRight())], x, np.zeros((3, 2)))
    alone = [f for f in report.failures if f.subject == "block (Residual)"]
    whole = [f for f in report.failures if f.subject == "net"]
    assert {f.layer for f in alone} == {"wrong (WrongSign)"} or {f.layer for f in alone} == {"body.wrong (WrongSign)"}
    assert len({f.layer for f in whole}) == 1
    assert "wrong (WrongSign)" in whole[0].layer
    assert {f.tensor for f in report.failures} == {"weight"}


def test_a_wrong_objective_is_found_in_the_whole_net_alone():
    net = Net([Linear(3), Tanh(), Linear(2)], (4,)).bind("cpu", "float64")
    x = np.random.default_rng(0).normal(size=(3, 4))
    report = check_net(net, [Objective(broken.HalfSquare())], x, np.zeros((3, 2)))
    assert {f.subject for f in report.failures} == {"net"}
    assert {f.cause for f in report.failures} == {"too small by a factor of 2"}
