import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.summary import count_flops
from layernet.errors import ShapeError
from layernet.layers.activation import Sigmoid, Tanh
from layernet.layers.block import Bottleneck, DenseBlock, InceptionBlock
from layernet.layers.composite import BasicBlock, Maximum, Multiply
from layernet.layers.linear import Linear
from tests.layers.one_layer import check_gradients, close, net_of, numbers, run


def test_multiply_is_the_product():
    x = numbers((3, 4))
    net = net_of(Multiply([[], [Linear(4), Sigmoid()], [Tanh()]]), x)
    weight, bias = (p.data for p in net.params().values())
    np.testing.assert_allclose(run(net, x).y, x * np.tanh(x) / (1 + np.exp(-x @ weight.T - bias)), rtol=1e-12)
    check_gradients(net, x)


def test_multiply_by_zero_has_a_gradient():
    x = np.array([[0.0, 2.0]])
    np.testing.assert_allclose(run(net_of(Multiply([[], [], []]), x), x, np.ones((1, 2))).dx, [[0.0, 12.0]])


@pytest.mark.parametrize(("ties", "count"), [("first", 1), ("all", 2)])
def test_maximum_and_its_ties(ties, count):
    x = numbers((3, 4))
    net = net_of(Maximum([[Tanh()], [], []], ties=ties), x)
    dy = numbers((3, 4), 7)
    found = run(net, x, dy)
    np.testing.assert_array_equal(found.y, np.maximum(x, np.tanh(x)))
    np.testing.assert_allclose(found.dx, dy * np.where(x > np.tanh(x), count, 1 - np.tanh(x) ** 2))


def test_branches_must_agree():
    for layer, verb in ((Multiply, "multiplied"), (Maximum, "compared")):
        with pytest.raises(ShapeError, match=f"cannot be {verb}: branch 1 gives \\[4\\], branch 2 gives \\[3\\]"):
            Net([layer([[], [Linear(3)]])], (4,))


