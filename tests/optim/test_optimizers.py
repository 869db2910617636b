"""Optimizers against naive float64 loops and PyTorch; groups, freezing, state."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from layernet.backend import numpy_threads
from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.errors import CheckpointError, ContractError, UsageError
from layernet.layers.activation import ReLU
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.shape import Flatten
from layernet.optim import optimizer as base
from layernet.optim.muon import Muon
from layernet.optim.optimizer import Optimizer
from layernet.optim.optimizers import SGD, Adagrad, Adam, AdamW, Lion, RMSprop
from tests.optim.small import assert_same, gradients, make_net, naive, put, run, values

SGDS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]
ADAMS = [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.2}, {"betas": (0.0, 0.0)}]
CASES = [(SGD, {"lr": 0.05, **options}) for options in SGDS]
CASES += [(cls, {"lr": 0.01, **options}) for cls in (Adam, AdamW) for options in ADAMS]

OTHERS = [
    *(
        (RMSprop, {"lr": 0.01, **options})
        for options in ({}, {"weight_decay": 0.1, "momentum": 0.9}, {"centered": True})
    ),
    (RMSprop, {"lr": 0.02, "alpha": 0.7, "eps": 1e-3, "momentum": 0.5, "centered": True}),
    *((Adagrad, {"lr": 0.05, **options}) for options in ({}, {"weight_decay": 0.1, "lr_decay": 0.05})),
    (Adagrad, {"lr": 0.05, "initial_accumulator_value": 0.3, "eps": 1e-3}),
    *((Lion, {"lr": 0.01, **options}) for options in ({}, {"betas": (0.5, 0.9), "weight_decay": 0.2})),
]
MUONS = [
    (Muon, {}),
    (Muon, {"momentum": 0.6, "nesterov": False, "ns_steps": 3, "weight_decay": 0.1, "renormalize": True}),
    (Muon, {"others": ["head.*"], "rest": SGD(0.05, 0.9), "adjust_lr": "none"}),
]
EVERY = [*CASES, *OTHERS, *MUONS]

MULTIPLIERS = {"gains_1.gain": (0.5, 1.0), "gains_1.shift": (1.0, 0.0)}


def multipliers(path: str) -> tuple[float, float]:
    return MULTIPLIERS.get(path, (1.0, 0.0 if path.endswith("bias") else 1.0))


def naive_other(cls, options, w, grads, factors, lr_mult, decay_mult):
    """One parameter, one element at a time, from the papers' formulas."""
    w = w.copy()
    decay = options.get("weight_decay", 0.0) * decay_mult
    for index in np.ndindex(*w.shape):
        x, a, b, c = float(w[index]), 0.0, 0.0, 0.0
        for t, g_all in enumerate(grads):
            lr, g = options["lr"] * factors[t] * lr_mult, float(g_all[index])
            if cls is Lion:
                b1, b2 = options.get("betas", (0.9, 0.99))
                x = x - lr * (math.copysign(1, b1 * a + (1 - b1) * g) + decay * x)
                a = b2 * a + (1 - b2) * g
                continue
            g += decay * x
            if cls is Adagrad:
                a = (a if t else options.get("initial_accumulator_value", 0.0)) + g * g
                lr /= 1 + t * options.get("lr_decay", 0.0)
                x -= lr * g / (math.sqrt(a) + options.get("eps", 1e-10))
            else:
                alpha = options.get("alpha", 0.99)
                a, c = alpha * a + (1 - alpha) * g * g, alpha * c + (1 - alpha) * g
                root = math.sqrt(a - c * c if options.get("centered") else a) + options.get("eps", 1e-8)
                b = options.get("momentum", 0.0) * b + g / root
                x -= lr * b
        w[index] = x
    return w


@pytest.mark.parametrize(("cls", "options"), [*CASES, *OTHERS])
def test_a_hundred_steps_equal_a_naive_loop(cls, options):
    net = make_net()
    before, grads = values(net), gradients(net, 100)
    factors = list(np.random.default_rng(2).uniform(0.1, 1.0, 100))
    run(cls(**options).attach(net), net, grads, factors)
    formula = naive if (cls, options) in CASES else naive_other
    expected = {
        path: formula(cls, options, w, [g[path] for g in grads], factors, *multipliers(path))
        for path, w in before.items()
    }
    assert_same(values(net), expected, 1e-12)


