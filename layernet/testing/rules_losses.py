"""The contract of losses as tests: what training counts on when it sums, averages and goes back through them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from layernet import losses
from layernet.backend import Array, Shape
from layernet.backend.device import get_device
from layernet.backend.random import Stream
from layernet.core.context import Context, Tape
from layernet.losses import Loss
from layernet.testing.bench import Broken, Result, close
from layernet.testing.probes import fingerprint, gone, read_only
from layernet.testing.sampling import HostArray, stream, tie_free

Targets = Callable[[Shape, Stream], HostArray]
"""(shape of the outputs with N, random numbers) -> the targets of the batch."""

_PARTS = (1, 3, 13)
LARGEST = 100.0
"""What outputs must stay harmless up to in float32: exp does not fit into it there, and 1 - sigmoid is 0."""


class LossSubject:
    """The loss under test, outputs and targets for it, and passes as training makes them."""

    def __init__(
        self,
        loss: Loss,
        shape: Shape,
        targets: Any = None,
        seed: int = 0,
        batch: int = 3,
        device: str = "cpu",
        largest: float = LARGEST,
    ) -> None:
        self.original, self.loss = loss, loss.clone()
        self.shape, self.seed, self.batch = tuple(shape), seed, batch
        self.device, self.largest = get_device(device), largest
        self._targets = targets_for(loss, targets)

    def outputs(self, n: int, number: int = 0) -> HostArray:
        """Outputs of n examples without ties."""
        return tie_free((n, *self.shape), stream(self.seed, "outputs", n, number))

    def target(self, n: int, number: int = 0) -> HostArray:
        """Targets of n examples."""
        return self._targets((n, *self.shape), stream(self.seed, "targets", n, number))

    def place(self, outputs: HostArray, dtype: str = "float64") -> Array:
        """Outputs on the device."""
        return self.device.asarray(outputs, dtype)

    def forward(self, y: Array, target: Any) -> tuple[Any, Any, Context]:
        """One forward: (sum, normaliser, what backward takes)."""
        ctx = Context(Tape(self.device, y.dtype.name, training=True))
        with np.errstate(all="ignore"):
            return *losses.forward(self.loss, y, target, ctx), ctx

    def run(self, outputs: HostArray, target: Any, dtype: str = "float64") -> Result:
        """A whole pass: sum, normaliser and the gradient of the sum, on the host."""
        return self.go(self.place(outputs, dtype), target)

    def go(self, y: Array, target: Any) -> Result:
        """`run` on an array of the device."""
        total, normaliser, ctx = self.forward(y, target)
        return self.result(total, normaliser, losses.backward(self.loss, y, target, ctx))

    def result(self, total: Any, normaliser: Any, dy: Array) -> Result:
        """Copies on the host."""
        numbers = {"the sum": np.asarray(float(total)), "the normaliser": np.asarray(float(normaliser))}
        return {**numbers, "the gradient": np.array(self.device.to_numpy(dy))}


def targets_for(loss: Loss, given: Any) -> Targets:
    """Targets for any batch: as given, repeated where an array is too short, or of the kind that the loss declares."""
    if callable(given):
        return given  # type: ignore[no-any-return]
    if given is not None:
        return lambda shape, _: np.resize(np.asarray(given), (shape[0], *np.shape(given)[1:]))
    if loss.targets == "classes":
        return lambda shape, rng: np.asarray(rng.integers(0, shape[-1], shape[:-1]))
    return lambda shape, rng: np.asarray(rng.uniform(shape))


def shapes_and_types(subject: LossSubject) -> None:
    """Two numbers, and a gradient of the outputs' shape and float type; all finite, for one example and for several."""
    for dtype in ("float32", "float64"):
        for n in (subject.batch, 1):
            _sound(subject, subject.outputs(n), subject.target(n), dtype, f"for a batch of {n} in {dtype}")


def far_outputs(subject: LossSubject) -> None:
    """Large outputs, as a net gives that is sure, leave the sum and the gradient finite in float32."""
    y = subject.outputs(subject.batch)
    when = f"for outputs of up to {subject.largest:g} in float32"
    _sound(subject, y * (subject.largest / np.abs(y).max()), subject.target(subject.batch), "float32", when)


def precision(subject: LossSubject) -> None:
    """A float32 pass is the float64 pass to float32 precision."""
    y, target = subject.outputs(subject.batch), subject.target(subject.batch)
    exact, single = subject.run(y, target), subject.run(y, target, "float32")
    close(single, exact, "float32 against float64", tolerance=2e-5)


