"""The kernels that bench_kernels.py times, each through the one layer that calls it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import layernet as ln
from layernet.backend.device import Device
from layernet.core.context import Context, Tape

BOTH, DATA_IS_FIRST = ("forward", "dx", "dw"), ("forward", "dw")
"""Passes of convolutions and matrix products; nobody needs the gradient of the data."""

WHOLE = ("forward", "backward")


@dataclass(frozen=True)
class Case:
    """A layer on a batch."""

    name: str
    layer: Callable[[], ln.Layer]
    batch: int
    shape: tuple[int, ...]
    passes: tuple[str, ...] = WHOLE
    reads_again: bool = True
    """Whether its backward has to read as much as x again: x itself, or y."""


def _conv(name: str, n: int, size: int, ins: int, outs: int, kernel: int, padding: int, first: bool = False) -> Case:
    shown = f"conv {name} {n}x{size}x{size}, {ins} -> {outs}, {kernel}x{kernel}"
    layer = lambda: ln.Conv2d(outs, kernel, padding=padding, bias=False)  # noqa: E731
    return Case(shown, layer, n, (size, size, ins), DATA_IS_FIRST if first else BOTH)


def _linear(n: int, ins: int, outs: int) -> Case:
    return Case(f"linear {n}, {ins} -> {outs}", lambda: ln.Linear(outs, bias=False), n, (ins,), BOTH)


CASES = [
    _conv("vA", 64, 32, 64, 64, 3, 1),
    _conv("vB", 64, 16, 128, 128, 3, 1),
    _conv("vC", 64, 8, 256, 256, 3, 1),
    _conv("r1", 128, 32, 16, 16, 3, 1),
    _conv("r2", 128, 16, 32, 32, 3, 1),
    _conv("r3", 128, 8, 64, 64, 3, 1),
    _conv("rL", 32, 4, 512, 512, 3, 1),
    _conv("c1", 128, 32, 3, 32, 5, 2, first=True),
    _conv("c2", 128, 16, 32, 32, 5, 2),
    _conv("c3", 128, 8, 32, 64, 5, 2),
    _conv("v1", 64, 32, 3, 64, 3, 1, first=True),
    _conv("l1", 64, 28, 1, 20, 5, 0, first=True),
    _conv("l2", 64, 12, 20, 50, 5, 0),
    Case("conv stride 2 128x32x32, 16 -> 32, 3x3",
         lambda: ln.Conv2d(32, 3, stride=2, padding=1, bias=False), 128, (32, 32, 16), BOTH),
    Case("conv 1x1 64x16x16, 128 -> 128", lambda: ln.Conv2d(128, 1, bias=False), 64, (16, 16, 128), BOTH),
    Case("conv depthwise 64x32x32x64, 3x3",
         lambda: ln.Conv2d(64, 3, padding=1, groups=64, bias=False), 64, (32, 32, 64), BOTH),
    Case("conv transposed 64x16x16, 32 -> 32, 4x4",
         lambda: ln.ConvTranspose2d(32, 4, stride=2, padding=1, bias=False), 64, (16, 16, 32), BOTH),
    Case("local 128x8x8, 32 -> 16, 3x3", lambda: ln.Local2d(16, 3, padding=1), 128, (8, 8, 32)),
    _linear(128, 784, 1024),
    _linear(128, 1024, 1024),
    _linear(64, 800, 500),
    _linear(128, 1024, 10),
    Case("max pool 2 64x32x32x64", lambda: ln.MaxPool2d(2), 64, (32, 32, 64), reads_again=False),
    Case("max pool 3 stride 2 128x32x32x32",
         lambda: ln.MaxPool2d(3, 2, ceil_mode=True), 128, (32, 32, 32), reads_again=False),
    Case("average pool 3 stride 2 128x16x16x32",
         lambda: ln.AvgPool2d(3, 2, ceil_mode=True), 128, (16, 16, 32), reads_again=False),
    Case("global average pool 128x8x8x64", lambda: ln.GlobalAvgPool2d(), 128, (8, 8, 64), reads_again=False),
    Case("batch norm 64x32x32x64", lambda: ln.BatchNorm(), 64, (32, 32, 64)),
    Case("batch norm 128x32x32x16", lambda: ln.BatchNorm(), 128, (32, 32, 16)),
    Case("batch norm 64x8x8x256", lambda: ln.BatchNorm(), 64, (8, 8, 256)),
    Case("layer norm 128x64x256", lambda: ln.LayerNorm(), 128, (64, 256)),
    Case("group norm 64x16x16x128", lambda: ln.GroupNorm(8), 64, (16, 16, 128)),
    Case("instance norm 64x32x32x64", lambda: ln.InstanceNorm2d(affine=True), 64, (32, 32, 64)),
    Case("local response norm 5 128x16x16x32", lambda: ln.LocalResponseNorm(5), 128, (16, 16, 32)),
    Case("relu 64x32x32x64", lambda: ln.ReLU(), 64, (32, 32, 64)),
    Case("gelu 64x32x32x64", lambda: ln.GELU(), 64, (32, 32, 64)),
    Case("prelu 64x32x32x64", lambda: ln.PReLU(), 64, (32, 32, 64)),
    Case("elu 64x32x32x64", lambda: ln.ELU(), 64, (32, 32, 64)),
    Case("mish 64x32x32x64", lambda: ln.Mish(), 64, (32, 32, 64)),
    Case("glu 64x16x16x128", lambda: ln.GLU(), 64, (16, 16, 128)),
    Case("concat 64x16x16x128, twice", lambda: ln.Concat([[], []]), 64, (16, 16, 128), reads_again=False),
    Case("dropout 64x32x32x64", lambda: ln.Dropout(0.5), 64, (32, 32, 64), reads_again=False),
    Case("softmax 2048x1000", lambda: ln.Softmax(), 2048, (1000,)),
    Case("log softmax 2048x1000", lambda: ln.LogSoftmax(), 2048, (1000,)),
]  # fmt: skip

LOSSES: list[tuple[str, Callable[[], ln.Loss], int, int]] = [
    ("cross entropy 128x10", lambda: ln.CrossEntropy(), 128, 10),
    ("cross entropy 2048x1000", lambda: ln.CrossEntropy(), 2048, 1000),
    ("cross entropy, smoothing 2048x1000", lambda: ln.CrossEntropy(label_smoothing=0.1), 2048, 1000),
    ("binary cross entropy 2048x1000", lambda: ln.BCEWithLogits(), 2048, 1000),
]
"""(name, loss, rows, outputs)."""

OPTIMIZERS: list[tuple[str, Callable[[], ln.Optimizer], int]] = [
    ("SGD with momentum", lambda: ln.SGD(lr=1e-4, momentum=0.9), 5),
    ("Adam", lambda: ln.Adam(lr=1e-4), 7),
    ("Adagrad", lambda: ln.Adagrad(lr=1e-4), 5),
]
"""(name, optimizer, how many numbers it reads and writes for each parameter)."""


@dataclass(frozen=True)
class Timed:
    """A kernel's times in seconds, and the least that it has to do."""

    name: str
    what: str
    times: list[float]
    flops: int | None
    """Floating-point operations of the definition: a fast algorithm needs fewer."""
    bytes: int
    """Every input read once, every output written once."""


