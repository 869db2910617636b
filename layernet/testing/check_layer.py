"""Everything that can be asked of a layer, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from layernet.backend import shape_of
from layernet.core.blame import blame
from layernet.core.layer import Layer
from layernet.errors import LayernetError, ShapeError, UsageError
from layernet.testing.bench import Broken, Subject
from layernet.testing.branches import Fact, Replay, facts_of, never_run
from layernet.testing.contract import RULES
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import gradcheck, net_of
from layernet.testing.raised import once, owed, told
from layernet.testing.report import Failure, Report

T = TypeVar("T")

_FAR = 6.0
_REDRAWS = 3
_SEEDS = 40  # a branch that is taken once in ten times is missed once in seventy


class CheckFailed(AssertionError):
    """A layer that does not keep the contract; `report` says all that was found."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


def check_layer(layer: Layer, shape: Sequence[int], **options: Any) -> Report:
    """Hold a layer to the whole contract: its gradients, and every rule of `layernet.testing.contract`.

    `shape` is that of one input example, without N; `options` are the fields of `Settings`. The layer itself is not
    touched: instances are made from its arguments. Returns the report, raises CheckFailed (an AssertionError) where
    anything is wrong:

        def test_my_layer():
            check_layer(MyLayer(width=3), (8, 8, 4))
    """
    report = inspect_layer(layer, shape, **options)
    if not report.ok:
        raise CheckFailed(report)
    return report


def inspect_layer(layer: Layer, shape: Sequence[int], **options: Any) -> Report:
    """What `check_layer` finds, without raising."""
    if not isinstance(layer, Layer):
        raise UsageError(f"check_layer takes a Layer, got {layer!r}", "losses and penalties go to check_loss")
    start, shape = time.perf_counter(), shape_of("shape", shape)
    settings = Settings(**options)
    report = Report(type(layer).__name__, failures=owed(layer))
    if report.failures:
        return report
    report.failures = broken_rules(layer, shape, settings)
    gradients = gradcheck(layer, shape, **options)
    if gradients.ok or all(failure.rule == "nothing" for failure in gradients.failures):
        gradients = _anywhere(layer, shape, settings, gradients)
    report.add(gradients)
    if gradients.ok:  # else it would say the same again
        with told(report, type(layer).__name__, "zeros"):
            report.failures += _at_zeros(layer, shape, settings)
        report.add(_far_out(layer, shape, settings, options))
        report.add(_other_branches(layer, shape, settings))
    report.failures = once(report.failures)
    report.notes.append(f"{len(RULES)} contract rules asked")
    report.seconds = time.perf_counter() - start
    return report


def _anywhere(layer: Layer, shape: Sequence[int], settings: Settings, report: Report) -> Report:
    """The gradient check at other points, while every gradient of some tensor is zero: where all its ReLUs are dead."""
    merged = Report(report.title)
    for offset in range(_REDRAWS + 1):
        dark = set(merged.unseen())
        if offset:
            report = gradcheck(layer, shape, **{**vars(settings), "seed": settings.seed + offset})
        merged.tensors += [t for t in report.tensors if not offset or t.failed or t.path in dark]
        merged.notes += [note for note in report.notes if note not in merged.notes]
        merged.failures = report.failures
        if any(failure.rule != "nothing" for failure in report.failures) or not merged.unseen():
            break
    unseen = merged.unseen()
    if not report.failures or len(unseen) < len({t.path for t in merged.tensors}):
        merged.failures = [failure for failure in report.failures if failure.rule != "nothing"]
    zero = "no gradient was ever other than zero: "
    merged.notes = [n for n in merged.notes if not n.startswith(zero) or n.removeprefix(zero) in unseen]
    return merged


