"""Compare hand-written gradients with difference quotients: of a layer, a loss, a penalty, a net, a whole training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from layernet import losses
from layernet.backend import shape_of
from layernet.backend.device import get_device
from layernet.core.context import Context, Tape
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Ref
from layernet.errors import UsageError
from layernet.layers.linear import Linear
from layernet.losses import Loss, Objective, Penalty
from layernet.testing.effort import WHOLE, Effort, shares
from layernet.testing.engine import Settings, Variable
from layernet.testing.netcheck import NetCheck
from layernet.testing.objective import Projection, Scalar, Weighted
from layernet.testing.passes import lively
from layernet.testing.raised import owed, told
from layernet.testing.report import Failure, Report
from layernet.testing.sampling import input_for, stream, tie_free
from layernet.testing.verdicts import Function, check


def gradcheck(
    target: Layer | Loss | Penalty | Net,
    shape: Sequence[int] | None = None,
    *,
    x: Any = None,
    targets: Any = None,
    objectives: Sequence[Objective] | None = None,
    **options: Any,
) -> Report:
    """Compare every gradient of `target` with central differences in float64; the report says what was found.

    - A Layer, with the `shape` of one input example: a copy is checked by itself, in training and evaluation mode, as
      sum(r y) with fixed random r, for its input and every parameter.
    - A Loss, with the `shape` of one example's outputs and the `targets` of the batch: the mean over the batch.
    - A Penalty: on the parameters of a small net.
    - A Net: as a layer, or with `objectives` and `targets` as the total that training minimises. Its values are moved
      about and put back exactly. A net in float32 is bound to float64 meanwhile: attach an optimizer afterwards.

    `x` is the input batch (N, *shape); left out, N = `batch` examples without ties are made. All passes share one
    random key, so Dropout keeps its mask; no running statistic moves. Inputs of integers are not differentiated.
    `options` are the fields of `Settings` (seed, rtol, step, elements, directions, max_skipped, batch, modes, device).

    What the target itself raises is a failure too, of the rule `exception`. Raises UsageError where an argument is
    missing, ShapeError where a layer cannot take the shape.
    """
    settings = Settings(**options)
    start = time.perf_counter()
    shape = None if shape is None else shape_of("shape", shape)
    if isinstance(target, Layer | Loss | Penalty) and (wrong := owed(target)):
        return Report(type(target).__name__, failures=wrong)
    with threadpool_limits(1), np.errstate(all="ignore"):  # what is not finite is reported by name
        if isinstance(target, Net):
            report = _check_whole(target, x, objectives, targets, "net", settings)
        elif isinstance(target, Layer):
            report = _check_layer(target, _given(shape, x, target), x, "", settings)
        elif isinstance(target, Loss):
            report = Report(type(target).__name__)
            with told(report, report.title, "train"):
                outputs = x if shape is None else _batch(shape, x, settings)
                report.add(_check_loss(target, outputs, targets, settings))
        elif isinstance(target, Penalty):
            report = _check_penalty(target, settings)
        else:
            raise UsageError(f"gradcheck takes a Layer, a Loss, a Penalty or a Net, got {target!r}")
    _say_what_is_unseen(report)
    report.seconds = time.perf_counter() - start
    return report


def check_net(
    net: Net,
    objectives: Sequence[Objective],
    x: Any,
    targets: Any,
    *,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Report:
    """Check a training: each layer of the net alone at its own input shape, then the whole net with its objectives.

    Layers that are equal in type, arguments and input shape are checked once. Of large layers and nets fewer points are
    compared (see `effort`), so that a config is checked in about a minute; a note of the report says so. `progress` is
    told what is being checked.
    """
    settings = Settings(**options)
    start = time.perf_counter()
    report = Report("net")
    alone = _distinct(net, report)
    allowed = shares([Effort.of(layer, len(x)).full(settings) for _, layer in alone])
    with threadpool_limits(1), np.errstate(all="ignore"):
        for (index, layer), work in zip(alone, allowed, strict=True):
            if progress is not None:
                progress(f"layer {index + 1} of {len(net.layers)}, {layer.path} ({type(layer).__name__})")
            given = x if index == 0 and layer.reader.integer_input else None
            within, note = Effort.of(layer, len(x)).within(work, replace(settings, batch=len(x)))
            report.add(_check_layer(layer, layer.in_shape, given, layer.path, within))
            report.notes += [f"{layer.label}: {note}"] * bool(note)
        if progress is not None:
            progress("the whole net")
        within, note = Effort.of(net.root, len(x)).within(WHOLE, settings)
        report.add(_check_whole(net, x, objectives, targets, "net", within))
        report.notes += [f"the whole net: {note}"] * bool(note)
    _say_what_is_unseen(report)
    report.seconds = time.perf_counter() - start
    return report


def _say_what_is_unseen(report: Report) -> None:
    """A note for every tensor whose gradient is zero everywhere; a failure where all are, since nothing is shown."""
    unseen = report.unseen()
    if unseen and len(unseen) == len({t.path for t in report.tensors}) and not report.failures:
        place = (report.tensors[0].subject, report.tensors[0].mode, report.tensors[0].layer)
        message = "every gradient is zero here, analytic and numeric: the check shows nothing"
        cause = "dead units, or a function that is flat: give inputs x where it is not"
        report.failures.append(Failure("nothing", *place, "", message, cause=cause))
    else:
        report.notes += [f"no gradient was ever other than zero: {path}" for path in unseen]


def _distinct(net: Net, report: Report) -> list[tuple[int, Layer]]:
    """The layers to check alone with their places: each kind once, and none that needs another."""
    found: dict[tuple[str, tuple[int, ...]], tuple[int, Layer]] = {}
    for index, layer in enumerate(net.layers):
        if any(isinstance(part, Ref) for part in _arguments_of(layer)):
            report.notes.append(f"{layer.label}: not checked alone, because it refers to another layer")
        else:
            found.setdefault((repr(layer), layer.in_shape), (index, layer))
    return list(found.values())


def _check_layer(layer: Layer, shape: Sequence[int], x: Any, where: str, settings: Settings) -> Report:
    subject = f"{where} ({type(layer).__name__})" if where else type(layer).__name__
    report = Report(subject)
    with told(report, subject, "build"):
        net, x = net_of(layer, shape, settings, x)
        report.add(_check_modes(net, _batch(shape, x, settings), None, None, subject, settings, alone=True))
    return report


def net_of(layer: Layer, shape: Sequence[int], settings: Settings, x: Any = None) -> tuple[Net, Any]:
    """What a layer is checked in: a net of a copy of it, and a batch."""
    copy = layer.clone()
    copy.name = copy.name or type(layer).__name__  # so that the paths of all in it start alike
    net = Net([copy], shape).bind(settings.device, "float64", settings.seed)
    if x is None:
        x = input_for(copy, settings.batch, tuple(shape), stream(settings.seed, "input"))
    return net, x


def _check_whole(
    net: Net, x: Any, objectives: Sequence[Objective] | None, targets: Any, subject: str, settings: Settings
) -> Report:
    with _in_float64(net, settings):
        return _check_modes(net, _batch(net.input_shape, x, settings), objectives, targets, subject, settings, False)


def _check_modes(
    net: Net,
    x: Any,
    objectives: Sequence[Objective] | None,
    targets: Any,
    subject: str,
    settings: Settings,
    alone: bool,
) -> Report:
    x = net.device.asarray(x).copy()  # moved about in place
    report = Report(subject)

    def scalar_of(tape: Tape) -> Scalar:
        if objectives is None:
            return Projection(tape.outputs, net.device, settings.seed)
        return Weighted(objectives, net, targets)

    with told(report, subject, settings.modes[0]), lively(net, x, settings.seed):
        for mode in settings.modes:
            with told(report, subject, mode):
                report.add(NetCheck(net, x, scalar_of, mode, subject, settings, alone, objectives is None).run())
    return report


def _check_penalty(penalty: Penalty, settings: Settings) -> Report:
    net = Net([Linear(3).named("first"), Linear(2).named("second")], (4,))
    report = _check_whole(net, None, [Objective(penalty, weight=0.7)], None, type(penalty).__name__, settings)
    report.tensors = [t for t in report.tensors if t.tensor != "input"]  # a penalty has none
    return report


def _check_loss(loss: Loss, outputs: Any, targets: Any, settings: Settings) -> Report:
    if outputs is None or targets is None:
        raise UsageError(f"gradcheck of {loss!r} needs the shape of its outputs and the targets of a batch")
    device = get_device(settings.device, "numpy")
    name = type(loss).__name__
    y = device.asarray(outputs, "float64").copy()

    def value() -> tuple[float, float, Context]:
        context = Context(Tape(device, "float64", training=True))
        total, normaliser = losses.forward(loss, y, targets, context)
        return float(total), float(normaliser), context

    total, normaliser, context = value()
    if not normaliser > 0:
        raise UsageError(f"nothing in the batch counts for {loss!r}: its normaliser is {normaliser}")
    gradient = device.to_numpy(losses.backward(loss, y, targets, context))
    report = Report(name)
    variables = []
    if gradient.shape != y.shape or gradient.dtype != np.float64:
        report.failures.append(
            _wrong_kind(name, f"backward returned {gradient.dtype} of shape {gradient.shape}, expected {y.shape}")
        )
    else:
        mean = gradient / normaliser
        variables.append(Variable(name, "outputs", y, mean, lambda: value()[0] / normaliser))
    counts = {"N, the batch size": len(y), "the number of outputs": y.size, "the number of classes": y.shape[-1]}
    if variables:
        scale = abs(total) / normaliser
        function = Function(name, "train", variables, variables[0].evaluate, scale, counts, random=False)
        report.add(check(function, device, settings))
    return report


def _wrong_kind(name: str, message: str) -> Failure:
    return Failure("contract", name, "train", name, "outputs", message)


def _given(shape: Sequence[int] | None, x: Any, layer: Layer) -> Sequence[int]:
    if shape is not None:
        return shape
    if x is None:
        raise UsageError(f"gradcheck of {layer!r} needs the shape of one input example, or a batch x")
    return tuple(np.shape(x)[1:])


def _batch(shape: Sequence[int], x: Any, settings: Settings) -> Any:
    """The given batch in float64 (integers as they are), or one without ties."""
    if x is None:
        return tie_free((settings.batch, *shape), stream(settings.seed, "input"))
    array = x if hasattr(x, "dtype") else np.asarray(x)
    return array if array.dtype.kind in "iub" else array.astype("float64")


def _arguments_of(layer: Layer) -> Iterator[Any]:
    """The constructor arguments of a layer, and those of the layers among them."""

    def flat(value: Any) -> Iterator[Any]:
        if isinstance(value, list | tuple):
            for item in value:
                yield from flat(item)
        else:
            yield value
            if isinstance(value, Layer):
                yield from _arguments_of(value)

    for value in layer.arguments.values():
        yield from flat(value)


@contextmanager
def _in_float64(net: Net, settings: Settings) -> Iterator[None]:
    """Within it, the net is bound in float64; a net that has no values yet gets them for good."""
    before = (net.device, net.dtype) if net.bound else None
    if before is None or before[1] != "float64":
        net.bind(before[0] if before else settings.device, "float64", settings.seed)
    try:
        yield
    finally:
        if before is not None and before[1] != "float64":
            net.bind(*before)
