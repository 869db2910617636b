"""What a plan joins and leaves alone, and that nothing but time can tell whether a net has one."""

from __future__ import annotations

import re

import numpy as np
import pytest

from layernet.backend import compiled
from layernet.backend.device import get_device
from layernet.config.experiment import load_config, load_config_text
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.core.plan import Step, running
from layernet.core.sequential import Ref
from layernet.core.summary import summarize
from layernet.errors import Interrupted, UsageError
from layernet.layers.activation import ReLU
from layernet.layers.block import Bottleneck
from layernet.layers.composite import BasicBlock, Concat, Recompute, Residual
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.local import Local2d
from layernet.layers.norm import BatchNorm
from layernet.layers.pool import MaxPool2d
from layernet.layers.shape import Flatten
from layernet.losses import CrossEntropy
from layernet.optim.optimizers import SGD
from layernet.testing import gradcheck
from layernet.train.checkpoint import load as load_checkpoint
from layernet.train.experiment import Experiment
from layernet.train.rundir import RunDirectory
from tests.test_configs import CONFIGS, TOO_LARGE
from tests.train.small import CONFIG, InterruptAt, callback, quiet

CPU = get_device("cpu")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def steps_of(net, inference=False):
    return [layer for layer in running(net.root, net.steps(inference)) if isinstance(layer, Step)]


def joined(net, inference=False):
    """The paths of the layers in each step."""
    return [[part.path for part in step.parts] for step in steps_of(net, inference)]


def pair(make, shape, **bound):
    """The same net with a plan and without one, values unsettled."""
    nets = [Net(make(), shape, plan=plan).bind("cpu", "float64", **bound) for plan in (True, False)]
    for net in nets:
        for number, tensor in enumerate((*net.params().values(), *net.buffers().values())):
            tensor.data[...] += abs(numbers(*tensor.shape, seed=number)) * 0.3
    return nets


def close(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * abs(value).max(), err_msg=name)


def small():
    """One of every step, in chains of every depth, and a mask that must not move."""
    return [
        Conv2d(4, 3, padding=1),
        ReLU(),
        Conv2d(4, 3, padding=1, bias=False),
        BatchNorm(),
        ReLU(),
        BasicBlock(4).named("block"),
        Concat([[Conv2d(2, 1), BatchNorm()], [Recompute([Conv2d(2, 1), BatchNorm(), ReLU()]), Dropout(0.4)]]),
        Local2d(3, 2),
        ReLU(),
        MaxPool2d(2),
        MaxPool2d(2, stride=1),
        ReLU(),
        Flatten(),
        Linear(6),
        ReLU(),
        Dropout(0.5),
        Linear(5),
    ]


def test_what_is_joined():
    net = Net(small(), (6, 6, 3))
    assert joined(net) == [
        ["conv2d_1", "relu_1"],
        ["batchnorm_1", "relu_2"],
        ["block.residual_1", "block.bn2", "block.relu2"],
        ["block.bn1", "block.relu1"],
        ["concat_1.branch_2.batchnorm_1", "concat_1.branch_2.relu_1"],
        ["relu_3", "maxpool2d_1"],
        ["maxpool2d_2", "relu_4"],
        ["linear_1", "relu_5"],
    ]
    assert joined(net, inference=True) == [
        ["conv2d_1", "relu_1"],
        ["conv2d_2", "batchnorm_1", "relu_2"],
        ["block.residual_1", "block.bn2", "block.relu2"],
        ["block.conv1", "block.bn1", "block.relu1"],
        ["concat_1.branch_1.conv2d_1", "concat_1.branch_1.batchnorm_1"],
        ["concat_1.branch_2.conv2d_1", "concat_1.branch_2.batchnorm_1", "concat_1.branch_2.relu_1"],
        ["relu_3", "maxpool2d_1"],
        ["maxpool2d_2", "relu_4"],
        ["linear_1", "relu_5"],
    ]
    assert joined(Net(small(), (6, 6, 3), plan=False)) == []


class MyConv(Conv2d):
    """A user's convolution."""

    def forward(self, x, ctx):
        return super().forward(2 * x, ctx)


class MyReLU(ReLU):
    """A user's ReLU."""


class MyNorm(BatchNorm):
    """A user's norm."""


def replaced():
    conv = Conv2d(3, 1)
    forward = conv.forward
    conv.forward = lambda x, ctx: forward(x, ctx)  # as somebody does who looks at outputs
    return conv


