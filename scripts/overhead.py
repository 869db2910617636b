"""What the framework itself costs: microseconds a layer and pass, over calling the layers' formulas by hand.

    python scripts/overhead.py [--layers 100] [--repeats 200]
    python scripts/overhead.py --config scripts/bench/lenet.yaml [--kernels numba]

A net of layers that do nothing runs forward and backward; the same layers' methods are called in a bare loop with one
context. The difference is contexts, tapes, dispatch and shape checks. Medians of interleaved repeats.

With --config, training steps of that config: how much of a step is spent outside the named kernels, the optimizer and
the search for numbers that are not finite. That is contexts, plan, tape, checks, sums for the log, and arrays that are
freed. Steps that are watched take turns with steps that are not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.train import trainer


class Nothing(Layer):
    """y = x, saving it as a layer would."""

    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return x

    def backward(self, dy: Array, ctx: Context) -> Array:
        (_,) = ctx.saved
        return dy


def measure(layers: int, repeats: int) -> dict[str, float]:
    """Microseconds a layer of each kind of pass, the bare calls taken off."""
    x = np.zeros((2, 4), dtype="float32")
    net = Net([Nothing() for _ in range(layers)], (4,)).bind("cpu")
    # a pass through layers without parameters has no backward work unless the input's gradient is asked for
    context = Context(Tape(host(), "float32"))
    tape = None

    def forward() -> None:
        nonlocal tape
        tape = net.forward(x, training=True, needs_input_grad=True)

    def backward() -> None:
        assert tape is not None
        net.backward(tape, x)

    def bare_forward() -> None:
        for layer in net.layers:
            layer.forward(x, context)

    def bare_backward() -> None:
        for layer in net.layers:
            layer.backward(x, context)

    passes: dict[str, Callable[[], object]] = {
        "forward": forward,
        "backward": backward,
        "predict": lambda: net.predict(x),
        "bare forward": bare_forward,
        "bare backward": bare_backward,
    }
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(repeats):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    cost = {name: median(found) * 1e6 / layers for name, found in times.items()}
    return {
        "forward": cost["forward"] - cost["bare forward"],
        "backward": cost["backward"] - cost["bare backward"],
        "predict": cost["predict"] - cost["bare forward"],
    }


class Watched:
    """Kernels that note how long they take."""

    def __init__(self, ops: Any) -> None:
        self.ops, self.seconds = ops, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.ops, name)
        if not callable(found) or name == "xp":
            return found
        self.__dict__[name] = call = self.watch(found)
        return call

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to `seconds`."""

        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                self.seconds += time.perf_counter() - start

        return call


def outside(config: str, kernels: str, repeats: int) -> tuple[float, float]:
    """(seconds of a training step, seconds of it spent outside kernels), medians over steps."""
    from bench.ours import Job  # beside this file: found where it is run as a script

    job = Job({"config": config, "kernels": kernels, "kind": "train"})
    device, optimizer = job.net.device, job.trainer.optimizer
    watched = Watched(device.ops)
    plain = device.ops, optimizer.step, trainer.is_finite
    noting = watched, watched.watch(optimizer.step), watched.watch(trainer.is_finite)
    steps: list[float] = []
    rest: list[float] = []
    for repeat in range(-3, repeats):  # the first ones compile and allocate
        for parts in (plain, noting):
            object.__setattr__(device, "ops", parts[0])
            optimizer.step, trainer.is_finite = parts[1:]
            for _ in range(10):
                watched.seconds, start = 0.0, time.perf_counter()
                job.train()
                seconds = time.perf_counter() - start
                if repeat >= 0 and parts is plain:
                    steps.append(seconds)
                elif repeat >= 0:
                    rest.append(seconds - watched.seconds)
    return median(steps), median(rest)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--config", help="training steps of this config instead")
    parser.add_argument("--kernels", default="auto")
    args = parser.parse_args(argv)
    if args.config:
        step, rest = outside(args.config, args.kernels, args.repeats)
        print(
            f"a step takes {1e3 * step:.3f} ms, {1e3 * rest:.3f} ms of it ({100 * rest / step:.1f} %) outside kernels"
        )
        return 0
    for name, cost in measure(args.layers, args.repeats).items():
        print(f"{name:9} {cost:6.2f} us a layer over bare calls ({args.layers} layers, median of {args.repeats})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
