import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.rearrange import Permute, PixelShuffle, PixelUnshuffle, Slice, Squeeze, Unsqueeze
from tests.layers.one_layer import check_gradients, net_of, numbers, run

MOVES = [
    (Permute([2, 0, 1]), (2, 3, 4, 5), lambda x: np.moveaxis(x, -1, 1)),
    (Permute([-1, 1, 0]), (2, 3, 4, 5), lambda x: np.swapaxes(x, 1, 3)),
    (Permute([1, 2, 0]), (2, 3, 4, 5), lambda x: np.moveaxis(x, 1, -1)),
    (Permute([0]), (2, 3), lambda x: x),
    (Squeeze(), (1, 1, 3, 1), lambda x: x.reshape(1, 3)),
    (Squeeze(0), (2, 1, 3, 1), lambda x: x.reshape(2, 3, 1)),
    (Squeeze(-1), (2, 1, 3, 1), lambda x: x.reshape(2, 1, 3)),
    (Squeeze(), (2, 1), lambda x: x.reshape(2)),
    (Unsqueeze(0), (2, 3), lambda x: x[:, None]),
    (Unsqueeze(-1), (2, 3), lambda x: x[..., None]),
    (Unsqueeze(-2), (2, 3, 4), lambda x: x[:, :, None]),
    (Slice(1, 3), (2, 3, 5), lambda x: x[..., 1:3]),
    (Slice(-2), (2, 3, 5), lambda x: x[..., -2:]),
    (Slice(None, -1, 2, dim=0), (2, 6, 3), lambda x: x[:, :-1:2]),
    (Slice(stop=9, dim=-2), (2, 4, 3), lambda x: x),
]


@pytest.mark.parametrize(("layer", "shape", "expected"), MOVES, ids=lambda value: repr(value)[:40])
def test_moves_are_numpys(layer, shape, expected):
    x = numbers(shape)
    np.testing.assert_array_equal(run(net_of(layer.clone(), x), x).y, expected(x))
    check_gradients(net_of(layer.clone(), x), x)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_pixel_shuffle_against_loops_and_back(r):
    x = numbers((2, 2, 3, 2 * r * r))
    y = run(net_of(PixelShuffle(r), x), x).y
    assert y.shape == (2, 2 * r, 3 * r, 2)
    for h, w, c, i, j in np.ndindex(2, 3, 2, r, r):
        np.testing.assert_array_equal(y[:, h * r + i, w * r + j, c], x[:, h, w, c * r * r + i * r + j])
    np.testing.assert_array_equal(run(net_of(PixelUnshuffle(r), y), y).y, x)
    check_gradients(net_of(PixelShuffle(r), x), x)
    check_gradients(net_of(PixelUnshuffle(r), y), y.copy())


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Permute([1, 0]), (2, 3, 4), "Permute of 2 axes cannot take an input of shape"),
        (Squeeze(1), (2, 3), "Squeeze of axis 1 of an input.*its size is 3, not 1"),
        (Squeeze(2), (2, 1), "Squeeze: there is no axis 2"),
        (Unsqueeze(3), (2, 3), "Unsqueeze: there is no axis 3"),
        (Slice(5), (2, 5), "leaves nothing of the 5 on axis -1"),
        (Slice(0, 1, dim=2), (2, 5), "Slice: there is no axis 2"),
        (PixelShuffle(2), (2, 2, 6), "needs a multiple of 4 channels, got 6"),
        (PixelUnshuffle(2), (4, 5, 1), "multiples of it, got 4 x 5"),
    ],
    ids=repr,
)
def test_shapes_they_cannot_take(layer, shape, message):
    with pytest.raises(ShapeError, match=message):
        Net([layer.clone()], shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Permute([0, 0]), r"dims must name each axis from 0 to 1 once, got \[0, 0\]"),
        (lambda: Permute([0, 2]), "dims must name each axis"),
        (lambda: Permute([1, 2, 3]), "dims must name each axis"),
        (lambda: Slice(step=0), "step must not be 0"),
        (lambda: PixelShuffle(0), "upscale_factor must be at least 1, got 0"),
        (lambda: PixelUnshuffle(0), "downscale_factor must be at least 1, got 0"),
    ],
)
def test_arguments_they_cannot_take(make, message):
    with pytest.raises(ValueError, match=message):
        make()
