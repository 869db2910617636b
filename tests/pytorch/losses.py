"""The losses, and the penalties against autograd of their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import nn

from layernet.backend.device import get_device
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.layers.linear import Linear
from layernet.layers.norm import LayerNorm
from layernet.losses import L1, MSE, BCEWithLogits, CrossEntropy, L1Penalty, L2Penalty, Loss, Penalty
from tests.pytorch import drawing
from tests.pytorch.drawing import anything
from tests.pytorch.entry import Array, DependentOptions, Entry, Errors, Options, Shape, difference, to_theirs

Targets = Callable[[np.random.Generator, Shape, Options], Array]
"""(random numbers, shape of the outputs with N, the loss's arguments) -> the targets of a batch."""


def loss(
    ours: Callable[..., Loss],
    theirs: Callable[..., nn.Module],
    shapes: SearchStrategy[Shape],
    targets: Targets,
    dependent: DependentOptions | None = None,
    *,
    channels_first: bool = False,
    **options: SearchStrategy[Any],
) -> Entry:
    """An entry: both take the `options`; with `channels_first` theirs takes outputs (N, C, ...)."""

    def compare(arguments: Options, shape: Shape, rng: np.random.Generator) -> Errors:
        z, target = drawing.normal(rng, shape), targets(rng, shape, arguments)
        tz = to_theirs(z, channels_first).requires_grad_()
        expected = theirs(**arguments)(tz, to_theirs(target, channels_first and target.dtype.kind == "f"))
        expected.backward()
        value, dz = ours(**arguments)(z, target)
        return Errors(difference(value, expected), difference(to_theirs(dz, channels_first), tz.grad))

    return Entry(ours.__name__, ours, compare, shapes, dependent, options)


def penalty(ours: Callable[..., Penalty], formula: Callable[[torch.Tensor], torch.Tensor]) -> Entry:
    """An entry: the value is the sum of the formula over the parameters that the pattern matches."""

    def compare(arguments: Options, shape: Shape, rng: np.random.Generator) -> Errors:
        net = Net([Linear(shape[0]), LayerNorm(), Linear(3)], shape[1:]).bind("cpu", "float64")
        for param in net.params().values():
            param.data[...] = drawing.normal(rng, param.shape)
        term = ours(**arguments)
        params = term.select(net)
        tensors = [torch.tensor(param.data, requires_grad=True) for param in params]
        expected = sum((formula(w) for w in tensors), torch.zeros((), dtype=torch.float64))
        scale = rng.uniform(0.1, 2.0)
        (scale * expected).backward()
        ctx = Context(Tape(get_device("cpu"), "float64"))
        term.backward(params, scale, ctx)
        gradients = [difference(param.grad, w.grad) for param, w in zip(params, tensors, strict=True)]
        return Errors(difference(term.forward(params, ctx), expected), None, max(gradients))

    patterns = st.sampled_from(["*", "*.weight", "*.bias", "linear_1.*"])
    return Entry(ours.__name__, ours, compare, anything, None, {"params": patterns})


def labels(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """Classes, a few of them the one that is ignored; the first one counts, because torch's mean of none is NaN."""
    found = rng.integers(0, shape[-1], shape[:-1])
    found[rng.uniform(size=found.shape) < 0.3] = options.get("ignore_index", -100)
    found.flat[0] = shape[-1] - 1
    return found


def soft_labels(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """Distributions, of which some are all in one class."""
    found = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    return np.where(rng.uniform(size=(*shape[:-1], 1)) < 0.3, found == found.max(axis=-1, keepdims=True), found)


def shares(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """Numbers in 0..1, both ends among them."""
    return np.clip(rng.uniform(-0.3, 1.3, shape), 0, 1)


def like_outputs(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    return drawing.normal(rng, shape)


def class_weights(draw: DrawFn, shape: Shape) -> Options:
    """One a class, or none; only the last must not be 0, which `labels` relies on."""
    weight = st.just(0.0) | st.floats(0.1, 3.0)
    last = st.floats(0.1, 3.0)
    lists = st.tuples(*[weight] * (shape[-1] - 1), last).map(list)
    return {"class_weight": draw(st.none() | lists)}


def positive_weights(draw: DrawFn, shape: Shape) -> Options:
    weight = st.floats(0.0, 3.0)
    return {"pos_weight": draw(st.none() | weight | st.lists(weight, min_size=shape[-1], max_size=shape[-1]))}


def torch_cross_entropy(class_weight: list[float] | None = None, **options: Any) -> nn.Module:
    return nn.CrossEntropyLoss(weight=_tensor(class_weight), **options)


def torch_bce(pos_weight: float | list[float] | None = None) -> nn.Module:
    return nn.BCEWithLogitsLoss(pos_weight=_tensor(pos_weight))


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


_classes = anything.filter(lambda shape: shape[-1] > 1)
_cross_entropy: dict[str, Any] = {"channels_first": True, "label_smoothing": st.just(0.0) | st.floats(0, 1)}

LOSSES = [
    loss(
        CrossEntropy,
        torch_cross_entropy,
        _classes,
        labels,
        class_weights,
        **_cross_entropy,
        ignore_index=st.sampled_from([-100, -1, 0]),
    ),
    loss(CrossEntropy, torch_cross_entropy, _classes, soft_labels, class_weights, **_cross_entropy),
    loss(BCEWithLogits, torch_bce, anything, shares, positive_weights),
    loss(MSE, nn.MSELoss, st.tuples(drawing.batch) | anything, like_outputs),
    loss(L1, nn.L1Loss, st.tuples(drawing.batch) | anything, like_outputs),
    penalty(L2Penalty, lambda w: 0.5 * (w * w).sum()),
    penalty(L1Penalty, lambda w: w.abs().sum()),
]
