import gc
import weakref

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.core.sequential import Ref, Sequential
from layernet.core.summary import summarize
from layernet.errors import ContractError, ShapeError
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.composite import Add, AuxiliaryHead, Block, Concat, Recompute, Residual
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm
from layernet.layers.shape import Flatten
from tests.core.toys import Twice
from tests.layers.one_layer import check_gradients, net_of, numbers, run


def paths(layers, shape=(4,)):
    return [path.removesuffix(".weight") for path in Net(layers, shape).params() if path.endswith("weight")]


class Bottleneck(Block):
    def __init__(self, width: int) -> None:
        self.width = width

    def layers(self, in_shape):
        return [Residual([Linear(self.width).named("down"), Tanh(), Linear(in_shape[-1]).named("up")]), Tanh()]


# values


def test_residual_adds_its_input():
    x = numbers((5, 4))
    net = net_of(Residual([Linear(4).named("fc"), Tanh()]), x)
    weight, bias = (p.data for p in net.params().values())
    found = run(net, x)
    np.testing.assert_allclose(found.y, np.tanh(x @ weight.T + bias) + x, rtol=1e-13)
    check_gradients(net, x)


def test_residual_with_a_shortcut():
    x = numbers((5, 4))
    net = net_of(Residual([Linear(3), Tanh(), Linear(3)], shortcut=[Linear(3)]), x)
    w = [p.data for p in net.params().values()]
    expected = np.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3] + x @ w[4].T + w[5]
    np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-12)
    check_gradients(net, x)


def test_concat_and_add_hold_empty_branches():
    x = numbers((3, 2, 4))
    for layer in (Concat, Add):
        net = net_of(layer([[], [Linear(4)], [Tanh()]]), x)
        weight, bias = (p.data for p in net.params().values())
        parts = [x, x @ weight.T + bias, np.tanh(x)]
        expected = np.concatenate(parts, axis=-1) if layer is Concat else sum(parts)
        np.testing.assert_allclose(run(net, x).y, expected, rtol=1e-13, atol=1e-13)
        check_gradients(net, x)


def test_concat_of_different_widths_gives_each_branch_its_part():
    x = numbers((3, 4))
    net = net_of(Concat([[Linear(2).named("a")], [Linear(5), Tanh()], [Linear(1).named("b")]]), x)
    found = run(net, x)
    assert found.y.shape == (3, 8)
    dy = numbers((3, 8), 7)
    np.testing.assert_allclose(found.grads["concat_1.branch_1.a.bias"], dy[:, :2].sum(0))
    np.testing.assert_allclose(found.grads["concat_1.branch_3.b.bias"], dy[:, 7:].sum(0))
    check_gradients(net, x)


def test_one_branch_is_a_chain():
    x = numbers((3, 4))
    for layer in (Add, Concat):
        check_gradients(net_of(layer([[Linear(3)]]), x), x)


def test_branches_that_hand_back_the_gradient_itself_do_not_spoil_each_other():
    # Flatten's dx is a view of dy and an empty branch's is dy: adding in place would change what the next branch reads
    x = numbers((3, 4))
    found = run(net_of(Add([[], [Flatten()], [], [Linear(4)]]), x), x)
    np.testing.assert_array_equal(found.dx.shape, x.shape)
    check_gradients(net_of(Add([[], [Flatten()], [], [Linear(4)]]), x), x)


def test_composites_nest():
    x = numbers((4, 3))
    inner = Concat([[Residual([Linear(3), Tanh()])], [Recompute([Linear(2), BatchNorm()])], []])
    net = net_of([Add([[inner, Linear(3)], [Bottleneck(2)]]), Recompute([Bottleneck(4)]), Sequential([Linear(2)])], x)
    assert net.output_shape == (2,)
    check_gradients(net, x, rtol=1e-6)


def test_nothing_trained_below_means_no_gradient_work():
    x = numbers((4, 3))
    called = []

    class Watched(Tanh):
        def backward(self, dy, ctx):
            called.append(self.name)
            return super().backward(dy, ctx)

    frozen = [Watched().named("free"), Residual([Watched().named("body")])]
    layers = [*frozen, Add([[Linear(3)], [Watched().named("side"), Watched().named("side2")]]), Watched().named("top")]
    net = net_of(layers, x)
    net.backward(net.forward(x, training=True), numbers((4, 3)))
    assert called == ["top"]