def self_untouched(subject: LossSubject) -> None:
    """A pass writes nothing to the loss."""
    before = {name: fingerprint(value) for name, value in vars(subject.loss).items()}
    subject.run(subject.outputs(subject.batch), subject.target(subject.batch))
    after = {name: fingerprint(value) for name, value in vars(subject.loss).items()}
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise Broken(f"a pass changed {', '.join(changed)}: what a pass makes belongs into ctx.save")


def arrays_untouched(subject: LossSubject) -> None:
    """Outputs and targets are not written."""
    y, target = subject.place(subject.outputs(subject.batch)), subject.target(subject.batch)
    before = np.array(subject.device.to_numpy(y)), target.copy()
    with read_only([y, target]):
        try:
            subject.go(y, target)
        except ValueError as error:
            if "read-only" in str(error):
                raise Broken(f"it writes into an array that is not its own ({error})") from error
            raise
    for name, now, was in (("the outputs", subject.device.to_numpy(y), before[0]), ("the target", target, before[1])):
        if not np.array_equal(now, was):
            raise Broken(f"a pass changed {name}")


def strided_arrays(subject: LossSubject) -> None:
    """Outputs and targets that are not contiguous give the same as contiguous ones."""
    y, target = subject.place(subject.outputs(subject.batch)), subject.target(subject.batch)
    plain, xp = subject.go(y, target), subject.device.xp
    close(subject.go(_strided(xp, y), _strided(np, target)), plain, "strided outputs and targets")
    close(subject.go(xp.asfortranarray(y), np.asfortranarray(target)), plain, "column-major outputs and targets")


def targets_of_any_width(subject: LossSubject) -> None:
    """Labels of 32 and 64 bits are the same labels, targets in float32 nearly those in float64; the types stay."""
    y, target = subject.outputs(subject.batch), subject.target(subject.batch)
    if subject.loss.targets == "classes" and target.dtype.kind not in "iuf":
        raise Broken(f"it declares targets of classes and is checked with {target.dtype}")
    labels = target.dtype.kind != "f"
    for dtype in ("float32", "float64"):
        types = ("int64", "int32") if labels else ("float64", "float32")
        wide, narrow = (subject.run(y, target.astype(t), dtype) for t in types)
        for given, result in zip(types, (wide, narrow), strict=True):
            got = str(result["the gradient"].dtype)
            if got != dtype:
                raise Broken(f"targets of {given} make the gradient {got} in a net of {dtype}")
        close(narrow, wide, f"targets of {types[1]} in {dtype}", tolerance=0.0 if labels else 2e-4)


def independent_passes(subject: LossSubject) -> None:
    """Two forwards, then two backwards in either order, equal two passes of their own."""
    ys = [subject.place(subject.outputs(subject.batch, i)) for i in (0, 1)]
    targets = [subject.target(subject.batch, i) for i in (0, 1)]
    alone = [subject.go(y, target) for y, target in zip(ys, targets, strict=True)]
    for order in ((0, 1), (1, 0)):
        passes = [subject.forward(y, target) for y, target in zip(ys, targets, strict=True)]
        grads = {i: subject.loss.backward(passes[i][2]) for i in order}
        for i in order:
            found = subject.result(*passes[i][:2], grads[i])
            close(found, alone[i], f"pass {i} of two, gone back through in the order {order}")


def backward_repeats(subject: LossSubject) -> None:
    """A second backward of the same pass gives the same gradient, and leaves the first as it was."""
    y, target = subject.place(subject.outputs(subject.batch)), subject.target(subject.batch)
    total, normaliser, ctx = subject.forward(y, target)
    first = subject.loss.backward(ctx)
    kept = subject.result(total, normaliser, first)
    second = subject.result(total, normaliser, subject.loss.backward(ctx))
    close(second, kept, "a second backward", tolerance=0.0)
    close(subject.result(total, normaliser, first), kept, "the gradient, after a second backward", tolerance=0.0)


def deterministic(subject: LossSubject) -> None:
    """The same outputs and targets give the same bits, and nobody draws from numpy's global random state."""
    y, target = subject.outputs(subject.batch), subject.target(subject.batch)
    before = fingerprint(np.random.get_state(legacy=False))
    first = subject.run(y, target)
    for _ in range(2):
        close(subject.run(y, target), first, "the same batch once more", tolerance=0.0)
    if fingerprint(np.random.get_state(legacy=False)) != before:
        raise Broken("it draws from numpy's global random state")


