"""Compare every layer and loss, and a hundred steps of every optimizer, with PyTorch on the CPU in float64.

    python scripts/compare_torch.py [NAME ...]

Prints the worst differences of outputs and of gradients (inputs' and parameters'), relative to the largest number
compared where that is above 1. Exits 1 when one is above 1e-10, or when a layer, loss or optimizer is not in the tables
below. Needs torch.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

import layernet.layers
from layernet import losses
from layernet.backend.device import get_device
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.layers import activation, conv, dropout, linear, norm, pool, shape
from layernet.optim import optimizers

BAR = 1e-10
STEPS = 100

Errors = tuple[float, float]
"""Worst difference of outputs (or parameters), worst difference of gradients."""


@dataclass(frozen=True)
class Case:
    """A layer of ours, what PyTorch calls it, and inputs (N, ..., C) to try both on.

    `channels_first` says that theirs takes (N, C, ...). Parameters and buffers have the same names; weights of more
    than two axes are stored (out, ..., in) here and (out, in, ...) there.
    """

    ours: Callable[..., Layer]
    theirs: Callable[..., nn.Module]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    their_options: dict[str, Any] | None = None
    """Where they differ from `options`: sizes that PyTorch asks for and we infer."""
    channels_first: bool = False
    modes: tuple[bool, ...] = (True,)
    """Training, evaluation or both."""


VECTORS, SEQUENCES, IMAGES = (6, 5), (3, 4, 5), (2, 7, 6, 4)


def elementwise(ours: Callable[..., Layer], theirs: Callable[..., nn.Module], **options: Any) -> list[Case]:
    return [Case(ours, theirs, size, options, None) for size in (VECTORS, SEQUENCES, IMAGES)]


def convolution(out: int, kernel: Any, **options: Any) -> Case:
    ours = {"out_channels": out, "kernel_size": kernel, **options}
    return Case(conv.Conv2d, nn.Conv2d, IMAGES, ours, {"in_channels": IMAGES[-1], **ours}, channels_first=True)


def pooling(ours: Callable[..., Layer], theirs: Callable[..., nn.Module], **options: Any) -> Case:
    return Case(ours, theirs, (2, 9, 8, 3), options, channels_first=True)


LAYERS = [
    *(
        Case(
            linear.Linear,
            nn.Linear,
            size,
            {"out_features": 4, "bias": bias},
            {"in_features": 5, "out_features": 4, "bias": bias},
        )
        for size in (VECTORS, SEQUENCES)
        for bias in (True, False)
    ),
    convolution(5, 3),
    convolution(5, 3, padding=1, bias=False),
    convolution(6, [3, 2], stride=[2, 1], padding=[1, 0]),
    convolution(6, 3, padding="same", dilation=2),
    convolution(6, [4, 2], padding="same"),
    convolution(6, 3, stride=2, padding=1, groups=2),
    convolution(8, 3, padding=1, groups=4),
    convolution(3, 1),
    convolution(3, 1, stride=2),
    convolution(3, 5, padding=2),
    convolution(3, 5, padding=4, stride=3),
    *(
        pooling(pool.MaxPool2d, nn.MaxPool2d, **options)
        for options in (
            {"kernel_size": 2},
            {"kernel_size": 3, "stride": 2},
            {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True},
            {"kernel_size": 3, "stride": 1, "dilation": 2},
        )
    ),
    *(
        pooling(pool.AvgPool2d, nn.AvgPool2d, **options)
        for options in (
            {"kernel_size": 2},
            {"kernel_size": 3, "stride": 2, "padding": 1},
            {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
            {"kernel_size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True},
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
        )
    ),
    Case(
        pool.GlobalAvgPool2d,
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGES,
        channels_first=True,
    ),
    *(
        Case(norm.BatchNorm, module, size, options, {"num_features": size[-1], **options}, True, (True, False))
        for module, size in ((nn.BatchNorm1d, VECTORS), (nn.BatchNorm1d, SEQUENCES), (nn.BatchNorm2d, IMAGES))
        for options in ({}, {"eps": 1e-3, "momentum": 0.3}, {"affine": False})
    ),
    *(
        Case(norm.LayerNorm, nn.LayerNorm, size, ours, theirs)
        for size in (VECTORS, SEQUENCES, IMAGES)
        for ours, theirs in (
            ({}, {"normalized_shape": size[-1]}),
            ({"eps": 1e-2}, {"normalized_shape": size[-1], "eps": 1e-2}),
            ({"affine": False}, {"normalized_shape": size[-1], "elementwise_affine": False}),
        )
    ),
    *elementwise(activation.ReLU, nn.ReLU),
    *elementwise(activation.LeakyReLU, nn.LeakyReLU),
    *elementwise(activation.LeakyReLU, nn.LeakyReLU, negative_slope=0.2),
    *(
        Case(activation.PReLU, nn.PReLU, size, {"init": slope}, {"num_parameters": size[-1], "init": slope}, True)
        for size in (VECTORS, SEQUENCES, IMAGES)
        for slope in (0.25, -0.5)
    ),
    *elementwise(activation.GELU, nn.GELU),
    *elementwise(activation.GELU, nn.GELU, approximate="tanh"),
    *elementwise(activation.SiLU, nn.SiLU),
    *elementwise(activation.Sigmoid, nn.Sigmoid),
    *elementwise(activation.Tanh, nn.Tanh),
    *(Case(activation.Softmax, nn.Softmax, size, {}, {"dim": -1}) for size in (VECTORS, SEQUENCES, IMAGES)),
    Case(dropout.Dropout, nn.Dropout, IMAGES, {"p": 0.0}),
    Case(dropout.Dropout, nn.Dropout, IMAGES, {"p": 0.4}, modes=(False,)),
    Case(shape.Flatten, nn.Flatten, IMAGES),
    Case(shape.Reshape, nn.Unflatten, (2, 12), {"shape": [3, 4]}, {"dim": 1, "unflattened_size": (3, 4)}),
]

NO_COUNTERPART = {"Residual", "Concat", "Add", "Recompute", "AuxiliaryHead", "Block", "BasicBlock"}
"""Layers made of layers: torch.nn leaves these to plain code."""


def main(names: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        rows = [*layer_rows(), *loss_rows(), *optimizer_rows()]
    forgotten = catalogue() - {name for name, _, _, _ in rows} - NO_COUNTERPART
    wanted = [row for row in rows if not names or row[0] in names]
    print(f"{'entry':<18}{'options tried':>14}{'worst output':>15}{'worst gradient':>16}")
    failed = False
    for name, tried, output, gradient in wanted:
        bad = not max(output, gradient) <= BAR
        failed |= bad
        shown = "-" if math.isinf(-gradient) else f"{gradient:.1e}"
        print(f"{name:<18}{tried:>14}{output:>15.1e}{shown:>16}{'   above ' + str(BAR) if bad else ''}")
    for name in sorted(forgotten):
        print(f"{name:<18}{'not compared':>14}")
    unknown = sorted(set(names) - {row[0] for row in rows})
    if unknown:
        print(f"unknown: {', '.join(unknown)}", file=sys.stderr)
    return int(failed or bool(forgotten) or bool(unknown))


def catalogue() -> set[str]:
    """The names of every layer in layernet.layers, every loss and every optimizer."""
    modules = [
        importlib.import_module(f"layernet.layers.{info.name}")
        for info in pkgutil.iter_modules(layernet.layers.__path__)
    ]
    bases = {Layer: modules, losses.Loss: [losses], optimizers.Optimizer: [optimizers]}
    return {
        name
        for base, rooms in bases.items()
        for room in rooms
        for name, value in vars(room).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
        if value.__module__ == room.__name__ and not name.startswith("_")
    }


Row = tuple[str, int, float, float]


def gather(found: Iterator[tuple[str, Errors]]) -> list[Row]:
    """One row an entry: how many option sets were tried, and the worst of them."""
    rows: dict[str, Row] = {}
    for name, (output, gradient) in found:
        _, tried, worst_output, worst_gradient = rows.get(name, (name, 0, 0.0, -math.inf))
        rows[name] = (name, tried + 1, worst(worst_output, output), worst(worst_gradient, gradient))
    return list(rows.values())


def worst(*errors: float) -> float:
    """The largest, and NaN where one is."""
    return math.nan if any(math.isnan(error) for error in errors) else max(errors)


def difference(ours: Any, theirs: torch.Tensor) -> float:
    expected = theirs.detach().numpy()
    got = np.asarray(ours)
    if got.shape != expected.shape:
        raise SystemExit(f"shapes differ: ours {got.shape}, torch's {expected.shape}")
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def layer_rows() -> list[Row]:
    def errors() -> Iterator[tuple[str, Errors]]:
        for number, case in enumerate(LAYERS):
            for training in case.modes:
                layer = case.ours(**case.options)
                yield type(layer).__name__, compare_layer(case, layer, training, seed=number)

    return gather(errors())


def compare_layer(case: Case, layer: Layer, training: bool, seed: int) -> Errors:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=case.shape)
    net = Net([layer], case.shape[1:]).bind("cpu", "float64")
    module = case.theirs(**(case.options if case.their_options is None else case.their_options)).double()
    module.train(training)
    mine = {path.rpartition(".")[2]: tensor for path, tensor in (net.params() | net.buffers()).items()}
    other = {name: tensor for name, tensor in module.state_dict().items() if name != "num_batches_tracked"}
    if mine.keys() != other.keys():
        raise SystemExit(f"{type(layer).__name__}: ours has {sorted(mine)}, torch's {sorted(other)}")
    for name, tensor in mine.items():
        tensor.data[...] = rng.uniform(0.5, 1.5, tensor.shape) * (1 if "var" in name else rng.choice([-1, 1]))
        other[name].copy_(to_theirs(tensor.data, tensor.data.ndim > 2))
    tape = net.forward(x, training=training, needs_input_grad=True)
    tx = to_theirs(x, case.channels_first).requires_grad_()
    ty = module(tx)
    y = tape.output
    first = case.channels_first and y.ndim > 2
    outputs = [difference(to_theirs(y, first), ty)]
    dy = rng.normal(size=y.shape)
    dx = net.backward(tape, dy)
    ty.backward(to_theirs(dy, first))
    gradients = [difference(to_theirs(dx, case.channels_first), tx.grad)]
    for name, parameter in module.named_parameters():
        ours = net.params()[mine[name].path].grad
        gradients.append(difference(to_theirs(ours, ours.ndim > 2), parameter.grad))
    outputs += [difference(mine[name].data, tensor) for name, tensor in module.named_buffers() if name in mine]
    return worst(*outputs), worst(*gradients)


def to_theirs(array: Any, channels_first: bool) -> torch.Tensor:
    """A copy as a tensor; with `channels_first`, the last axis becomes the second."""
    tensor = torch.tensor(np.asarray(array))
    return tensor.movedim(-1, 1).contiguous() if channels_first else tensor


def loss_rows() -> list[Row]:
    def errors() -> Iterator[tuple[str, Errors]]:
        rng = np.random.default_rng(0)
        for size in ((6, 4), (3, 2, 5), (2, 3, 4, 3)):
            weights = list(rng.uniform(0.2, 2.0, size[-1]))
            z, unit = rng.normal(size=size) * 3, rng.uniform(size=size)
            labels = rng.integers(0, size[-1], size[:-1])
            some = np.where(rng.uniform(size=labels.shape) < 0.3, -100, labels)
            some.flat[0] = 0
            soft = rng.dirichlet(np.ones(size[-1]), size[:-1])
            for target in (labels, some, soft):
                for smoothing in (0.0, 0.1):
                    for weight in (None, weights):
                        yield (
                            "CrossEntropy",
                            compare_loss(
                                losses.CrossEntropy(smoothing, weight),
                                nn.CrossEntropyLoss(tensor_or_none(weight), label_smoothing=smoothing),
                                z,
                                target,
                                channels_first=True,
                            ),
                        )
            for weight in (None, weights):
                theirs = nn.BCEWithLogitsLoss(pos_weight=tensor_or_none(weight))
                yield "BCEWithLogits", compare_loss(losses.BCEWithLogits(weight), theirs, z, unit)
            yield "MSE", compare_loss(losses.MSE(), nn.MSELoss(), z, unit)
            yield "L1", compare_loss(losses.L1(), nn.L1Loss(), z, unit)
        for penalty, formula in (
            (losses.L2Penalty(), lambda w: 0.5 * (w * w).sum()),
            (losses.L1Penalty(), lambda w: w.abs().sum()),
        ):
            yield type(penalty).__name__, compare_penalty(penalty, formula)

    return gather(errors())


def tensor_or_none(values: list[float] | None) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def compare_loss(ours: losses.Loss, theirs: nn.Module, z: Any, target: Any, channels_first: bool = False) -> Errors:
    tz = torch.tensor(z, requires_grad=True)
    tt = torch.tensor(target)
    if channels_first:
        expected = theirs(tz.movedim(-1, 1), tt.movedim(-1, 1) if target.dtype.kind == "f" else tt)
    else:
        expected = theirs(tz, tt)
    expected.backward()
    value, dz = ours(z, target)
    return difference(value, expected), difference(dz, tz.grad)


def compare_penalty(penalty: losses.Penalty, formula: Callable[[torch.Tensor], torch.Tensor]) -> Errors:
    net = Net([linear.Linear(4)], (5,)).bind("cpu", "float64")
    (param,) = penalty.select(net)
    tw = torch.tensor(param.data, requires_grad=True)
    expected = formula(tw)
    expected.backward()
    ctx = Context(Tape(get_device("cpu"), "float64"))
    penalty.backward([param], 1.0, ctx)
    return difference(penalty.forward([param], ctx), expected), difference(param.grad, tw.grad)


def optimizer_rows() -> list[Row]:
    adams = [{}, {"weight_decay": 0.1}, {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.2}]
    table: list[tuple[type[optimizers.Optimizer], list[dict[str, Any]]]] = [
        (
            optimizers.SGD,
            [
                {"lr": 0.05, "weight_decay": decay, **options}
                for decay in (0.0, 0.1)
                for options in (
                    {},
                    {"momentum": 0.9},
                    {"momentum": 0.9, "dampening": 0.3},
                    {"momentum": 0.9, "nesterov": True},
                )
            ],
        ),
        (optimizers.Adam, adams),
        (optimizers.AdamW, adams),
    ]

    def errors() -> Iterator[tuple[str, Errors]]:
        for cls, option_sets in table:
            for options in option_sets:
                yield (
                    cls.__name__,
                    (compare_optimizer(cls(**options), getattr(torch.optim, cls.__name__), options), -math.inf),
                )

    return gather(errors())


def compare_optimizer(ours: optimizers.Optimizer, theirs: Callable[..., Any], options: dict[str, Any]) -> float:
    """The worst difference of any parameter after any of the steps, under random gradients and a changing factor."""
    net = Net([linear.Linear(6), norm.LayerNorm(), linear.Linear(4)], (5,)).bind("cpu", "float64")
    ours.attach(net)
    tensors = {path: torch.tensor(param.data, requires_grad=True) for path, param in net.params().items()}
    decay = ours.weight_decay
    groups = [
        {"params": [tensors[path]], "weight_decay": decay * param.decay_mult} for path, param in net.params().items()
    ]
    other = theirs(groups, **options)
    rng = np.random.default_rng(0)
    errors = []
    for step in range(STEPS):
        factor = float(rng.uniform(0.1, 1.0))
        net.zero_grad()
        for path, param in net.params().items():
            gradient = rng.normal(size=param.shape)
            param.grad[...] = gradient
            param.has_grad = True
            tensors[path].grad = torch.tensor(gradient)
        for group in other.param_groups:
            group["lr"] = ours.lr * factor
        ours.step(factor, step)
        other.step()
        errors += [difference(param.data, tensors[path]) for path, param in net.params().items()]
    return worst(*errors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
