"""Passes of a net for a check: the same randomness in every one, statistics left alone, nothing done twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from layernet.backend import Array
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.testing.sampling import projection, stream

STEP = 0
"""Every pass of a check has this step, so that Dropout draws one mask for all of them."""


class Runner:
    """Runs a net forward on one input, from its beginning or from one of the `steps` of its chain.

    What the steps before it give is kept from a first run: changing a parameter changes nothing before its layer. The
    kept inputs are used only where they lead to the very output of `net.forward`.
    """

    def __init__(self, net: Net, x: Array, training: bool) -> None:
        self.net = net
        self.x = x
        self.training = training
        self._planned = net.steps(inference=not training)
        self.steps: Sequence[Layer] = self._planned.get(net.root, net.layers)
        """The layers of the net, or what its plan runs in their place."""
        self._inputs: list[Array] = []
        self._emitted: list[dict[str, Array]] = []
        whole, pieces = self.run(), self._run_from(0, keep=True)
        if not all(bool((pieces.outputs[name] == y).all()) for name, y in whole.outputs.items()):
            self._inputs = []

    def run(self, start: int = 0) -> Tape:
        """A pass that keeps nothing for backward. Steps before `start` must give what they gave at first."""
        if start and self._inputs:
            return self._run_from(start)
        return self.net.forward(self.x, training=self.training, step=STEP, recording=False)

    def record(self, needs_input_grad: bool) -> Tape:
        """A pass that backward can follow."""
        return self.net.forward(self.x, training=self.training, step=STEP, needs_input_grad=needs_input_grad)

    def output_of(self, index: int) -> Array:
        """What a step gives."""
        tape = self._run_from(0, keep=True)
        return self._inputs[index + 1] if index + 1 < len(self.steps) else tape.output

    def first_use(self, param: Param) -> int:
        """The index of the first step that uses the parameter."""
        for index, step in enumerate(self.steps):
            if any(param is other for other in step.params().values()):
                return index
        return 0

    def _run_from(self, start: int, keep: bool = False) -> Tape:
        net = self.net
        if keep:
            self._inputs, self._emitted = [], []
        tape = Tape(net.device, net.dtype, self.training, False, net.seed, STEP, steps=self._planned)
        # the contexts of Net.forward and Sequential.forward, so that randomness has the same keys
        chain = Context(tape, net.root, False, False, Context(tape, None, False, False))
        with net.device.activate():
            y = self.x if keep else self._inputs[start]
            tape.outputs.update({} if keep else self._emitted[start])
            for step in self.steps[start:]:
                if keep:
                    self._inputs.append(y)
                    self._emitted.append(dict(tape.outputs))
                y, _ = chain.call(step, y)
        tape.outputs["output"] = y
        return tape


@contextmanager
def lively(net: Net, x: Array, seed: int) -> Iterator[None]:
    """Within it, no parameter is constant and the running statistics are those of data; then all is put back.

    A gain that is 1 everywhere, a bias of 0, a variance of 1 would hide a backward that forgets them.
    """
    kept = [(tensor, tensor.data.copy()) for tensor in (*net.params().values(), *net.buffers().values())]
    try:
        for path, param in net.params().items():
            values = net.device.to_numpy(param.data).copy()
            if values.size and (values == values.flat[0]).all():
                moved = _moved(values, seed, path)
                param.data[...] = net.device.asarray(moved, net.dtype)
                if abs(values).max() <= 1:
                    _turn_some(net, param, x, net.device.asarray(moved * _signs(param.shape), net.dtype))
        net.forward(x, training=True, step=STEP, recording=False).update_buffers()
        yield
    finally:
        for tensor, values in kept:
            tensor.data[...] = values


def _moved(values: np.ndarray[Any, Any], seed: int, path: str) -> np.ndarray[Any, Any]:
    """About the values, and all different."""
    wobble = projection(values.shape, stream(seed, "wobble", path))
    other = projection(values.shape, stream(seed, "wobble", path, "shift"))
    return np.asarray(values * (1 + wobble / 4) + other / 8)


def _signs(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Every second value -1: a gain is not always positive."""
    return np.resize(np.array([1.0, -1.0]), shape)


def _turn_some(net: Net, param: Param, x: Array, turned: Array) -> None:
    """Turn the sign of some values, unless the outputs are not finite then: the layer takes a root or a logarithm."""
    kept = param.data.copy()
    param.data[...] = turned
    for training in (True, False):
        outputs = net.forward(x, training=training, step=STEP, recording=False).outputs.values()
        if not all(bool(net.device.xp.isfinite(y).all()) for y in outputs):
            param.data[...] = kept


def positions(net: Net, batch: int) -> dict[str, int]:
    """Counts that a gradient may be wrong by, with their names: what N, H W and the like are here."""
    counts = {"N, the batch size": batch}
    for shape in (net.input_shape, net.output_shape):
        counts.setdefault("the number of positions", math.prod(shape[:-1]))
        counts.setdefault("N times the number of positions", batch * math.prod(shape[:-1]))
        counts.setdefault("the number of features", shape[-1] if shape else 1)
        counts.setdefault("the size of the input", batch * math.prod(shape))
    return counts


def host(array: Array, net: Net) -> np.ndarray[Any, Any]:
    """A float64 copy on the host."""
    return np.array(net.device.to_numpy(array), dtype="float64")
