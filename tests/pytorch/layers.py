"""The layers. To add one is a line: ours, theirs, the shapes, what theirs asks for and ours infers, the options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import nn

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Sequential
from layernet.layers.activation import GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from layernet.layers.border import ReflectionPad2d, ReplicationPad2d, ZeroPad2d
from layernet.layers.conv import Conv2d
from layernet.layers.dropout import Dropout
from layernet.layers.linear import Linear
from layernet.layers.norm import BatchNorm, LayerNorm
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from layernet.layers.pool1d import AvgPool1d, MaxPool1d
from layernet.layers.pool_to_size import AdaptiveAvgPool2d, AdaptiveMaxPool2d, GlobalMaxPool2d
from layernet.layers.rearrange import PixelShuffle, PixelUnshuffle, Unsqueeze
from layernet.layers.resample import Upsample
from layernet.layers.shape import Flatten, Reshape
from tests.pytorch import drawing
from tests.pytorch.drawing import anything, flags, images, sequences, several, ties, vectors
from tests.pytorch.entry import Array, DependentOptions, Entry, Errors, Options, Shape, difference, to_theirs, worst


def layer(
    ours: Callable[..., Layer],
    theirs: Callable[..., nn.Module],
    shapes: SearchStrategy[Shape] = anything,
    dependent: DependentOptions | None = None,
    *,
    name: str = "",
    asks: Mapping[str, int] | None = None,
    channels_first: bool = False,
    modes: Sequence[bool] = (True,),
    values: Callable[[np.random.Generator, Shape], Array] = drawing.normal,
    weights: Callable[[str, Array], Any] = lambda name, array: to_theirs(array, True),
    **options: SearchStrategy[Any],
) -> Entry:
    """An entry: both take the `options`, which have torch's names, and theirs the sizes it `asks` for: name -> axis.

    `channels_first` says that theirs takes (N, C, ...). Every example is compared in all `modes`: training (True),
    evaluation (False) or both. Parameters and buffers have the same names; `weights` turns one of ours, or its
    gradient, into theirs: by default (out, ..., in) into (out, in, ...).
    """

    def compare(arguments: Options, shape: Shape, rng: np.random.Generator) -> Errors:
        sizes = {argument: shape[axis] for argument, axis in (asks or {}).items()}
        found = [
            _compare(ours(**arguments), theirs(**arguments, **sizes), training, values(rng, shape), rng)
            for training in modes
        ]
        return Errors(*(worst([e for e in kind if e is not None]) for kind in zip(*found, strict=True)))  # type: ignore[arg-type]

    def _compare(layer: Layer, module: nn.Module, training: bool, x: Array, rng: np.random.Generator) -> Errors:
        net = Net([layer.named("it")], x.shape[1:]).bind("cpu", "float64")
        module.double().train(training)
        mine = {path.removeprefix("it."): tensor for path, tensor in (net.params() | net.buffers()).items()}
        other = {path: tensor for path, tensor in module.state_dict().items() if "num_batches" not in path}
        assert mine.keys() == other.keys(), f"ours has {sorted(mine)}, torch's {sorted(other)}"
        for path, tensor in mine.items():
            tensor.data[...] = rng.uniform(0.5, 2, tensor.shape) if "var" in path else rng.normal(size=tensor.shape)
            other[path].copy_(weights(path, tensor.data))
        tape = net.forward(x, training=training, needs_input_grad=True)
        y = tape.output.copy()
        dy = rng.normal(size=y.shape)
        dx = net.backward(tape, dy)
        tx = to_theirs(x, channels_first).requires_grad_()
        ty = module(tx)
        ty.backward(to_theirs(dy, channels_first))
        outputs = [difference(to_theirs(y, channels_first), ty)]
        outputs += [difference(mine[path].data, b) for path, b in module.named_buffers() if path in mine]
        gradients = [
            difference(weights(path, net.params()[mine[path].path].grad), parameter.grad)
            for path, parameter in module.named_parameters()
        ]
        return Errors(worst(outputs) or 0.0, difference(to_theirs(dx, channels_first), tx.grad), worst(gradients))

    return Entry(name or ours.__name__, ours, compare, shapes, dependent, options)


channels_first = partial(layer, channels_first=True)


def convolution(draw: DrawFn, shape: Shape) -> Options:
    groups = drawing.divisor(draw, shape[-1])
    return {**drawing.window(draw, shape), "groups": groups, "out_channels": groups * draw(st.integers(1, 3))}


def named_padding(draw: DrawFn, shape: Shape) -> Options:
    return {**convolution(draw, shape), "padding": draw(st.sampled_from(["same", "same", "valid"]))}


def in_a_row(window: DependentOptions) -> DependentOptions:
    """The arguments for sequences of one that draws arguments for images."""

    def draw_numbers(draw: DrawFn, shape: Shape) -> Options:
        found = window(draw, shape)
        return {name: numbers[0] if isinstance(numbers, tuple) else numbers for name, numbers in found.items()}

    return draw_numbers


def new_shape(draw: DrawFn, shape: Shape) -> Options:
    size = math.prod(shape[1:])
    first = drawing.divisor(draw, size)
    second = drawing.divisor(draw, size // first)
    sizes = [first, second, size // first // second]
    unknown = draw(st.integers(0, 3))
    return {"shape": [-1 if axis == unknown else n for axis, n in enumerate(sizes)]}


def torch_layer_norm(affine: bool = True, **options: Any) -> nn.Module:
    return nn.LayerNorm(elementwise_affine=affine, **options)


def torch_reshape(shape: list[int]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape))


class _Unsqueeze(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return x.unsqueeze(self.dim)


def torch_unsqueeze(dim: int) -> nn.Module:
    return _Unsqueeze(dim + 1 if dim >= 0 else dim)


def shuffled(kind: type[Layer], factor: int = 2) -> SearchStrategy[Shape]:
    """Images whose channels, or whose pixels, come in blocks."""
    by = (1, factor, factor, 1) if kind is PixelUnshuffle else (1, 1, 1, factor**2)
    return images.map(lambda shape: tuple(n * k for n, k in zip(shape, by, strict=True)))


def reflected(draw: DrawFn, shape: Shape) -> Options:
    """Borders that are smaller than the image."""
    height, width = shape[1:3]
    if draw(flags):
        return {"padding": draw(st.integers(0, min(height, width) - 1))}
    return {"padding": tuple(draw(st.integers(0, n - 1)) for n in (width, width, height, height))}


def new_size(draw: DrawFn, shape: Shape) -> Options:
    if draw(flags):
        return {"size": draw(drawing.numbers(1, 12))}
    factor = st.sampled_from([2, 3, 1.5, 2.5, 1, 1.7])
    return {"scale_factor": draw(factor | st.tuples(factor, factor))}


def interpolated(draw: DrawFn, shape: Shape) -> Options:
    return {**new_size(draw, shape), "mode": "bilinear"}


def torch_chain(width: int, inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, 3))


def chain(width: int) -> Layer:
    return Sequential([Linear(width).named("0"), Tanh().named("1"), Linear(3).named("2")])


_filters: dict[str, Any] = {"asks": {"in_channels": -1}, "bias": flags}
_pool: dict[str, Any] = {"stride": drawing.numbers(1, 4), "ceil_mode": flags}
_pool1d: dict[str, Any] = {"stride": st.integers(1, 4), "ceil_mode": flags}
_output_size = st.integers(1, 9) | st.tuples(st.none() | st.integers(1, 9), st.none() | st.integers(1, 9))
_norm: dict[str, Any] = {"eps": st.sampled_from([1e-5, 1e-3, 0.1]), "affine": flags}
_batch_norm: dict[str, Any] = {
    **_norm,
    "asks": {"num_features": -1},
    "modes": (True, False),
    "momentum": st.floats(0, 1),
}
_max_window = partial(drawing.window, padded=True)
_mean_window = partial(drawing.window, padded=True, dilated=False)

_border = st.integers(0, 4) | st.tuples(*[st.integers(0, 4)] * 4)

LAYERS = [
    layer(Linear, nn.Linear, asks={"in_features": -1}, out_features=drawing.channels, bias=flags),
    channels_first(
        Conv2d, nn.Conv2d, images, convolution, **_filters, stride=drawing.numbers(1, 3), padding=drawing.numbers(0, 3)
    ),
    channels_first(Conv2d, nn.Conv2d, images, named_padding, **_filters),
    channels_first(MaxPool2d, nn.MaxPool2d, images, _max_window, **_pool),
    channels_first(MaxPool2d, nn.MaxPool2d, images, _max_window, **_pool, values=ties),
    channels_first(AvgPool2d, nn.AvgPool2d, images, _mean_window, **_pool, count_include_pad=flags),
    channels_first(GlobalAvgPool2d, lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images),
    channels_first(AvgPool2d, nn.AvgPool2d, images, _mean_window, **_pool, divisor_override=st.integers(1, 5)),
    channels_first(MaxPool1d, nn.MaxPool1d, sequences, in_a_row(_max_window), **_pool1d),
    channels_first(MaxPool1d, nn.MaxPool1d, sequences, in_a_row(_max_window), **_pool1d, values=ties),
    channels_first(AvgPool1d, nn.AvgPool1d, sequences, in_a_row(_mean_window), **_pool1d, count_include_pad=flags),
    channels_first(AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d, images, output_size=_output_size),
    channels_first(AdaptiveMaxPool2d, nn.AdaptiveMaxPool2d, images, output_size=_output_size),
    channels_first(AdaptiveMaxPool2d, nn.AdaptiveMaxPool2d, images, output_size=_output_size, values=ties),
    channels_first(GlobalMaxPool2d, lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), images),
    channels_first(GlobalMaxPool2d, lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten()), images, values=ties),
    channels_first(BatchNorm, nn.BatchNorm1d, several(vectors | sequences), **_batch_norm),
    channels_first(BatchNorm, nn.BatchNorm2d, several(images), **_batch_norm),
    layer(LayerNorm, torch_layer_norm, asks={"normalized_shape": -1}, **_norm),
    layer(ReLU, nn.ReLU),
    layer(ReLU, nn.ReLU, values=ties),
    layer(LeakyReLU, nn.LeakyReLU, negative_slope=st.floats(0, 2)),
    layer(LeakyReLU, nn.LeakyReLU, negative_slope=st.floats(0, 2), values=ties),
    channels_first(PReLU, nn.PReLU, asks={"num_parameters": -1}),
    channels_first(PReLU, nn.PReLU, asks={"num_parameters": -1}, values=ties),
    layer(GELU, nn.GELU, approximate=st.sampled_from(["none", "tanh"])),
    layer(SiLU, nn.SiLU),
    layer(Sigmoid, nn.Sigmoid),
    layer(Tanh, nn.Tanh),
    layer(Softmax, partial(nn.Softmax, dim=-1)),
    layer(Dropout, nn.Dropout, modes=(False,), p=st.floats(0, 1)),
    layer(Dropout, nn.Dropout, dependent=lambda draw, shape: {"p": draw(st.sampled_from([0.0, 1.0]))}),  # no chance
    layer(Flatten, nn.Flatten),
    layer(Reshape, torch_reshape, dependent=new_shape),
    layer(Unsqueeze, torch_unsqueeze, images, dim=st.integers(-4, 3)),
    channels_first(PixelShuffle, nn.PixelShuffle, shuffled(PixelShuffle), upscale_factor=st.just(2)),
    channels_first(PixelShuffle, nn.PixelShuffle, shuffled(PixelShuffle, 3), upscale_factor=st.just(3)),
    channels_first(PixelUnshuffle, nn.PixelUnshuffle, shuffled(PixelUnshuffle), downscale_factor=st.just(2)),
    channels_first(PixelUnshuffle, nn.PixelUnshuffle, shuffled(PixelUnshuffle, 3), downscale_factor=st.just(3)),
    channels_first(ZeroPad2d, nn.ZeroPad2d, images, padding=_border),
    channels_first(ReplicationPad2d, nn.ReplicationPad2d, images, padding=_border),
    channels_first(ReflectionPad2d, nn.ReflectionPad2d, images, reflected),
    channels_first(Upsample, nn.Upsample, images, new_size),
    channels_first(Upsample, nn.Upsample, images, interpolated, align_corners=flags),
    layer(chain, torch_chain, vectors | sequences, name="Sequential", asks={"inputs": -1}, width=drawing.channels),
]
