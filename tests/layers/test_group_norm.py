import numpy as np
import pytest

from layernet.backend.device import host
from layernet.backend.ops import Ops
from layernet.core.net import Net
from layernet.errors import ShapeError
from layernet.layers.norm import GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from tests.layers.one_layer import check_gradients, close, net_of, numbers, run

SHAPES = [(2, 6), (3, 1, 6), (2, 5, 6), (1, 3, 2, 12)]
shapes = pytest.mark.parametrize("shape", SHAPES)
affine = pytest.mark.parametrize("affine", [True, False])
both = pytest.mark.parametrize("training", [True, False])


def standardised(group, eps):
    group = np.asarray(group)
    return (group - group.mean()) / np.sqrt(((group - group.mean()) ** 2).mean() + eps)


def affine_of(net, y):
    params = {path.partition(".")[2]: p.data for path, p in net.params().items()}
    return y * params.get("weight", 1.0) + params.get("bias", 0.0)


@shapes
@affine
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm_like_a_loop(shape, affine, groups):
    x = numbers(shape) + 2
    net = net_of(GroupNorm(groups, eps=1e-3, affine=affine).named("gn"), x)
    expected = np.empty_like(x)
    width = shape[-1] // groups
    for n in range(shape[0]):
        for g in range(groups):
            part = (n, ..., slice(g * width, (g + 1) * width))
            expected[part] = standardised(x[part], 1e-3)
    for training in (True, False):
        found = run(net, x, training=training)
        np.testing.assert_allclose(found.y, affine_of(net, expected), rtol=1e-12, atol=1e-13)


@both
@shapes
@affine
def test_gradients(shape, affine, training):
    x = numbers(shape)
    check_gradients(net_of(GroupNorm(3, eps=1e-2, affine=affine), x), x, training, rtol=1e-6)
    check_gradients(net_of(RMSNorm(eps=1e-2, affine=affine), x), x, training, rtol=1e-6)


def test_one_group_of_a_vector_is_layer_norm():
    x = numbers((4, 6))
    a, b = run(net_of(GroupNorm(1), x), x), run(net_of(LayerNorm(), x), x)
    np.testing.assert_allclose(a.y, b.y, rtol=1e-12)
    np.testing.assert_allclose(a.dx, b.dx, rtol=1e-10, atol=1e-12)