# names


def test_unnamed_composites_add_no_level():
    assert paths([Residual([Linear(4)], [Linear(4)]), Sequential([Linear(4)]), Linear(2)]) == [
        f"linear_{i}" for i in (1, 2, 3, 4)
    ]
    assert paths([Residual([Linear(4)]).named("res"), Sequential([Linear(4)]).named("seq")]) == [
        "res.linear_1",
        "seq.linear_1",
    ]


def test_recompute_renames_nothing():
    layers = [Linear(4), Residual([Linear(4), Linear(4).named("last")]), Linear(2)]
    around = [Recompute([layer.clone() for layer in layers[:2]]), layers[2].clone()]
    assert paths(around) == paths(layers) == ["linear_1", "linear_2", "last", "linear_4"]


def test_branches_and_blocks_have_levels():
    assert paths([Concat([[Linear(2)], [Linear(3), Linear(3)]]), Bottleneck(2)]) == [
        "concat_1.branch_1.linear_1",
        "concat_1.branch_2.linear_1",
        "concat_1.branch_2.linear_2",
        "bottleneck_1.down",
        "bottleneck_1.up",
    ]
    assert paths([Twice(Linear(4)), Twice(Linear(4)).named("b")]) == ["twice_1.body", "b.body"]
    assert paths([AuxiliaryHead("aux", [Linear(4)])]) == ["aux.linear_1"]


def test_every_layer_has_a_path_of_its_own():
    net = Net([Residual([Tanh(), Recompute([Tanh()])]), Tanh(), Bottleneck(3), Concat([[Tanh()], [Tanh()]])], (4,))
    found = [path for path, _ in net.root.walk()]
    assert len(found) == len(set(found))


def test_one_name_twice_on_a_level_is_an_error():
    with pytest.raises(ContractError, match=r"holds two layers called 'fc'.*give each its own name"):
        Net([Residual([Linear(4).named("fc")]), Residual([Linear(4).named("fc")])], (4,))


def test_a_summary_counts_parameters_in_composites():
    net = Net([Residual([Linear(4), Tanh()]), Bottleneck(2).named("b"), Ref("linear_1")], (4,))
    rows = {row.path: row for row in summarize(net)}
    assert {path: row.params for path, row in rows.items() if row.params} == {
        "residual_1": 20,
        "linear_1": 20,
        "b": 22,
        "b.residual_1": 22,
        "b.down": 10,
        "b.up": 12,
    }
    assert rows["b"].flops == rows["b.residual_1"].flops == 16
    assert [row.depth for row in rows.values()] == [0, 1, 1, 0, 1, 2, 2, 2, 1, 0]


# shared layers


def test_a_child_called_twice_gets_both_gradients():
    x = numbers((4, 3))
    check_gradients(net_of(Twice(Sequential([Linear(3), Tanh()])), x), x)


def test_a_child_called_twice_draws_two_masks():
    x = np.ones((50, 40))
    net = net_of(Twice(Dropout(0.5)), x)
    found = run(net, x)
    assert abs((found.y != 0).mean() - 0.25) < 0.05
    np.testing.assert_array_equal(found.dx, found.y * numbers(x.shape, 7))


def test_ref_shares_what_is_in_a_composite():
    x = numbers((4, 3))
    net = net_of(
        [Residual([Linear(3).named("fc"), Tanh()]), Residual([Ref("fc"), Tanh()]), Ref("residual_1").named("again")], x
    )
    assert list(net.params()) == ["fc.weight", "fc.bias"]
    weight, bias = (p.data for p in net.params().values())
    y = x
    for _ in range(3):
        y = np.tanh(y @ weight.T + bias) + y
    np.testing.assert_allclose(run(net, x).y, y, rtol=1e-13)
    check_gradients(net, x)


def test_ref_shares_a_block():
    x = numbers((4, 3))
    net = net_of([Bottleneck(2).named("block"), Ref("block").named("again")], x)
    assert list(net.params()) == ["block.down.weight", "block.down.bias", "block.up.weight", "block.up.bias"]
    check_gradients(net, x)


