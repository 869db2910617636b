"""What the framework itself costs: microseconds a layer and pass, over calling the layers' formulas by hand.

    python scripts/overhead.py [--layers 100] [--repeats 200]

A net of layers that do nothing runs forward and backward; the same layers' methods are called in a bare loop with one
context. The difference is contexts, tapes, dispatch and shape checks. Medians of interleaved repeats.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from layernet.backend import Array
from layernet.backend.device import host
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net


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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args(argv)
    for name, cost in measure(args.layers, args.repeats).items():
        print(f"{name:9} {cost:6.2f} us a layer over bare calls ({args.layers} layers, median of {args.repeats})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