@pytest.mark.parametrize("units", [3, 5, 8])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_its_polynomial_of_the_singular_values(units, nesterov):
    net = Net([Linear(units)], (5,)).bind("cpu", "float64")
    before, grads = values(net), gradients(net, 20)
    options = {"lr": 0.1, "momentum": 0.8, "nesterov": nesterov, "ns_steps": 3, "weight_decay": 0.1}
    run(Muon(**options, rest=SGD(0.01)).attach(net), net, grads)
    w, v, path = before["linear_1.weight"], np.zeros((units, 5)), "linear_1.weight"
    for g in grads:
        v = 0.8 * v + g[path]
        u, s, vt = np.linalg.svd(g[path] + 0.8 * v if nesterov else v, full_matrices=False)
        s = s / np.sqrt((s**2).sum())
        for _ in range(3):
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        w = w - 0.1 * 0.1 * w - 0.1 * math.sqrt(max(1, units / 5)) * (u * s) @ vt
    assert_allclose(values(net)[path], w, atol=1e-12)
    bias = before["linear_1.bias"] - 0.01 * sum(g["linear_1.bias"] for g in grads)
    assert_allclose(values(net)["linear_1.bias"], bias, atol=1e-13)


def test_muon_takes_filters_as_matrices_and_leaves_the_rest():
    def trained(optimizer: Optimizer) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        net = Net([Conv2d(4, 2), Flatten(), Linear(3).named("head")], (3, 3, 2)).bind("cpu", "float64")
        before = values(net)
        run(optimizer.attach(net), net, gradients(net, 4), [1.0, 0.5, 0.2, 0.1])
        return before, values(net)

    plain = SGD(0.05, 0.9, weight_decay=0.1)
    before, after = trained(Muon(0.1, renormalize=True, adjust_lr="none", others=["head.*"], rest=plain))
    _, by_sgd = trained(plain.clone())
    for path in ("conv2d_1.bias", "head.weight", "head.bias"):
        assert_array_equal(after[path], by_sgd[path])
    _, one = trained(Muon(0.0, renormalize=True))  # only the renormalising is left: the norm is sqrt(units)
    assert_allclose(one["conv2d_1.weight"], before["conv2d_1.weight"] * 2 / np.linalg.norm(before["conv2d_1.weight"]))
    assert np.linalg.norm(after["conv2d_1.weight"] - one["conv2d_1.weight"]) > 0.05
    with pytest.raises(UsageError, match="no parameter matches 'tail"):
        trained(Muon(others=["tail*"]))


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_a_hundred_steps_equal_torch(cls, options):
    torch = pytest.importorskip("torch")
    net = make_net()
    tensors = {path: torch.tensor(w, requires_grad=True) for path, w in values(net).items()}
    decay = options.get("weight_decay", 0.01 if cls is AdamW else 0.0)
    groups = [
        {"params": [tensors[path]], "lr": options["lr"] * lr, "weight_decay": decay * d, "first_lr": options["lr"] * lr}
        for path, (lr, d) in ((path, multipliers(path)) for path in tensors)
    ]
    theirs = getattr(torch.optim, cls.__name__)(groups, **options)
    grads, factors = gradients(net, 100), list(np.random.default_rng(2).uniform(0.1, 1.0, 100))
    run(cls(**options).attach(net), net, grads, factors)
    for factor, g in zip(factors, grads, strict=True):
        for group in theirs.param_groups:
            group["lr"] = group["first_lr"] * factor
        for path, tensor in tensors.items():
            tensor.grad = torch.tensor(g[path])
        theirs.step()
    assert_same(values(net), {path: tensor.detach().numpy() for path, tensor in tensors.items()}, 1e-12)


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_gradients_stay_and_blocks_change_no_bit(cls, options, monkeypatch):
    net, small = make_net("float32"), make_net("float32")
    grads = gradients(net, 5)
    run(cls(**options).attach(net), net, grads)
    monkeypatch.setattr(base, "_BLOCK", 3)
    monkeypatch.setattr(numpy_threads, "BLOCK", 3)
    run(cls(**options).attach(small), small, grads)
    assert_same(values(net), values(small))
    for path, p in net.params().items():
        assert_array_equal(p.grad, grads[-1][path].astype("float32"))
    used = np.zeros(net.arena.data.size, bool)
    for span in net.arena.spans:
        used[span] = True
    assert_array_equal(net.arena.data[~used], 0)


