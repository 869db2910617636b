"""The layers. To add one is a line: ours, theirs, the shapes, what theirs asks for and ours infers, the options."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import nn

from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Sequential
from layernet.layers.activation import GELU, LeakyReLU, PReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from layernet.layers.arithmetic import Abs, Affine, Exp, Log, Power, Sqrt, Square
from layernet.layers.border import ReflectionPad2d, ReplicationPad2d, ZeroPad2d
from layernet.layers.conv import Conv1d, Conv2d
from layernet.layers.conv_transpose import ConvTranspose2d
from layernet.layers.dropout import Dropout, Dropout2d
from layernet.layers.embedding import Embedding
from layernet.layers.linear import Linear
from layernet.layers.local_norm import LocalContrastNorm, LocalResponseNorm
from layernet.layers.norm import BatchNorm, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from layernet.layers.pool1d import AvgPool1d, MaxPool1d
from layernet.layers.pool_to_size import AdaptiveAvgPool2d, AdaptiveMaxPool2d, GlobalMaxPool2d
from layernet.layers.rearrange import PixelShuffle, PixelUnshuffle, Unsqueeze
from layernet.layers.rectifier import ELU, SELU, Hardswish, Hardtanh, Mish, ReLU6, Softplus
from layernet.layers.resample import Upsample
from layernet.layers.separable import SeparableConv2d
from layernet.layers.shape import Flatten, Reshape
from layernet.layers.squash import GLU, LogSigmoid, LogSoftmax, ScaledTanh, Softsign, Tanhshrink
from layernet.layers.weight_norm import WeightNorm
from tests.pytorch import drawing
from tests.pytorch.drawing import anything, flags, images, positive, sequences, several, ties, vectors
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
        floats = x.dtype.kind == "f"
        tape = net.forward(x, training=training, needs_input_grad=floats)
        y = tape.output.copy()
        dy = rng.normal(size=y.shape)
        dx = net.backward(tape, dy)
        tx = to_theirs(x, channels_first).requires_grad_(floats)
        ty = module(tx)
        ty.backward(to_theirs(dy, channels_first))
        outputs = [difference(to_theirs(y, channels_first), ty)]
        outputs += [difference(mine[path].data, b) for path, b in module.named_buffers() if path in mine]
        gradients = [
            difference(weights(path, net.params()[mine[path].path].grad), parameter.grad)
            for path, parameter in module.named_parameters()
        ]
        of_input = difference(to_theirs(dx, channels_first), tx.grad) if floats else None
        return Errors(worst(outputs) or 0.0, of_input, worst(gradients))

    return Entry(name or ours.__name__, ours, compare, shapes, dependent, options)


channels_first = partial(layer, channels_first=True)


def convolution(draw: DrawFn, shape: Shape) -> Options:
    groups = drawing.divisor(draw, shape[-1])
    return {**drawing.window(draw, shape), "groups": groups, "out_channels": groups * draw(st.integers(1, 3))}


def named_padding(draw: DrawFn, shape: Shape) -> Options:
    return {**convolution(draw, shape), "padding": draw(st.sampled_from(["same", "same", "valid"]))}


def convolution_1d(draw: DrawFn, shape: Shape) -> Options:
    groups = drawing.divisor(draw, shape[-1])
    window = {
        name: value if isinstance(value, int) else value[0] for name, value in drawing.window(draw, shape).items()
    }
    return {**window, "groups": groups, "out_channels": groups * draw(st.integers(1, 3))}


def named_padding_1d(draw: DrawFn, shape: Shape) -> Options:
    return {**convolution_1d(draw, shape), "padding": draw(st.sampled_from(["same", "same", "valid"]))}


def transposed(draw: DrawFn, shape: Shape) -> Options:
    options = convolution(draw, (shape[0], 5, 6, shape[-1]))  # of any size of kernel: it need not fit the input
    kernel, dilation = (_both(options[name]) for name in ("kernel_size", "dilation"))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    more = tuple(draw(st.integers(0, s - 1)) for s in stride)
    sizes = [
        (n - 1) * s + d * (k - 1) + o for n, s, d, k, o in zip(shape[1:3], stride, dilation, kernel, more, strict=True)
    ]
    cut = tuple(draw(st.integers(0, min(3, n // 2))) for n in sizes)
    return {**options, "stride": stride, "output_padding": more, "padding": cut}


def _both(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def separable(draw: DrawFn, shape: Shape) -> Options:
    return {**drawing.window(draw, shape), "out_channels": draw(drawing.channels)}


def torch_separable(
    in_channels: int, out_channels: int, depth_multiplier: int = 1, bias: bool = True, **options: Any
) -> nn.Module:
    between = in_channels * depth_multiplier
    depthwise = nn.Conv2d(in_channels, between, groups=in_channels, bias=False, **options)
    pointwise = nn.Conv2d(between, out_channels, 1, bias=bias)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def indices(rng: np.random.Generator, shape: Shape) -> Array:
    return rng.integers(0, 5, shape)


class TorchEmbedding(nn.Embedding):
    """Its row for padding is 0, as its own initialiser has it: ours reads as 0 always."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.padding_idx is not None:
            with torch.no_grad():
                self.weight[self.padding_idx] = 0
        return super().forward(input)


def weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # the new one, a parametrization, has other names for the same numbers
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)


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


def torch_rms_norm(affine: bool = True, **options: Any) -> nn.Module:
    return nn.RMSNorm(elementwise_affine=affine, **options)


class Formula(nn.Module):
    """What torch.nn has no module for, written with torch's functions: autograd derives the gradient."""

    def __init__(self, formula: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.formula = formula

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.formula(x)


def torch_local_norm(
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    region: str = "across_channels",
    blocked: bool = False,
    average: bool = True,
    contrast: bool = False,
) -> nn.Module:
    """Sums over neighbours as products with matrices of 0 and 1."""

    def window(n: int, x: torch.Tensor) -> torch.Tensor:
        from_start = torch.arange(n) // size * size if blocked else torch.arange(n) - size // 2
        offset = torch.arange(n)[None] - from_start[:, None]
        return ((offset >= 0) & (offset < size)).to(x.dtype)

    def total(x: torch.Tensor) -> torch.Tensor:
        if region == "across_channels":
            return torch.einsum("...c,dc->...d", x, window(x.shape[-1], x))
        return torch.einsum("nhwc,ih,jw->nijc", x, window(x.shape[1], x), window(x.shape[2], x))

    def formula(x: torch.Tensor) -> torch.Tensor:
        e = x - total(x) / total(torch.ones_like(x)) if contrast else x
        n = 1 if not average else size if region == "across_channels" else size**2
        return x * (k + alpha / n * total(e * e)) ** -beta

    return Formula(formula)


def torch_contrast_norm(**options: Any) -> nn.Module:
    return torch_local_norm(**options, region="within_channel", contrast=True)


def torch_scaled_tanh(a: float = 1.7159, b: float = 2 / 3) -> nn.Module:
    return Formula(lambda x: a * torch.tanh(b * x))


def torch_power(power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> nn.Module:
    return Formula(lambda x: torch.pow(scale * x + shift, power))


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
_local_norm: dict[str, Any] = {
    "size": st.integers(1, 6),
    "alpha": st.floats(0, 2),
    "beta": st.sampled_from([0.75, 0.5, 1.3]),
    "k": st.floats(0.5, 2),
}


def _drelu(draw: DrawFn, shape: Shape) -> Options:
    return {"a": draw(st.floats(0.3, 4))}


def _affine(draw: DrawFn, shape: Shape) -> Options:
    return {"scale": draw(st.floats(-2, 2)), "shift": draw(st.floats(-2, 2))}


def _within(draw: DrawFn, shape: Shape) -> Options:
    return {"region": "within_channel"}


_max_window = partial(drawing.window, padded=True)
_mean_window = partial(drawing.window, padded=True, dilated=False)

_border = st.integers(0, 4) | st.tuples(*[st.integers(0, 4)] * 4)

LAYERS = [
    layer(
        Embedding,
        TorchEmbedding,
        values=indices,
        num_embeddings=st.integers(5, 8),
        embedding_dim=drawing.channels,
        padding_idx=st.none() | st.integers(-5, 4),
    ),
    layer(Linear, nn.Linear, asks={"in_features": -1}, out_features=drawing.channels, bias=flags),
    channels_first(
        Conv2d, nn.Conv2d, images, convolution, **_filters, stride=drawing.numbers(1, 3), padding=drawing.numbers(0, 3)
    ),
    channels_first(Conv2d, nn.Conv2d, images, named_padding, **_filters),
    channels_first(
        Conv1d, nn.Conv1d, sequences, convolution_1d, **_filters, stride=st.integers(1, 3), padding=st.integers(0, 3)
    ),
    channels_first(Conv1d, nn.Conv1d, sequences, named_padding_1d, **_filters),
    channels_first(ConvTranspose2d, nn.ConvTranspose2d, images, transposed, **_filters),
    channels_first(
        SeparableConv2d,
        torch_separable,
        images,
        separable,
        **_filters,
        stride=drawing.numbers(1, 3),
        padding=drawing.numbers(0, 3),
        depth_multiplier=st.integers(1, 3),
    ),
    channels_first(
        lambda **options: WeightNorm(Conv2d(**options)),
        lambda **options: weight_norm(nn.Conv2d(**options)),
        images,
        convolution,
        name="WeightNorm",
        **_filters,
    ),
    layer(
        lambda **options: WeightNorm(Linear(**options)),
        lambda **options: weight_norm(nn.Linear(**options)),
        name="WeightNorm",
        asks={"in_features": -1},
        out_features=drawing.channels,
        bias=flags,
    ),
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
    channels_first(
        GroupNorm,
        nn.GroupNorm,
        several(anything),
        lambda draw, shape: {"num_groups": drawing.divisor(draw, shape[-1])},
        asks={"num_channels": -1},
        modes=(True, False),
        **_norm,
    ),
    channels_first(
        InstanceNorm2d,
        nn.InstanceNorm2d,
        images.filter(lambda shape: math.prod(shape[1:3]) > 1),
        **_batch_norm,
        track_running_stats=flags,
    ),
    layer(RMSNorm, torch_rms_norm, asks={"normalized_shape": -1}, eps=st.sampled_from([None, 1e-5, 0.1]), affine=flags),
    channels_first(LocalResponseNorm, nn.LocalResponseNorm, sequences | images, **_local_norm),
    layer(LocalResponseNorm, torch_local_norm, blocked=flags, average=flags, **_local_norm),
    layer(LocalResponseNorm, torch_local_norm, images, _within, average=flags, **_local_norm),
    layer(LocalContrastNorm, torch_contrast_norm, images, **_local_norm),
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
    layer(Hardtanh, nn.Hardtanh, min_val=st.floats(-3, -0.5), max_val=st.floats(0, 4)),
    layer(Hardtanh, nn.Hardtanh, min_val=st.integers(-2, -1), max_val=st.integers(0, 2), values=ties),
    layer(ReLU6, nn.ReLU6),
    layer(ReLU6, nn.ReLU6, values=lambda rng, shape: 3 * ties(rng, shape)),
    layer(ELU, nn.ELU, alpha=st.floats(0.01, 3)),
    layer(ELU, nn.ELU, alpha=st.floats(0.01, 3), values=ties),
    layer(SELU, nn.SELU),
    layer(SELU, nn.SELU, values=ties),
    layer(Hardswish, nn.Hardswish),
    layer(Hardswish, nn.Hardswish, values=lambda rng, shape: 1.5 * ties(rng, shape)),
    layer(Mish, nn.Mish),
    layer(Softplus, nn.Softplus, beta=st.floats(0.1, 5), threshold=st.sampled_from([20.0, 4.0, 0.5])),
    layer(ScaledTanh, torch_scaled_tanh, a=st.floats(-2, 2), b=st.floats(-2, 2)),
    layer(Tanhshrink, nn.Tanhshrink),
    layer(Tanhshrink, lambda a: Formula(lambda x: x - a * torch.tanh(x / a)), dependent=_drelu),
    layer(Softsign, nn.Softsign),
    layer(LogSigmoid, nn.LogSigmoid),
    layer(LogSoftmax, partial(nn.LogSoftmax, dim=-1)),
    layer(GLU, nn.GLU, anything.filter(lambda shape: shape[-1] % 2 == 0)),
    layer(Affine, lambda scale, shift: Formula(lambda x: scale * x + shift), dependent=_affine),
    layer(Abs, lambda: Formula(torch.abs)),
    layer(Abs, lambda: Formula(torch.abs), values=ties),
    layer(Square, lambda: Formula(torch.square)),
    layer(Sqrt, lambda shift=0.0: Formula(lambda x: torch.sqrt(x + shift)), values=positive, shift=st.floats(0, 2)),
    layer(Log, lambda shift=0.0: Formula(lambda x: torch.log(x + shift)), values=positive, shift=st.floats(0, 2)),
    layer(Exp, lambda: Formula(torch.exp), values=positive),
    layer(Power, torch_power, values=positive, power=st.floats(-2, 3), scale=st.floats(0, 2), shift=st.floats(0.1, 2)),
    layer(Power, torch_power, power=st.sampled_from([0.0, 1.0, 2.0, 3.0]), scale=st.floats(-2, 2), values=ties),
    layer(Dropout, nn.Dropout, modes=(False,), p=st.floats(0, 1)),
    layer(Dropout, nn.Dropout, dependent=lambda draw, shape: {"p": draw(st.sampled_from([0.0, 1.0]))}),  # no chance
    channels_first(Dropout2d, nn.Dropout2d, images, modes=(False,), p=st.floats(0, 1)),
    channels_first(Dropout2d, nn.Dropout2d, images, lambda draw, shape: {"p": draw(st.sampled_from([0.0, 1.0]))}),
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
