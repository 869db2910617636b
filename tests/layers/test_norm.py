import numpy as np
import pytest

from layernet.core.net import Net
from layernet.errors import ShapeError, UsageError
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm, LayerNorm
from tests.layers.one_layer import check_gradients, close, net_of, numbers, run

SHAPES = [(2, 1), (7, 3), (3, 5, 4), (2, 3, 5, 2), (1, 3, 3, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES)
affine = pytest.mark.parametrize("affine", [True, False])


def batch_norm(x, **arguments):
    return net_of(BatchNorm(**arguments).named("bn"), x)


def naive(groups, eps):
    """Each row of numbers to mean 0 and variance 1."""
    out = np.empty_like(groups)
    for i, group in enumerate(groups):
        mean = sum(group) / len(group)
        var = sum((v - mean) ** 2 for v in group) / len(group)
        out[i] = [(v - mean) / (var + eps) ** 0.5 for v in group]
    return out


@shapes
@affine
def test_batch_norm_like_a_loop(shape, affine):
    x = numbers(shape) + 2
    net = batch_norm(x, eps=1e-3, affine=affine)
    expected = naive(x.reshape(-1, shape[-1]).T, 1e-3).T.reshape(shape)
    if affine:
        expected = expected * net.params()["bn.weight"].data + net.params()["bn.bias"].data
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-12, atol=1e-13)


@shapes
@affine
def test_layer_norm_like_a_loop(shape, affine):
    x = numbers(shape) + 2
    net = net_of(LayerNorm(eps=1e-3, affine=affine).named("ln"), x)
    expected = naive(x.reshape(-1, shape[-1]), 1e-3).reshape(shape)
    if affine:
        expected = expected * net.params()["ln.weight"].data + net.params()["ln.bias"].data
    for training in (True, False):
        np.testing.assert_allclose(run(net, x, training=training).y, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("training", [True, False])
@shapes
@affine
def test_gradients(shape, affine, training):
    x = numbers(shape)
    check_gradients(batch_norm(x, affine=affine, eps=1e-2), x, training, rtol=1e-6)
    check_gradients(net_of(LayerNorm(affine=affine, eps=1e-2), x), x, training, rtol=1e-6)


def test_running_statistics_follow_the_unbiased_variance():
    x = numbers((5, 2)) + 4
    net = Net([BatchNorm(momentum=0.25).named("bn")], (2,)).bind("cpu", "float64")
    for _ in range(2):
        run(net, x)
    left = 0.75**2
    np.testing.assert_allclose(net.buffers()["bn.running_mean"].data, (1 - left) * x.mean(0))
    np.testing.assert_allclose(net.buffers()["bn.running_var"].data, left + (1 - left) * x.var(0, ddof=1))


def test_statistics_wait_until_the_pass_is_accepted():
    x = numbers((5, 2))
    net = Net([BatchNorm().named("bn")], (2,)).bind("cpu", "float64")
    tape = net.forward(x, training=True)
    net.backward(tape, numbers((5, 2)), update_buffers=False)
    assert not net.buffers()["bn.running_mean"].data.any()
    tape.update_buffers()
    assert net.buffers()["bn.running_mean"].data.all()


def test_evaluation_uses_and_keeps_the_running_statistics():
    x = numbers((5, 2))
    net = batch_norm(x)
    before = net.state_dict()
    alone = np.concatenate([net.predict(x[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(net.predict(x), alone, rtol=1e-15)
    expected = (x - before["bn.running_mean"]) / np.sqrt(before["bn.running_var"] + 1e-5)
    np.testing.assert_allclose(alone, expected * before["bn.weight"] + before["bn.bias"], rtol=1e-13, atol=1e-13)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_frozen_it_uses_and_keeps_its_statistics_in_training():
    x = numbers((5, 2))
    net = net_of([Linear(2).named("fc"), BatchNorm().named("bn")], x)
    net.freeze("bn.*")
    before = net.state_dict()
    training, evaluation = run(net, x), run(net, x, training=False)
    np.testing.assert_array_equal(training.y, evaluation.y)
    np.testing.assert_array_equal(training.dx, evaluation.dx)
    assert training.grads["fc.weight"].any()
    assert not training.grads["bn.weight"].any()
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    check_gradients(net, x)


def test_a_frozen_weight_alone_does_not_freeze_the_statistics():
    x = numbers((5, 2))
    net = batch_norm(x)
    net.freeze("bn.weight")
    before = net.state_dict()["bn.running_mean"]
    grads = run(net, x).grads
    assert not grads["bn.weight"].any()
    assert grads["bn.bias"].any()
    assert (net.state_dict()["bn.running_mean"] != before).all()


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_one_value_a_channel_is_an_error_in_training_only(shape):
    x = numbers(shape)
    net = batch_norm(x)
    with pytest.raises(UsageError, match=r"layer bn \(BatchNorm\).*has 1 value a channel.*larger batch"):
        net.forward(x, training=True)
    run(net, x, training=False)
    net.freeze("bn.*")
    run(net, x, training=True)


def test_norms_ignore_shift_and_scale_of_what_they_normalize():
    x = numbers((6, 5))
    for layer in (BatchNorm, LayerNorm):
        net = net_of(layer(eps=0.0), x)
        np.testing.assert_allclose(run(net, x).y, run(net, 3 * x + 100).y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
def test_float32_agrees_with_float64(layer):
    x = (numbers((33, 7)) * 4 + 30).astype("float32")
    single, double = run(net_of(layer(), x), x), run(net_of(layer(), x.astype("float64")), x.astype("float64"))
    parts = ((found.y, found.dx, *found.grads.values()) for found in (single, double))
    for a, b in zip(*parts, strict=True):
        assert a.dtype == np.float32
        close(a, b, 2e-5)


@pytest.mark.parametrize("layer", [BatchNorm, LayerNorm])
def test_gains_and_biases_are_spared_by_decay(layer):
    for param in Net([layer()], (3,)).params().values():
        assert param.decay_mult == 0


def test_bad_arguments_and_shapes():
    with pytest.raises(ValueError, match="eps must be finite and at least 0, got -1"):
        LayerNorm(eps=-1)
    with pytest.raises(ValueError, match="momentum must be between 0 and 1, got 2"):
        BatchNorm(momentum=2)
    for layer in (BatchNorm, LayerNorm):
        with pytest.raises(ShapeError, match=f"{layer.__name__} needs at least one axis"):
            Net([layer()], ())
