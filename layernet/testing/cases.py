"""One small instance or more of everything built in, with the shape it is checked at: tests are generated from these.

Shapes leave out N; sizes are odd and different, so that no two axes can be mixed up unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from layernet.backend import Shape
from layernet.backend.random import Stream
from layernet.core.layer import Layer
from layernet.core.sequential import Sequential
from layernet.layers.activation import GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from layernet.layers.composite import Add, AuxiliaryHead, BasicBlock, Concat, Recompute, Residual
from layernet.layers.conv import Conv2d
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm, LayerNorm
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from layernet.layers.shape import Flatten, Reshape
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
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import gradcheck
from layernet.testing.report import Report
from layernet.testing.sampling import HostArray, stream

Targets = Callable[[Shape, Stream], HostArray]
"""(shape of the outputs with N, random numbers) -> the targets of the batch."""


@dataclass(frozen=True)
class Case:
    """A way to make something built in, and what to check it on. `name` is the one in a config."""

    name: str
    make: Callable[[], Layer | Loss | Penalty]
    shape: Shape = ()
    note: str = ""
    targets: Targets | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, and what is special about this case."""
        return f"{self.name} ({self.note})" if self.note else self.name

    def check(self, **options: Any) -> Report:
        """Its gradient check; `options` are the fields of `Settings`."""
        settings = Settings(**{**self.options, **options})
        targets = None
        if self.targets is not None:
            targets = self.targets((settings.batch, *self.shape), stream(settings.seed, "targets"))
        target = self.make()
        shape = None if isinstance(target, Penalty) else self.shape
        report = gradcheck(target, shape, targets=targets, **vars(settings))
        report.title = self.label
        return report


def _layer(cls: type[Layer], shape: Shape, note: str = "", /, **arguments: Any) -> Case:
    return Case(cls.__name__, partial(cls, **arguments), shape, note)


def _composite(cls: type[Layer], make: Callable[[], Layer], shape: Shape, note: str = "") -> Case:
    return Case(cls.__name__, make, shape, note)