def all_cases(device: Device, seconds: float, only: str = "") -> Iterator[Timed]:
    """Every kernel whose name holds `only`."""
    for case in CASES:
        if only in case.name:
            yield from _layer(case, device, seconds)
    for name, make, n, classes in LOSSES:
        if only in name:
            yield _loss(name, make(), n, classes, device, seconds)
    for name, optimizer, streams in OPTIMIZERS:
        for millions in (1, 10):
            if only in (shown := f"{name} {millions} M"):
                yield _optimizer(shown, optimizer(), streams, millions, device, seconds)


def _repeated(run: Callable[[], float], seconds: float) -> list[float]:
    """What `run` says it took, for about so many seconds, five times at least."""
    run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        times.append(run())
    return times


def _layer(case: Case, device: Device, seconds: float) -> Iterator[Timed]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, *case.shape), dtype=np.float32)
    for what in case.passes:
        net = ln.Net([case.layer()], case.shape).bind(device)
        if what == "dx":
            net.freeze("*")
        multiply_adds = net.layers[0].flops(case.shape)
        y = net.forward(x, training=True).output
        dy = rng.standard_normal(y.shape, dtype=np.float32)
        run = _forward(net, x) if what == "forward" else _backward(net, x, dy, needs_input_grad=what != "dw")
        traffic = {
            "forward": x.nbytes + y.nbytes + 4 * net.size,
            "dx": x.nbytes + y.nbytes + 4 * net.size,
            "dw": x.nbytes + y.nbytes + 4 * net.size,
            "backward": x.nbytes * (2 if case.reads_again else 1) + y.nbytes + 8 * net.size,
        }[what]
        products = case.passes in (BOTH, DATA_IS_FIRST) and multiply_adds is not None
        flops = 2 * multiply_adds * case.batch if products and multiply_adds else None
        yield Timed(case.name, what, _repeated(run, seconds), flops, traffic)


def _forward(net: ln.Net, x: Any) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        tape = net.forward(x, training=True)
        took = time.perf_counter() - start
        del tape
        return took

    return run


def _backward(net: ln.Net, x: Any, dy: Any, needs_input_grad: bool) -> Callable[[], float]:
    def run() -> float:
        net.zero_grad()
        tape = net.forward(x, training=True, needs_input_grad=needs_input_grad)
        start = time.perf_counter()
        net.backward(tape, dy)
        return time.perf_counter() - start

    return run


def _loss(name: str, loss: ln.Loss, n: int, classes: int, device: Device, seconds: float) -> Timed:
    rng = np.random.default_rng(0)
    outputs: Any = rng.standard_normal((n, classes), dtype=np.float32)
    target: Any = rng.integers(0, classes, n)
    if loss.targets == "numbers":
        target = rng.integers(0, 2, (n, classes)).astype(np.float32)
    context = Context(Tape(device, "float32"))

    def run() -> float:
        start = time.perf_counter()
        loss.forward(outputs, target, context)
        loss.backward(context)
        return time.perf_counter() - start

    return Timed(name, "both", _repeated(run, seconds), None, 2 * outputs.nbytes + target.nbytes)


def _optimizer(
    name: str, optimizer: ln.Optimizer, streams: int, millions: int, device: Device, seconds: float
) -> Timed:
    width = math.isqrt(millions * 10**6)
    net = ln.Net([ln.Linear(width, bias=False)], (width,)).bind(device)
    optimizer.attach(net)
    net.backward(net.forward(np.ones((1, width), dtype=np.float32), training=True), np.ones((1, width), np.float32))
    steps = iter(range(10**9))

    def run() -> float:
        step = next(steps)
        start = time.perf_counter()
        optimizer.step(1.0, step)
        return time.perf_counter() - start

    return Timed(name, "step", _repeated(run, seconds), None, 4 * streams * net.size)
