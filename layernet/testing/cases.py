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
from layernet.core import init
from layernet.core.layer import Layer
from layernet.core.sequential import Sequential
from layernet.layers.activation import GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from layernet.layers.arithmetic import Abs, Affine, Exp, Log, Power, Sqrt, Square
from layernet.layers.block import Bottleneck, DenseBlock, InceptionBlock
from layernet.layers.border import Crop, Nailbed, ReflectionPad2d, ReplicationPad2d, ZeroPad2d
from layernet.layers.composite import Add, AuxiliaryHead, BasicBlock, Concat, Maximum, Multiply, Recompute, Residual
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.conv_transpose import ConvTranspose2d
from layernet.layers.dropout import Dropout, Dropout2d, DropPath, GaussianNoise
from layernet.layers.embedding import Embedding
from layernet.layers.linear import Bias, Linear, Scale
from layernet.layers.local import Local2d
from layernet.layers.local_norm import LocalContrastNorm, LocalResponseNorm
from layernet.layers.norm import BatchNorm, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxAbsPool2d, MaxPool2d
from layernet.layers.pool1d import AvgPool1d, MaxPool1d
from layernet.layers.pool_to_size import AdaptiveAvgPool2d, AdaptiveMaxPool2d, GlobalMaxPool2d, Maxout
from layernet.layers.rearrange import Permute, PixelShuffle, PixelUnshuffle, Slice, Squeeze, Unsqueeze
from layernet.layers.rectifier import ELU, SELU, Hardswish, Hardtanh, Mish, ReLU6, Softplus
from layernet.layers.resample import GaussianBlur, Resize, RGBToLab, RGBToYUV, Upsample
from layernet.layers.separable import SeparableConv2d
from layernet.layers.shape import Flatten, Reshape
from layernet.layers.squash import GLU, LogSigmoid, LogSoftmax, ScaledTanh, Softsign, Tanhshrink
from layernet.layers.weight_norm import WeightNorm
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
    _layer(Scale, (3, 5)),
    _layer(Scale, (3, 4, 5), "images, bias, init", bias=True, weight_init=init.normal(), bias_init=init.normal()),
    _layer(Bias, (3, 5)),
    _layer(Bias, (5,), "init", bias_init=init.normal()),
    _layer(Embedding, (4,), num_embeddings=5, embedding_dim=3),
    _layer(Embedding, (2, 3), "padding", num_embeddings=4, embedding_dim=3, padding_idx=-1, weight_init=init.uniform()),
    _layer(Conv2d, (6, 5, 3), out_channels=4, kernel_size=3),
    _layer(Conv2d, (7, 6, 3), "stride, padding", out_channels=4, kernel_size=[3, 2], stride=2, padding=1, bias=False),
    _layer(Conv2d, (6, 5, 4), "same, groups", out_channels=6, kernel_size=4, padding="same", groups=2),
    _layer(Conv2d, (7, 8, 3), "dilated, depthwise", out_channels=3, kernel_size=3, dilation=2, groups=3),
    _layer(Conv2d, (6, 5, 2), "ceil", out_channels=3, kernel_size=2, stride=[3, 2], ceil_mode=True),
    _layer(Conv1d, (6, 3), out_channels=4, kernel_size=3),
    _layer(Conv1d, (7, 3), "strided, no bias", out_channels=4, kernel_size=2, stride=2, padding=1, bias=False),
    _layer(Conv1d, (7, 4), "same, groups", out_channels=2, kernel_size=2, padding="same", dilation=2, groups=2),
    _layer(ConvTranspose2d, (4, 3, 5), out_channels=2, kernel_size=3),
    _layer(ConvTranspose2d, (3, 4, 3), "padded, no bias", out_channels=2, kernel_size=3, padding=[1, 2], bias=False),
    _layer(ConvTranspose2d, (3, 2, 3), "up", out_channels=2, kernel_size=3, stride=[2, 3], padding=1, output_padding=1),
    _layer(ConvTranspose2d, (3, 2, 4), "dilated, groups", out_channels=6, kernel_size=[2, 3], dilation=2, groups=2),
    _layer(Local2d, (5, 4, 3), out_channels=2, kernel_size=3),
    _layer(Local2d, (5, 4, 2), "padded, no bias", out_channels=2, kernel_size=[3, 2], stride=2, padding=1, bias=False),
    _layer(Local2d, (4, 4, 4), "same, groups", out_channels=2, kernel_size=2, padding="same", groups=2),
    _layer(Local2d, (5, 6, 2), "ceil", out_channels=2, kernel_size=2, stride=[2, 3], ceil_mode=True),
    _layer(SeparableConv2d, (5, 4, 3), out_channels=4, kernel_size=3, padding="same"),
    _layer(SeparableConv2d, (7, 6, 2), "m 2", out_channels=3, kernel_size=2, stride=2, bias=False, depth_multiplier=2),
    _composite(WeightNorm, lambda: WeightNorm(Linear(4)), (3, 5)),
    _composite(WeightNorm, lambda: WeightNorm(Conv2d(4, 3, padding=1, bias=False)), (4, 3, 2), "Conv2d"),
    _layer(MaxPool2d, (6, 5, 3), kernel_size=2),
    _layer(MaxPool2d, (7, 6, 3), "overlapping, padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(AvgPool2d, (6, 5, 3), kernel_size=2),
    _layer(AvgPool2d, (7, 6, 3), "overlapping, padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(AvgPool2d, (5, 6, 3), "padding not counted", kernel_size=3, padding=1, count_include_pad=False),
    _layer(GlobalAvgPool2d, (4, 5, 3)),
    _layer(MaxPool2d, (6, 5, 3), "cuda-convnet", kernel_size=3, stride=2, ceil_mode=True, ties="all", start=-1),
    _layer(AvgPool2d, (6, 5, 3), "cuda-convnet", kernel_size=3, stride=2, start=-1, divisor_override=2),
    _layer(MaxAbsPool2d, (6, 5, 3), kernel_size=2),
    _layer(MaxAbsPool2d, (7, 6, 3), "padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(MaxAbsPool2d, (7, 6, 3), "cuda-convnet", kernel_size=3, ceil_mode=True, ties="all", start=[-1, 0]),
    _layer(MaxPool1d, (7, 3), kernel_size=2),
    _layer(MaxPool1d, (8, 3), "overlapping, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True, ties="all"),
    _layer(MaxPool1d, (8, 3), "dilated", kernel_size=3, dilation=2),
    _layer(AvgPool1d, (7, 3), kernel_size=2),
    _layer(AvgPool1d, (8, 3), "overlapping, padded, ceil", kernel_size=3, stride=2, padding=1, ceil_mode=True),
    _layer(AvgPool1d, (7, 3), "padding not counted", kernel_size=3, padding=1, count_include_pad=False),
    _layer(AdaptiveAvgPool2d, (7, 5, 3), output_size=[3, 2]),
    _layer(AdaptiveAvgPool2d, (7, 5, 3), "own width", output_size=[8, None]),
    _layer(AdaptiveMaxPool2d, (7, 5, 3), output_size=[3, 2]),
    _layer(GlobalMaxPool2d, (4, 5, 3)),
    _layer(Maxout, (4, 3, 6), size=2),
    _layer(Maxout, (7,), "overlapping", size=3, stride=2, start=-1, ties="all"),
    _layer(BatchNorm, (5,)),
    _layer(BatchNorm, (4, 3, 5), "images, no affine", affine=False),
    _layer(LayerNorm, (5,)),
    _layer(LayerNorm, (3, 5), "sequence, no affine", affine=False),
    _layer(GroupNorm, (4, 3, 6), num_groups=3),
    _layer(GroupNorm, (5, 4), "sequence, no affine", num_groups=2, eps=0.01, affine=False),
    _layer(InstanceNorm2d, (4, 3, 5)),
    _layer(
        InstanceNorm2d, (4, 3, 5), "affine, tracking", eps=0.01, momentum=0.3, affine=True, track_running_stats=True
    ),
    _layer(RMSNorm, (5,)),
    _layer(RMSNorm, (3, 5), "sequence, no affine", eps=0.01, affine=False),
    _layer(LocalResponseNorm, (3, 7), size=5, alpha=0.5),
    _layer(LocalResponseNorm, (4, 3, 5), "even", size=4, alpha=2.0, beta=0.5, k=2.0, average=False),
    _layer(LocalResponseNorm, (3, 7), "blocked", size=3, alpha=1.5, blocked=True),
    _layer(LocalResponseNorm, (5, 4, 3), "within", size=3, alpha=3.0, region="within_channel"),
    _layer(LocalResponseNorm, (3, 6, 2), "within, even", size=4, alpha=3.0, region="within_channel"),
    _layer(LocalContrastNorm, (5, 4, 3), size=3, alpha=3.0),
    _layer(LocalContrastNorm, (3, 6, 2), "even", size=4, alpha=5.0, beta=1.0, k=2.0),
    _layer(ReLU, (4, 3, 5)),
    _layer(LeakyReLU, (4, 5), negative_slope=0.1),
    _layer(PReLU, (4, 5)),
    _layer(GELU, (4, 5)),
    _layer(GELU, (4, 5), "tanh", approximate="tanh"),
    _layer(SiLU, (4, 5)),
    _layer(Sigmoid, (4, 5)),
    _layer(Tanh, (4, 5)),
    _layer(Softmax, (4, 5)),
    _layer(Hardtanh, (4, 5)),
    _layer(Hardtanh, (4, 5), "bounds", min_val=-0.3, max_val=1.4),
    _layer(ReLU6, (4, 5)),
    _layer(ELU, (4, 5), alpha=0.7),
    _layer(SELU, (4, 5)),
    _layer(Hardswish, (4, 5)),
    _layer(Mish, (4, 5)),
    _layer(Softplus, (4, 5), beta=2.5),
    _layer(Softplus, (4, 5), "threshold", threshold=1.2),
    _layer(ScaledTanh, (4, 5)),
    _layer(ScaledTanh, (4, 5), "a and b", a=-0.7, b=1.3),
    _layer(Tanhshrink, (4, 5)),
    _layer(Tanhshrink, (4, 5), "a", a=2.5),
    _layer(Softsign, (4, 5)),
    _layer(LogSigmoid, (4, 5)),
    _layer(LogSoftmax, (4, 5)),
    _layer(GLU, (3, 6)),
    _layer(Affine, (4, 5), scale=-1.7, shift=0.3),
    _layer(Abs, (4, 5)),
    _layer(Square, (4, 5)),
    _layer(Sqrt, (4, 5), shift=3.0),
    _layer(Log, (4, 5), shift=3.0),
    _layer(Exp, (4, 5)),
    _layer(Power, (4, 5), power=1.5, scale=0.5, shift=2.0),
    _layer(Power, (4, 5), "cube", power=3),
    _layer(Dropout, (4, 5), p=0.3),
    _layer(Dropout2d, (4, 3, 5), p=0.3),
    _layer(DropPath, (4, 5), p=0.4),
    _layer(GaussianNoise, (4, 5), std=0.3),
    _layer(Flatten, (4, 3, 5)),
    _layer(Reshape, (4, 3, 5), shape=[5, -1]),
    _layer(Permute, (4, 3, 5), dims=[2, 0, -2]),
    _layer(Squeeze, (1, 4, 1, 5)),
    _layer(Squeeze, (1, 4, 1, 5), "one axis", dim=2),
    _layer(Unsqueeze, (4, 5), dim=-1),
    _layer(Slice, (4, 3, 5), start=1, stop=-1),
    _layer(Slice, (4, 3, 5), "mirror", step=-1, dim=1),
    _layer(Slice, (4, 5), "rows", start=1, step=2, dim=0),
    _layer(PixelShuffle, (2, 3, 8), upscale_factor=2),
    _layer(PixelUnshuffle, (4, 6, 3), downscale_factor=2),
    _layer(ZeroPad2d, (4, 3, 2), padding=[1, 0, 2, 3]),
    _layer(ReflectionPad2d, (4, 5, 2), padding=[4, 1, 2, 3]),
    _layer(ReplicationPad2d, (4, 3, 2), padding=[4, 1, 0, 3]),
    _layer(Crop, (5, 6, 2), size=3),
    _layer(Crop, (5, 6, 2), "corner", size=[2, 3], start=[3, 1]),
    _layer(Nailbed, (7, 6, 2), stride=[3, 2]),
    _layer(Upsample, (3, 4, 2), scale_factor=2),
    _layer(Upsample, (3, 4, 2), "bilinear", size=[5, 6], mode="bilinear"),
    _layer(Upsample, (3, 4, 2), "aligned", scale_factor=[1.7, 2.5], mode="bilinear", align_corners=True),
    _layer(Resize, (7, 6, 2), scale=1.3),
    _layer(GaussianBlur, (6, 5, 2), kernel_size=5, sigma=1.2),
    _layer(RGBToYUV, (4, 5, 3)),
    _layer(RGBToLab, (4, 5, 3), center=True),
    _composite(Sequential, lambda: Sequential([Linear(4), Tanh(), Linear(3)]), (5,)),
    _composite(Residual, lambda: Residual([Linear(5), ReLU(), Dropout(0.3)]), (5,)),
    _composite(Residual, lambda: Residual([Linear(4), Tanh()], [Linear(4)]), (5,), "shortcut"),
    _composite(Concat, lambda: Concat([[Linear(3), Tanh()], [Dropout(0.3)], []]), (5,)),
    _composite(Add, lambda: Add([[Linear(3)], [Linear(3), Sigmoid()], [Linear(3), ReLU()]]), (5,)),
    _composite(AuxiliaryHead, lambda: AuxiliaryHead("aux", [Tanh(), Linear(3)]), (5,)),
    _composite(Recompute, lambda: Recompute([Linear(4), BatchNorm(), Dropout(0.3), ReLU()]), (5,)),
    _layer(BasicBlock, (5, 4, 3), channels=3),
    _layer(BasicBlock, (5, 4, 3), "down", channels=4, stride=2),
    _composite(Multiply, lambda: Multiply([[Linear(3)], [Linear(3), Sigmoid()], [Linear(3)]]), (5,)),
    _composite(Maximum, lambda: Maximum([[Linear(3)], [Linear(3), Tanh()], [Linear(3)]]), (5,)),
    _composite(Maximum, lambda: Maximum([[], [Linear(5)]], ties="all"), (5,), "all ties"),
    _layer(Bottleneck, (5, 4, 3), channels=2),
    _layer(Bottleneck, (5, 4, 4), "down, grouped", channels=4, stride=2, expansion=2, groups=2),
    _layer(InceptionBlock, (4, 3, 3), conv1x1=2, reduce3x3=1, conv3x3=3, reduce5x5=2, conv5x5=1, pool=2),
    _layer(
        InceptionBlock,
        (3, 4, 2),
        "norms",
        conv1x1=1,
        reduce3x3=2,
        conv3x3=2,
        reduce5x5=1,
        conv5x5=1,
        pool=1,
        batch_norm=True,
    ),
    _layer(DenseBlock, (4, 3, 2), num_layers=2, growth=2),
    _layer(DenseBlock, (3, 4, 3), "bottleneck", num_layers=2, growth=1, bottleneck=3),
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


TARGETS: dict[str, Targets] = {
    "labels": _labels,
    "values": _shares,
    "signs": _sides,
    "distributions": _distributions,
}
"""Targets that a loss may take: class numbers, numbers from 0 to 1 or -1 and 1 in the outputs' shape, shares of 1."""


def _steps(note: str, shape: Shape, make: Callable[[], list[Layer]]) -> Case:
    return Case("Sequential", lambda: Sequential(make()), shape, note)


def _conv(channels: int = 4, bias: bool = True) -> Conv2d:
    return Conv2d(channels, 3, padding=1, bias=bias, bias_init=init.normal())


STEPS: list[Case] = [
    _steps("Conv2d + ReLU", (5, 4, 3), lambda: [_conv(), ReLU()]),
    _steps("Conv2d + ReLU, groups, no bias", (5, 4, 4), lambda: [Conv2d(4, 3, stride=2, groups=2, bias=False), ReLU()]),
    _steps("Conv1d + ReLU", (6, 3), lambda: [Conv1d(4, 3, padding=1), ReLU()]),
    _steps("Linear + ReLU", (5,), lambda: [Linear(4, bias_init=init.normal()), ReLU()]),
    _steps("Linear + ReLU, sequence, no bias", (3, 5), lambda: [Linear(4, bias=False), ReLU()]),
    _steps("BatchNorm + ReLU", (4, 3, 5), lambda: [BatchNorm(), ReLU()]),
    _steps("BatchNorm + ReLU, not affine", (5,), lambda: [BatchNorm(affine=False), ReLU()]),
    _steps("Conv2d + BatchNorm", (5, 4, 3), lambda: [_conv(), BatchNorm()]),
    _steps("Conv2d + BatchNorm + ReLU", (5, 4, 3), lambda: [_conv(bias=False), BatchNorm(), ReLU()]),
    _steps("Conv1d + BatchNorm + ReLU, few outputs", (3, 3), lambda: [Conv1d(9, 3), BatchNorm(affine=False), ReLU()]),
    _steps("Residual + ReLU", (4, 5, 3), lambda: [Residual([_conv(3), BatchNorm()]), ReLU()]),
    _steps("Residual + ReLU, body a norm", (4, 3), lambda: [Residual([BatchNorm()]), ReLU()]),
    _steps(
        "Residual + ReLU, shortcut",
        (4, 5, 3),
        lambda: [Residual([_conv(), ReLU(), _conv(), BatchNorm()], [_conv(bias=False), BatchNorm()]), ReLU()],
    ),
    _steps("ReLU + MaxPool2d", (6, 5, 3), lambda: [ReLU(), MaxPool2d(2)]),
    _steps("MaxPool2d + ReLU", (7, 6, 3), lambda: [MaxPool2d(3, stride=2, padding=1), ReLU()]),
    _steps("Conv2d + MaxPool2d", (7, 6, 3), lambda: [_conv(), MaxPool2d(2, stride=1)]),
    _steps("Conv2d + MaxPool2d + ReLU", (7, 6, 3), lambda: [_conv(), MaxPool2d(3, stride=2), ReLU()]),
    _steps("Conv2d + ReLU + MaxPool2d, no bias", (7, 6, 3), lambda: [_conv(bias=False), ReLU(), MaxPool2d(2)]),
]
"""What a plan joins: every kind of step."""


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

CASES: list[Case] = [*LAYERS, *LOSSES]
