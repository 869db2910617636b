"""A net: a chain of layers with parameters, on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Self

import numpy as np

from layernet.backend import Array, Shape, shape_of
from layernet.backend.device import Device, get_device, kernels_for
from layernet.core.context import Context, Steps, Tape, no_way_back
from layernet.core.layer import Layer, tie
from layernet.core.param import Arena, Buffer, Param, Tensor
from layernet.core.plan import plan_steps
from layernet.core.sequential import Ref, Sequential
from layernet.errors import CheckpointError, ContractError, ShapeError, UsageError, did_you_mean

Gradients = Array | Mapping[str, Array]


class Net:
    """Layers wired one after the other for inputs of one shape.

    `input_shape` is that of one example, without N: (28, 28, 1). Building computes every shape and declares every
    parameter, and makes no array; `bind` makes them. With `plan`, neighbours run as one step where a kernel does the
    work of both (`core/plan.py`): the same training within rounding, the same paths and values. Raises ShapeError when
    a layer cannot take what comes before it.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Sequence[int], plan: bool = True) -> None:
        self.planned = plan
        self.input_shape: Shape = shape_of("input_shape", input_shape)
        self.root = _chain(layers)
        with _forgotten_where_it_fails(self.root):
            ties = _replace_refs(self.root)
            self.root.connect(self.input_shape)
            self.ties = dict(ties)
            """The layers that stand for a `Ref`, with those that they share everything with."""
            for copy, source in ties:
                tie(copy, source)
                for _, layer in (*copy.walk(), *source.walk()):
                    layer.tied = True
        for path, layer in self.root.walk():
            layer.path = path
        self._params = self.root.params()
        self._buffers = self.root.buffers()
        for path, tensor in (self._params | self._buffers).items():
            tensor.path = path
        self._bound: tuple[Device, str, Arena] | None = None
        self.seed = 0
        self.passes = 0
        """How many training passes ran without a step of their own."""
        self._integers = self.root.reader.integer_input
        self._note_what_learns()

    @property
    def output_shape(self) -> Shape:
        """The shape of one output, without N."""
        return self.root.out_shape

    @property
    def size(self) -> int:
        """How many numbers are learned; shared ones count once."""
        return sum(param.size for param in self._params.values())

    @property
    def layers(self) -> list[Layer]:
        """The layers of the chain, in order."""
        return self.root.layers

    # arrays

    def bind(self, device: str | Device = "auto", dtype: str = "float32", seed: int = 0) -> Self:
        """Make the arrays, on `device` (cpu, cuda, cuda:N, auto) in float type `dtype`. Returns self.

        The first time, values are drawn: a function of `seed` and the paths alone. Bound again, a net moves with its
        values. Kernels other than the fastest for `dtype` come with a Device, from `get_device`. Raises DeviceError
        when the device cannot be used.
        """
        if dtype not in ("float32", "float64"):
            raise UsageError(f"unknown float type {dtype!r}", "use float32 or float64")
        place = device if isinstance(device, Device) else get_device(device, kernels_for(dtype))
        values = self.state_dict() if self._bound else None
        with place.activate():
            arena = Arena(self._params.values(), place, dtype)
            for buffer in self._buffers.values():
                buffer.place(place, dtype)
            for const in self.root.consts().values():
                const.place(place, dtype)
            self._bound = (place, dtype, arena)
            if values is None:
                self.initialize(seed)
            else:
                self.load_state_dict(values)
        return self

    def initialize(self, seed: int = 0) -> None:
        """Draw all parameters and buffers anew."""
        self.seed = seed
        with self.device.activate():
            for tensor in self._tensors().values():
                tensor.data[...] = self.device.asarray(tensor.draw(seed), self.dtype)

    @property
    def bound(self) -> bool:
        """Whether the arrays exist."""
        return self._bound is not None

    @property
    def device(self) -> Device:
        """Where the arrays are."""
        return self._place[0]

    @property
    def dtype(self) -> str:
        """The float type of all arrays."""
        return self._place[1]

    @property
    def arena(self) -> Arena:
        """The parameters and gradients as two flat arrays."""
        return self._place[2]

    @property
    def _place(self) -> tuple[Device, str, Arena]:
        if self._bound is None:
            raise ContractError("the net has no arrays yet", "call net.bind(device) first")
        return self._bound

    # passes

    def forward(
        self,
        x: Array,
        training: bool = False,
        *,
        step: int | None = None,
        micro_batch: int = 0,
        recording: bool = True,
        needs_input_grad: bool = False,
    ) -> Tape:
        """Run the net on x (N, *input_shape); the tape holds the outputs and what `backward` needs.

        Randomness is keyed by (seed, path, step, micro_batch); without a `step`, the net counts its training passes.
        """
        device, dtype, _ = self._place
        if step is None:
            step = self.passes
            if training:  # inference writes nothing: other threads may predict while one trains
                self.passes += 1
        with device.activate():
            integers = self._integers
            x = device.asarray(x, None if integers else dtype)
            if integers and x.dtype.kind not in "iu":
                raise UsageError(f"the net takes integers, got {x.dtype}", "give it indices of an integer type")
            if x.shape[1:] != self.input_shape:
                raise UsageError(f"the input has shape {x.shape}, the net expects (N, *{self.input_shape})")
            steps = self.steps(inference=not training and not recording)
            tape = Tape(device, dtype, training, recording, self.seed, step, micro_batch, steps)
            top = Context(tape, None, needs_input_grad, recording)
            y, call = top.call(self.root, x, needs_input_grad=needs_input_grad)
            tape.outputs["output"] = y
            tape.reader = self.root
            if recording:  # else nothing leads from the tape to the calls: all of it goes when the last of it is let go
                tape.root = call
        return tape

    def steps(self, inference: bool = False) -> Steps:
        """What runs in the place of each chain's layers: of a pass in evaluation that is not recorded, or of others."""
        return self._steps[inference]

    def backward(self, tape: Tape, dy: Gradients, *, update_buffers: bool = True) -> Array | None:
        """Go back through a recorded pass once, adding to the gradients; the gradient of x where it was asked for.

        `dy` is the gradient of the output, or a mapping of output names to gradients. Updates of running statistics
        are applied now, or by `tape.update_buffers()` later. Gradients add up until `zero_grad`.
        """
        if tape.reader is not self.root:
            raise UsageError("the tape is of another net", "go back through a pass with the net that made it")
        call = tape.root
        if call is None:
            raise no_way_back(self.root, spent=tape.recording)
        grads = dict(dy) if isinstance(dy, Mapping) else {"output": dy}
        for name in grads:
            if name not in tape.outputs:
                raise UsageError(f"the net has no output called {name!r}", did_you_mean(name, tape.outputs))
        with tape.device.activate():
            grads = {name: tape.device.asarray(g, tape.dtype) for name, g in grads.items()}
            gradient = grads.pop("output", None)
            if gradient is None:
                gradient = tape.device.xp.zeros_like(tape.output)
            tape.output_grads = grads
            top = Context(tape)
            dx = top.backward(call, gradient)
            tape.root = None  # calls know their tape: led it to them, only the garbage collector would free both
            tape.output_grads = {}
            if update_buffers:
                tape.update_buffers()
        return dx

    def predict(self, x: Array, batch_size: int | None = None) -> np.ndarray[Any, Any]:
        """The outputs (N, *output_shape) for x (N, *input_shape), as a numpy array, in evaluation mode.

        At most `batch_size` examples run at a time; all at once by default. Keeps nothing; any number of threads may
        call it. Raises UsageError when `batch_size` is below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}", "leave it out to run all at once")
        size = batch_size or max(1, len(x))
        parts = [
            self.device.to_numpy(self.forward(x[i : i + size], recording=False).output) for i in range(0, len(x), size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *self.output_shape), dtype=self.dtype)

    # parameters

    def params(self) -> dict[str, Param]:
        """The parameters by path (`stage2.0.conv1.weight`), in order; a shared one under its first path."""
        return dict(self._params)

    def buffers(self) -> dict[str, Buffer]:
        """The running statistics by path."""
        return dict(self._buffers)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.arena.zero_grad()

    def matching(self, pattern: str) -> list[Param]:
        """The parameters whose path matches a shell pattern. Raises UsageError when none does."""
        found = [param for path, param in self._params.items() if fnmatchcase(path, pattern)]
        if not found:
            raise UsageError(f"no parameter matches {pattern!r}", did_you_mean(pattern, self._params))
        return found

    def freeze(self, pattern: str, frozen: bool = True) -> None:
        """Keep matching parameters as they are; running statistics stay too where all parameters of a layer do.

        Raises UsageError when the pattern matches nothing.
        """
        for param in self.matching(pattern):
            param._frozen = frozen
        for _, layer in self.root.walk():
            params = layer.own(Param).values()
            for buffer in layer.own(Buffer).values():
                if params:
                    buffer._frozen = all(param.frozen for param in params)
                elif fnmatchcase(buffer.path, pattern):
                    buffer._frozen = frozen
        self._note_what_learns()

    def state_dict(self, copy: bool = True) -> dict[str, np.ndarray[Any, Any]]:
        """All parameters and buffers, on the host, by path: copies, or with `copy=False` the arrays in use."""
        found = {path: self.device.to_numpy(t.data) for path, t in self._tensors().items()}
        return {path: np.array(values) for path, values in found.items()} if copy else found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values by path. Raises CheckpointError, listing all that does not fit, before changing anything."""
        if problems := self.misfits(state):
            raise CheckpointError("the values do not fit this net:\n  " + "\n  ".join(problems))
        with self.device.activate():
            for path, tensor in self._tensors().items():
                tensor.data[...] = self.device.asarray(state[path], self.dtype)

    def misfits(self, state: Mapping[str, Any]) -> list[str]:
        """Every value that is missing, unknown or ill-shaped, for which `load_state_dict` would refuse `state`."""
        mine = self._tensors()
        return [
            *(f"missing: {path} {t.shape}" for path, t in mine.items() if path not in state),
            *(f"unknown: {path} {np.shape(value)}" for path, value in state.items() if path not in mine),
            *(
                f"shape: {path} is {np.shape(state[path])}, the net has {t.shape}"
                for path, t in mine.items()
                if path in state and np.shape(state[path]) != t.shape
            ),
        ]

    def _tensors(self) -> dict[str, Tensor]:
        return {**self._params, **self._buffers}

    def _note_what_learns(self) -> None:
        def note(layer: Layer) -> bool:
            below = [note(child) for _, child in layer._members()]
            layer.learns_itself = any(not param.frozen for param in layer.own(Param).values())
            layer.learns = layer.learns_itself or any(below)
            return layer.learns

        note(self.root)
        self._steps = {
            inference: plan_steps(self.root, inference) if self.planned else {} for inference in (False, True)
        }

    def __repr__(self) -> str:
        return f"Net({len(self.layers)} layers, {self.input_shape} -> {self.output_shape})"


