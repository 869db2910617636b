"""cuda-convnet's semantics, a test each, against loops (docs/coming-from-cuda-convnet.md)."""

from __future__ import annotations

import math

import numpy as np
import pytest

import layernet as ln
from tests.layers.one_layer import net_of, numbers, run


def window(position: int, size: int, stride: int, start: int, length: int) -> range:
    """The pixels of a pooling window that exist."""
    first = start + position * stride
    return range(max(first, 0), min(first + size, length))


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(224, 11, 4, 0), (32, 5, 1, 2), (7, 2, 3, 1)])
def test_conv_size_is_the_ceiling(size: int, kernel: int, stride: int, padding: int) -> None:
    layer = ln.Conv2d(16, kernel, stride=stride, padding=padding, ceil_mode=True)
    out = 1 + math.ceil((2 * padding + size - kernel) / stride)
    assert ln.Net([layer], (size, size, 3)).output_shape == (out, out, 16)


def test_conv_reads_zeros_beyond_the_image_and_groups_see_their_channels() -> None:
    x = numbers((2, 6, 6, 4))
    layer = ln.Conv2d(6, 3, stride=2, padding=1, groups=2, ceil_mode=True)
    net = net_of(layer, x)
    weight, bias = (p.data for p in net.params().values())
    y = run(net, x).y
    assert y.shape == (2, 4, 4, 6)
    for n, r, c, o in np.ndindex(y.shape):
        total = bias[o]
        for i, j, k in np.ndindex(3, 3, 2):
            row, column = 2 * r + i - 1, 2 * c + j - 1
            if 0 <= row < 6 and 0 <= column < 6:
                total += x[n, row, column, o // 3 * 2 + k] * weight[o, i, j, k]
        assert y[n, r, c, o] == pytest.approx(total)


@pytest.mark.parametrize(("size", "stride", "start"), [(3, 2, 0), (3, 2, -1), (2, 2, 0)])
@pytest.mark.parametrize("pool", ["max", "avg", "sum"])
def test_pool_windows_are_clipped_and_ties_all_get_the_gradient(pool: str, size: int, stride: int, start: int) -> None:
    x = np.random.default_rng(0).integers(1, 4, (2, 8, 8, 2)).astype(float)  # with ties
    layer: ln.Layer = ln.MaxPool2d(size, stride, ceil_mode=True, ties="all", start=start)
    if pool == "avg":
        layer = ln.AvgPool2d(size, stride, ceil_mode=True, count_include_pad=False, start=start)
    if pool == "sum":
        layer = ln.AvgPool2d(size, stride, ceil_mode=True, divisor_override=1, start=start)
    out = math.ceil((8 - start - size) / stride) + 1
    dy = numbers((2, out, out, 2), 7)
    found = run(net_of(layer, x), x, dy)
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for n, r, c, k in np.ndindex(dy.shape):
        pixels = [(n, i, j, k) for i in window(r, size, stride, start, 8) for j in window(c, size, stride, start, 8)]
        values = [x[pixel] for pixel in pixels]
        divisor = len(pixels) if pool == "avg" else 1
        y[n, r, c, k] = max(values) if pool == "max" else sum(values) / divisor
        for pixel in pixels:
            if pool != "max" or x[pixel] == max(values):
                dx[pixel] += dy[n, r, c, k] / divisor
    np.testing.assert_allclose(found.y, y)
    np.testing.assert_allclose(found.dx, dx)


@pytest.mark.parametrize(("size", "k"), [(5, 1.0), (4, 2.0), (9, 1.0)])
@pytest.mark.parametrize("blocked", [False, True])
def test_cmrnorm(size: int, k: float, blocked: bool) -> None:
    x = numbers((2, 3, 3, 8))
    y = run(net_of(ln.LocalResponseNorm(size, alpha=0.5, beta=0.75, k=k, blocked=blocked), x), x).y
    for f in range(8):
        first = f // size * size if blocked else f - size // 2
        near = [g for g in range(first, first + size) if 0 <= g < 8]
        squares = sum(x[..., g] ** 2 for g in near)
        np.testing.assert_allclose(y[..., f], x[..., f] * (k + 0.5 / size * squares) ** -0.75)


@pytest.mark.parametrize("size", [3, 4])
def test_rnorm_and_cnorm(size: int) -> None:
    x = numbers((2, 6, 5, 3))
    rnorm = run(net_of(ln.LocalResponseNorm(size, alpha=2.0, region="within_channel"), x), x).y
    cnorm = run(net_of(ln.LocalContrastNorm(size, alpha=2.0), x), x).y

    def near(r: int, c: int) -> list[tuple[int, int]]:
        rows, columns = (range(p - size // 2, p - size // 2 + size) for p in (r, c))
        return [(i, j) for i in rows for j in columns if 0 <= i < 6 and 0 <= j < 5]

    deviation = np.zeros(x.shape)
    for r, c in np.ndindex(6, 5):
        deviation[:, r, c] = x[:, r, c] - np.mean([x[:, i, j] for i, j in near(r, c)], axis=0)
    for r, c in np.ndindex(6, 5):
        for found, u in ((rnorm, x), (cnorm, deviation)):
            squares = sum(u[:, i, j] ** 2 for i, j in near(r, c))
            np.testing.assert_allclose(found[:, r, c], x[:, r, c] * (1 + 2.0 / size**2 * squares) ** -0.75)


def trained(groups: dict[str, dict[str, float]], steps: int = 3) -> tuple[ln.Net, list[dict[str, np.ndarray]]]:  # type: ignore[type-arg]
    """A net after some steps of momentum with the gradients that it had."""
    net = ln.Net([ln.Linear(4).named("fc1"), ln.Tanh(), ln.Linear(2).named("fc2")], (3,)).bind("cpu", "float64")
    optimizer = ln.SGD(lr=0.1, momentum=0.9, weight_decay=0.01, groups=groups)
    optimizer.attach(net)
    seen = []
    for step in range(steps):
        net.zero_grad()
        x = numbers((5, 3), step)
        _, dy = ln.CrossEntropy()(net.forward(x, training=True).output, np.arange(5) % 2)
        tape = net.forward(x, training=True)
        net.backward(tape, dy)
        seen.append({path: p.grad.copy() for path, p in net.params().items()})
        optimizer.step(1.0, step)
    return net, seen


def test_the_update_is_theirs() -> None:
    # inc <- mom inc + eps grad - wc eps w, w <- w + inc, their grad being the log-likelihood's; biases do not decay
    net, gradients = trained({"*.bias": {"lr_mult": 2}})
    start = ln.Net([ln.Linear(4).named("fc1"), ln.Tanh(), ln.Linear(2).named("fc2")], (3,)).bind("cpu", "float64")
    for path, p in start.params().items():
        eps, wc = (0.2, 0.0) if path.endswith("bias") else (0.1, 0.01)
        w, inc = p.data.copy(), np.zeros(p.shape)
        for gradient in gradients:
            inc = 0.9 * inc - eps * gradient[path] - wc * eps * w
            w = w + inc
        np.testing.assert_allclose(net.params()[path].data, w, rtol=1e-10, atol=1e-13)


def test_a_layer_that_does_not_learn_stays() -> None:
    net, _ = trained({"fc1.*": {"frozen": True}})
    start = ln.Net([ln.Linear(4).named("fc1"), ln.Tanh(), ln.Linear(2).named("fc2")], (3,)).bind("cpu", "float64")
    for path, p in start.params().items():
        assert np.array_equal(p.data, net.params()[path].data) == path.startswith("fc1")


def test_the_gradient_is_the_mean_over_the_cases_there_are() -> None:
    outputs, labels = numbers((5, 3)), np.array([0, 2, 1, 1, 0])
    _, dy = ln.CrossEntropy()(outputs, labels)
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    np.testing.assert_allclose(dy, (p - np.eye(3)[labels]) / 5)


def test_shared_weights_sum_the_gradients_of_their_uses() -> None:
    x = numbers((4, 3))
    net = net_of([ln.Linear(3, bias=False).named("fc"), ln.Tanh(), ln.Ref("fc")], x)
    (weight,) = net.params().values()
    dy = numbers((4, 3), 7)
    hidden = np.tanh(x @ weight.data.T)
    below = (dy @ weight.data) * (1 - hidden**2)
    np.testing.assert_allclose(run(net, x, dy).grads["fc.weight"], dy.T @ hidden + below.T @ x)


@pytest.mark.parametrize("form", ["linear", "exp"])
def test_lr_schedules_end_at_base_by_factor(form: str) -> None:
    schedule = ln.Decay(form, by=10.0)  # type: ignore[arg-type]
    schedule.bind(100, 10)
    for step in (0, 25, 50, 99):
        p = step / 100
        assert schedule(step) == pytest.approx(1 - p + p / 10 if form == "linear" else 10.0**-p)


def test_dexp_has_level_stairs() -> None:
    schedule = ln.Decay("dexp", by=250.0, steps=4)
    schedule.bind(100, 10)
    assert sorted({round(schedule(step) * 250 ** (1 / 3 * 3), 6) for step in range(100)}) == pytest.approx(
        sorted(250.0 ** (1 - stair / 3) for stair in range(4)), rel=1e-5
    )


def test_eltmax_gives_every_tied_input_the_whole_gradient() -> None:
    x = np.array([[1.0, -2.0]])
    branches: list[list[ln.Layer]] = [[], [ln.Abs()]]
    np.testing.assert_array_equal(run(net_of(ln.Maximum(branches, ties="all"), x), x, np.ones((1, 2))).dx, [[2, -1]])
