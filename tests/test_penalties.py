"""Penalties, where they agree with weight decay, and the names of objectives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.errors import UsageError
from layernet.layers.activation import ReLU
from layernet.layers.linear import Linear
from layernet.losses import (
    L1,
    MSE,
    BCEWithLogits,
    CrossEntropy,
    L1Penalty,
    L2Penalty,
    Objective,
    named,
)
from layernet.optim.optimizers import SGD, Adam


def context(dtype: str = "float64") -> Context:
    return Context(Tape(host(), dtype, training=True))


def small_net(dtype: str = "float64", seed: int = 0) -> Net:
    return Net([Linear(5), ReLU(), Linear(3)], (4,)).bind("cpu", dtype, seed)


def test_penalties_by_hand():
    net, ctx = small_net(), context()
    first, second = (net.params()[path].data for path in ("linear_1.weight", "linear_2.weight"))
    l2, l1 = L2Penalty(), L1Penalty("linear_2.*")
    assert_allclose(l2.forward(l2.select(net), ctx), 0.5 * ((first**2).sum() + (second**2).sum()), rtol=1e-14)
    assert_allclose(l1.forward(l1.select(net), ctx), np.abs(second).sum(), rtol=1e-14)
    second[0, 0] = 0.0
    net.zero_grad()
    l2.backward(l2.select(net), 0.5, ctx)
    l1.backward(l1.select(net), 2.0, ctx)
    assert_allclose(net.params()["linear_1.weight"].grad, 0.5 * first)
    assert_allclose(net.params()["linear_2.weight"].grad, 0.5 * second + 2 * np.sign(second))
    assert net.params()["linear_2.weight"].grad[0, 0] == 0.0
    assert_array_equal(net.params()["linear_1.bias"].grad, 0)
    with pytest.raises(UsageError, match="no parameter matches 'conv"):
        L2Penalty("conv*").select(net)


def test_a_penalty_leaves_frozen_parameters_alone():
    net = small_net()
    net.freeze("linear_1.*")
    net.zero_grad()
    L2Penalty().backward(L2Penalty().select(net), 1.0, context())
    assert not net.params()["linear_1.weight"].has_grad
    assert net.params()["linear_2.weight"].has_grad


def train(optimizer, penalty: L2Penalty | None, steps: int = 20) -> dict[str, np.ndarray]:
    net = small_net()
    optimizer.attach(net)
    g = np.random.default_rng(6)
    x, labels = g.normal(size=(8, 4)), g.integers(0, 3, 8)
    for step in range(steps):
        net.zero_grad()
        tape = net.forward(x, training=True)
        net.backward(tape, CrossEntropy()(tape.output, labels)[1])
        if penalty:
            penalty.backward(penalty.select(net), 0.01, context())
        optimizer.step(1.0, step)
    return net.state_dict()


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_under_sgd_an_l2_penalty_is_weight_decay(options):
    in_loss = train(SGD(0.1, **options), L2Penalty())
    in_update = train(SGD(0.1, weight_decay=0.01, **options), None)
    for path in in_loss:
        assert_allclose(in_loss[path], in_update[path], atol=1e-12)
    plain = train(SGD(0.1, **options), None)
    assert abs(plain["linear_1.weight"] - in_loss["linear_1.weight"]).max() > 1e-3


def test_under_decoupled_decay_an_l2_penalty_is_something_else():
    from layernet.optim.optimizers import AdamW

    in_loss, in_gradient = train(Adam(0.01), L2Penalty()), train(Adam(0.01, weight_decay=0.01), None)
    decoupled = train(AdamW(0.01, weight_decay=0.01), None)
    path = "linear_1.weight"
    assert_allclose(in_loss[path], in_gradient[path], atol=1e-12)  # torch's Adam decays through the gradient as well
    assert abs(in_loss[path] - decoupled[path]).max() > 1e-3


def test_objectives_get_names():
    found = named(
        [
            Objective(CrossEntropy()),
            Objective(CrossEntropy(), on="aux", weight=0.3),
            Objective(L2Penalty(), name="cross_entropy_2"),
            Objective(BCEWithLogits()),
            Objective(MSE()),
            Objective(L1()),
            Objective(L2Penalty()),
        ]
    )
    assert [o.name for o in found] == [
        "cross_entropy",
        "cross_entropy_3",
        "cross_entropy_2",
        "bce_with_logits",
        "mse",
        "l1",
        "l2_penalty",
    ]
    assert found[1].weight == 0.3
    with pytest.raises(UsageError, match="two objectives are called 'x'"):
        named([Objective(MSE(), name="x"), Objective(L1(), name="x")])
