"""What one pass through a net keeps: a Tape, and in it one Context for every call of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

from layernet.backend import Array, Shape
from layernet.backend.device import Device
from layernet.backend.random import Stream, key_of
from layernet.errors import ContractError

if TYPE_CHECKING:
    from layernet.core.layer import Layer
    from layernet.core.param import Buffer, Param


Steps: TypeAlias = "Mapping[Layer, Sequence[Layer]]"
"""What runs in the place of a chain's layers, by chain; a chain that is not in it runs its layers."""
NO_STEPS: Steps = {}


class Tape:
    """One pass: its settings, its outputs, and what its layers saved for the way back.

    `output` is the net's output, `outputs` holds it and the emitted ones by name. Updates of running statistics wait
    here until they are applied.
    """

    def __init__(
        self,
        device: Device,
        dtype: str,
        training: bool = False,
        recording: bool = True,
        seed: int = 0,
        step: int = 0,
        micro_batch: int = 0,
        steps: Steps = NO_STEPS,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.kind = device.xp.dtype(dtype)  # comparing an array's with the name takes ten times as long
        self.training = training
        self.recording = recording
        self.seed = seed
        self.step = step
        self.micro_batch = micro_batch
        self.steps = steps
        self.outputs: dict[str, Array] = {}
        self.output_grads: dict[str, Array] = {}
        self.reader: Layer | None = None
        """The whole of the net that ran."""
        self.root: Context | None = None
        """Its call, until backward takes it."""
        self.replaying = False
        self._updates: list[tuple[Buffer, Array, float]] = []

    @property
    def output(self) -> Array:
        """The net's output, (N, *out_shape)."""
        return self.outputs["output"]

    def update_buffers(self) -> None:
        """Apply the pass's updates of running statistics, in call order, once."""
        updates, self._updates = self._updates, []
        with self.device.activate():
            for buffer, value, momentum in updates:
                buffer.data[...] = (1.0 - momentum) * buffer.data + momentum * value


class _State(Enum):
    RECORDED = auto()  # backward may run, once
    SPENT = auto()  # backward has run
    UNRECORDED = auto()  # nothing was kept: inference, or a first run that will be recalled
    NOT_NEEDED = auto()  # nothing trained in or below the layer


_RECORDED, _UNRECORDED = _State.RECORDED, _State.UNRECORDED  # what every call looks at, without a look-up in the class


class Context:
    """A layer's side of one call: arrays, kernels, randomness, and the place for what backward needs.

    Attributes: `xp` numpy or cupy; `ops` the named kernels; `dtype` the net's float type; `training` whether the pass
    trains; `needs_input_grad` whether anybody wants the gradient that `backward` returns.
    """

    __slots__ = (
        "_calls",
        "_in_shape",
        "_layer",
        "_learned",
        "_number",
        "_parent",
        "_rng",
        "_saved",
        "_state",
        "dtype",
        "needs_input_grad",
        "ops",
        "tape",
        "training",
        "xp",
    )

    def __init__(
        self,
        tape: Tape,
        layer: Layer | None = None,
        needs_input_grad: bool = True,
        recording: bool = True,
        parent: Context | None = None,
        number: int = 0,
    ) -> None:
        self.tape = tape
        self.xp = tape.device.xp
        self.ops = tape.device.ops
        self.dtype = tape.dtype
        self.training = tape.training
        self.needs_input_grad = needs_input_grad
        self._layer = layer
        self._state = _RECORDED if recording else _UNRECORDED
        self._parent = parent
        self._number = number  # how often the parent had called this layer before
        self._calls: dict[int, int] | None = None
        self._learned = False  # whether anything called here so far is trained
        self._rng: Stream | None = None
        self._saved: tuple[Any, ...] | None = None
        self._in_shape: Shape = ()

    @property
    def layer(self) -> Layer | None:
        """The layer whose call this is."""
        return self._layer

    # what backward needs

    def save(self, *values: Any) -> None:
        """Keep anything (arrays, None, the branch taken) for `backward`. Does nothing when no backward will run."""
        if self._state is _RECORDED:
            self._saved = values

    @property
    def saved(self) -> tuple[Any, ...]:
        """What `save` kept. Raises ContractError when it is gone: backward runs once per forward."""
        if self._saved is None:
            raise ContractError(
                f"{self._label} has nothing saved for backward",
                "backward runs once per forward, after a forward that records and calls ctx.save",
            )
        return self._saved

    def release(self) -> tuple[Any, ...]:
        """`saved`, given up: for a backward that goes on into other layers, which need the room."""
        saved, self._saved = self.saved, None
        return saved

    # parameters and buffers

    def needs_grad(self, param: Param | None) -> bool:
        """Whether the parameter's gradient is wanted: false when it is frozen, or when there is none."""
        return param is not None and not param.frozen

    def needs(self, weight: Param | None, bias: Param | None) -> dict[str, bool]:
        """`need_dx`, `need_dw` and `need_db`, which say to the backward of a kernel what is wanted of it."""
        return {
            "need_dx": self.needs_input_grad,
            "need_dw": self.needs_grad(weight),
            "need_db": self.needs_grad(bias),
        }

    def grad(self, param: Param) -> tuple[Array, bool]:
        """(buffer, accumulate): write the gradient into the buffer, adding to what is there when accumulate."""
        accumulate = param.has_grad
        param.has_grad = True
        return param.grad_buffer(), accumulate

    def fresh_grad(self, param: Param) -> Array | None:
        """Where a kernel may write a gradient before it goes to `add_grad`, which then need not copy it.

        None where that would destroy something: there is a gradient already.
        """
        return None if param.frozen or param.has_grad else param.grad_buffer()

    def add_grad(self, param: Param, g: Array) -> None:
        """Add g, of the parameter's shape, to its gradient. Does nothing for a frozen parameter."""
        if param.frozen:
            return
        if g.shape != param.shape:
            raise ContractError(
                f"{self._label}: the gradient of {param} has shape {g.shape}",
                "sum over the axes along which the parameter was broadcast: sum_to(g, param.shape)",
            )
        buffer, accumulate = self.grad(param)
        if accumulate:
            buffer += g
        elif g is not buffer:
            buffer[...] = g

    def add_grads(self, *pairs: tuple[Param | None, Array | None]) -> None:
        """`add_grad` for each pair (param, g) of which both are there: what a kernel's backward returned."""
        for param, g in pairs:
            if param is not None and g is not None:
                self.add_grad(param, g)

    def needs_update(self, buffer: Buffer) -> bool:
        """Whether the layer should follow its batch: false in evaluation, and for statistics that are frozen."""
        return self.training and not buffer.frozen

    def update_buffer(self, buffer: Buffer, value: Array, momentum: float) -> None:
        """Ask for buffer = (1 - momentum) * buffer + momentum * value, once this training micro-batch is accepted.

        Does nothing in evaluation, for frozen statistics, and while a layer is being recomputed.
        """
        if self.needs_update(buffer) and not self.tape.replaying:
            self.tape._updates.append((buffer, value, momentum))

    # arrays

    def empty(self, shape: Shape, dtype: str | None = None) -> Array:
        """An uninitialised array that may be the layer's output. A new one in every call, so it may be kept and saved.

        On a CPU its pages are those that an earlier array gave back: nothing is cleared (`backend/allocation.py`).
        """
        return self.xp.empty(shape, dtype=dtype or self.dtype)

    def scratch(self, shape: Shape, dtype: str | None = None) -> Array:
        """An uninitialised array for work within this call: neither returned nor saved. The next call may get it too.

        Today it is a new one, as from `empty`; whoever keeps to this need change nothing where that changes.
        """
        return self.xp.empty(shape, dtype=dtype or self.dtype)

    @property
    def rng(self) -> Stream:
        """Random numbers keyed by (seed, path, step, micro-batch, call): the same again for the same key."""
        if self._rng is None:
            tape, path = self.tape, self._layer.path if self._layer else ""
            key = key_of(tape.seed, "forward", path, tape.step, tape.micro_batch, *self._repeats())
            self._rng = Stream(key, self.ops, self.dtype)
        return self._rng

    # layers made of layers

    def call(
        self, child: Layer, x: Array, *, needs_input_grad: bool | None = None, recording: bool = True
    ) -> tuple[Array, Context]:
        """Run a child's forward: (y, tape), the tape being what `backward` takes.

        `needs_input_grad`: whether x depends on something trained. Default: it does if this layer's own input does, or
        if a parameter of its own or a child called before is trained; a composite that feeds its input to several
        children says so itself.
        `recording=False` keeps nothing: `recall` can run the call again.
        """
        if needs_input_grad is None:
            learns_itself = self._layer is not None and self._layer.learns_itself
            needs_input_grad = self.needs_input_grad or self._learned or learns_itself
        if self._calls is None:
            self._calls = {}
        number = self._calls.get(id(child), 0)
        self._calls[id(child)] = number + 1
        return self._run(child, x, needs_input_grad, recording and self._state is _RECORDED, number)

    def recall(self, tape: Context, x: Array) -> Context:
        """Run a call made with `recording=False` once more, recording: the same randomness, no statistics updated."""
        assert tape._layer is not None
        pass_ = self.tape
        before, pass_.replaying = pass_.replaying, True
        try:
            return self._run(tape._layer, x, tape.needs_input_grad, True, tape._number)[1]
        finally:
            pass_.replaying = before

    def backward(self, tape: Context, dy: Array) -> Array | None:
        """Run the backward of a child's call: the gradient with respect to its input, None when nobody needs it."""
        child = tape._layer
        assert child is not None
        if tape._state is not _RECORDED:
            if tape._state is _State.NOT_NEEDED:
                return None
            raise no_way_back(child, spent=tape._state is _State.SPENT)
        if dy.shape != (*tape._in_shape[:1], *child.out_shape):
            raise ContractError(
                f"{child.label}: the gradient of its output has shape {dy.shape}, "
                f"expected {(*tape._in_shape[:1], *child.out_shape)}"
            )
        dx = child.backward(dy, tape)
        tape._saved = None
        tape._state = _State.SPENT
        if not tape.needs_input_grad:
            return None
        if not _fits(dx, tape._in_shape, self.tape.kind):
            expected = _described(tape._in_shape, self.dtype)
            raise ContractError(f"{child.label}: backward returned {_what(dx)}, expected {expected}, as its input")
        return dx

    def emit(self, name: str, y: Array) -> None:
        """Make y an output of the net called `name`; its gradient comes back through `output_grad(name)`."""
        if self.tape.replaying:
            return
        if name in self.tape.outputs or name == "output":
            raise ContractError(f"{self._label}: the net already has an output called {name!r}")
        self.tape.outputs[name] = y

    def output_grad(self, name: str) -> Array | None:
        """In backward: the gradient of an emitted output; None when no objective looks at it."""
        return self.tape.output_grads.get(name)

    def _run(
        self, child: Layer, x: Array, needs_input_grad: bool, recording: bool, number: int
    ) -> tuple[Array, Context]:
        wanted = needs_input_grad or child.learns
        context = Context(self.tape, child, needs_input_grad, recording and wanted, self, number)
        if recording and not wanted:
            context._state = _State.NOT_NEEDED
        context._in_shape = x.shape
        if x.shape[1:] != child.in_shape:
            raise ContractError(f"{child.label}: its input has shape {x.shape}, expected (N, *{child.in_shape})")
        y = child.forward(x, context)
        promised = (x.shape[0], *child.out_shape)
        if not _fits(y, promised, self.tape.kind):
            expected = f"expected {_described(promised, self.dtype)}"
            if getattr(y, "shape", promised) != promised:
                expected += f": for inputs {child.in_shape}, build promised {child.out_shape}"
            raise ContractError(f"{child.label}: forward returned {_what(y)}, {expected}")
        self._learned = self._learned or child.learns
        return y, context

    @property
    def _label(self) -> str:
        return self._layer.label if self._layer is not None else "this pass"

    def _repeats(self) -> list[int | str]:
        """Of this call and those around it, the ones that repeat an earlier call: path and number of each.

        First calls leave no trace, so that a composite put around layers (Recompute) does not change their randomness.
        """
        around = [] if self._parent is None else self._parent._repeats()
        return [*around, self._layer.path, self._number] if self._layer and self._number else around


def no_way_back(layer: Layer, spent: bool) -> ContractError:
    """What is raised for a backward without a forward of its own."""
    return ContractError(
        f"{layer.label}: backward cannot run, because its forward "
        + ("was already gone back through" if spent else "was not recorded"),
        "run forward again: a recorded pass has one backward",
    )


def _fits(array: Any, shape: Shape, kind: Any) -> bool:
    return getattr(array, "shape", None) == shape and array.dtype == kind


def _what(value: Any) -> str:
    """What a layer returned."""
    if not hasattr(value, "dtype"):
        return "None" if value is None else f"a {type(value).__name__}"
    return _described(value.shape, value.dtype)


def _described(shape: Shape, dtype: Any) -> str:
    return f"{dtype} of shape {shape}"