def _chain(layers: Sequence[Layer]) -> Sequential:
    """The layers as one, refused where they are no layers or stand in the net twice."""
    for index, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise UsageError(f"layers[{index}] is {layer!r}, not a Layer")
        if any(layer is other for other in layers[:index]):
            raise UsageError(
                f"layers[{index}] {layer!r} stands in the net twice",
                "build a second one, or share the parameters with Ref(name)",
            )
    return Sequential(list(layers))


@contextmanager
def _forgotten_where_it_fails(root: Layer) -> Iterator[None]:
    """Build a net of the layers as they were declared, whatever an attempt that failed has left in them.

    What is left stays until the next attempt: it tells how far the first one came.
    """
    declared = []
    for _, layer in root.walk():  # whole before part: a composite may hold what stood in for a Ref
        if layer.before_failure is not None:
            attributes = layer.before_failure
            vars(layer).clear()
            vars(layer).update(attributes)
        declared.append((layer, dict(vars(layer))))
    try:
        yield
    except Exception:
        for layer, attributes in declared:
            if "placed" not in attributes:  # else another net has it
                layer.before_failure = attributes
        raise


def _replace_refs(root: Layer) -> list[tuple[Layer, Layer]]:
    """Put a clone of what it names in the place of every Ref; the pairs (clone, source) that are to be tied."""
    named = {path: layer for path, layer in root.walk() if not isinstance(layer, Ref) and path}
    pairs: list[tuple[Layer, Layer]] = []

    def resolve(ref: Ref, within: tuple[str, ...]) -> Layer:
        source = named.get(ref.to)
        if source is None:
            raise ShapeError(f"ref: there is no layer called {ref.to!r}", did_you_mean(ref.to, named), layer=ref)
        if ref.to in within:
            raise ShapeError(f"ref: {ref.to!r} would hold itself", "refer to a layer beside this one", layer=ref)
        copy = source.clone()
        copy.name = ref.name
        pairs.append((copy, source))
        settle(copy, (*within, ref.to))  # after its own pair, so that ties within have the last word
        return copy

    def settle(whole: Layer, within: tuple[str, ...]) -> None:
        for _, layer in list(whole.walk()):
            for attribute, value in list(vars(layer).items()):
                if isinstance(value, Ref):
                    setattr(layer, attribute, resolve(value, within))
                elif isinstance(value, list | tuple) and any(isinstance(item, Ref) for item in value):
                    setattr(layer, attribute, [resolve(v, within) if isinstance(v, Ref) else v for v in value])

    settle(root, ())
    return pairs
