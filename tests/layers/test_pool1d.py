import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.pool1d import AvgPool1d, MaxPool1d
from tests.layers.one_layer import check_gradients, net_of, numbers, run


@pytest.mark.parametrize(
    "arguments",
    [{}, {"stride": 1}, {"stride": 2, "padding": 1}, {"stride": 2, "padding": 1, "ceil_mode": True}],
)
@pytest.mark.parametrize("length", [6, 7])
def test_against_loops(arguments, length):
    x = numbers((2, length, 3))
    stride, padding = arguments.get("stride", 3), arguments.get("padding", 0)
    most, mean = run(net_of(MaxPool1d(3, **arguments), x), x), run(net_of(AvgPool1d(3, **arguments), x), x)
    assert most.y.shape == mean.y.shape
    for place in range(most.y.shape[1]):
        first = place * stride - padding
        window = x[:, max(first, 0) : first + 3]
        reach = min(first + 3, length + padding) - first  # what lies beyond the padding does not count
        np.testing.assert_array_equal(most.y[:, place], window.max(axis=1))
        np.testing.assert_allclose(mean.y[:, place], window.sum(axis=1) / reach, rtol=1e-13)
    check_gradients(net_of(MaxPool1d(3, **arguments), x), x)
    check_gradients(net_of(AvgPool1d(3, **arguments), x), x)


def test_ties_dilation_and_padding_that_is_not_counted():
    x = np.array([4.0, 1.0, 4.0, 4.0]).reshape(1, 4, 1)
    dy = np.ones((1, 2, 1))
    assert run(net_of(MaxPool1d(2, ties="all"), x), x, dy).dx.ravel().tolist() == [1, 0, 1, 1]
    assert run(net_of(MaxPool1d(2), x), x, dy).dx.ravel().tolist() == [1, 0, 1, 0]
    assert run(net_of(MaxPool1d(2, 1, dilation=2), x), x, dy).y.ravel().tolist() == [4, 4]
    mean = AvgPool1d(3, 1, padding=1, count_include_pad=False)
    assert run(net_of(mean, x), x).y.ravel().tolist() == [2.5, 3, 3, 4]


@pytest.mark.parametrize("kind", [MaxPool1d, AvgPool1d])
def test_what_they_refuse(kind):
    with pytest.raises(ValueError, match=r"kernel_size must be a whole number of at least 1, got \[2, 2\]"):
        kind([2, 2])
    with pytest.raises(ValueError, match="stride must be a whole number of at least 1, got 0"):
        kind(2, 0)
    with pytest.raises(ValueError, match="padding must be at most half of the kernel, got padding 2, kernel 3"):
        kind(3, padding=2)
    with pytest.raises(ShapeError, match=rf"{kind.__name__} needs a sequence \(T, C\), got.*\(4, 4, 3\)"):
        Net([kind(2)], (4, 4, 3))
    with pytest.raises(ShapeError, match="reaches over 5 steps does not fit into the sequence of 3; use"):
        Net([kind(5)], (3, 2))
    with pytest.raises(ShapeError, match="does not fit into the sequence of 2, 4 with its padding"):
        Net([kind(5, padding=1)], (2, 2))


def test_a_maximum_of_nothing_but_padding():
    with pytest.raises(ShapeError, match="some windows would see nothing but padding in a sequence of 1"):
        Net([MaxPool1d(2, padding=2, dilation=3)], (1, 2))