LAYERS: list[Case] = [
    _layer(Linear, (5,), out_features=4),
    _layer(Linear, (3, 5), "sequence, no bias", out_features=4, bias=False),
    _layer(Conv2d, (6, 5, 3), out_channels=4, kernel_size=3),
    _layer(Conv2d, (7, 6, 3), "stride, padding", out_channels=4, kernel_size=[3, 2], stride=2, padding=1, bias=False),
    _layer(Conv2d, (6, 5, 4), "same, groups", out_channels=6, kernel_size=4, padding="same", groups=2),
    _layer(Conv2d, (7, 8, 3), "dilated, depthwise", out_channels=3, kernel_size=3, dilation=2, groups=3),
    _layer(MaxPool2d, (6, 5, 3), kernel_size=2),
    _layer(MaxPool2d, (7, 6, 3), "overlapping, padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(AvgPool2d, (6, 5, 3), kernel_size=2),
    _layer(AvgPool2d, (7, 6, 3), "overlapping, padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(AvgPool2d, (5, 6, 3), "padding not counted", kernel_size=3, padding=1, count_include_pad=False),
    _layer(GlobalAvgPool2d, (4, 5, 3)),
    _layer(BatchNorm, (5,)),
    _layer(BatchNorm, (4, 3, 5), "images, no affine", affine=False),
    _layer(LayerNorm, (5,)),
    _layer(LayerNorm, (3, 5), "sequence, no affine", affine=False),
    _layer(ReLU, (4, 3, 5)),
    _layer(LeakyReLU, (4, 5), negative_slope=0.1),
    _layer(PReLU, (4, 5)),
    _layer(GELU, (4, 5)),
    _layer(GELU, (4, 5), "tanh", approximate="tanh"),
    _layer(SiLU, (4, 5)),
    _layer(Sigmoid, (4, 5)),
    _layer(Tanh, (4, 5)),
    _layer(Softmax, (4, 5)),
    _layer(Dropout, (4, 5), p=0.3),
    _layer(Flatten, (4, 3, 5)),
    _layer(Reshape, (4, 3, 5), shape=[5, -1]),
    _composite(Sequential, lambda: Sequential([Linear(4), Tanh(), Linear(3)]), (5,)),
    _composite(Residual, lambda: Residual([Linear(5), ReLU(), Dropout(0.3)]), (5,)),
    _composite(Residual, lambda: Residual([Linear(4), Tanh()], [Linear(4)]), (5,), "shortcut"),
    _composite(Concat, lambda: Concat([[Linear(3), Tanh()], [Dropout(0.3)], []]), (5,)),
    _composite(Add, lambda: Add([[Linear(3)], [Linear(3), Sigmoid()], [Linear(3), ReLU()]]), (5,)),
    _composite(AuxiliaryHead, lambda: AuxiliaryHead("aux", [Tanh(), Linear(3)]), (5,)),
    _composite(Recompute, lambda: Recompute([Linear(4), BatchNorm(), Dropout(0.3), ReLU()]), (5,)),
    _layer(BasicBlock, (5, 4, 3), channels=3),
    _layer(BasicBlock, (5, 4, 3), "down", channels=4, stride=2),
]
"""The layers. A name may have several cases."""


def _labels(shape: Shape, rng: Stream) -> HostArray:
    return np.asarray(rng.integers(0, shape[-1], shape[:-1]))


def _labels_with_gaps(shape: Shape, rng: Stream) -> HostArray:
    labels = _labels(shape, rng)
    labels.flat[1] = -100
    return labels


def _sides(shape: Shape, rng: Stream) -> HostArray:
    return np.asarray(2.0 * rng.integers(0, 2, shape) - 1.0)


def _shares(shape: Shape, rng: Stream) -> HostArray:
    return np.asarray(rng.uniform(shape))


def _distributions(shape: Shape, rng: Stream) -> HostArray:
    shares = _shares(shape, rng)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def _log_distributions(shape: Shape, rng: Stream) -> HostArray:
    return np.asarray(np.log(_distributions(shape, rng)))


def _loss(cls: type[Loss], targets: Targets, note: str = "", shape: Shape = (5,), **arguments: Any) -> Case:
    return Case(cls.__name__, partial(cls, **arguments), shape, note, targets)


_WEIGHTS = [0.5, 1.0, 2.0, 0.0, 1.5]

LOSSES: list[Case] = [
    _loss(CrossEntropy, _labels),
    _loss(CrossEntropy, _labels, "positions, smoothing", (4, 5), label_smoothing=0.1),
    _loss(CrossEntropy, _labels_with_gaps, "weights, gaps", (4, 5), class_weight=_WEIGHTS, label_smoothing=0.2),
    _loss(CrossEntropy, _distributions, "soft labels", class_weight=_WEIGHTS, label_smoothing=0.1),
    _loss(BCEWithLogits, _shares),
    _loss(BCEWithLogits, _shares, "weights", (3, 5), pos_weight=_WEIGHTS),
    _loss(NLL, _labels),
    _loss(NLL, _labels_with_gaps, "weights, gaps", (4, 5), class_weight=_WEIGHTS),
    _loss(Focal, _labels),
    _loss(Focal, _labels_with_gaps, "weights, gaps", (4, 5), gamma=0.7, class_weight=_WEIGHTS),
    _loss(MultiMargin, _labels),
    _loss(MultiMargin, _labels, "squared, weights", (4, 5), p=2, margin=0.7, class_weight=_WEIGHTS),
    _loss(SigmoidFocal, _shares, shape=(3, 5)),
    _loss(SigmoidFocal, _shares, "no alpha", gamma=0.7, alpha=None),
    _loss(Hinge, _sides, shape=(3, 5)),
    _loss(Hinge, _sides, "squared", margin=0.7, p=2),
    _loss(KLDiv, _distributions, shape=(3, 5)),
    _loss(KLDiv, _log_distributions, "log targets", log_target=True),
    _loss(Dice, _labels, shape=(4, 3, 5)),
    _loss(Dice, _labels_with_gaps, "squared, gaps", (4, 5), smooth=0.1, squared=True),
    _loss(Dice, _shares, "maps of shares", (4, 3)),
    _loss(SmoothL1, _shares, shape=(3, 5)),
    _loss(SmoothL1, _shares, "narrow", beta=0.3),
    _loss(Huber, _shares, shape=(3, 5)),
    _loss(Huber, _shares, "narrow", delta=0.3),
    _loss(SumOfSquares, _shares, shape=(3, 5)),
    _loss(MSE, _shares, shape=(3, 5)),
    _loss(L1, _shares, shape=(3, 5)),
    Case("L2Penalty", L2Penalty),
    Case("L1Penalty", partial(L1Penalty, "first.*")),
]
"""The losses and penalties."""
