"""Settings of groups of parameters: multipliers, norms that are held, what is frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.core.net import Net
from layernet.errors import UsageError
from layernet.layers.conv import Conv2d
from layernet.layers.conv_transpose import ConvTranspose2d
from layernet.layers.linear import Linear
from layernet.layers.local import Local2d
from layernet.layers.shape import Flatten
from layernet.optim.optimizers import SGD, Adam, AdamW
from tests.optim.small import assert_same, gradients, make_net, naive, put, run, values


@pytest.mark.parametrize(("setting", "limit"), [("max_norm", 1.3), ("norm", 1.3)])
def test_norms_are_held_after_every_update(setting, limit):
    def net() -> Net:
        return Net([Conv2d(6, 2), Flatten(), Linear(7).named("head")], (3, 3, 2)).bind("cpu", "float64")

    held, free = net(), net()
    grads = gradients(held, 3)
    run(SGD(0.1, 0.9, groups={"conv*.weight": {setting: limit, "lr_mult": 2.0}}).attach(held), held, grads[:1])
    run(SGD(0.1, 0.9, groups={"conv*.weight": {"lr_mult": 2.0}}).attach(free), free, grads[:1])
    found, expected = values(held), values(free)
    moved = 0
    for unit in range(6):
        row = expected["conv2d_1.weight"][unit]
        norm = math.sqrt(sum(float(v) ** 2 for v in row.flat))
        scale = limit / norm if setting == "norm" or norm > limit else 1.0
        moved += scale != 1.0
        assert_allclose(found["conv2d_1.weight"][unit], row * scale, rtol=1e-14)
    assert moved in ((6,) if setting == "norm" else range(1, 6))
    for path in ("conv2d_1.bias", "head.weight", "head.bias"):
        assert_array_equal(found[path], expected[path])


@pytest.mark.parametrize("groups", [1, 2])
def test_norms_are_those_of_what_leads_to_a_unit(groups):
    # told by the layer itself: of an input of ones a unit's output, summed over the image, is the sum of its weights
    layers = [Local2d(2, 2, bias=False).named("local"), ConvTranspose2d(4, 2, groups=groups, bias=False).named("up")]
    net = Net(layers, (3, 3, 2)).bind("cpu", "float64")
    local, up = (net.params()[f"{name}.weight"] for name in ("local", "up"))
    local.data[...] = abs(local.data)
    settings = {"local.weight": {"norm": 2.0}, "up.weight": {"norm": 3.0}}
    SGD(0.0, groups=settings).attach(net).step()
    for place in np.ndindex(local.shape[:3]):
        assert math.isclose((local.data[place] ** 2).sum(), 4.0)
    local.data[...] = 1 / 8  # so that the second layer sees ones
    up.data[...] **= 2
    y = net.predict(np.ones((1, 3, 3, 2)))
    assert_allclose(y.sum(axis=(0, 1, 2)), [4 * 9.0] * 4, rtol=1e-12)  # each of four pixels gives every weight once


def test_norms_of_nothing_and_of_frozen_parameters():
    net = make_net()
    net.params()["head.weight"].data[2] = 0.0
    before = values(net)
    groups = {"head.weight": {"norm": 2.0}, "linear_1.weight": {"max_norm": 1e-3, "frozen": True}}
    run(SGD(0.0, groups=groups).attach(net), net, gradients(net, 1))
    assert_array_equal(values(net)["linear_1.weight"], before["linear_1.weight"])
    norms = np.sqrt((values(net)["head.weight"] ** 2).sum(axis=1))
    assert_allclose(norms, [2.0, 2.0, 0.0, 2.0, 2.0, 2.0, 2.0], rtol=1e-14)


def test_groups_set_multipliers_anew():
    groups = {"head.*": {"lr_mult": 2}, "*.bias": {"decay_mult": 1}, "gains_1.gain": {"lr_mult": 0.25, "decay_mult": 0}}
    net = make_net()
    before, grads = values(net), gradients(net, 20)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    run(SGD(**options, groups=groups).attach(net), net, grads)
    expected_multipliers = {
        "linear_1.weight": (1, 1),
        "linear_1.bias": (1, 1),
        "gains_1.gain": (0.25, 0),
        "gains_1.shift": (1, 0),
        "head.weight": (2, 1),
        "head.bias": (2, 1),
    }
    expected = {
        path: naive(SGD, options, w, [g[path] for g in grads], [1.0] * 20, *expected_multipliers[path])
        for path, w in before.items()
    }
    assert_same(values(net), expected, 1e-12)
    # they belong to the optimizer: the net's own stay for the next one
    again = make_net()
    run(SGD(**options, groups=groups).attach(again), again, [])
    run(SGD(**options).attach(again), again, grads)
    plain = make_net()
    run(SGD(**options).attach(plain), plain, grads)
    assert_same(values(again), values(plain))


@pytest.mark.parametrize(("cls", "options"), [(SGD, {"lr": 0.1, "momentum": 0.9}), (AdamW, {"lr": 0.1})])
def test_frozen_parameters_do_not_move(cls, options):
    net = make_net()
    before = values(net)
    optimizer = cls(**options, weight_decay=0.1, groups={"linear_1.*": {"frozen": True}}).attach(net)
    assert net.params()["linear_1.weight"].frozen
    run(optimizer, net, gradients(net, 3))
    after = values(net)
    for path in before:
        assert (before[path] == after[path]).all() == path.startswith("linear_1."), path


def test_a_frozen_parameter_between_others_does_not_move():
    net = Net([Linear(20), Linear(20).named("middle"), Linear(20)], (20,)).bind("cpu", "float64")
    before = values(net)
    optimizer = SGD(0.1, weight_decay=0.5).attach(net)
    net.arena.grad[...] = 0.0
    net.freeze("middle.*")
    put(net, gradients(net, 1)[0])
    net.params()["middle.weight"].data[...] += 1.0
    optimizer.step()
    assert_array_equal(values(net)["middle.weight"], before["middle.weight"] + 1.0)
    assert not np.array_equal(values(net)["linear_3.weight"], before["linear_3.weight"])


def test_what_is_unfrozen_later_starts_then():
    net, fresh = make_net(), make_net()
    grads = gradients(net, 10)
    optimizer = Adam(0.01, groups={"head.*": {"frozen": True}}).attach(net)
    run(optimizer, net, grads[:6])
    saved = optimizer.state_dict()
    assert saved["first_step/head.weight"] == -1
    assert "first_step/linear_1.weight" not in saved
    net.freeze("head.*", False)
    run(optimizer, net, grads[6:], start=6)
    assert optimizer.state_dict()["first_step/head.weight"] == 6
    run(Adam(0.01).attach(fresh), fresh, grads[6:])
    for path in ("head.weight", "head.bias"):
        assert_array_equal(values(net)[path], values(fresh)[path])
    # and a checkpoint from while it was frozen knows that it has not started
    other = make_net()
    twin = Adam(0.01, groups={"head.*": {"frozen": True}}).attach(other)
    run(twin, other, grads[:6])
    rest = make_net()
    rest.load_state_dict(other.state_dict())
    resumed = Adam(0.01).attach(rest)
    resumed.load_state_dict(saved)
    run(resumed, rest, grads[6:], start=6)
    assert_same(values(rest), values(net))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"conv*": {"lr_mult": 2}}, r"no parameter matches 'conv\*'"),
        (
            {"head.*": {"lr_mult": 2}, "*.bias": {"lr_mult": 3}},
            r"groups 'head\.\*' and '\*\.bias' both set lr_mult of head\.bias",
        ),
        ({"head.*": {"max_norm": 2}}, r"'head\.\*' sets max_norm of head\.bias.*it has one axis"),
        ({"head.w*": {"max_norm": 2}, "head.*t": {"norm": 2}}, r"both norm and max_norm of head\.weight"),
    ],
)
def test_groups_that_do_not_fit_the_net(groups, message):
    net = make_net()
    with pytest.raises(UsageError, match=message):
        SGD(0.1, groups={"linear_1.*": {"frozen": True}, **groups}).attach(net)
    assert not net.params()["linear_1.weight"].frozen  # refused before anything changed


def test_one_parameter_may_be_matched_for_different_settings():
    SGD(0.1, groups={"head.*": {"lr_mult": 2}, "*.bias": {"decay_mult": 1}}).attach(make_net())