def _far_out(layer: Layer, shape: Sequence[int], settings: Settings, options: dict[str, Any]) -> Report:
    """The gradient check with inputs up to about 11: where ReLU6 is flat and GELU a line."""
    x = Subject(layer, tuple(shape), settings.seed).bench().input(settings.batch)
    if x.dtype.kind != "f":
        return Report("")
    report = gradcheck(layer, shape, x=_FAR * x, **options)
    if report.failures and all(f.rule == "nan" and f.tensor == "output" for f in report.failures):
        return Report("", notes=["not checked far out: the output is not finite there"])  # sqrt of what is negative
    report.tensors = [replace(t, mode=f"{t.mode}, far out") for t in report.tensors]
    # a layer may be flat out there: that it is not everywhere was seen near
    report.failures = [replace(f, mode=f"{f.mode}, far out") for f in report.failures if f.rule != "nothing"]
    return report


def _other_branches(layer: Layer, shape: Sequence[int], settings: Settings) -> Report:
    """The gradient check with other seeds, while they lead a random layer where it has not been."""
    net, x = net_of(layer, shape, settings)
    report, seen = Report(""), set[Fact]()
    replay = Replay()
    with replay.remembering():
        for training in (True, False):
            seen |= facts_of(net, x, training)
    if not replay.used:
        return report
    for seed in range(settings.seed + 1, settings.seed + 1 + _SEEDS):
        net.seed = seed  # all that a check with this seed draws in its passes
        try:
            facts = facts_of(net, x, training=True)
        except Exception as error:  # the check below says it in its own words
            facts = {("raised", str(error))}
        if facts <= seen:
            continue
        seen |= facts
        report.add(gradcheck(layer, shape, **vars(replace(settings, seed=seed))))
        if not report.ok:
            return report
    missing = never_run(layer, seen)
    if missing:
        report.notes.append(f"never run with {1 + _SEEDS} seeds, so not checked: {'; '.join(missing)}")
    return report


def _at_zeros(layer: Layer, shape: Sequence[int], settings: Settings) -> list[Failure]:
    """Failures where gradients are NaN for inputs of which every third is zero, as behind a ReLU, and outputs are not.

    An infinite gradient may be right there, that of a root; a NaN is a division of zero by zero.
    """
    bench = Subject(layer, tuple(shape), settings.seed, max(2, settings.batch)).bench()
    x = bench.input(settings.batch)
    if x.dtype.kind != "f":
        return []
    x.reshape(-1)[::3] = 0
    failures = []
    for mode in settings.modes:
        with np.errstate(all="ignore"):
            result = bench.run(x, bench.output_grad(settings.batch), mode == "train")
        outputs = {name for name in result if name == "y" or name.startswith("output ")}
        if not all(np.isfinite(result[name]).all() for name in outputs):
            continue
        for name in sorted(result.keys() - outputs):
            if np.isnan(result[name]).any():
                message = "nan where some inputs are zero, though the output is finite"
                cause = "a division by the input, or by something that is zero with it"
                label = type(layer).__name__
                failures.append(Failure("nan", label, mode, label, name, message, cause=cause))
    return failures


def broken_rules(layer: Layer, shape: Sequence[int], settings: Settings) -> list[Failure]:
    """A failure for every rule of the contract that the layer breaks."""
    subject = Subject(layer, tuple(shape), settings.seed, max(2, settings.batch))
    return ask(RULES, subject, type(layer).__name__)


def ask(rules: Sequence[Callable[[T], None]], subject: T, name: str) -> list[Failure]:
    """A failure for every rule that the subject, called `name`, breaks."""
    failures = []
    for rule in rules:
        try:
            with np.errstate(all="ignore"):
                rule(subject)
        except ShapeError:
            raise  # the shape does not suit it: nothing to be learned
        except (Broken, LayernetError) as error:
            failures.append(_failure(rule.__name__, name, str(error)))
        except Exception as error:
            failures.append(_failure(rule.__name__, name, blame(error) or f"{type(error).__name__}: {error}"))
    return failures


def _failure(rule: str, name: str, message: str) -> Failure:
    message = message.replace(f"layer layer ({name})", f"layer {name}")  # as the rules call the layer under test
    return Failure(rule.replace("_", " "), name, "contract", name, "", message)
