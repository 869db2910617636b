"""A quick look at whether a processor's kernels compute what the reference does: one small case of each family.

Tests hold every kernel to a bound, on shapes of all kinds; this is for a machine where something may be broken: a
compiler, a cache, a library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from layernet.backend.device import Device
from layernet.backend.ops import Ops
from layernet.backend.reference.local_norm import Neighbourhood
from layernet.backend.window import Window
from layernet.testing.sampling import HostArray, stream

Numbers: TypeAlias = Callable[..., Any]
"""(*shape) -> an array of normal random numbers where the kernels want it, in their type; the next call, others."""

Results: TypeAlias = Sequence[Any]

_TOLERANCE = 1e-4
"""Of the largest value: what is wrong with a kernel is larger by far, what rounding does smaller."""


def check_kernels(device: Device) -> dict[str, str]:
    """What each family of the device's kernels does: `ok`, or `WRONG` with what was found.

    One thread does it, but for ALL_THREADS: on a busy machine every launch of several waits for each one's turn.
    """
    found = {}
    for name in FAMILIES:
        with device.limited(None if name == ALL_THREADS else 1):
            found[name] = _verdict(device, name)
    return found


def _verdict(device: Device, name: str) -> str:
    wanted = FAMILIES[name](Ops(np), _numbers(name, lambda values: values.astype(np.float64)))
    try:
        with device.activate():
            found = FAMILIES[name](device.ops, _numbers(name, device.asarray))
            worst = max(_distance(device.to_numpy(a), b) for a, b in zip(found, wanted, strict=True))
    except Exception as error:  # whatever it is that is broken, the families after it are looked at, too
        return f"WRONG: {type(error).__name__}: {error}"
    return "ok" if worst <= _TOLERANCE else f"WRONG: differs by {worst:.1e} of its scale"


def _numbers(name: str, place: Callable[[HostArray], Any]) -> Numbers:
    rng = stream(0, f"kernels: {name}")
    return lambda *shape: place(np.asarray(rng.normal(shape), dtype=np.float32))


def _distance(found: HostArray, wanted: HostArray) -> float:
    """The largest difference, as a share of the largest value; infinite where one is no number or not there."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return np.inf
    scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
    return float(np.max(np.abs(np.subtract(found, wanted, dtype=np.float64)), initial=0.0)) / scale


def _pair(
    name: str, *shapes: tuple[int, ...] | None, also: Results = (), **needs: bool
) -> Callable[[Any, Numbers], Results]:
    """Forward and backward of a pair of kernels, on arrays of these shapes and then on what is in `also`.

    `needs`: which gradients are asked for, as the backward takes it.
    """

    def run(ops: Any, numbers: Numbers) -> Results:
        y, *between, res = getattr(ops, name)(*(shape and numbers(*shape) for shape in shapes), *also)
        back = getattr(ops, f"{name}_backward")(numbers(*y.shape), res, **needs)
        gradients = back if isinstance(back, tuple) else [back]
        return [y, *between, *(gradient for gradient in gradients if gradient is not None)]

    return run


def _all(*runs: Callable[[Any, Numbers], Results]) -> Callable[[Any, Numbers], Results]:
    return lambda ops, numbers: [result for run in runs for result in run(ops, numbers)]


def _norm_of_residual(ops: Any, numbers: Numbers) -> Results:
    x, shortcut = numbers(3, 5, 4, 21), numbers(3, 5, 4, 21)
    y, mean, var, res = ops.batch_norm_relu(x, numbers(21), numbers(21), 1e-5, shortcut)
    return [y, mean, var, *ops.batch_norm_relu_backward(numbers(3, 5, 4, 21), res)]


