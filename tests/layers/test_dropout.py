import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.dropout import Dropout, Dropout2d, DropPath, GaussianNoise
from tests.layers.one_layer import Pass, check_gradients, net_of, numbers, run


def drop(p: float, x, step: int = 0, training: bool = True) -> Pass:
    return run(net_of(Dropout(p), x), x, numbers(x.shape, 7, str(x.dtype)), training, step)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_keeps_the_mean(p, dtype):
    x = np.ones((200, 300), dtype=dtype)
    y = drop(p, x).y
    assert y.dtype == dtype
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-6)
    deviation = (p / (1 - p) / x.size) ** 0.5
    assert abs(y.mean() - 1) < 4 * deviation


def test_the_gradient_passes_where_the_input_did():
    x = numbers((40, 50))
    found = drop(0.3, x)
    np.testing.assert_allclose(found.dx / numbers(x.shape, 7), found.y / x, rtol=1e-14, atol=1e-14)
    check_gradients(net_of(Dropout(0.3), x), x[:4])


def test_masks_are_keyed():
    x = np.ones((30, 30))
    np.testing.assert_array_equal(drop(0.5, x, step=3).y, drop(0.5, x, step=3).y)
    assert (drop(0.5, x, step=3).y != drop(0.5, x, step=4).y).any()
    net = net_of([Dropout(0.5).named("a"), Dropout(0.5).named("b")], x)
    both = run(net, x).y != 0
    assert abs(both.mean() - 0.25) < 0.06


@pytest.mark.parametrize("shape", [(1,), (3, 5), (1, 3, 3, 1)])
def test_the_identity_in_evaluation_and_without_p(shape):
    x = numbers(shape)
    for found in (drop(0.5, x, training=False), drop(0.0, x)):
        np.testing.assert_array_equal(found.y, x)
        np.testing.assert_array_equal(found.dx, numbers(shape, 7))


def test_drops_everything_at_one():
    found = drop(1.0, numbers((5, 4)))
    assert not found.y.any()
    assert not found.dx.any()


def test_p_close_to_its_bounds():
    x = np.ones((1000, 1000), dtype="float32")
    y = drop(1e-9, x).y
    np.testing.assert_array_equal(y, 1)
    few = drop(1 - 1e-4, x).y
    assert np.isfinite(few).all()
    assert abs(few.mean() - 1) < 0.5
    assert not drop(1 - 1e-16, x[:10]).y.any()


def test_evaluation_keeps_nothing_and_training_keeps_one_byte_an_element():
    x = numbers((6, 5))
    net = net_of(Dropout(0.5), x)
    for training, kept in ((True, bool), (False, None)):
        tape = net.forward(x, training, needs_input_grad=True)
        (mask,) = tape.root.saved[0][0].saved
        assert (mask is None) if kept is None else mask.dtype == bool


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_p_is_a_probability(p):
    with pytest.raises(ValueError, match=f"p must be a probability, got {p}"):
        Dropout(p)


def test_has_no_parameters():
    assert not Net([Dropout()], (3,)).params()


@pytest.mark.parametrize("layer", [Dropout2d, DropPath])
@pytest.mark.parametrize("p", [0.2, 0.6])
def test_whole_channels_and_whole_examples_are_dropped(layer, p):
    x = numbers((400, 2, 3, 20))
    found = run(net_of(layer(p), x), x)
    kept = found.y != 0
    fates = kept[:, 0, 0, :] if layer is Dropout2d else kept[:, 0, 0, 0]
    spread = fates[:, None, None, :] if layer is Dropout2d else fates[:, None, None, None]
    np.testing.assert_array_equal(kept, np.broadcast_to(spread, x.shape))
    np.testing.assert_allclose(found.y, x * kept / (1 - p), rtol=1e-14)
    np.testing.assert_allclose(found.dx, numbers(x.shape, 7) * kept / (1 - p), rtol=1e-14)
    assert abs(fates.mean() - (1 - p)) < 4 * (p * (1 - p) / fates.size) ** 0.5
    np.testing.assert_array_equal(run(net_of(layer(p), x), x, training=False).y, x)


def test_dropout2d_is_for_images():
    with pytest.raises(ShapeError, match="Dropout2d needs an image"):
        Net([Dropout2d()], (4, 3))


def test_noise_is_normal_keyed_and_gone_in_evaluation():
    x = numbers((200, 300))
    net = net_of(GaussianNoise(0.3), x)
    found = run(net, x, step=3)
    noise = found.y - x
    assert abs(noise.mean()) < 4 * 0.3 / x.size**0.5
    assert abs(noise.std() - 0.3) < 4 * 0.3 / (2 * x.size) ** 0.5
    assert abs((abs(noise) < 0.3).mean() - 0.6827) < 0.01
    np.testing.assert_array_equal(found.dx, numbers(x.shape, 7))
    np.testing.assert_array_equal(found.y, run(net, x, step=3).y)
    assert (found.y != run(net, x, step=4).y).all()
    np.testing.assert_array_equal(run(net, x, training=False).y, x)
    np.testing.assert_array_equal(run(net_of(GaussianNoise(0.0), x), x).y, x)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf")])
def test_noise_has_a_size(std):
    with pytest.raises(ValueError, match=f"std must be .*, got {std}"):
        GaussianNoise(std)