def test_an_optimizer_can_go_back_and_can_start_over():
    net = make_net()
    grads = gradients(net, 8)
    optimizer = Adam(0.01).attach(net)
    run(optimizer, net, grads[:4])
    weights, state = net.state_dict(), optimizer.state_dict()
    run(optimizer, net, grads[4:], start=4)
    expected = values(net)
    late = Adam(0.01).attach(net)
    run(late, net, grads[:2], start=2)  # its first step is 2, until it takes over a state that began at 0
    net.load_state_dict(weights)
    late.load_state_dict(state)
    run(late, net, grads[4:], start=4)
    assert_same(values(net), expected)
    other = make_net()
    run(late.attach(other), other, grads)
    assert_same(values(other), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "lr must be a finite number of at least 0, got -0.1"),
        (lambda: SGD(math.nan), "lr must be a finite number"),
        (lambda: SGD(0.1, momentum=1.0), "momentum must lie in 0..1"),
        (lambda: SGD(0.1, nesterov=True), "nesterov needs momentum and no dampening"),
        (lambda: SGD(0.1, 0.9, 0.1, nesterov=True), "nesterov needs momentum and no dampening"),
        (lambda: SGD(0.1, weight_decay=-1), "weight_decay must be"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas must be two numbers"),
        (lambda: Adam(betas=(0.9,)), "betas must be two numbers"),
        (lambda: AdamW(eps=-1e-8), "eps must be"),
        (lambda: RMSprop(alpha=1.0), "alpha must lie in 0..1"),
        (lambda: RMSprop(momentum=1.0), "momentum must lie in 0..1"),
        (lambda: Adam(eps=0.0), "eps must be positive, got 0"),
        (lambda: RMSprop(eps=0.0), "eps must be positive, got 0"),
        (lambda: Adagrad(lr_decay=-1.0), "lr_decay must be"),
        (lambda: Adagrad(initial_accumulator_value=-1.0), "initial_accumulator_value must be"),
        (lambda: Adagrad(eps=0.0), "eps must be positive"),
        (lambda: Lion(betas=(0.9, 1.0)), "betas must be two numbers"),
        (lambda: Muon(momentum=1.0), "momentum must lie in 0..1"),
        (lambda: Muon(ns_steps=0), "ns_steps must lie in 1..99, got 0"),
        (lambda: Muon(ns_coefficients=(1.0, 2.0)), "ns_coefficients must be three numbers"),
        (lambda: Muon(adjust_lr="rms"), "adjust_lr must be original, match_rms_adamw or none, got 'rms'"),
        (lambda: Muon(rest=SGD(0.1, groups={"a.*": {"lr_mult": 2}})), "rest must be a plain optimizer without groups"),
        (lambda: Muon(rest=Muon()), "rest must be a plain optimizer"),
        (lambda: SGD(0.1, groups={"a.*": {"max_norm": 0}}), r"groups: a\.\*: max_norm must be above 0"),
        (lambda: SGD(0.1, groups={"a.*": {"lr_mul": 2}}), r"groups: a\.\*: unknown setting 'lr_mul'; did you mean"),
        (lambda: SGD(0.1, groups={"a.*": {"lr_mult": -2}}), r"groups: a\.\*: lr_mult must be a finite number"),
        (lambda: SGD(0.1, groups={"a.*": {"lr_mult": True}}), "lr_mult must be a number, got True"),
        (lambda: SGD(0.1, groups={"a.*": {"frozen": 1}}), "frozen must be true or false, got 1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("cls", "options"), EVERY)
def test_state_resumes_bit_for_bit(cls, options):
    net = make_net("float32")
    grads = gradients(net, 12)
    optimizer = cls(**options).attach(net)
    run(optimizer, net, grads[:5])
    weights, state = net.state_dict(), optimizer.state_dict()
    run(optimizer, net, grads[5:], start=5)
    other = make_net("float32", seed=9)
    other.load_state_dict(weights)
    resumed = cls(**options).attach(other)
    resumed.load_state_dict(state)
    for g in grads[5:]:  # it knows which step is next
        put(other, g)
        resumed.step()
    assert_same(values(other), values(net))


def test_state_is_by_path_and_independent_of_the_arena():
    net = make_net()
    optimizer = SGD(0.1, momentum=0.9).attach(net)
    run(optimizer, net, gradients(net, 2))
    state = optimizer.state_dict()
    assert {key: array.shape for key, array in state.items()} == {
        "step": (),
        **{f"momentum/{path}": p.shape for path, p in net.params().items()},
    }
    assert state["momentum/head.weight"].any()
    moved = make_net()
    for param in moved.params().values():
        param.decay_mult = float(param.decay_mult == 0)  # biases in front
    moved.bind("cpu", "float64")
    assert [p.path for p in moved.arena.params] != [p.path for p in net.arena.params]
    other = SGD(0.1, momentum=0.9).attach(moved)
    other.load_state_dict(state)
    assert_same(other.state_dict(), state)


def test_state_that_does_not_fit_is_refused_whole():
    net = make_net()
    optimizer = SGD(0.1, momentum=0.9).attach(net)
    run(optimizer, net, gradients(net, 1))
    before = optimizer.state_dict()
    bad = {key: array + 1 for key, array in before.items()}
    del bad["momentum/head.bias"]
    bad["exp_avg/head.bias"] = np.zeros(7)
    bad["momentum/head.weight"] = np.zeros((2, 2))
    with pytest.raises(CheckpointError) as caught:
        optimizer.load_state_dict(bad)
    for part in (
        "missing: momentum/head.bias (7,)",
        "unknown: exp_avg/head.bias",
        "shape: momentum/head.weight is (2, 2), expected (7, 5)",
    ):
        assert part in str(caught.value)
    assert_same(optimizer.state_dict(), before)


def test_no_gradient_is_gradient_zero():
    net = make_net()
    optimizer = SGD(0.1, momentum=0.5, weight_decay=0.1).attach(net)
    path = "linear_1.weight"
    w = net.params()[path].data.copy()
    net.params()[path].grad_buffer()[...] = math.nan  # what lies there means nothing
    net.zero_grad()
    optimizer.step()
    assert_allclose(net.params()[path].data, w * (1 - 0.1 * 0.1), rtol=1e-14)


def test_using_it_wrongly_is_explained():
    with pytest.raises(ContractError, match=r"has no net yet; call optimizer\.attach"):
        SGD(0.1).step()
    net = make_net()
    optimizer = SGD(0.1, momentum=0.9).attach(net)
    optimizer.step(1.0, 3)
    with pytest.raises(ContractError, match="asked for update 3 after update 3"):
        optimizer.step(1.0, 3)
    net.bind("cpu", "float32")
    with pytest.raises(ContractError, match="bound again"):
        optimizer.step()


def test_shared_parameters_are_updated_once():
    net = Net([Linear(3).named("a"), ReLU(), Ref("a")], (3,)).bind("cpu", "float64")
    before, grads = values(net), gradients(net, 1)
    run(SGD(0.1).attach(net), net, grads)
    assert_same(values(net), {path: before[path] - 0.1 * grads[0][path] for path in before}, 1e-15)


class SignSGD(Optimizer):
    """w -= lr sign(g): a user's own, without super().__init__()."""

    def __init__(self, lr: float = 0.01):
        self.lr = lr

    def update(self, w, g, state, lr, decay, t):
        w -= lr * self.xp.sign(g)


def test_an_optimizer_of_ones_own():
    net = make_net()
    before, grads = values(net), gradients(net, 1)
    run(SignSGD().attach(net), net, grads)
    for path, w in before.items():
        assert_allclose(values(net)[path], w - 0.01 * multipliers(path)[0] * np.sign(grads[0][path]))
    assert repr(SignSGD(lr=0.1)) == "SignSGD(lr=0.1)"


@pytest.mark.parametrize(("cls", "options"), [CASES[7], CASES[-1]])
def test_a_step_needs_little_memory(cls, options):
    net = Net([Linear(1000)], (1000,)).bind("cpu", "float32")
    optimizer = cls(**options).attach(net)
    net.arena.grad[...] = 1e-3
    optimizer.step()
    tracemalloc.start()
    optimizer.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 640 * 1024  # two blocks; the parameters are 4 MB