def _norm_in_evaluation(ops: Any, numbers: Numbers) -> Results:
    x, mean, var, weight, bias = numbers(3, 5, 4, 21), numbers(21), abs(numbers(21)), numbers(21), numbers(21)
    y, res = ops.batch_norm_given_relu(x, mean, var, weight, bias, 1e-2, numbers(3, 5, 4, 21))
    folded = ops.fold_norm(numbers(21, 3, 3, 5), None, mean, var, weight, bias, 1e-2)
    return [y, *ops.batch_norm_given_relu_backward(numbers(3, 5, 4, 21), res), *folded]


def _cross_entropy(ops: Any, numbers: Numbers) -> Results:
    logits = numbers(7, 19)
    (loss, count), res = ops.cross_entropy(logits, ops.xp.arange(7))
    return [loss, count, ops.cross_entropy_backward(res)]


def _soft_losses(ops: Any, numbers: Numbers) -> Results:
    losses, res = ops.soft_cross_entropy(numbers(7, 19), numbers(7, 19))
    total, binary = ops.binary_cross_entropy(numbers(7, 19), numbers(7, 19), numbers(19))
    back = [ops.soft_cross_entropy_backward(res), ops.binary_cross_entropy_backward(binary)]
    return [losses, ops.xp.asarray(total), *back]


def _table(ops: Any, numbers: Numbers) -> Results:
    y, res = ops.embedding(ops.xp.arange(14) % 5, numbers(5, 21))
    return [y, ops.embedding_backward(numbers(14, 21), res)]


def _updates(ops: Any, numbers: Numbers) -> Results:
    w, g, v, m, squares = (numbers(37) for _ in range(5))
    ops.sgd_update(w, g, v, lr=0.1, decay=0.01, momentum=0.9, gain=1.0, nesterov=True)
    squares *= squares
    ops.adam_update(m, g, v, squares, lr=0.1, betas=(0.9, 0.99), eps=1e-8, t=3, decay=0.01, shrink=0.99)
    other, total, average = numbers(37), numbers(37), numbers(37)
    total *= total
    ops.adagrad_update(other, g, total, lr=0.1, decay=0.01, eps=1e-8)
    ops.average_update(average, w, 0.1)
    return [w, v, m, squares, other, total, average]


def _random(ops: Any, numbers: Numbers) -> Results:
    x = numbers(9, 21)
    return [ops.random_words((2**63 + 1, 5), 3, 4099), ops.drop(x, x > 0, 2.0)]


def _sums(ops: Any, numbers: Numbers) -> Results:
    a, b = numbers(9, 21), numbers(9, 21)
    return [ops.add(a, b), ops.channel_sum(a), ops.concat([a, b]), *ops.cut(a, [4, 17])]


