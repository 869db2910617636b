"""What a pass keeps and frees, what it skips, and what it says when the contract is broken."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Sequential
from layernet.errors import ContractError, UsageError
from layernet.layers.activation import ReLU
from layernet.layers.composite import Recompute
from layernet.layers.linear import Linear
from tests.core.toys import Again, Noise, Scale, Track, Twice

X = np.random.default_rng(0).normal(size=(5, 4))


def net_of(*layers):
    return Net(list(layers), (4,)).bind("cpu", "float64")


# what backward needs


class Keeper(Layer):
    """Saves a fresh array, and remembers it weakly."""

    def __init__(self):
        self.kept = []

    def forward(self, x, ctx):
        fresh = x + 1
        self.kept.append(weakref.ref(fresh))
        ctx.save(fresh, "the branch taken", None)
        return x * 2

    def backward(self, dy, ctx):
        fresh, branch, nothing = ctx.saved
        assert branch == "the branch taken"
        assert nothing is None
        assert fresh.shape == dy.shape
        return dy * 2


def alive(keeper):
    gc.collect()
    return [ref() is not None for ref in keeper.kept]


@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: Sequential([Scale(), k, ReLU()]), Twice])
def test_everything_saved_is_freed_by_backward(wrap):
    keeper = Keeper()
    net = net_of(Linear(4), wrap(keeper), Linear(4))
    tape = net.forward(X, training=True)
    assert all(alive(keeper))
    net.backward(tape, X)
    assert not any(alive(keeper))
    assert tape.output.shape == X.shape


def test_what_upper_layers_saved_is_freed_before_lower_ones_run():
    upper = Keeper()
    seen = []

    class Watch(Layer):
        def forward(self, x, ctx):
            ctx.save(None)
            return x * 1

        def backward(self, dy, ctx):
            seen.extend(alive(upper))
            return dy

    net = net_of(Linear(4), Watch(), upper)
    net.backward(net.forward(X), X)
    assert seen == [False]


def test_a_composite_that_holds_its_tapes_frees_what_they_kept():
    upper = Keeper()
    seen = []

    class Pair(Layer):
        def build(self, in_shape):
            self.lower, self.upper = Watch(), upper
            return self.upper.connect(self.lower.connect(in_shape))

        def forward(self, x, ctx):
            y, lower = ctx.call(self.lower, x)
            z, tape = ctx.call(self.upper, y)
            ctx.save(lower, tape)
            return z

        def backward(self, dy, ctx):
            lower, tape = ctx.saved
            return ctx.backward(lower, ctx.backward(tape, dy))

    class Watch(Scale):
        def backward(self, dy, ctx):
            seen.extend(alive(upper))
            return super().backward(dy, ctx)

    net = net_of(Pair())
    net.backward(net.forward(X, needs_input_grad=True), X)
    assert seen == [False]


def test_nothing_is_kept_without_recording():
    keeper = Keeper()
    net = net_of(Linear(4), keeper)
    net.predict(X)
    tape = net.forward(X, training=True, recording=False)
    assert alive(keeper) == [False, False]
    with pytest.raises(ContractError, match="not recorded"):
        net.backward(tape, X)


def test_a_backward_that_was_refused_can_be_run_as_it_should():
    net = net_of(Linear(4))
    tape = net.forward(X, training=True)
    for wrong in ({"outptu": tape.output}, tape.output[:, :-1]):
        with pytest.raises((UsageError, ContractError)):
            net.backward(tape, wrong)
    net.backward(tape, tape.output)


def test_a_second_backward_is_refused_by_name():
    net = net_of(Linear(4))
    tape = net.forward(X)
    net.backward(tape, X)
    with pytest.raises(ContractError, match=r"Sequential.*already gone back through"):
        net.backward(tape, X)

    class Greedy(Layer):
        def __init__(self, body: Layer):
            self.body = body

        def build(self, in_shape):
            return self.body.connect(in_shape)

        def forward(self, x, ctx):
            y, tape = ctx.call(self.body, x)
            ctx.save(tape)
            return y

        def backward(self, dy, ctx):
            (tape,) = ctx.saved
            return ctx.backward(tape, dy) + ctx.backward(tape, dy)

    net = net_of(Greedy(Scale().named("scale")).named("greedy"))
    with pytest.raises(ContractError, match=r"greedy\.body \(Scale\).*already gone back through"):
        net.backward(net.forward(X, needs_input_grad=True), X)


def test_a_layer_that_saved_nothing_is_told():
    class Forgets(Layer):
        def forward(self, x, ctx):
            return x * 1

        def backward(self, dy, ctx):
            (x,) = ctx.saved
            return dy * x

    net = net_of(Linear(4), Forgets().named("oops"))
    with pytest.raises(ContractError, match=r"oops \(Forgets\) has nothing saved"):
        net.backward(net.forward(X), X)


def test_two_tapes_at_once_do_not_mix():
    net, other = net_of(Linear(4), ReLU(), Linear(3)), net_of(Linear(4), ReLU(), Linear(3))
    dy = np.ones((5, 3))
    first, second = net.forward(X), net.forward(2 * X)
    net.backward(first, dy)
    net.backward(second, 3 * dy)
    for x, g in ((X, dy), (2 * X, 3 * dy)):
        other.backward(other.forward(x), g)
    np.testing.assert_allclose(net.arena.grad, other.arena.grad, rtol=1e-13)


# gradients


def test_gradients_add_up_until_they_are_forgotten():
    net = net_of(Linear(3))
    weight = net.params()["linear_1.weight"]
    dy = np.ones((5, 3))
    for count in (1, 2, 3):
        net.backward(net.forward(X), dy)
        np.testing.assert_allclose(weight.grad, count * (dy.T @ X), rtol=1e-12)
    net.zero_grad()
    assert not weight.grad.any()
    net.backward(net.forward(X), dy)
    np.testing.assert_allclose(weight.grad, dy.T @ X, rtol=1e-12)


def test_what_stands_in_a_forgotten_gradient_is_overwritten():
    net = net_of(Linear(3))
    net.zero_grad()
    net.arena.grad[...] = np.nan
    net.backward(net.forward(X), np.ones((5, 3)))
    assert all(np.isfinite(param.grad).all() for param in net.params().values())
    net.zero_grad()
    net.arena.grad[...] = np.nan
    net.arena.settle()
    assert all((param.grad == 0).all() for param in net.params().values())


def test_the_first_layer_computes_no_input_gradient():
    first, second = Scale(), Scale()
    net = net_of(first, second)
    assert net.backward(net.forward(X), X) is None
    assert first.calls == ["forward", "backward without input"]
    assert second.calls == ["forward", "backward"]
    assert net.backward(net.forward(X, needs_input_grad=True), X) is not None
    assert first.calls[-1] == "backward"


def test_a_composites_own_parameter_needs_the_gradient_of_what_it_feeds():
    class Gain(Scale):
        """A gain of its own before another layer."""

        def __init__(self, body: Layer):
            super().__init__()
            self.body = body

        def build(self, in_shape):
            return self.body.connect(super().build(in_shape))

        def forward(self, x, ctx):
            y, tape = ctx.call(self.body, x * self.weight.data)
            ctx.save(x, tape)
            return y

        def backward(self, dy, ctx):
            x, tape = ctx.saved
            inner = ctx.backward(tape, dy)
            if inner is not None:
                ctx.add_grad(self.weight, (inner * x).sum(axis=0))
            return inner

    body = Scale(3.0)
    net = net_of(Gain(body).named("gain"))
    net.backward(net.forward(X), np.ones_like(X))
    np.testing.assert_allclose(net.params()["gain.weight"].grad, (3 * X).sum(axis=0))
    assert body.calls == ["forward", "backward"]
    net.freeze("gain.weight")
    net.backward(net.forward(X), np.ones_like(X))
    assert body.calls[2:] == ["forward", "backward without input"]


def test_layers_without_parameters_below_the_first_trained_one_are_not_gone_back_through():
    class Refuse(Layer):
        def forward(self, x, ctx):
            ctx.save(x)
            return x * 1

        def backward(self, dy, ctx):
            raise AssertionError("not needed")

    scale = Scale()
    net = net_of(Refuse(), Refuse(), scale)
    net.backward(net.forward(X), X)
    assert scale.calls == ["forward", "backward without input"]


# running statistics


def test_statistics_move_once_a_training_pass_when_it_is_accepted():
    net = net_of(Track(), Scale())
    mean = net.buffers()["track_1.mean"].data
    net.backward(net.forward(X), X)
    assert not mean.any()  # evaluation
    tape = net.forward(X, training=True)
    assert not mean.any()
    net.backward(tape, X, update_buffers=False)
    assert not mean.any()
    tape.update_buffers()
    np.testing.assert_allclose(mean, X.mean(axis=0) / 2)
    tape.update_buffers()
    np.testing.assert_allclose(mean, X.mean(axis=0) / 2)


def test_updates_are_applied_in_the_order_of_the_calls():
    net = net_of(Twice(Sequential([Track(0.25), Scale(2.0)])))
    tape = net.forward(X, training=True)
    net.backward(tape, X)
    (mean,) = (buffer.data for buffer in net.buffers().values())
    m = X.mean(axis=0)
    np.testing.assert_allclose(mean, 0.75 * (0.25 * m) + 0.25 * 2 * m, rtol=1e-12)


# running again


def test_recomputing_gives_the_same_bits_and_moves_statistics_once():
    def layers():
        return [Linear(4), Track(), Noise(), ReLU()]

    plain, again = net_of(*layers()), net_of(Recompute(layers()))
    assert list(plain.state_dict()) == list(again.state_dict())
    tapes = [net.forward(X, training=True, needs_input_grad=True, step=3) for net in (plain, again)]
    assert (tapes[0].output == tapes[1].output).all()
    dxs = [net.backward(tape, X) for net, tape in zip((plain, again), tapes, strict=True)]
    assert (dxs[0] == dxs[1]).all()
    assert (plain.arena.grad == again.arena.grad).all()
    means = [net.buffers()["track_1.mean"].data for net in (plain, again)]
    assert means[0].any()
    assert (means[0] == means[1]).all()


def test_recomputed_dropout_draws_its_own_mask_again():
    class Mask(Layer):
        def forward(self, x, ctx):
            mask = ctx.rng.keep_mask(x.shape, 0.5)
            ctx.save(mask)
            return x * mask

        def backward(self, dy, ctx):
            (mask,) = ctx.saved
            return dy * mask

    net = net_of(Again(Mask()))
    x = np.ones((50, 4))
    tape = net.forward(x, training=True, needs_input_grad=True)
    assert (net.backward(tape, x) == tape.output).all()


# randomness


def test_randomness_is_keyed_by_seed_path_step_and_call():
    def noise(net, **keys):
        return net.forward(np.zeros((3, 4)), training=True, **keys).output

    net = net_of(Noise())
    base = noise(net, step=1)
    assert (noise(net, step=1) == base).all()
    assert (noise(net_of(Noise()), step=1) == base).all()
    assert (noise(net, step=2) != base).all()
    assert (noise(net, step=1, micro_batch=1) != base).all()
    assert (noise(net_of(Noise().named("other")), step=1) != base).all()
    net.seed = 1
    assert (noise(net, step=1) != base).all()


def test_randomness_does_not_depend_on_what_others_draw():
    def last(*layers):
        zeros = np.zeros((3, 4))
        whole = net_of(*layers, Noise().named("last")).forward(zeros, step=0).output
        return whole - net_of(*(layer.clone() for layer in layers)).forward(zeros, step=0).output

    np.testing.assert_allclose(last(), last(Noise(3), Noise(2)), atol=1e-12)


def test_a_layer_called_twice_draws_differently_each_time():
    class Once(Twice):
        def forward(self, x, ctx):
            return ctx.call(self.body, x)[0]

    zeros = np.zeros((3, 4))
    first = net_of(Once(Noise()).named("same")).forward(zeros, step=0).output
    both = net_of(Twice(Noise()).named("same")).forward(zeros, step=0).output
    second = both - first
    assert (abs(second - first) > 1e-6).all()
    assert ((second > 0) & (second < 1)).all()


def test_steps_are_counted_by_the_net_when_nobody_says():
    net = net_of(Noise())
    zeros = np.zeros((3, 4))
    first, second = (net.forward(zeros, training=True).output for _ in range(2))
    assert (first != second).all()
    assert net.passes == 2
    net.forward(zeros)
    assert net.passes == 2
    assert (net.forward(zeros, step=0).output == first).all()


def test_arrays_from_the_context_have_the_nets_type():
    class Asks(Layer):
        def forward(self, x, ctx):
            y = ctx.empty(x.shape)
            assert y.dtype == x.dtype
            assert ctx.scratch((3,), "int64").dtype == np.int64
            y[...] = x
            return y

    assert (net_of(Asks()).predict(X) == X).all()
