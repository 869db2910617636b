"""What a training step keeps: the prediction against what Python's allocator sees of one."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from layernet.cli.main import main
from layernet.config.experiment import load_config
from layernet.core.memory import kept, predict
from layernet.core.net import Net
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import Recompute
from layernet.layers.linear import Linear
from layernet.layers.shape import Flatten
from tests.test_configs import CONFIGS


@pytest.mark.parametrize("plan", ["on", "off"])
@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem != "alexnet"], ids=lambda path: path.stem)
def test_a_prediction_is_what_a_step_keeps(path, plan):
    net = load_config(path, {"plan": plan, "kernels": "numpy"}).net.bind("cpu", seed=1)
    batch = 24
    expected = sum(predict(net, batch).values())
    net.forward(np.zeros((2, *net.input_shape), dtype="float32"), training=True)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tape = net.forward(np.zeros((batch, *net.input_shape), dtype="float32"), training=True)
        gc.collect()
        traced = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert expected == sum(kept(net, tape).values())
    assert expected == pytest.approx(traced, rel=0.1, abs=30_000)  # beside arrays there are contexts


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
