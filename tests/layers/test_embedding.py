"""Embedding: rows by number, their gradients, and integers all the way from a data set."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Sequential
from layernet.data.dataset import Arrays
from layernet.data.loader import Loader
from layernet.errors import DataError, UsageError
from layernet.layers.composite import Recompute, Residual
from layernet.layers.embedding import Embedding
from layernet.layers.linear import Linear
from layernet.layers.shape import Flatten
from layernet.losses import CrossEntropy
from layernet.optim.optimizers import SGD
from layernet.testing import check_layer


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16"])
@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_rows_and_their_gradients(dtype, padding_idx):
    net = Net([Embedding(5, 3, padding_idx).named("table")], (2, 2)).bind("cpu", "float64")
    x = np.array([[[0, 2], [2, 4]], [[4, 4], [1, 0]]], dtype=dtype)
    table = net.params()["table.weight"]
    spare = None if padding_idx is None else padding_idx % 5
    if spare is not None:
        assert not table.data[spare].any()
        table.data[spare] = 7.0  # read as zeros all the same
    tape = net.forward(x, training=True)
    dy = np.random.default_rng(0).standard_normal((2, 2, 2, 3))
    assert net.backward(tape, dy) is None
    expected, gradient = np.zeros((2, 2, 2, 3)), np.zeros((5, 3))
    for place in np.ndindex(x.shape):
        if x[place] != spare:
            expected[place] = table.data[x[place]]
            gradient[x[place]] += dy[place]
    np.testing.assert_array_equal(tape.output, expected)
    np.testing.assert_allclose(table.grad, gradient, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("row", "message"), [(5, "5 rows was asked for row 5"), (-1, "asked for row -1")])
def test_a_number_that_is_no_row(row, message):
    net = Net([Embedding(5, 3)], (2,)).bind("cpu")
    with pytest.raises(DataError, match=message):
        net.predict(np.array([[0, row]]))


def test_numbers_that_are_no_integers():
    net = Net([Sequential([Embedding(5, 3)]), Flatten()], (2,)).bind("cpu")
    with pytest.raises(UsageError, match="takes integers, got float32"):
        net.predict(np.zeros((1, 2), dtype="float32"))


def test_an_empty_batch():
    assert Net([Embedding(5, 3)], (2,)).bind("cpu").predict(np.zeros((0, 2), dtype="int64")).shape == (0, 2, 3)


@pytest.mark.parametrize(
    "layer",
    [
        Sequential([Embedding(5, 3), Linear(2)]),
        Recompute([Embedding(5, 3, padding_idx=0), Residual([Linear(3)])]),
    ],
)
def test_inside_of_other_layers(layer):
    check_layer(layer, (4,))


def test_it_learns_from_a_data_set_of_integers():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, (200, 3)).astype("int16")
    labels = (x >= 10).sum(axis=1) // 2  # what the majority of the numbers is
    loader = Loader(Arrays(x, labels), batch_size=50, seed=1, shuffle=True)
    net = Net([Embedding(20, 4), Flatten(), Linear(2)], loader.shape).bind("cpu", seed=1)
    optimizer, loss, values = SGD(0.5).attach(net), CrossEntropy(), []
    for step, batch in enumerate(batch for epoch in range(15) for batch in loader.batches(epoch)):
        assert batch.x.dtype == np.int16
        tape = net.forward(batch.x, training=True)
        value, dy = loss(tape.output, batch.target)
        net.zero_grad()
        net.backward(tape, dy)
        optimizer.step(1.0, step)
        values.append(value)
    assert values[-1] < 0.25 < values[0]


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_embeddings and embedding_dim must be at least 1, got 0 and 3"):
        Embedding(0, 3)
    for row in (5, -6):
        with pytest.raises(ValueError, match=f"padding_idx must be one of the 5 rows, got {row}"):
            Embedding(5, 3, row)