# Recompute


def noisy():
    return [Linear(6), BatchNorm(), Dropout(0.4), ReLU(), Residual([Linear(6), Dropout(0.4), BatchNorm()])]


@pytest.mark.parametrize("wrap", [lambda body: Recompute(body), lambda body: Recompute([Recompute(body)])])
def test_recompute_changes_no_bit(wrap):
    x = numbers((9, 4))
    plain, again = net_of([*noisy(), Linear(2)], x), net_of([wrap(noisy()), Linear(2)], x)
    for step in range(3):
        a, b = run(plain, x, step=step), run(again, x, step=step)
        np.testing.assert_array_equal(a.y, b.y)
        np.testing.assert_array_equal(a.dx, b.dx)
        assert a.grads.keys() == b.grads.keys()
        for path in a.grads:
            np.testing.assert_array_equal(a.grads[path], b.grads[path])
        for path, value in plain.state_dict().items():
            np.testing.assert_array_equal(value, again.state_dict()[path])


def test_recompute_keeps_the_input_alone():
    x = numbers((9, 4))
    alive = []

    class Watched(Tanh):
        def forward(self, x, ctx):
            y = super().forward(x, ctx)
            alive.append(weakref.ref(y))
            return y

    for wrap, kept in ((Sequential, 1), (Recompute, 0)):
        alive.clear()
        net = net_of([wrap([Linear(4), Watched(), Linear(3)])], x)
        tape = net.forward(x, training=True)
        gc.collect()
        assert sum(ref() is not None for ref in alive) == kept
        net.backward(tape, numbers((9, 3)))
        assert len(alive) == 2 - kept


def test_recompute_in_evaluation_is_its_body():
    x = numbers((9, 4))
    np.testing.assert_array_equal(net_of(Recompute(noisy()), x).predict(x), net_of(noisy(), x).predict(x))


# errors


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Residual([Linear(3)]), r"body gives shape \[3\], its input has shape \[4\].*1x1 Conv2d"),
        (Residual([Linear(3)], [Linear(2)]), r"body gives shape \[3\], its shortcut has shape \[2\]"),
        (Add([[], [], [Linear(3)]]), r"branch 1 gives \[4\], branch 3 gives \[3\]"),
    ],
)
def test_shapes_that_cannot_be_added_are_named(layer, words):
    with pytest.raises(ShapeError, match=words) as caught:
        Net([layer], (4,))
    assert caught.value.layer is layer


def test_shapes_that_cannot_be_concatenated_are_named():
    with pytest.raises(ShapeError, match=r"branch 1 gives \[2, 4\], branch 2 gives \[8\].*all axes but the last"):
        Net([Concat([[], [Flatten()]])], (2, 4))


@pytest.mark.parametrize("layer", [Add, Concat])
def test_no_branches(layer):
    with pytest.raises(ValueError, match="branches must hold at least one list of layers"):
        layer([])


def test_a_block_must_return_layers():
    class Forgot(Block):
        def layers(self, in_shape):
            pass

    with pytest.raises(ContractError, match=r"a Forgot layer: layers\(\) returned None; it must return a list"):
        Net([Forgot()], (3,))
    with pytest.raises(NotImplementedError, match="Block has no layers"):
        Net([Block()], (3,))


@pytest.mark.parametrize(
    "layer",
    [Residual([Linear(4)]), Add([[], [Tanh()]]), Concat([[], [Tanh()]]), Recompute([Linear(4)]), Bottleneck(2)],
)
def test_a_second_backward_is_an_error(layer):
    x = numbers((3, 4))
    net = net_of(layer, x)
    tape = net.forward(x, training=True, needs_input_grad=True)
    inner = tape.root.saved[0][0]
    net.backward(tape, numbers(tape.output.shape))
    with pytest.raises(ContractError, match="was already gone back through"):
        net.backward(tape, numbers(tape.output.shape))
    with pytest.raises(ContractError, match=rf"layer {layer.path} \({type(layer).__name__}\) has nothing saved"):
        layer.backward(numbers(tape.output.shape), inner)
