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
from layernet.optim.optimizers import SGD, Adam, AdamW, Optimizer
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

OPTIMIZERS = [
    optimizer(SGD, torch.optim.SGD, **_sgd, momentum=st.floats(0, 0.95), dampening=st.floats(0, 1)),
    optimizer(SGD, torch.optim.SGD, nesterov, **_sgd),
    optimizer(Adam, torch.optim.Adam, **_adam),
    optimizer(AdamW, torch.optim.AdamW, **_adam),
]
