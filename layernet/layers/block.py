"""Blocks of published nets, each a list of layers."""

from __future__ import annotations

from layernet.backend import Shape
from layernet.core.layer import Layer
from layernet.layers.activation import ReLU
from layernet.layers.composite import Block, Concat, Residual
from layernet.layers.conv import Conv2d
from layernet.layers.norm import BatchNorm
from layernet.layers.pool import MaxPool2d

_MOST_LAYERS = 1000  # of a dense block; those of the paper have 48 at most


class Bottleneck(Block):
    """ReLU(f(x) + shortcut(x)), f being 1x1, 3x3, 1x1 convolutions with norms (He et al. 2015, arXiv:1512.03385).

    ResNet-50's block. The first two convolutions have `channels` filters, the last `expansion` times as many. The 3x3
    one has the stride, as in torchvision (the paper gives it to the first 1x1), and the `groups`, which make it
    ResNeXt's (Xie et al. 2016, arXiv:1611.05431). The shortcut is x itself, or a 1x1 convolution and a norm where the
    shape changes.
    Shape: (N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), expansion channels).
    """

    def __init__(self, channels: int, stride: int = 1, expansion: int = 4, groups: int = 1) -> None:
        _at_least_one(channels=channels, stride=stride, expansion=expansion, groups=groups)
        if channels % groups:
            raise ValueError(f"groups must divide channels={channels}, got {groups}")
        self.channels, self.stride, self.expansion, self.groups = channels, stride, expansion, groups

    def layers(self, in_shape: Shape) -> list[Layer]:
        out_channels = self.expansion * self.channels
        body = [
            *_conv("1", Conv2d(self.channels, 1, bias=False)),
            *_conv("2", Conv2d(self.channels, 3, stride=self.stride, padding=1, groups=self.groups, bias=False)),
            Conv2d(out_channels, 1, bias=False).named("conv3"),
            BatchNorm().named("bn3"),
        ]
        shortcut: list[Layer] = []
        if self.stride != 1 or in_shape[-1:] != (out_channels,):
            shortcut = [
                Conv2d(out_channels, 1, stride=self.stride, bias=False).named("downsample"),
                BatchNorm().named("downsample_bn"),
            ]
        return [Residual(body, shortcut), ReLU().named("relu3")]


class InceptionBlock(Block):
    """y = 1x1, 1x1 + 3x3, 1x1 + 5x5 and 3x3 maximum + 1x1, side by side (Szegedy et al. 2014, arXiv:1409.4842).

    GoogLeNet's module: a ReLU follows every convolution, the paddings keep the size of the image. `reduce3x3` and
    `reduce5x5` are the filters of the 1x1 convolutions in front, `pool` those behind the maximum. GoogLeNet's first,
    3a, is 64, 96, 128, 16, 32, 32. With `batch_norm` a norm follows every convolution, which then has no bias.
    Shape: (N, H, W, C) -> (N, H, W, conv1x1 + conv3x3 + conv5x5 + pool).
    """

    def __init__(
        self,
        conv1x1: int,
        reduce3x3: int,
        conv3x3: int,
        reduce5x5: int,
        conv5x5: int,
        pool: int,
        batch_norm: bool = False,
    ) -> None:
        _at_least_one(
            conv1x1=conv1x1, reduce3x3=reduce3x3, conv3x3=conv3x3, reduce5x5=reduce5x5, conv5x5=conv5x5, pool=pool
        )
        self.conv1x1, self.pool, self.batch_norm = conv1x1, pool, batch_norm
        self.conv3x3, self.conv5x5 = (reduce3x3, conv3x3), (reduce5x5, conv5x5)

    def layers(self, in_shape: Shape) -> list[Layer]:
        return [
            Concat(
                [
                    self._conv("1x1", self.conv1x1, 1),
                    [*self._conv("3x3_reduce", self.conv3x3[0], 1), *self._conv("3x3", self.conv3x3[1], 3)],
                    [*self._conv("5x5_reduce", self.conv5x5[0], 1), *self._conv("5x5", self.conv5x5[1], 5)],
                    [MaxPool2d(3, stride=1, padding=1).named("pool"), *self._conv("pool_proj", self.pool, 1)],
                ]
            ).named("branches")
        ]

    def _conv(self, name: str, channels: int, size: int) -> list[Layer]:
        conv = Conv2d(channels, size, padding=size // 2, bias=not self.batch_norm)
        return _conv(name, conv, self.batch_norm)


class DenseBlock(Block):
    """y = x, f_1(x), f_2(x, f_1(x)), ... side by side: each f sees all before it (Huang et al. 2016, arXiv:1608.06993).

    f is norm, ReLU, 3x3 convolution with `growth` filters, repeated `num_layers` times; with `bottleneck` b, a norm, a
    ReLU and a 1x1 convolution with b growth filters stand before it (DenseNet-BC has 4). The layers between the
    paper's blocks are a BatchNorm, a ReLU, a 1x1 Conv2d and an AvgPool2d of size 2.
    Shape: (N, H, W, C) -> (N, H, W, C + num_layers growth).
    """

    def __init__(self, num_layers: int, growth: int, bottleneck: int | None = None) -> None:
        _at_least_one(num_layers=num_layers, growth=growth, bottleneck=1 if bottleneck is None else bottleneck)
        if num_layers > _MOST_LAYERS:
            raise ValueError(f"num_layers must be at most {_MOST_LAYERS}, got {num_layers}")
        self.num_layers, self.growth, self.bottleneck = num_layers, growth, bottleneck

    def layers(self, in_shape: Shape) -> list[Layer]:
        return [Concat([[], self._new_features()]).named(f"layer{number}") for number in range(1, self.num_layers + 1)]

    def _new_features(self) -> list[Layer]:
        narrow: list[Layer] = []
        if self.bottleneck is not None:
            narrow = [
                BatchNorm().named("bn1"),
                ReLU().named("relu1"),
                Conv2d(self.bottleneck * self.growth, 1, bias=False).named("conv1"),
            ]
        return [
            *narrow,
            BatchNorm().named("bn2"),
            ReLU().named("relu2"),
            Conv2d(self.growth, 3, padding=1, bias=False).named("conv2"),
        ]


def _conv(suffix: str, conv: Conv2d, norm: bool = True) -> list[Layer]:
    """A convolution, a norm and a ReLU, named with the suffix."""
    norms: list[Layer] = [BatchNorm().named(f"bn{suffix}")] if norm else []
    return [conv.named(f"conv{suffix}"), *norms, ReLU().named(f"relu{suffix}")]


def _at_least_one(**arguments: int) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