@shapes
@affine
def test_rms_norm_like_a_loop(shape, affine):
    x = numbers(shape) + 2
    net = net_of(RMSNorm(eps=1e-3, affine=affine).named("rms"), x)
    expected = np.empty_like(x)
    for place in np.ndindex(shape[:-1]):
        expected[place] = x[place] / (sum(v * v for v in x[place]) / shape[-1] + 1e-3) ** 0.5
    np.testing.assert_allclose(run(net, x).y, affine_of(net, expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("dtype", "eps"), [("float32", 2.0**-23), ("float64", 2.0**-52)])
def test_rms_norm_without_eps_takes_the_machines(dtype, eps):
    x = np.full((1, 4), eps**0.5, dtype=dtype)
    np.testing.assert_allclose(Net([RMSNorm()], (4,)).bind("cpu", dtype).predict(x), 0.5**0.5, rtol=1e-6)


@both
@affine
@pytest.mark.parametrize("tracking", [True, False])
def test_instance_norm_like_a_loop(affine, tracking, training):
    x = numbers((2, 3, 4, 5)) + 2
    net = net_of(InstanceNorm2d(1e-3, 0.1, affine, tracking).named("norm"), x)
    expected = np.empty_like(x)
    for n, c in np.ndindex(2, 5):
        if tracking and not training:
            mean, var = (net.buffers()[f"norm.running_{of}"].data[c] for of in ("mean", "var"))
            expected[n, :, :, c] = (x[n, :, :, c] - mean) / np.sqrt(var + 1e-3)
        else:
            expected[n, :, :, c] = standardised(x[n, :, :, c], 1e-3)
    np.testing.assert_allclose(run(net, x, training=training).y, affine_of(net, expected), rtol=1e-12, atol=1e-13)
    check_gradients(net, x, training, rtol=1e-6)


def test_instance_norm_follows_the_mean_of_the_images_statistics():
    x = numbers((3, 4, 2, 5))
    net = net_of(InstanceNorm2d(momentum=0.3, track_running_stats=True).named("norm"), x)
    before = {path: b.data.copy() for path, b in net.buffers().items()}
    run(net, x, training=False)
    for path, value in before.items():
        np.testing.assert_array_equal(net.buffers()[path].data, value)
    run(net, x)
    images = x.reshape(3, 8, 5)
    for name, value in (("mean", images.mean(1).mean(0)), ("var", images.var(1, ddof=1).mean(0))):
        expected = 0.7 * before[f"norm.running_{name}"] + 0.3 * value
        np.testing.assert_allclose(net.buffers()[f"norm.running_{name}"].data, expected, rtol=1e-12)


def test_frozen_instance_norm_uses_its_statistics_in_training():
    x = numbers((3, 4, 2, 5))
    net = net_of(InstanceNorm2d(affine=True, track_running_stats=True).named("norm"), x)
    net.freeze("norm.*")
    np.testing.assert_array_equal(run(net, x).y, run(net, x, training=False).y)
    check_gradients(net, x)


@pytest.mark.parametrize("shape", [(4, 6), (3, 7, 12), (2, 9, 8, 24)])
def test_numpy_kernels_agree_with_the_reference(shape):
    x, dy, weight, bias = numbers(shape), numbers(shape, 1), numbers(shape[-1:], 2), numbers(shape[-1:], 3)
    results = []
    for ops in (Ops(np), host().ops):
        *out, res = ops.group_norm(x, 3, weight, bias, 1e-5)
        y, kept = ops.rms_norm(x, weight, 1e-5)
        results.append(
            [*out, *ops.group_norm_backward(dy, res), y, *ops.rms_norm_backward(dy, kept)],
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


LAYERS = [lambda: GroupNorm(3), InstanceNorm2d, RMSNorm]
every_layer = pytest.mark.parametrize("make", LAYERS)


@every_layer
@pytest.mark.parametrize("size", [1e18, 1.0, 1e-18, 0.0])
def test_finite_for_large_and_small_numbers(make, size):
    shape = (2, 3, 1800) if make is RMSNorm else (2, 30, 30, 6)
    x = (size * np.clip(numbers(shape), -1, 1)).astype("float32")  # the sum of 900 squares of 1e36 overflows
    found = run(net_of(make(), x), x)
    assert np.isfinite(found.y).all()
    assert np.isfinite(found.dx).all()
    if size == 1e18:
        close(found.y, run(net_of(make(), x.astype("float64")), x.astype("float64")).y, 1e-5)


@every_layer
def test_float32_agrees_with_float64(make):
    x = (numbers((3, 5, 7, 6)) * 4 + 30).astype("float32")
    single, double = run(net_of(make(), x), x), run(net_of(make(), x.astype("float64")), x.astype("float64"))
    for a, b in zip(
        (single.y, single.dx, *single.grads.values()), (double.y, double.dx, *double.grads.values()), strict=True
    ):
        close(a, b, 5e-5)


def test_parameters_are_spared_by_decay():
    for layer in (GroupNorm(2), InstanceNorm2d(affine=True), RMSNorm()):
        params = Net([layer], (4, 4, 4)).params().values()
        assert [param.decay_mult for param in params] == [0] * (1 if isinstance(layer, RMSNorm) else 2)


def test_bad_arguments_and_shapes():
    with pytest.raises(ValueError, match="num_groups must be at least 1, got 0"):
        GroupNorm(0)
    with pytest.raises(ValueError, match="eps must be finite and at least 0, got -1"):
        RMSNorm(eps=-1)
    with pytest.raises(ValueError, match="momentum must be between 0 and 1, got 2"):
        InstanceNorm2d(momentum=2)
    with pytest.raises(ShapeError, match="5 channels cannot be cut into 2 equal groups"):
        Net([GroupNorm(2)], (4, 5))
    with pytest.raises(ShapeError, match="an image of one pixel has no variance"):
        Net([InstanceNorm2d()], (1, 1, 3))
    with pytest.raises(ShapeError, match="InstanceNorm2d needs an image"):
        Net([InstanceNorm2d()], (4, 3))
    for layer in (GroupNorm(1), RMSNorm()):
        with pytest.raises(ShapeError, match="needs at least one axis"):
            Net([layer], ())
