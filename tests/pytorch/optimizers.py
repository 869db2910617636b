"""The optimizers: a hundred steps under random gradients and a changing factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from layernet.core.net import Net
from layernet.layers.linear import Linear
from layernet.layers.norm import LayerNorm
from layernet.optim.muon import Muon
from layernet.optim.optimizer import Optimizer
from layernet.optim.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop
from tests.pytorch.drawing import vectors
from tests.pytorch.entry import DependentOptions, Entry, Errors, Options, Shape, difference, worst

STEPS = 100


def optimizer(
    ours: Callable[..., Optimizer],
    theirs: Callable[..., Any],
    dependent: DependentOptions | None = None,
    **options: SearchStrategy[Any],
) -> Entry:
    """An entry: both take the `options`. The error is the worst of any parameter after any of the steps."""

    def compare(arguments: Options, shape: Shape, rng: np.random.Generator) -> Errors:
        mine = ours(**arguments)
        net = Net([Linear(shape[0]), LayerNorm(), Linear(4)], shape[1:]).bind("cpu", "float64")
        mine.attach(net)
        params = net.params()
        tensors = {path: torch.tensor(param.data, requires_grad=True) for path, param in params.items()}
        other = theirs([{"params": [tensors[path]]} for path in params], **arguments)
        for group, param in zip(other.param_groups, params.values(), strict=True):
            group["weight_decay"] *= param.decay_mult
        errors = []
        for step in range(STEPS):
            factor = float(rng.uniform(0.1, 1.0))
            net.zero_grad()
            for path, param in params.items():
                param.grad[...] = gradient = rng.normal(size=param.shape)
                param.has_grad = True
                tensors[path].grad = torch.tensor(gradient)
            for group in other.param_groups:
                group["lr"] = other.defaults["lr"] * factor
            mine.step(factor, step)
            other.step()
            errors += [difference(param.data, tensors[path]) for path, param in params.items()]
        return Errors(worst(errors) or 0.0)

    return Entry(ours.__name__, ours, compare, vectors, dependent, options)


def nesterov(draw: DrawFn, shape: Shape) -> Options:
    return {"nesterov": True, "momentum": draw(st.floats(0.1, 0.95))}


_decay = st.just(0.0) | st.floats(0, 0.3)
_sgd: dict[str, Any] = {"lr": st.floats(1e-3, 0.1), "weight_decay": _decay}
_adam: dict[str, Any] = {
    "lr": st.floats(1e-4, 0.05),
    "betas": st.tuples(st.floats(0, 0.95), st.floats(0.5, 0.999)),
    "eps": st.floats(1e-8, 1e-3),
    "weight_decay": _decay,
}

_muon: dict[str, Any] = {
    "lr": st.floats(1e-3, 0.05),
    "momentum": st.floats(0, 0.95),
    "nesterov": st.booleans(),
    "ns_steps": st.integers(1, 6),
    "adjust_lr": st.sampled_from(["original", "match_rms_adamw"]),
    "weight_decay": _decay,
}


class _Exact(torch.optim.Muon):
    """torch's Muon in the parameters' own float type."""

    def step(self, closure: Any = None) -> None:
        rounded = torch.Tensor.bfloat16
        torch.Tensor.bfloat16 = torch.Tensor.clone  # type: ignore[assignment,method-assign]
        try:
            super().step()
        finally:
            torch.Tensor.bfloat16 = rounded  # type: ignore[method-assign]


class _MuonAndAdamW:
    """Matrices go to torch's Muon, the others to AdamW, as the authors have it."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float = 0.02, weight_decay: float = 0.0, **options: Any
    ) -> None:
        if "adjust_lr" in options:
            options["adjust_lr_fn"] = options.pop("adjust_lr")
        matrices = [group for group in groups if group["params"][0].ndim == 2]
        others = [group for group in groups if group["params"][0].ndim != 2]
        muon = _Exact(matrices, lr=lr, weight_decay=weight_decay, **options)
        adam = torch.optim.AdamW(others, lr=3e-4, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
        self.both, self.defaults = (muon, adam), {"lr": lr}
        found = {id(group["params"][0]): (each, group) for each in self.both for group in each.param_groups}
        self.param_groups = [_Scaled(*found[id(group["params"][0])], lr) for group in groups]

    def step(self) -> None:
        for each in self.both:
            each.step()


class _Scaled(dict[str, Any]):
    """A group whose lr, set as a share of Muon's, is the same share of its own optimizer's."""

    def __init__(self, owner: torch.optim.Optimizer, group: dict[str, Any], lr: float) -> None:
        super().__init__(group)
        self.share, self.group = owner.defaults["lr"] / lr, group

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.group[name] = value * self.share if name == "lr" else value


def torch_muon(groups: list[dict[str, Any]], **options: Any) -> _MuonAndAdamW:
    return _MuonAndAdamW(groups, **options)


OPTIMIZERS = [
    optimizer(SGD, torch.optim.SGD, **_sgd, momentum=st.floats(0, 0.95), dampening=st.floats(0, 1)),
    optimizer(SGD, torch.optim.SGD, nesterov, **_sgd),
    optimizer(Adam, torch.optim.Adam, **_adam),
    optimizer(AdamW, torch.optim.AdamW, **_adam),
    optimizer(
        RMSprop,
        torch.optim.RMSprop,
        lr=st.floats(1e-4, 0.05),
        alpha=st.floats(0.1, 0.99),
        eps=st.floats(1e-6, 1e-3),
        momentum=st.just(0.0) | st.floats(0.1, 0.9),
        weight_decay=_decay,
        centered=st.booleans(),
    ),
    optimizer(
        Adagrad,
        torch.optim.Adagrad,
        lr=st.floats(1e-4, 0.05),
        lr_decay=st.just(0.0) | st.floats(0, 0.2),
        initial_accumulator_value=st.just(0.0) | st.floats(0, 1),
        eps=st.floats(1e-8, 1e-3),
        weight_decay=_decay,
    ),
    optimizer(Muon, torch_muon, **_muon),
]
