"""The catalogue on the stand-in for CuPy, and on CuPy where there is a GPU: numpy's results, in float64 to 1e-12.

On the stand-in nothing in a pass or an update may wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layernet import losses
from layernet.backend.device import Device, get_device, host
from layernet.backend.random import Stream
from layernet.config.names import BUILT_IN
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import AuxiliaryHead, BasicBlock
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from layernet.layers.shape import Flatten
from layernet.losses import Loss, Penalty
from layernet.metrics import accuracy
from layernet.objectives import ObjectivesPass
from layernet.optim.muon import Muon
from layernet.optim.optimizer import Optimizer
from layernet.optim.optimizers import SGD, Adagrad, Adam, AdamW, Lion, RMSprop
from layernet.testing import cases
from layernet.testing.sampling import input_for, stream
from tests import fakecupy
from tests.fakecupy.device import fake_device

CPU = host()
DEVICES = [pytest.param(fake_device(), id="stand-in")]
if get_device().name != "cpu":
    DEVICES.append(pytest.param(get_device(), id="cuda", marks=pytest.mark.gpu))
on_devices = pytest.mark.parametrize("device", DEVICES)

NETS: dict[str, Callable[[], Net]] = {
    **{case.label: lambda case=case: Net([case.make()], case.shape) for case in (*cases.LAYERS, *cases.STEPS)},
    "Ref": lambda: Net([Linear(5).named("first"), Tanh(), Ref("first")], (5,)),
    "a head on the side": lambda: Net([Linear(4), AuxiliaryHead("side", [Linear(3)]), Tanh()], (5,)),
    "a block after a layer": lambda: Net([Conv2d(4, 3, padding=1), BasicBlock(6, stride=2)], (7, 6, 3)),
}
LABELS = np.array([2, 0, -100, 4, 1, 2])
LOSSES = {case.label: case for case in cases.LOSSES if case.targets is not None}
PENALTIES = {case.label: case for case in cases.LOSSES if case.targets is None}
OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(0.1),
    "SGD, momentum": lambda: SGD(0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "SGD, nesterov, groups": lambda: SGD(0.1, 0.9, nesterov=True, groups={"linear_1.*": {"lr_mult": 2.0}}),
    "Adam": lambda: Adam(weight_decay=0.01),
    "AdamW": lambda: AdamW(),
    "RMSprop": lambda: RMSprop(weight_decay=0.01),
    "RMSprop, centered": lambda: RMSprop(momentum=0.9, centered=True),
    "Adagrad": lambda: Adagrad(lr_decay=0.1, initial_accumulator_value=0.1, weight_decay=0.01),
    "Lion": lambda: Lion(weight_decay=0.01),
    "Muon": lambda: Muon(weight_decay=0.01, groups={"*.weight": {"lr_mult": 0.5}}),
    "Muon, rest": lambda: Muon(renormalize=True, others=["linear*"], rest=SGD(0.1, 0.9)),
    "SGD, norms": lambda: SGD(0.1, groups={"conv*.weight": {"norm": 0.5}, "linear*.weight": {"max_norm": 0.5}}),
}


def test_everything_built_in_has_a_case() -> None:
    assert {case.name for case in cases.LAYERS} == set(BUILT_IN["layer"])
    assert {case.name for case in cases.LOSSES} == set(BUILT_IN["loss"])
    assert {case.split(",")[0] for case in OPTIMIZERS} == set(BUILT_IN["optimizer"])


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(shape).normal(size=shape)


def example(case: cases.Case) -> tuple[Loss, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(loss, outputs, targets)"""
    loss, shape = case.make(), (6, *case.shape)
    assert isinstance(loss, Loss)
    assert case.targets is not None
    return loss, normal(*shape), case.targets(shape, stream(1, "targets"))


def same(there: Any, here: Any, what: str) -> None:
    """Compare an array of a device, or a number, with numpy's. A GPU sums in another order, and in one rounding."""
    here = np.asarray(here)
    exact = isinstance(there, fakecupy.ndarray | np.ndarray | float | int)
    tolerance = 1e-12 if exact else 1e-5 if here.dtype == "float32" else 1e-10
    there = np.asarray(there.get() if hasattr(there, "get") else there)
    np.testing.assert_allclose(there, here, rtol=tolerance, atol=tolerance, err_msg=what)


