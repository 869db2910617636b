"""Everything that can be asked of a loss or a penalty, in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from layernet.backend import shape_of
from layernet.errors import UsageError
from layernet.losses import Loss, Penalty
from layernet.testing import rules_losses, rules_penalties
from layernet.testing.check_layer import CheckFailed, ask
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import gradcheck
from layernet.testing.raised import once, owed
from layernet.testing.report import Failure, Report
from layernet.testing.rules_losses import LARGEST, LossSubject
from layernet.testing.rules_penalties import PenaltySubject

_FAR = 6.0
_LABELS = 'the targets were numbers between 0 and 1: a loss on class labels says targets = "classes" in its class'


def check_loss(
    loss: Loss | Penalty, shape: Sequence[int] = (), targets: Any = None, *, largest: float = LARGEST, **options: Any
) -> Report:
    """Hold a loss or a penalty to the whole contract: its gradient, and every rule of `layernet.testing.rules_losses`.

    `shape` is that of one example's outputs, without N. `targets` are those of a batch, or a function (shape of the
    outputs with N, random numbers) -> targets; left out, they are class labels where the loss declares `targets =
    "classes"`, else numbers between 0 and 1 of the outputs' shape. A penalty needs neither: it is checked on a small
    net. The sum and the gradient must be finite in float32 for outputs of up to `largest`: give less for a loss that
    takes an exponential of them and means it. `options` are the fields of `Settings`. Returns the report, raises
    CheckFailed (an AssertionError) where anything is wrong:

        def test_my_loss():
            check_loss(MyLoss(margin=0.5), (5,))
    """
    report = inspect_loss(loss, shape, targets, largest=largest, **options)
    if not report.ok:
        raise CheckFailed(report)
    return report


def inspect_loss(
    loss: Loss | Penalty, shape: Sequence[int] = (), targets: Any = None, *, largest: float = LARGEST, **options: Any
) -> Report:
    """What `check_loss` finds, without raising."""
    if not isinstance(loss, Loss | Penalty):
        raise UsageError(f"check_loss takes a Loss or a Penalty, got {loss!r}", "layers go to check_layer")
    start, shape = time.perf_counter(), shape_of("shape", shape)
    settings = Settings(**options)
    report = Report(type(loss).__name__, failures=owed(loss))
    if report.failures:
        return report
    report.failures = broken_loss_rules(loss, shape, targets, settings, largest)
    report.add(_gradients(loss, shape, targets, options))
    report.failures = once(report.failures)
    if (
        isinstance(loss, Loss)
        and loss.targets == "any"
        and targets is None
        and any(" failed: " in f.message for f in report.failures)
    ):
        report.notes.append(_LABELS)
    rules = rules_penalties.RULES if isinstance(loss, Penalty) else rules_losses.RULES
    report.notes.append(f"{len(rules)} contract rules asked")
    report.seconds = time.perf_counter() - start
    return report


def broken_loss_rules(
    loss: Loss | Penalty, shape: Sequence[int], targets: Any, settings: Settings, largest: float = LARGEST
) -> list[Failure]:
    """A failure for every rule of the contract that the loss or penalty breaks."""
    name = type(loss).__name__
    if isinstance(loss, Penalty):
        return ask(rules_penalties.RULES, PenaltySubject(loss, settings.seed, settings.device), name)
    subject = LossSubject(loss, tuple(shape), targets, settings.seed, max(2, settings.batch), settings.device, largest)
    return ask(rules_losses.RULES, subject, name)


def _gradients(loss: Loss | Penalty, shape: Sequence[int], targets: Any, options: dict[str, Any]) -> Report:
    """The gradient check, near and with outputs of up to 11."""
    if isinstance(loss, Penalty):
        return gradcheck(loss, **options)
    settings = Settings(**options)
    subject = LossSubject(loss, tuple(shape), targets, settings.seed, settings.batch, settings.device)
    y, target = subject.outputs(settings.batch), subject.target(settings.batch)
    try:
        report = gradcheck(loss, x=y, targets=target, **options)
        if report.ok:  # else it would say the same again
            far = gradcheck(loss, x=_FAR * y, targets=target, **options)
            report.tensors += [replace(t, mode=f"{t.mode}, far out") for t in far.tensors]
            # a hinge may be flat for a whole batch out there: that it is not everywhere was seen near
            report.failures += [replace(f, mode=f"{f.mode}, far out") for f in far.failures if f.rule != "nothing"]
    except UsageError:
        raise
    except Exception as error:
        name, message = type(loss).__name__, f"{type(error).__name__}: {error}"
        return Report(name, failures=[Failure("gradient", name, "train", name, "outputs", message)])
    return report
