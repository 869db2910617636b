"""What a training step keeps: the prediction against what Python's allocator sees of one."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from layernet.backend import compiled
from layernet.backend.device import get_device
from layernet.cli.main import main
from layernet.config.experiment import load_config
from layernet.core.memory import kept, predict
from layernet.core.net import Net
from layernet.core.param import Tensor
from layernet.core.sequential import Ref, Sequential
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import AuxiliaryHead, Recompute
from layernet.layers.conv import Conv2d
from layernet.layers.dropout import Dropout
from layernet.layers.embedding import Embedding
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from layernet.layers.shape import Flatten
from tests.test_configs import CONFIGS

BENCHES = sorted((Path(__file__).parents[2] / "scripts" / "bench").glob("*.yaml"))
NEEDS_NUMBA = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
KERNELS = ["numpy", pytest.param("numba", marks=NEEDS_NUMBA)]


@pytest.fixture(scope="module", autouse=True)
def only_ours_is_collected():
    """What all other tests left behind takes the collector half a second each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def nothing_drawn(monkeypatch):
    """Weights of zeros: what is kept does not depend on them, and AlexNet's take seconds to draw."""
    monkeypatch.setattr(Tensor, "draw", lambda self, seed: np.zeros(self.shape, dtype="float32"))


def traced(net, batch, backward=False):
    """What Python's allocator sees: (bytes that are there after the forward, the most that were there until the end).

    A pass before has made what is made once: work space of the kernels.
    """
    dtype = "int64" if net.root.reader.integer_input else "float32"
    dy = np.ones((batch, *net.output_shape), dtype="float32")

    def forward():
        return net.forward(np.zeros((batch, *net.input_shape), dtype=dtype), training=True)

    tape = forward()
    if backward:
        net.backward(tape, dy)
    del tape
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tape = forward()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0] - before
        assert sum(predict(net, batch).values()) == sum(kept(net, tape).values())
        tracemalloc.reset_peak()
        if backward:
            net.backward(tape, dy)
        return after, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def holds(net, batch):
    """The prediction is within a tenth of what is traced; beside arrays there are contexts."""
    assert sum(predict(net, batch).values()) == pytest.approx(traced(net, batch)[0], rel=0.1, abs=30_000)


def prediction(path, plan, kernels):
    """The nets of the benchmarks are mostly those of configs, and AlexNet is large: half of theirs are for sweeps."""
    swept = kernels == "numpy" or plan == "off" if path in BENCHES else path.stem == "alexnet" and plan == "off"
    marks = [NEEDS_NUMBA] * (kernels == "numba") + [pytest.mark.slow] * swept
    return pytest.param(path, plan, kernels, marks=marks, id=f"{path.parent.name}-{path.stem}-{plan}-{kernels}")


@pytest.mark.usefixtures("nothing_drawn")
@pytest.mark.parametrize(
    ("path", "plan", "kernels"),
    [prediction(*each) for each in product([*CONFIGS, *BENCHES], ["on", "off"], ["numpy", "numba"])],
)
def test_a_prediction_is_what_a_step_keeps(path, plan, kernels):
    config = load_config(path, {"plan": plan, "kernels": kernels})
    holds(config.net.bind(get_device("cpu", kernels)), 5 if path.stem == "alexnet" else 12)


NETS = {
    "dropout": (lambda: [Linear(90), Dropout(0.5), ReLU(), Linear(80), Dropout(0.2)], (70,)),
    "auxiliary head": (
        lambda: [Conv2d(20, 3), AuxiliaryHead("aux", [Flatten(), Linear(30), ReLU()]), Conv2d(10, 3)],
        (9, 9, 16),
    ),
    "recomputed": (lambda: [Recompute([Conv2d(20, 3), BatchNorm(), ReLU(), Dropout(0.5)]), Flatten()], (9, 9, 16)),
    "tied": (lambda: [Linear(70).named("a"), Tanh(), Ref("a"), Tanh()], (70,)),
    "integers": (lambda: [Embedding(10, 30), Linear(40)], (20,)),
}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_a_prediction_of_nets_with_something_special(name, plan, kernels):
    make, shape = NETS[name]
    holds(Net(make(), shape, plan=plan).bind(get_device("cpu", kernels)), 64)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("plan", [True, False])
def test_recomputing_takes_less_memory_to_the_same_gradients(plan, kernels):
    def net(wrap):
        blocks = [
            wrap([Conv2d(16, 3, padding=1), BatchNorm(), ReLU(), Dropout(0.2), Conv2d(16, 3, padding=1), ReLU()])
            for _ in range(5)
        ]
        layers = [Conv2d(16, 3, padding=1), *(block.named(f"block{i}") for i, block in enumerate(blocks)), Flatten()]
        made = Net([*layers, Linear(3)], (12, 12, 16), plan=plan)
        return made.bind(get_device("cpu", kernels), "float32", seed=3)

    plain, again = net(Sequential), net(Recompute)
    x = np.random.default_rng(0).normal(size=(8, 12, 12, 16)).astype("float32")
    grads = []
    for each in (plain, again):
        tape = each.forward(x, training=True, step=2)
        each.backward(tape, np.ones_like(tape.output))
        tape.update_buffers()
        grads.append([param.grad.copy() for param in each.params().values()])
        grads[-1] += [buffer.data.copy() for buffer in each.buffers().values()]
    assert len(grads[0]) == len(grads[1]) > 30
    assert all((a == b).all() for a, b in zip(*grads, strict=True))
    (kept_plain, peak_plain), (kept_again, peak_again) = (traced(each, 8, backward=True) for each in (plain, again))
    assert kept_again < 0.4 * kept_plain
    assert peak_again < 0.6 * peak_plain  # of one block at a time, beside the inputs of all


def test_what_is_kept_counts_once_and_whole():
    net = Net([Linear(10), ReLU(), Flatten(), Tanh()], (20,)).bind("cpu", "float64")
    tape = net.forward(np.zeros((5, 20)), training=True)
    assert kept(net, tape) == {
        "layer linear_1+relu_1 (Linear+ReLU)": 8 * 5 * (20 + 10),  # the ReLU's output is what Tanh takes
        "layer tanh_1 (Tanh)": 8 * 5 * 10,
    }
    assert predict(net, 5) == kept(net, tape)
    net.freeze("*")
    assert kept(net, net.forward(np.zeros((5, 20)), training=True)) == {"its outputs": 8 * 5 * 10}


def test_recomputing_keeps_the_input_alone():
    net = Net([Recompute([Linear(10), Tanh(), Linear(10), Tanh()])], (20,)).bind("cpu", "float64")
    assert sum(predict(net, 7).values()) == 8 * 7 * (20 + 10)


def test_inspect_shows_it(capsys):
    assert main(["inspect", str(next(p for p in CONFIGS if p.stem == "digits_mlp")), "--memory"]) == 0
    shown = capsys.readouterr().out
    assert "kept from forward to backward" in shown
    assert "the optimizer's state" in shown
