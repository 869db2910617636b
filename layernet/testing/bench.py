"""Passes through one layer with full control over the arrays: what the contract rules are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import Device, host
from layernet.backend.random import Stream, key_of
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.testing.sampling import input_for, projection

Result = dict[str, np.ndarray[Any, Any]]
"""What a pass computed: `y`, `dx` where it was asked for, and the parameter gradients by path; on the host."""


class Broken(Exception):
    """A promise of the contract that a layer does not keep."""


class Bench:
    """A layer in a net of its own, and passes through it as a net would run them, but on arrays of our choice."""

    def __init__(
        self,
        layer: Layer,
        shape: Shape,
        *,
        dtype: str = "float64",
        seed: int = 0,
        device: Device | None = None,
        plan: bool = True,
    ) -> None:
        self.net = Net([layer.named("layer")], shape, plan=plan).bind(device or host(), dtype, seed)
        self.layer = self.net.layers[0]
        self.seed = seed
        self.takes_integers = self.layer.reader.integer_input
        """Whether the layer, or the first one in it, takes integers: there is no gradient of its input then."""
        for path, param in self.net.params().items():  # away from the initial zeros and ones, where mistakes hide
            param.data[...] = param.data + self.place(self.rng("unsettle", path).normal(param.shape, std=0.1))

    def rng(self, *key: int | str) -> Stream:
        """Random numbers for the bench, on the host."""
        return Stream(key_of(self.seed, "contract", *key), host().ops, "float64")

    def place(self, value: Any) -> Array:
        """A host array in the net's type, on its device."""
        return self.net.device.asarray(value, self.net.dtype)

    def input(self, n: int, number: int = 0) -> Array:
        """A batch of n examples without ties, or of integers where the layer takes them."""
        x = input_for(self.layer, n, self.layer.in_shape, self.rng("input", number))
        return self.net.device.asarray(x) if self.takes_integers else self.place(x)

    def output_grad(self, n: int, number: int = 0) -> Array:
        """A gradient for the outputs of n examples."""
        return self.place(projection((n, *self.layer.out_shape), self.rng("dy", number)))

    def modes(self, n: int) -> tuple[bool, ...]:
        """The values of `training` that a batch of n examples can be run with."""
        return (False,) if n == 1 and self.batch_dependent else (True, False)

    @property
    def batch_dependent(self) -> bool:
        """Whether the layer, or one in it, declares that a training output depends on the other examples."""
        return any(layer.batch_dependent for _, layer in self.layer.walk())

    def forward(
        self, x: Array, training: bool, *, step: int = 0, recording: bool = True, needs_input_grad: bool = True
    ) -> tuple[Array, Context]:
        """One forward: the output and the call, which `backward` takes."""
        steps = self.net.steps(inference=not training and not recording)
        tape = Tape(self.net.device, self.net.dtype, training, recording, self.net.seed, step, steps=steps)
        needs_input_grad = needs_input_grad and not self.takes_integers
        top = Context(tape, None, needs_input_grad, recording)
        return top.call(self.layer, x, needs_input_grad=needs_input_grad)

    def backward(self, call: Context, dy: Array, *, emitted: float = 1.0) -> Array | None:
        """The backward of a call. What it emitted has gradients too: `emitted` times the same for every example."""
        tape = call.tape
        tape.output_grads = {
            name: self.place(np.broadcast_to(emitted * projection(y.shape[1:], self.rng("emitted", name)), y.shape))
            for name, y in tape.outputs.items()
        }
        return Context(tape).backward(call, dy)

    def run(
        self,
        x: Array,
        dy: Array,
        training: bool,
        *,
        step: int = 0,
        needs_input_grad: bool = True,
        emitted: float = 1.0,
    ) -> Result:
        """A whole pass on fresh gradients."""
        self.net.zero_grad()
        y, call = self.forward(x, training, step=step, needs_input_grad=needs_input_grad)
        outputs = {"y": self.host(y), **{f"output {name}": self.host(v) for name, v in call.tape.outputs.items()}}
        return {**outputs, **self.result(outputs["y"], self.backward(call, dy, emitted=emitted))}

    def result(self, y: Array, dx: Array | None) -> Result:
        """Copies of what a pass computed."""
        found = {"y": self.host(y)} if dx is None else {"y": self.host(y), "dx": self.host(dx)}
        return {**found, **self.grads()}

    def grads(self) -> Result:
        """Copies of the parameter gradients."""
        return {path: self.host(param.grad) for path, param in self.net.params().items()}

    def freeze(self, paths: Sequence[str], frozen: bool = True) -> None:
        """Freeze these parameters, and the statistics that are frozen with them."""
        params = self.net.params()
        for path in paths:
            params[path]._frozen = frozen
        self.net.freeze(paths[-1], frozen)  # looks at the whole net, which takes longer than a pass

    def host(self, array: Array) -> np.ndarray[Any, Any]:
        """A copy on the host."""
        return np.array(self.net.device.to_numpy(array))


class Subject:
    """The layer under test: makes benches of new instances of it, on `device` (the host) in float type `dtype`, in nets
    with a plan or without."""

    def __init__(
        self,
        layer: Layer,
        shape: Shape,
        seed: int = 0,
        batch: int = 3,
        *,
        device: Device | None = None,
        dtype: str = "float64",
        plan: bool = True,
    ) -> None:
        self.original = layer
        self.shape = tuple(shape)
        self.seed = seed
        self.batch = batch
        self.device = device
        self.dtype = dtype
        self.plan = plan

    def bench(self, dtype: str | None = None, wrap: Callable[[Layer], Layer] = lambda layer: layer) -> Bench:
        """A bench with a new instance of the layer, inside `wrap` of it."""
        return self.bench_of(wrap(self.original.clone()), dtype)

    def bench_of(self, layer: Layer, dtype: str | None = None) -> Bench:
        """A bench with this very layer."""
        return Bench(layer, self.shape, dtype=dtype or self.dtype, seed=self.seed, device=self.device, plan=self.plan)


def close(found: Result, expected: Result, what: str, tolerance: float | None = None) -> None:
    """Raise Broken where two results differ by more than `tolerance` of the scale of the values.

    None stands for rounding: 1e-10, or 1e-5 where the values are of float32.

    An array's scale is its largest value, and at least a twentieth of the largest value of all: a gradient that is zero
    but for rounding (that of a bias before BatchNorm) is as uncertain as the terms that cancel in it.
    """
    if tolerance is None:
        tolerance = 1e-5 if any(array.dtype == np.float32 for array in expected.values()) else 1e-10
    least = max(1e-3, 0.05 * max((float(np.abs(array).max(initial=0.0)) for array in expected.values()), default=0.0))
    for name, wanted in expected.items():
        if name not in found:
            raise Broken(f"{what}: there is no {name}")
        scale = max(float(np.abs(wanted).max(initial=0.0)), least)
        error = float(np.abs(found[name] - wanted).max(initial=0.0)) / scale
        if not error <= tolerance:
            raise Broken(f"{what}: {name} differs by {error:.1e} of its scale")
