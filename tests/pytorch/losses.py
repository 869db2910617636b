"""The losses, and the penalties against autograd of their formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import nn

from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.core.net import Net
from layernet.layers.linear import Linear
from layernet.layers.norm import LayerNorm
from layernet.losses import (
    L1,
    MSE,
    NLL,
    BCEWithLogits,
    CrossEntropy,
    Dice,
    Focal,
    Hinge,
    Huber,
    KLDiv,
    L1Penalty,
    L2Penalty,
    Loss,
    MultiMargin,
    Penalty,
    SigmoidFocal,
    SmoothL1,
    SumOfSquares,
)
from tests.pytorch import drawing
from tests.pytorch.drawing import anything
from tests.pytorch.entry import Array, DependentOptions, Entry, Errors, Options, Shape, difference, to_theirs

Targets = Callable[[np.random.Generator, Shape, Options], Array]
"""(random numbers, shape of the outputs with N, the loss's arguments) -> the targets of a batch."""


Formula = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs, targets) -> the mean of the loss."""


def loss(
    ours: Callable[..., Loss],
    theirs: Callable[..., Formula],
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
        ctx = Context(Tape(host(), "float64"))
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


def every_label(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """Classes, none of them ignored."""
    return rng.integers(0, shape[-1], shape[:-1])


def sides(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """-1 and 1."""
    return rng.choice([-1.0, 1.0], shape)


def distributions(rng: np.random.Generator, shape: Shape, options: Options) -> Array:
    """As soft labels, or the logarithms of some without a 0."""
    if options.get("log_target"):
        return np.log(rng.dirichlet(np.ones(shape[-1]), shape[:-1]))
    return soft_labels(rng, shape, options)


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


def torch_nll(class_weight: list[float] | None = None, **options: Any) -> nn.Module:
    return nn.NLLLoss(weight=_tensor(class_weight), **options)


def torch_multi_margin(class_weight: list[float] | None = None, **options: Any) -> nn.Module:
    return nn.MultiMarginLoss(weight=_tensor(class_weight), **options)


def torch_kl(log_target: bool = False) -> Formula:
    """The mean over all rows; torch's batchmean is one over the first axis."""

    def mean(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return F.kl_div(x, q, reduction="sum", log_target=log_target) * x.shape[-1] / x.numel()

    return mean


# what torch.nn does not have: autograd of the papers' formulas


def torch_focal(gamma: float = 2.0, class_weight: list[float] | None = None, ignore_index: int = -100) -> Formula:
    def mean(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows, labels = z[y != ignore_index], y[y != ignore_index]
        p = rows.softmax(-1).gather(-1, labels[:, None])[:, 0]
        weight = torch.ones_like(p) if class_weight is None else torch.tensor(class_weight, dtype=p.dtype)[labels]
        return -(weight * (1 - p) ** gamma * p.log()).sum() / weight.sum()

    return mean


def torch_sigmoid_focal(gamma: float = 2.0, alpha: float | None = 0.25) -> Formula:
    def mean(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        p = z.sigmoid()
        q = p * y + (1 - p) * (1 - y)
        weight = torch.ones_like(y) if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return (weight * (1 - q) ** gamma * F.binary_cross_entropy_with_logits(z, y, reduction="none")).mean()

    return mean


def torch_hinge(margin: float = 1.0, p: int = 1) -> Formula:
    return lambda x, y: (margin - y * x).clamp(min=0).pow(p).mean()


def torch_dice(smooth: float = 1.0, squared: bool = False, ignore_index: int = -100) -> Formula:
    def mean(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if y.dtype == torch.int64:
            p, t = z.softmax(-1), F.one_hot(y.clamp(min=0), z.shape[-1]).to(z.dtype)
            kept = (y != ignore_index)[..., None]
            p, t = p * kept, t * kept
        else:
            p, t = z.sigmoid(), y
        positions = tuple(range(1, z.ndim - 1))
        size = (p**2 + t**2 if squared else p + t).sum(positions)
        return (1 - (2 * (p * t).sum(positions) + smooth) / (size + smooth)).mean()

    return mean


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


_classes = anything.filter(lambda shape: shape[-1] > 1)
_maps = (drawing.sequences | drawing.images).filter(lambda shape: shape[-1] > 1)
_margins = {"p": st.sampled_from([1, 2]), "margin": st.floats(0.1, 2.0)}
_ignored = st.sampled_from([-100, -1, 0])
_gamma = st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0.5, 4.0)
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
    loss(NLL, torch_nll, _classes, labels, class_weights, channels_first=True, ignore_index=_ignored),
    loss(Focal, torch_focal, _classes, labels, class_weights, gamma=_gamma, ignore_index=_ignored),
    loss(
        MultiMargin,
        torch_multi_margin,
        drawing.vectors.filter(lambda shape: shape[-1] > 1),
        every_label,
        class_weights,
        **_margins,
    ),
    loss(SigmoidFocal, torch_sigmoid_focal, anything, shares, gamma=_gamma, alpha=st.none() | st.floats(0, 1)),
    loss(Hinge, torch_hinge, st.tuples(drawing.batch) | anything, sides, **_margins),
    loss(KLDiv, torch_kl, anything, distributions, log_target=drawing.flags),
    loss(Dice, torch_dice, _maps, labels, smooth=st.floats(0.1, 2.0), squared=drawing.flags, ignore_index=_ignored),
    loss(Dice, torch_dice, _maps, shares, smooth=st.floats(0.1, 2.0), squared=drawing.flags),
    loss(
        SmoothL1,
        nn.SmoothL1Loss,
        st.tuples(drawing.batch) | anything,
        like_outputs,
        beta=st.just(0.0) | st.floats(0.1, 3),
    ),
    loss(Huber, nn.HuberLoss, st.tuples(drawing.batch) | anything, like_outputs, delta=st.floats(0.1, 3)),
    loss(SumOfSquares, lambda: lambda x, t: ((x - t) ** 2).sum() / len(x), anything, like_outputs),
    loss(MSE, nn.MSELoss, st.tuples(drawing.batch) | anything, like_outputs),
    loss(L1, nn.L1Loss, st.tuples(drawing.batch) | anything, like_outputs),
    penalty(L2Penalty, lambda w: 0.5 * (w * w).sum()),
    penalty(L1Penalty, lambda w: w.abs().sum()),
]