@pytest.mark.parametrize(
    "make",
    [
        lambda: [MyConv(3, 1), ReLU()],
        lambda: [MyConv(3, 1), BatchNorm()],
        lambda: [Conv2d(3, 1), MyReLU()],
        lambda: [Conv2d(3, 1), MyNorm(), ReLU()],
        lambda: [BatchNorm(), MyReLU()],
        lambda: [Linear(3), MyReLU()],
        lambda: [Residual([MyNorm()]), ReLU()],
        lambda: [Residual([BatchNorm()]), MyReLU()],
        lambda: [Residual([BatchNorm(), Linear(3)]), ReLU()],
        lambda: [Residual([]), ReLU()],
        lambda: [MyReLU(), MaxPool2d(2)],
        lambda: [ReLU(), MaxPool2d(2, ties="all")],
        lambda: [MaxPool2d(2, ties="all"), ReLU()],
        lambda: [MaxPool2d(2), MyReLU()],
        lambda: [replaced(), ReLU()],
        lambda: [Linear(3).named("a"), Dropout(0.5), Ref("a"), ReLU()],
        lambda: [Linear(3).named("a"), ReLU(), Ref("a")],
        lambda: [Residual([BatchNorm().named("n")]), ReLU(), Ref("n")],
    ],
)
def test_what_is_somebodys_own_or_shared_stays_as_it_is(make):
    net = Net(make(), (4, 4, 3))
    assert joined(net) == joined(net, inference=True) == []


def passes(net, x, **options):
    """All that a training pass and evaluations give."""
    net.zero_grad()
    tape = net.forward(x, training=True, step=3, **options)
    found = {"y": tape.output}
    dx = net.backward(tape, numbers(*tape.output.shape, seed=9))
    found |= {} if dx is None else {"dx": dx}
    found |= {f"grad {path}": param.grad.copy() for path, param in net.params().items()}
    found |= {path: buffer.data.copy() for path, buffer in net.buffers().items()}
    tape = net.forward(x)
    net.zero_grad()
    net.backward(tape, numbers(*tape.output.shape, seed=8))
    found |= {f"evaluation {path}": param.grad.copy() for path, param in net.params().items()}
    return found | {"evaluated": tape.output, "predicted": net.predict(x)}


def test_the_same_numbers_paths_and_table_with_and_without():
    on, off = pair(small, (6, 6, 3), seed=4)
    x = numbers(3, 6, 6, 3)
    close(passes(on, x, needs_input_grad=True), passes(off, x, needs_input_grad=True))
    assert list(on.state_dict()) == list(off.state_dict())
    assert summarize(on) == summarize(off)
    assert [layer.path for _, layer in on.root.walk()] == [layer.path for _, layer in off.root.walk()]


@pytest.mark.parametrize("frozen", ["conv2d_1.*", "batchnorm_1.*", "block.bn2.*", "block.*", "b*", "*.bias", "*"])
def test_frozen_layers_with_and_without(frozen):
    on, off = pair(small, (6, 6, 3))
    x = numbers(3, 6, 6, 3)
    for needs_input_grad in (True, False):
        for net in (on, off):
            net.freeze(frozen)
        close(*(passes(net, x, needs_input_grad=needs_input_grad) for net in (on, off)))
        for net in (on, off):
            net.freeze(frozen, frozen=False)
        close(passes(on, x), passes(off, x))


class Counting:
    """Kernels, and the names of those that ran."""

    def __init__(self, ops):
        self._ops, self.ran = ops, []

    def __getattr__(self, name):
        found = getattr(self._ops, name)
        if callable(found):
            self.ran.append(name)
        return found


def kernels_of(net, x):
    """The kernels that a training pass asks for, there and back."""
    ops = Counting(CPU.ops)
    tape = Tape(type(CPU)("cpu", ops), "float64", True, steps=net.steps())
    y, call = Context(tape).call(net.root, x, needs_input_grad=False)
    forward, ops.ran = ops.ran, []
    Context(tape).backward(call, np.ones_like(y))
    return set(forward) - {"xp"}, ops.ran


def test_a_frozen_prefix_costs_no_backward_work():
    layers = [Conv2d(3, 1), ReLU(), Residual([Linear(3), BatchNorm()]), ReLU(), Flatten(), Linear(2), ReLU()]
    net = Net(layers, (4, 4, 3)).bind("cpu", "float64")
    x = numbers(2, 4, 4, 3)
    _, back = kernels_of(net, x)
    residual = ["batch_norm_relu_backward", "linear_backward", "add_to"]
    assert back == ["linear_relu_backward", *residual, "conv2d_relu_backward"]
    for pattern in ("conv2d_1.*", "linear_1.*", "batchnorm_1.*"):
        net.freeze(pattern)
    forward, back = kernels_of(net, x)
    assert back == ["linear_relu_backward"]
    assert forward >= {"conv2d_relu", "linear", "batch_norm_given_relu", "linear_relu"}


