"""Averages of weights against PyTorch's and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.core.duration import Duration
from layernet.core.net import Net
from layernet.errors import ContractError
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from layernet.optim.averaging import EMA, SWA, Average


def make() -> Net:
    return Net([Linear(3), BatchNorm()], (2,)).bind("cpu", "float64")


def wander(net: Net, step: int) -> dict[str, np.ndarray]:
    g = np.random.default_rng(step)
    for tensor in (*net.params().values(), *net.buffers().values()):
        tensor.data[...] = g.normal(size=tensor.shape)
    return net.state_dict()


def averaged(average: Average, net: Net) -> dict[str, np.ndarray]:
    with average.applied():
        return net.state_dict()


def run(average: Average, steps: int = 12, per_epoch: int = 3) -> tuple[list[dict], list[dict]]:
    """(values, averages) after each update"""
    net = make()
    average.attach(net, per_epoch)
    own, found = [], []
    for step in range(1, steps + 1):
        own.append(wander(net, step))
        average.update(step)
        found.append(averaged(average, net))
        for path, value in net.state_dict().items():
            assert_array_equal(value, own[-1][path])  # its own values are back
    return own, found


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_ema_is_its_sum(decay):
    own, found = run(EMA(decay))
    for n, averages in enumerate(found):
        for path, value in averages.items():
            expected = decay**n * own[0][path] + sum(
                (1 - decay) * decay ** (n - i) * own[i][path] for i in range(1, n + 1)
            )
            assert_allclose(value, expected, atol=1e-14)


def test_swa_is_a_mean_from_its_start():
    own, found = run(SWA(Duration(2, "epochs"), Duration(2, "steps")))
    for n, averages in enumerate(found):
        parts = [own[i] for i in range(5, n + 1, 2)] or [own[n]]  # after updates 6, 8, 10, 12
        for path, value in averages.items():
            assert_allclose(value, np.mean([part[path] for part in parts], axis=0), atol=1e-14)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_averages_are_torchs(decay):
    torch = pytest.importorskip("torch")
    utils = torch.optim.swa_utils
    model = torch.nn.Linear(2, 3, dtype=torch.float64)
    theirs = utils.AveragedModel(model, multi_avg_fn=utils.get_ema_multi_avg_fn(decay) if decay else None)
    own, found = run(EMA(decay) if decay else SWA(Duration(1, "steps"), Duration(1, "steps")), 100)
    for values, averages in zip(own, found, strict=True):
        with torch.no_grad():
            model.weight.copy_(torch.tensor(values["linear_1.weight"]))
        theirs.update_parameters(model)
        assert_allclose(averages["linear_1.weight"], theirs.module.weight.detach().numpy(), atol=1e-13)


def test_it_goes_on_from_what_was_saved():
    net, average = make(), EMA(0.7)
    average.attach(net)
    for step in range(1, 6):
        wander(net, step)
        average.update(step)
    other, resumed = make(), EMA(0.7)
    resumed.attach(other)
    other.load_state_dict(averaged(average, net))
    resumed.load(average.count)
    other.load_state_dict(net.state_dict())
    for step in range(6, 9):
        for each, its in ((net, average), (other, resumed)):
            wander(each, step)
            its.update(step)
    for path, value in averaged(average, net).items():
        assert_array_equal(averaged(resumed, other)[path], value)
    average.adopt()
    assert_array_equal(net.params()["linear_1.weight"].data, averaged(resumed, other)["linear_1.weight"])


def test_misuse_is_explained():
    with pytest.raises(ContractError, match=r"EMA\(\) has no net yet"):
        EMA().update(1)
    with pytest.raises(ValueError, match="decay must lie in 0"):
        EMA(1.0)
    with pytest.raises(ValueError, match="start must be a duration"):
        SWA(Duration(0, "epochs"))
