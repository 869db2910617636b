"""Convolution in two steps, over space and over channels."""

from __future__ import annotations

from typing import Literal

from layernet.backend import Shape
from layernet.core import init
from layernet.core.init import InitFunction
from layernet.core.layer import Layer
from layernet.layers.composite import Block
from layernet.layers.conv import Conv2d
from layernet.layers.spatial import Size2d, image_size


class SeparableConv2d(Block):
    """A depthwise Conv2d, `depth_multiplier` m filters a channel, then a 1x1 Conv2d (Chollet 2016, arXiv:1610.02357).

    Shape: as `Conv2d` with these arguments. Parameters: depthwise.weight (C m, kh, kw, 1), pointwise.weight
    (out_channels, 1, 1, C m) and pointwise.bias; a bias between the two would be one more way to say the same. Nothing
    stands between the two steps, as in Xception; MobileNet's BatchNorm and ReLU there want the two Conv2d written out.

    `weight_init` is that of both. The depthwise default keeps the second moment of a linear step, the pointwise one
    that through ReLU.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size2d,
        stride: Size2d = 1,
        padding: Size2d | Literal["same", "valid"] = 0,
        dilation: Size2d = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        weight_init: InitFunction | None = None,
    ) -> None:
        if depth_multiplier < 1:
            raise ValueError(f"depth_multiplier must be at least 1, got {depth_multiplier}")
        Conv2d(out_channels, kernel_size, stride, padding, dilation)  # refuses what it cannot take now, not when built
        self.out_channels, self.depth_multiplier, self.use_bias = out_channels, depth_multiplier, bias
        self.depthwise_arguments = kernel_size, stride, padding, dilation
        self.weight_init = weight_init

    def layers(self, in_shape: Shape) -> list[Layer]:
        image_size("SeparableConv2d", in_shape)
        channels = in_shape[2]
        depthwise = Conv2d(
            channels * self.depth_multiplier,
            *self.depthwise_arguments,
            groups=channels,
            bias=False,
            weight_init=self.weight_init or init.kaiming_normal(nonlinearity="linear"),
        )
        pointwise = Conv2d(
            self.out_channels, 1, bias=self.use_bias, weight_init=self.weight_init or init.kaiming_normal()
        )
        return [depthwise.named("depthwise"), pointwise.named("pointwise")]