def two_passes(net: Net) -> dict[str, Any]:
    """What a training pass and an evaluation leave, everything that can be compared; nothing waits for the device."""
    integers = net.root.reader.integer_input
    x = net.device.asarray(input_for(net.root, 3, net.input_shape, stream(1, "input")))
    dy = net.device.asarray(normal(3, *net.output_shape))
    with fakecupy.forbid_sync():
        tape = net.forward(x, training=True, step=2, needs_input_grad=not integers)
        outputs = dict(tape.outputs)
        dx = net.backward(tape, {"output": dy} | {k: 0.5 * v for k, v in outputs.items() if k != "output"})
        evaluated = net.forward(x).output
    grads = {f"grad of {path}": p.grad for path, p in net.params().items()}
    buffers = {path: b.data for path, b in net.buffers().items()}
    return outputs | grads | buffers | ({} if integers else {"dx": dx}) | {"evaluated": evaluated}


@on_devices
@pytest.mark.parametrize("case", NETS)
def test_layers(case: str, device: Device) -> None:
    there, here = (two_passes(NETS[case]().bind(place, "float64", seed=3)) for place in (device, CPU))
    assert there.keys() == here.keys()
    for name, value in there.items():
        assert isinstance(value, device.xp.ndarray), f"{name} has left the device"
        same(value, here[name], name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", LOSSES)
@on_devices
def test_losses(device: Device, case: str, dtype: str) -> None:
    loss, outputs, target = example(LOSSES[case])

    def values(place: Device) -> dict[str, Any]:
        ctx = Context(Tape(place, dtype, training=True))
        z = place.asarray(3.0 * outputs, dtype)
        with fakecupy.forbid_sync():
            total, normaliser = loss.forward(z, place.asarray(target), ctx)
            scale = losses.inverse(normaliser)
            return {"sum": total, "normaliser": normaliser, "mean": total * scale, "dy": loss.backward(ctx) * scale}

    there, here = values(device), values(CPU)
    for name, value in there.items():
        same(value, here[name], name)
        assert name == "normaliser" or value.dtype == dtype


@on_devices
@pytest.mark.parametrize("case", PENALTIES)
def test_penalties(case: str, device: Device) -> None:
    penalty = PENALTIES[case].make()
    assert isinstance(penalty, Penalty)

    def values(place: Device) -> tuple[Any, Any]:
        net = Net([Conv2d(3, 2).named("first"), Flatten(), Linear(4)], (4, 4, 2)).bind(place, "float64")
        params, ctx = penalty.select(net), Context(Tape(place, "float64", training=True))
        with fakecupy.forbid_sync():
            value = penalty.forward(params, ctx)
            penalty.backward(params, 0.3, ctx)
        return value, [p.grad for p in params]

    (there, grads_there), (here, grads_here) = values(device), values(CPU)
    same(there, here, "value")
    for a, b in zip(grads_there, grads_here, strict=True):
        same(a, b, "gradient")


@on_devices
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_optimizers(case: str, device: Device) -> None:
    def trained(place: Device) -> dict[str, Any]:
        layers = [Conv2d(3, 2, bias=False), BatchNorm(), ReLU(), Flatten(), Linear(4)]
        net = Net(layers, (4, 4, 2)).bind(place, "float64", seed=1)
        optimizer = OPTIMIZERS[case]().attach(net)
        x, target = place.asarray(normal(6, 4, 4, 2)), place.asarray(np.array([0, 1, 2, 3, 0, 1]))
        loss = losses.CrossEntropy()
        for step in range(4):
            with fakecupy.forbid_sync():
                net.zero_grad()
                tape = net.forward(x, training=True, step=step)
                ctx = Context(Tape(place, "float64", training=True))
                _, normaliser = loss.forward(tape.output, target, ctx)
                net.backward(tape, loss.backward(ctx) * losses.inverse(normaliser))
                optimizer.step(0.5, step)
            if step == 1:  # as if it stopped here
                state = optimizer.state_dict()
                optimizer = OPTIMIZERS[case]().attach(net)
                optimizer.load_state_dict(state)
        return net.state_dict() | optimizer.state_dict()

    there, here = trained(device), trained(CPU)
    assert there.keys() == here.keys()
    for name, value in there.items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_allclose(value, here[name], rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's device is what device_of finds for its arrays."""
    devices = {"cuda:0": fake_device(), "cpu": CPU}
    monkeypatch.setattr("layernet.backend.device.get_device", lambda name, *_, **__: devices[name])


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("case", LOSSES)
def test_losses_called_like_functions(case: str) -> None:
    loss, outputs, target = example(LOSSES[case])
    here, dy_here = loss(outputs, target)
    for on_either in (target, fake_device().asarray(target)):
        there, dy = loss(fake_device().asarray(outputs), on_either)
        same(there, here, "value")
        assert isinstance(dy, fakecupy.ndarray)
        same(dy, dy_here, "gradient")


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("top_k", [1, 2])
def test_accuracy(top_k: int) -> None:
    def result(device: Device) -> dict[str, float]:
        metric = accuracy(top_k)
        with fakecupy.forbid_sync():
            metric.update(device.asarray(normal(6, 5)), device.asarray(LABELS))
        return metric.result()

    assert result(fake_device()) == result(CPU)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@on_devices
def test_random_streams_are_the_same_bits(device: Device, dtype: str) -> None:
    draws: list[Callable[[Stream], Any]] = [
        lambda s: s.bits((3, 5)),
        lambda s: s.uniform((7,), -1.0, 2.0),
        lambda s: s.keep_mask((4, 4), 0.3),
        lambda s: s.keep_mask((4, 4), 1.0),
        lambda s: s.integers(-3, 9, (11,)),
        lambda s: s.permutation(13),
    ]
    there, here = Stream((1, 2**63 + 5), device.ops, dtype), Stream((1, 2**63 + 5), CPU.ops, dtype)
    with fakecupy.forbid_sync():
        drawn = [draw(there) for draw in draws] + [there.normal((3, 5), 1.0, 0.1)]
    for a, draw in zip(drawn, draws, strict=False):
        b = draw(here)
        assert isinstance(a, device.xp.ndarray)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(device.to_numpy(a), b)
    same(drawn[-1], here.normal((3, 5), 1.0, 0.1), "normal")  # logarithms and cosines differ in their last bit


@on_devices
def test_a_net_moves_between_devices_with_its_values(device: Device) -> None:
    net = Net([Linear(4), BatchNorm()], (5,)).bind(CPU, "float64", seed=2)
    before = net.state_dict()
    net.bind(device, "float64")
    assert all(isinstance(p.data, device.xp.ndarray) for p in net.params().values())
    x = normal(3, 5)
    outputs = net.predict(x)
    assert isinstance(outputs, np.ndarray)
    net.bind(CPU, "float64")
    np.testing.assert_allclose(outputs, net.predict(x), rtol=1e-10, atol=1e-12)
    for path, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[path])


@on_devices
def test_a_number_without_axes_keeps_them_that_way(device: Device) -> None:
    for value in (3.0, np.float32(3), np.array(3.0)):
        assert device.asarray(value, "float64").shape == ()


def test_a_step_with_its_objectives_waits_for_its_sums_alone() -> None:
    objectives = losses.named([losses.Objective(losses.CrossEntropy()), losses.Objective(losses.L2Penalty())])
    net = Net([Linear(4), AuxiliaryHead("side", [Linear(4)]), Linear(5)], (5,)).bind(fake_device(), "float64")
    optimizer = SGD(0.1).attach(net)
    x, target = net.device.asarray(normal(6, 5)), net.device.asarray(LABELS)
    with fakecupy.count_syncs() as counts:
        tape = net.forward(x, training=True)
        passed = ObjectivesPass(objectives, net, tape, target)
        net.backward(tape, passed.gradients())
        passed.add_penalty_gradients()
        optimizer.step()
    assert counts == {"float": 3}  # the sum of the loss, its normaliser, the penalty