def parts_of_a_batch(subject: LossSubject) -> None:
    """The sums and normalisers of the parts of a batch add up to those of the whole, and so do means and gradients."""
    n = sum(_PARTS)
    y, target = subject.outputs(n), subject.target(n)
    cuts = np.cumsum(_PARTS)[:-1]
    rows = np.split(np.arange(n), cuts)
    parts = [subject.run(y[r[0] : r[-1] + 1], target[r[0] : r[-1] + 1]) for r in rows]
    whole = subject.run(y, target)
    expected = {name: sum(p[name] for p in parts) for name in ("the sum", "the normaliser")}
    expected["the gradient"] = np.concatenate([p["the gradient"] for p in parts])
    for name, wanted in expected.items():
        close({name: whole[name]}, {name: np.asarray(wanted)}, f"a batch of {n} against its parts of {_PARTS}")


def normaliser_of_the_targets(subject: LossSubject) -> None:
    """The normaliser depends on the targets alone: whoever takes the mean does not differentiate it."""
    target = subject.target(subject.batch)
    y = subject.outputs(subject.batch)
    first, *others = (float(subject.forward(subject.place(v), target)[1]) for v in (y, -y, y + 1.0))
    if first < 0:
        raise Broken(f"the normaliser is {first:g}, a count or a sum of weights is not negative")
    for other in others:
        if abs(first - other) > 1e-12 * first:
            raise Broken(f"the normaliser is {first:g} for some outputs and {other:g} for others")


def only_its_outputs(subject: LossSubject) -> None:
    """It looks at the outputs that it is given, whatever else stands on the tape."""
    y, target = subject.place(subject.outputs(subject.batch)), subject.target(subject.batch)
    plain = subject.go(y, target)
    ctx = Context(Tape(subject.device, "float64", training=True))
    nothing = subject.device.xp.full_like(y, float("nan"))
    ctx.tape.outputs.update(output=nothing, side=nothing)
    total, normaliser = subject.loss.forward(y, target, ctx)
    found = subject.result(total, normaliser, subject.loss.backward(ctx))
    close(found, plain, "beside other outputs", tolerance=0.0)
    if set(ctx.tape.outputs) != {"output", "side"} or ctx.tape.output_grads:
        raise Broken("it writes to the tape: the gradient is what backward returns")


def config_round_trip(subject: LossSubject) -> None:
    """The captured constructor arguments make the same loss again, and stay as they were given."""
    before = fingerprint(subject.original.arguments)
    copy = LossSubject(subject.original, subject.shape, subject._targets, subject.seed)
    y, target = subject.outputs(subject.batch), subject.target(subject.batch)
    close(copy.run(y, target), subject.run(y, target), "a clone", tolerance=0.0)
    if fingerprint(subject.original.arguments) != before or fingerprint(subject.loss.arguments) != before:
        raise Broken("a constructor argument was changed")


def nothing_kept(subject: LossSubject) -> None:
    """After the pass nothing holds the outputs or the gradient."""
    y = subject.place(subject.outputs(subject.batch))
    *_, ctx = subject.forward(y, subject.target(subject.batch))
    dy = subject.loss.backward(ctx)
    references = weakref.ref(y), weakref.ref(dy)
    del y, dy, ctx, _
    if not all(gone(reference) for reference in references):
        raise Broken("the outputs or their gradient are kept alive after the pass: something outside ctx.save does")


def _sound(subject: LossSubject, outputs: HostArray, target: Any, dtype: str, when: str) -> None:
    y = subject.place(outputs, dtype)
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    total, normaliser, ctx = subject.forward(y, target)
    for name, number in (("sum", total), ("normaliser", normaliser)):
        if not np.isfinite(float(number)):
            raise Broken(f"the {name} is {float(number)} {when}")
    if hasattr(total, "dtype") and str(total.dtype) != dtype:
        raise Broken(f"the sum is {total.dtype} in a net of {dtype}")
    dy = losses.backward(subject.loss, y, target, ctx)
    if str(dy.dtype) != dtype:
        raise Broken(f"backward returned {dy.dtype} in a net of {dtype}")
    if not np.isfinite(subject.device.to_numpy(dy)).all():
        raise Broken(f"the gradient holds a value that is not finite {when}")


def _strided(xp: Any, array: Any) -> Any:
    room = xp.zeros((*array.shape, 2), dtype=array.dtype)
    room[..., 0] = array
    return room[..., 0]


RULES: tuple[Callable[[LossSubject], None], ...] = (
    shapes_and_types,
    far_outputs,
    precision,
    self_untouched,
    arrays_untouched,
    strided_arrays,
    targets_of_any_width,
    independent_passes,
    backward_repeats,
    deterministic,
    parts_of_a_batch,
    normaliser_of_the_targets,
    only_its_outputs,
    config_round_trip,
    nothing_kept,
)