def torch_parts(net, x):
    """(x, conv, norm, leaves) in torch, of a net's only block."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    leaves = {path: torch.tensor(p.data.copy(), requires_grad=True) for path, p in net.params().items()}
    tx = torch.tensor(x, requires_grad=True)

    def conv(h, name, **arguments):
        return F.conv2d(h, leaves[f"{name}.weight"].permute(0, 3, 1, 2), leaves.get(f"{name}.bias"), **arguments)

    def norm(h, name):
        return F.batch_norm(h, None, None, leaves[f"{name}.weight"], leaves[f"{name}.bias"], training=True)

    return tx, conv, norm, leaves


def same_as_torch(found, y, tx, leaves):
    import torch

    y = y.permute(0, 2, 3, 1)
    y.backward(torch.tensor(numbers(found.y.shape, 7)))
    close(found.y, y.detach().numpy(), 1e-12)
    close(found.dx, tx.grad.numpy(), 1e-10)
    for path, gradient in found.grads.items():
        close(gradient, leaves[path].grad.numpy(), 1e-10)


@pytest.mark.parametrize(("stride", "groups", "expansion"), [(1, 1, 4), (2, 1, 4), (1, 2, 2)])
def test_bottleneck_like_torch(stride, groups, expansion):
    x = numbers((3, 5, 4, 4))
    net = net_of(Bottleneck(2, stride, expansion, groups).named("b"), x)
    tx, conv, norm, leaves = torch_parts(net, x)
    h = tx.permute(0, 3, 1, 2)
    y = norm(conv(h, "b.conv1"), "b.bn1").relu()
    y = norm(conv(y, "b.conv2", stride=stride, padding=1, groups=groups), "b.bn2").relu()
    y = norm(conv(y, "b.conv3"), "b.bn3")
    if (stride, expansion) != (1, 2):
        h = norm(conv(h, "b.downsample", stride=stride), "b.downsample_bn")
    same_as_torch(run(net, x), (y + h).relu(), tx, leaves)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_inception_like_torch(batch_norm):
    x = numbers((3, 5, 4, 4))
    net = net_of(InceptionBlock(2, 3, 4, 1, 2, 3, batch_norm).named("b"), x)
    tx, conv, norm, leaves = torch_parts(net, x)
    (prefix,) = {path.partition(".conv1x1.")[0] for path in leaves if ".conv1x1." in path}
    prefix = prefix.removesuffix(".branch_1")

    def unit(h, branch, name, padding=0):
        y = conv(h, f"{prefix}.branch_{branch}.conv{name}", padding=padding)
        return (norm(y, f"{prefix}.branch_{branch}.bn{name}") if batch_norm else y).relu()

    import torch

    h = tx.permute(0, 3, 1, 2)
    parts = [
        unit(h, 1, "1x1"),
        unit(unit(h, 2, "3x3_reduce"), 2, "3x3", 1),
        unit(unit(h, 3, "5x5_reduce"), 3, "5x5", 2),
        unit(torch.nn.functional.max_pool2d(h, 3, 1, 1), 4, "pool_proj"),
    ]
    same_as_torch(run(net, x), torch.cat(parts, 1), tx, leaves)


@pytest.mark.parametrize("bottleneck", [None, 2])
def test_dense_block_like_torch(bottleneck):
    x = numbers((3, 4, 5, 2))
    net = net_of(DenseBlock(3, 2, bottleneck).named("b"), x)
    assert net.output_shape == (4, 5, 8)
    tx, conv, norm, leaves = torch_parts(net, x)
    import torch

    h = tx.permute(0, 3, 1, 2)
    for number in (1, 2, 3):
        name, y = f"b.layer{number}.branch_2", h
        if bottleneck:
            y = conv(norm(y, f"{name}.bn1").relu(), f"{name}.conv1")
        h = torch.cat([h, conv(norm(y, f"{name}.bn2").relu(), f"{name}.conv2", padding=1)], 1)
    same_as_torch(run(net, x), h, tx, leaves)


def test_published_sizes():
    # ResNet-50's second stage, 3 blocks: 215 808 parameters; GoogLeNet's 3a (table 1): 159 K, 128 M multiply-adds
    stage = Net([Bottleneck(64), Bottleneck(64), Bottleneck(64)], (56, 56, 64))
    assert sum(p.size for p in stage.params().values()) == 215_808
    block = InceptionBlock(64, 96, 128, 16, 32, 32)
    inception = Net([block], (28, 28, 192))
    assert inception.output_shape == (28, 28, 256)
    assert sum(p.size for p in inception.params().values() if len(p.shape) > 1) == 163_328
    assert count_flops(block) == 163_328 * 28 * 28


def test_bad_arguments():
    with pytest.raises(ValueError, match="expansion must be at least 1, got 0"):
        Bottleneck(4, expansion=0)
    with pytest.raises(ValueError, match="groups must divide channels=4, got 3"):
        Bottleneck(4, groups=3)
    with pytest.raises(ValueError, match="conv5x5 must be at least 1, got 0"):
        InceptionBlock(1, 1, 1, 1, 0, 1)
    with pytest.raises(ValueError, match="growth must be at least 1, got 0"):
        DenseBlock(1, 0)
    with pytest.raises(ValueError, match="ties"):
        Maximum([[]], ties="some")


def test_basic_block_paths_and_shapes():
    net = Net([BasicBlock(6, stride=2).named("stage2.0"), BasicBlock(6).named("stage2.1")], (5, 4, 3))
    assert net.output_shape == (3, 2, 6)
    weights = [path for path in net.params() if path.endswith(".weight")]
    first = ["conv1", "bn1", "conv2", "bn2", "downsample", "downsample_bn"]
    assert weights == [f"stage2.0.{name}.weight" for name in first] + [f"stage2.1.{name}.weight" for name in first[:4]]
    assert not any(path.endswith("conv1.bias") for path in net.params())


@pytest.mark.parametrize(("channels", "stride"), [(2, 1), (3, 1), (2, 2)])
def test_basic_block_gradients(channels, stride):
    x = numbers((3, 4, 3, 2))
    check_gradients(net_of(BasicBlock(channels, stride), x), x, rtol=1e-6)


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_basic_block_like_torch(channels, stride):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x = numbers((3, 7, 5, 4))
    net = net_of(BasicBlock(channels, stride).named("b"), x)
    found = run(net, x)
    leaves = {path: torch.tensor(p.data.copy(), requires_grad=True) for path, p in net.params().items()}
    tx = torch.tensor(x, requires_grad=True)

    def conv(h, name, **arguments):
        return F.conv2d(h, leaves[f"b.{name}.weight"].permute(0, 3, 1, 2), **arguments)

    def norm(h, name):
        return F.batch_norm(h, None, None, leaves[f"b.{name}.weight"], leaves[f"b.{name}.bias"], training=True)

    h = tx.permute(0, 3, 1, 2)
    y = F.relu(norm(conv(h, "conv1", stride=stride, padding=1), "bn1"))
    y = norm(conv(y, "conv2", padding=1), "bn2")
    y = F.relu(
        y + (norm(conv(h, "downsample", stride=stride), "downsample_bn") if "b.downsample.weight" in leaves else h)
    )
    y = y.permute(0, 2, 3, 1)
    y.backward(torch.tensor(numbers(found.y.shape, 7)))
    close(found.y, y.detach().numpy(), 1e-12)
    close(found.dx, tx.grad.numpy(), 1e-11)
    for path, gradient in found.grads.items():
        close(gradient, leaves[path].grad.numpy(), 1e-11)


def test_basic_block_arguments():
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        BasicBlock(0)
