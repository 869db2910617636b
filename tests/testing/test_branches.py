"""What a random layer draws for a batch can be given again to parts of it, and what it went through is seen."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.layers.dropout import Dropout, Dropout2d, DropPath, GaussianNoise
from layernet.testing.bench import Subject
from layernet.testing.branches import Incomparable, Replay, facts_of
from layernet.testing.rules_values import batches_of_any_size
from tests.testing import broken_contract


class Shuffles(Layer):
    """Multiplies with numbers of which there are not as many for a part as the batch has."""

    def forward(self, x, ctx):
        factor = ctx.rng.uniform((len(x) + 1,))[1:] if ctx.training else np.ones(len(x), x.dtype)
        factor = factor.reshape(-1, *[1] * (x.ndim - 1))
        ctx.save(factor)
        return x * factor

    def backward(self, dy, ctx):
        return dy * ctx.saved[0]


@pytest.mark.parametrize("layer", [Dropout(0.3), Dropout2d(0.3), DropPath(0.4), GaussianNoise(0.3)])
def test_one_example_gets_the_noise_it_had_in_its_batch(layer):
    bench = Subject(layer, (4, 3, 5)).bench()
    x, dy, replay = bench.input(6), bench.output_grad(6), Replay()
    with replay.remembering():
        whole = bench.run(x, dy, True)
    assert replay.used
    for row in range(6):
        with replay.giving(slice(row, row + 1)):
            part = bench.run(x[row : row + 1], dy[row : row + 1], True)
        np.testing.assert_array_equal(part["y"], whole["y"][row : row + 1])
        np.testing.assert_array_equal(part["dx"], whole["dx"][row : row + 1])
    assert not np.array_equal(bench.run(x[:1], dy[:1], True)["y"], part["y"])  # nothing is given from here on


def test_a_layer_that_draws_otherwise_is_let_off():
    subject = Subject(Shuffles(), (3, 4))
    bench, replay = subject.bench(), Replay()
    with replay.remembering():
        bench.forward(bench.input(4), True)
    with pytest.raises(Incomparable), replay.giving(slice(0, 2)):
        bench.forward(bench.input(2), True)
    batches_of_any_size(subject)


def test_facts_tell_branches_apart_and_leave_the_tracer_as_it_was():
    before = sys.gettrace()
    x = np.ones((3, 4))
    found = {
        frozenset(facts_of(Net([broken_contract.Coin()], (4,)).bind("cpu", "float64", seed), x, True))
        for seed in range(40)
    }
    assert len(found) == 2
    assert sys.gettrace() is before
