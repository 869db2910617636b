"""cuda-convnet's semantics, a test each, against loops (docs/coming-from-cuda-convnet.md).

`ROWS` names what its results depend on, and the tests of each; what is not here, the page says.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import layernet as ln
from layernet.config.experiment import load_config_text
from layernet.errors import ConfigError, ContractError
from tests.layers.one_layer import net_of, numbers, run

ROWS = {
    "conv output size": ["test_conv_size_is_the_ceiling"],
    "pool output size": ["test_pool_windows_are_clipped_and_ties_all_get_the_gradient"],
    "pool edges": ["test_pool_windows_are_clipped_and_ties_all_get_the_gradient"],
    "max-pool ties": ["test_pool_windows_are_clipped_and_ties_all_get_the_gradient"],
    "cmrnorm": ["test_cmrnorm"],
    "rnorm": ["test_rnorm_and_cnorm"],
    "cnorm": ["test_rnorm_and_cnorm"],  # with the exact gradient: tests/layers/test_local_norm.py
    "groups": ["test_conv_reads_zeros_beyond_the_image_and_groups_see_their_channels"],
    "randSparse": ["test_a_random_wiring_is_an_order_of_channels_before_groups"],
    "size limits": ["test_there_are_no_limits_of_size"],
    "weight layout": ["test_weights_of_theirs_go_over", "test_a_trained_conv_becomes_local"],
    "gradient": ["test_the_gradient_is_the_mean_over_the_cases_there_are"],
    "update": ["test_the_update_is_theirs"],
    "sharing": ["test_shared_weights_sum_the_gradients_of_their_uses"],
    "frozen layers": ["test_a_layer_that_does_not_learn_stays", "test_nothing_goes_back_below_the_first_that_learns"],
    "init": ["test_init", "test_an_init_function_gives_the_exact_shape"],
    "v2 lr schedules": ["test_lr_schedules_end_at_base_by_factor", "test_dexp_has_level_stairs"],
    "v2 constraints": ["test_wball_is_exactly_that_norm_and_local_at_most"],
    "multiview": ["test_views_are_averaged_as_probabilities"],
    "graph rules": ["test_eltmax_gives_every_tied_input_the_whole_gradient", "test_eltsum_takes_coefficients"],
    "config traps": ["test_an_unknown_key_is_an_error"],
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_tests(row: str) -> None:
    assert all(callable(globals()[name]) for name in ROWS[row])


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


def test_eltsum_takes_coefficients() -> None:
    x = numbers((2, 3))
    net = net_of(ln.Add([[ln.Affine(0.5)], [ln.Square(), ln.Affine(-1.0)]]), x)
    np.testing.assert_allclose(run(net, x).y, 0.5 * x - x * x)


def test_a_random_wiring_is_an_order_of_channels_before_groups() -> None:
    order = [3, 0, 2, 1]

    class Wiring(ln.Layer):
        def forward(self, x: np.ndarray, ctx: ln.Context) -> np.ndarray:  # type: ignore[type-arg]
            return x[..., order]

        def backward(self, dy: np.ndarray, ctx: ln.Context) -> np.ndarray:  # type: ignore[type-arg]
            return dy[..., np.argsort(order)]

    x = numbers((2, 5, 5, 4))
    conv = ln.Conv2d(2, 3, groups=2, bias=False)
    net = net_of([Wiring(), conv], x)
    (weight,) = (p.data for p in net.params().values())
    one, other = (x[:, :3, :3, order[group : group + 2]] * weight[group // 2] for group in (0, 2))
    np.testing.assert_allclose(run(net, x).y[:, 0, 0], np.stack([v.sum((1, 2, 3)) for v in (one, other)], axis=-1))


def test_there_are_no_limits_of_size() -> None:
    # theirs: 1 to 3 channels or a multiple of 4, filters by 16, pooled and normalised channels by 16, square images
    layers = [ln.Conv2d(3, [2, 3]), ln.MaxPool2d(2), ln.LocalResponseNorm(5), ln.Local2d(7, 2)]
    assert ln.Net(layers, (9, 6, 5)).output_shape == (3, 1, 7)


def test_weights_of_theirs_go_over() -> None:
    x = numbers((2, 6, 6, 3))
    rng = np.random.default_rng(1)
    conv, fc = rng.normal(size=(3 * 3 * 3, 4)), rng.normal(size=(4 * 4 * 4, 5))
    net = ln.Net([ln.Conv2d(4, 3).named("conv1"), ln.Flatten(), ln.Linear(5).named("fc1")], (6, 6, 3))
    net.bind("cpu", "float64")
    conv1 = conv.reshape(3, 3, 3, 4).transpose(3, 1, 2, 0)
    fc1 = fc.reshape(4, 4, 4, 5).transpose(3, 1, 2, 0).reshape(5, -1)
    net.load_state_dict(net.state_dict() | {"conv1.weight": conv1, "fc1.weight": fc1})
    planes = np.zeros((2, 4, 4, 4))  # theirs: cases, channels, rows, columns
    for n, r, c in np.ndindex(2, 4, 4):
        planes[n, :, r, c] = x[n, r : r + 3, c : c + 3].transpose(2, 0, 1).reshape(-1) @ conv
    np.testing.assert_allclose(net.predict(x), planes.reshape(2, -1) @ fc, rtol=1e-10)


def test_a_trained_conv_becomes_local() -> None:
    x = numbers((2, 6, 5, 3))
    conv = net_of(ln.Conv2d(4, 3, padding=1).named("one"), x)
    local = net_of(ln.Local2d(4, 3, padding=1).named("one"), x)
    shared = conv.state_dict()
    local.load_state_dict({p: np.broadcast_to(shared[p], v.shape) for p, v in local.state_dict().items()})
    np.testing.assert_allclose(local.predict(x), conv.predict(x), rtol=1e-12)


def test_nothing_goes_back_below_the_first_that_learns() -> None:
    asked = []

    class Probe(ln.Layer):
        def forward(self, x: np.ndarray, ctx: ln.Context) -> np.ndarray:  # type: ignore[type-arg]
            ctx.save()
            return x

        def backward(self, dy: np.ndarray, ctx: ln.Context) -> np.ndarray:  # type: ignore[type-arg]
            asked.append(self.path)
            return dy

    layers = [
        ln.Linear(4).named("fc1"),
        Probe().named("below"),
        ln.Linear(3).named("fc2"),
        Probe().named("between"),
        ln.Linear(2).named("fc3"),
    ]
    net = ln.Net(layers, (3,)).bind("cpu", "float64")
    net.freeze("fc1.*")
    net.freeze("fc3.*")
    x = numbers((5, 3))
    net.backward(net.forward(x, training=True), numbers((5, 2)))
    assert asked == ["between"]
    assert {path for path, p in net.params().items() if p.has_grad} == {"fc2.weight", "fc2.bias"}


def test_init() -> None:
    layer = ln.Linear(300, weight_init=ln.init.normal(0.01), bias_init=ln.init.constant(1.0))
    net = ln.Net([layer.named("fc")], (400,)).bind("cpu", "float64")
    weight, bias = (p.data for p in net.params().values())
    assert weight.std() == pytest.approx(0.01, rel=0.01)
    assert abs(weight.mean()) < 1e-4
    assert ((weight / 0.01) ** 4).mean() == pytest.approx(3, rel=0.05)  # of a normal distribution
    assert (bias == 1).all()


def test_an_init_function_gives_the_exact_shape() -> None:
    def make(shape: tuple[int, ...], rng: object) -> np.ndarray:  # type: ignore[type-arg]
        return np.arange(6.0).reshape(2, 3)

    net = ln.Net([ln.Linear(2, weight_init=make, bias=False)], (3,)).bind("cpu")
    assert net.params()["linear_1.weight"].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ContractError, match=r"returned shape \(2, 3\), expected \(3, 2\)"):
        ln.Net([ln.Linear(3, weight_init=make, bias=False)], (2,)).bind("cpu")


def test_wball_is_exactly_that_norm_and_local_at_most() -> None:
    layers = [ln.Conv2d(4, 3).named("conv"), ln.Local2d(2, 2).named("local"), ln.Flatten(), ln.Linear(3).named("fc")]
    net = ln.Net(layers, (6, 6, 2)).bind("cpu", "float64")
    before = {path: p.data.copy() for path, p in net.params().items()}
    groups = {"conv.weight": {"norm": 1.0}, "fc.weight": {"norm": 3.0}, "local.weight": {"max_norm": 1.4}}
    ln.SGD(0.0, groups=groups).attach(net).step()
    for path, norm in (("conv.weight", 1.0), ("fc.weight", 3.0)):
        rows, old = (values.reshape(len(values), -1) for values in (net.params()[path].data, before[path]))
        np.testing.assert_allclose(rows, norm * old / np.sqrt((old**2).sum(axis=1, keepdims=True)), rtol=1e-12)
    old = before["local.weight"]  # (rows, columns, filters, 2, 2, 4): a filter at each place
    scale = np.minimum(1, 1.4 / np.sqrt((old**2).sum(axis=(3, 4, 5), keepdims=True)))
    assert 0 < (scale == 1).sum() < scale.size
    np.testing.assert_allclose(net.params()["local.weight"].data, old * scale, rtol=1e-12)


def test_views_are_averaged_as_probabilities() -> None:
    views = [numbers((3, 4, 4, 2), seed) for seed in range(2)]
    net = net_of([ln.Flatten(), ln.Linear(3), ln.Softmax()], views[0])
    labels = np.array([0, 1, 2])
    p = np.mean([net.predict(view) for view in views], axis=0)
    loss, _ = ln.NLL()(np.log(p), labels)
    assert loss == pytest.approx(-np.log(p[np.arange(3), labels]).mean())


def test_an_unknown_key_is_an_error() -> None:
    # their example that could not be loaded: the parser wants `size`, the file said `sizeX`
    text = """
data: {train: {type: FakeData, shape: [8, 8, 3]}, batch_size: 4}
net: {input: [8, 8, 3], layers: [{type: LocalResponseNorm, sizeX: 3}, Flatten, {type: Linear, out_features: 10}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
    with pytest.raises(ConfigError, match=r"unknown key 'sizeX'; did you mean 'size'"):
        load_config_text(text)