@pytest.mark.parametrize("examples", [1, 8])  # the few outputs are scaled, or the filters
@pytest.mark.parametrize(
    "conv", [lambda: Conv2d(6, [1, 2]), lambda: Conv2d(6, [1, 2], bias=False), lambda: Conv1d(6, 2)]
)
def test_a_folded_norm_uses_the_values_of_now(conv, examples):
    shape = (3, 4) if type(conv()) is Conv1d else (1, 3, 4)
    on, off = pair(lambda: [conv(), BatchNorm(), ReLU()], shape)
    x = numbers(examples, *shape)
    for round_ in range(3):
        close({"y": on.predict(x)}, {"y": off.predict(x)})
        for net in (on, off):
            for tensor in (*net.params().values(), *net.buffers().values()):
                tensor.data[...] += 0.1 * (round_ + 1)


def test_compiled_kernels_with_and_without():
    if problem := compiled.problem():
        pytest.skip(problem)
    on, off = (net.bind(get_device("cpu", "numba"), "float32") for net in pair(small, (6, 6, 3)))
    x = numbers(3, 6, 6, 3).astype("float32")
    for pattern in ("nothing", "block.*", "b*"):
        if pattern != "nothing":
            on.freeze(pattern)
            off.freeze(pattern)
        close(*(passes(net, x, needs_input_grad=True) for net in (on, off)), 1e-4)


def test_messages_name_every_part_and_the_right_one():
    net = Net([Conv2d(4, 1).named("stem"), BatchNorm().named("norm"), ReLU().named("act")], (1, 1, 3)).bind("cpu")
    labels = [step.label for step in steps_of(net, inference=True)]
    assert labels == ["layer stem+norm+act (Conv2d+BatchNorm+ReLU)"]
    block = Net([BasicBlock(3).named("block")], (4, 4, 3))
    assert [step.path for step in steps_of(block)] == ["block.residual_1+bn2+relu2", "block.bn1+relu1"]
    with pytest.raises(UsageError, match=r"layer norm \(BatchNorm\): a training batch of shape \(1, 1, 1, 4\)"):
        net.forward(np.zeros((1, 1, 1, 3)), training=True)


@pytest.mark.parametrize("plan", [True, False])
def test_gradients_of_whole_nets(plan):
    layers = [Conv2d(4, 3, padding=1), ReLU(), Bottleneck(2, stride=2), Flatten(), Linear(5), ReLU(), Linear(3)]
    report = gradcheck(Net(layers, (5, 4, 3), plan=plan), elements=3)
    assert report.ok, report


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem not in TOO_LARGE], ids=lambda path: path.stem)
def test_shipped_nets_train_the_same(path):
    nets = [load_config(path, {"plan": plan, "dtype": "float64"}).net for plan in ("on", "off")]
    assert [net.planned for net in nets] == [True, False]
    assert joined(nets[0]) or path.stem == "custom_layer"
    x = numbers(8, *nets[0].input_shape)
    target = np.arange(8) % nets[0].output_shape[-1]
    loss, losses = CrossEntropy(), ([], [])
    for net, values in zip(nets, losses, strict=True):
        optimizer = SGD(0.01, momentum=0.9).attach(net.bind("cpu", "float64", seed=1))
        for step in range(20):
            net.zero_grad()
            tape = net.forward(x, training=True, step=step)
            value, dy = loss(tape.output, target)
            net.backward(tape, dy)
            optimizer.step(1.0, step)
            values.append(value)
    np.testing.assert_allclose(*losses, rtol=1e-12)
    assert losses[0][-1] < losses[0][0]
    close(nets[0].state_dict(), nets[1].state_dict(), 1e-10)
    close({"y": nets[0].predict(x)}, {"y": nets[1].predict(x)}, 1e-10)


def test_a_run_goes_on_without_the_plan_it_began_with(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG + "dtype: float64\n")
    whole = Experiment.load(config).train(tmp_path / "whole", console=quiet())
    experiment = Experiment.load(config)
    with callback(experiment, InterruptAt(23)), pytest.raises(Interrupted):
        experiment.train(tmp_path / "cut", console=quiet())
    (cut,) = (tmp_path / "cut").iterdir()
    resolved = RunDirectory.open(cut).resolved
    text = resolved.read_text()
    resolved.write_text(re.sub("^plan: .*$", "plan: off", text, flags=re.MULTILINE))
    assert resolved.read_text() != text
    assert not Experiment.resume(cut, console=quiet()).net.planned
    ends = [load_checkpoint(run / "checkpoints" / "last.npz") for run in (whole, cut)]
    close(*(end.group("net") for end in ends))


@pytest.mark.parametrize(("text", "planned"), [("on", True), ("off", False), ("true", True), ("false", False)])
def test_the_key_of_a_config(text, planned):
    config = load_config_text(CONFIG + f"plan: {text}\n")
    assert config.net.planned is planned
    assert load_config_text(config.dump()).net.planned is planned
    assert load_config_text(CONFIG, overrides=[f"plan={text}"]).net.planned is planned