def _resampled(ops: Any, numbers: Numbers) -> Results:
    x, rows, columns = numbers(2, 7, 6, 21), numbers(5, 7), numbers(9, 6)
    y, res = ops.resample2d(x, rows, columns)
    taken, source = ops.sample2d(x, ops.xp.arange(14) // 2, ops.xp.arange(6))
    return [
        y, ops.resample2d_backward(numbers(*y.shape), res),
        taken, ops.sample2d_backward(numbers(*taken.shape), source),
    ]  # fmt: skip


def _same(size: int) -> Window:
    return Window((size, size), padding=((size // 2, size // 2),) * 2)


_HALF = Window((3, 3), (2, 2))

ALL_THREADS = "convolution on all threads"
"""The family that tries how work is shared out."""

FAMILIES: dict[str, Callable[[Any, Numbers], Results]] = {
    "convolution": _all(
        _pair("conv2d_relu", (2, 9, 7, 3), (21, 3, 3, 3), (21,), also=[_HALF]),  # of few places: through columns
        _pair("conv2d", (2, 17, 15, 3), (21, 3, 3, 3), (21,), also=[_HALF]),
        _pair(
            "conv2d_max_pool2d", (2, 17, 15, 3), (21, 3, 3, 3), (21,), also=[_same(3), 1, _HALF, True], need_dx=False
        ),
    ),
    "convolution 3x3": _all(
        _pair("conv2d", (2, 9, 7, 17), (21, 3, 3, 17), (21,), also=[_same(3)]),  # too few for Winograd's filtering
        _pair("conv2d", (3, 17, 15, 32), (32, 3, 3, 32), (32,), also=[_same(3)]),  # numpy's wants as many, too
    ),
    "convolution 5x5": _pair("conv2d", (2, 17, 15, 17), (21, 5, 5, 17), (21,), also=[_same(5)]),
    "depthwise": _pair("conv2d", (2, 9, 7, 21), (21, 3, 3, 1), (21,), also=[_same(3), 21]),
    "grouped": _all(
        _pair("conv2d", (2, 9, 7, 6), (4, 3, 3, 3), (4,), also=[_HALF, 2]),
        _pair("conv2d", (2, 9, 7, 21), (57, 1, 1, 7), (57,), also=[Window((1, 1)), 3]),
        _pair("conv2d", (2, 9, 7, 34), (38, 3, 3, 17), (38,), also=[_same(3), 2]),
    ),
    "dilated": _pair("conv2d", (2, 11, 9, 17), (21, 3, 3, 17), (21,), also=[Window((3, 3), dilation=(2, 3))]),
    "products": _all(
        _pair("linear", (70, 37), (21, 37), (21,)),
        _pair("linear_relu", (5, 37), (21, 37), (21,)),
        _pair("linear", (1, 37), (21, 37), None),
    ),
    "batch norm": _all(
        _pair("batch_norm", (3, 5, 4, 21), (21,), (21,), also=[1e-5]), _norm_of_residual, _norm_in_evaluation
    ),
    "layer norm": _all(
        _pair("layer_norm", (9, 21), (21,), (21,), also=[1e-5]), _pair("rms_norm", (9, 21), (21,), also=[1e-5])
    ),
    "group norm": _pair("group_norm", (3, 5, 4, 21), also=[7, None, None, 1e-5]),
    "local norm": _pair("local_response_norm", (2, 3, 4, 21), also=[Neighbourhood(5, (3,)), 0.5, 0.75, 2.0]),
    "pooling": _all(
        _pair("max_pool2d", (2, 7, 6, 21), also=[_HALF]),
        _pair("avg_pool2d", (2, 7, 6, 21), also=[_HALF, 9.0]),
        _pair("global_avg_pool2d", (2, 7, 6, 21)),
        _pair("peak_pool2d", (2, 7, 6, 21), also=[_HALF, "max_abs", "first"]),
        _pair("peak_pool2d", (2, 7, 6, 21), also=[_HALF, "max", "all"]),
        _pair("span_max_pool2d", (2, 7, 6, 21), also=[((0, 4), (3, 7)), ((0, 6),)]),
    ),
    "resampling": _resampled,
    "activations": _all(
        _pair("relu", (3, 37)),
        _pair("leaky_relu", (3, 37), also=[0.1]),
        _pair("sigmoid", (3, 37)),
        _pair("tanh", (3, 37)),
        _pair("silu", (3, 37)),
        _pair("gelu", (3, 37), also=["none"]),
        _pair("glu", (3, 38)),
        _pair("elu", (3, 37), also=[1.0, 1.0]),
        _pair("mish", (3, 37)),
        _pair("prelu", (3, 37), (37,)),
    ),
    "softmax and loss": _all(_pair("softmax", (7, 19)), _pair("log_softmax", (7, 19)), _cross_entropy, _soft_losses),
    "embedding": _table,
    "sums": _sums,
    "updates": _updates,
    "random numbers": _random,
    ALL_THREADS: _pair(
        "conv2d", (16, 16, 16, 32), (32, 3, 3, 32), (32,), also=[_same(3)]
    ),  # enough for nine of numpy's
}
"""One run of each: what it computes from these numbers."""


def wrong(verdicts: dict[str, str]) -> Iterator[str]:
    """The families that are not ok, with what was found."""
    yield from (f"kernels for {name}: {verdict}" for name, verdict in verdicts.items() if verdict != "ok")
