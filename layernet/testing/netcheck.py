"""One net in one mode: its analytic gradients, what must hold of them by themselves, and their comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layernet.backend import Array
from layernet.core.context import Tape
from layernet.core.net import Net
from layernet.core.param import Param
from layernet.errors import ContractError
from layernet.testing.engine import Settings, Variable
from layernet.testing.objective import Scalar, finite
from layernet.testing.passes import Runner, host, positions
from layernet.testing.report import Failure, Report
from layernet.testing.sampling import HostArray
from layernet.testing.verdicts import Function, check

_SAME = 1e-9  # passes that should repeat may differ by rounding, where a kernel adds into what is there

Gradients = dict[str, HostArray | None]
"""By path of the parameter, and under INPUT; None where no gradient was given."""
INPUT = "input"


class NetCheck:
    """A net, one input and one scalar function of the outputs, checked in one mode.

    `subject` is what the report calls it; `alone` says that the net is one layer, `random` what `Function.random` does.
    """

    def __init__(
        self,
        net: Net,
        x: Array,
        scalar_of: Callable[[Tape], Scalar],
        mode: str,
        subject: str,
        settings: Settings,
        alone: bool,
        random: bool,
    ) -> None:
        self.net, self.x, self.mode, self.subject = net, x, mode, subject
        self._scalar_of = scalar_of
        self._settings = settings
        self._alone = alone
        self._random = random
        self._failures: list[Failure] = []
        self._differentiable = np.dtype(str(x.dtype)).kind == "f"

    def run(self) -> Report:
        """Check; errors of the core about the layer's contract are failures of the rule `contract`."""
        report = Report(self.subject)
        try:
            self._run(report)
        except ContractError as error:
            self._fail("contract", self.subject, "", str(error))
        report.failures = self._failures + report.failures
        return report

    def _run(self, report: Report) -> None:
        runner = Runner(self.net, self.x, self.mode == "train")
        first = runner.run()
        scalar = self._scalar_of(first)
        if not all(finite(y) for y in first.outputs.values()):
            self._fail("nan", self._first_not_finite(runner), "output", "the output is not finite")
            return
        if not self._repeats(runner, first):
            return
        gradients = self._gradients(runner, scalar)
        if gradients is None:
            return

        def evaluate_from(start: int) -> Callable[[], float]:
            return lambda: scalar.value(runner.run(start))

        variables = []
        if self._differentiable:
            variables.append(self._variable(self._top, INPUT, self.x, gradients[INPUT], evaluate_from(0)))
        for path, param in self._trained().items():
            layer, tensor = self._place(param)
            start = runner.first_use(param)
            variables.append(self._variable(layer, tensor, param.data, gradients[path], evaluate_from(start)))
        if not variables:
            report.notes.append(f"{self.subject}: nothing to differentiate")
            return
        evaluate = evaluate_from(0)
        evaluate()  # sets the scalar's scale
        counts = positions(self.net, len(self.x))
        function = Function(self.subject, self.mode, variables, evaluate, scalar.scale, counts, self._random)
        report.add(check(function, self.net.device, self._settings))

    # analytic gradients

    def _gradients(self, runner: Runner, scalar: Scalar) -> Gradients | None:
        """Those of one pass; and a check that a second pass adds as much again."""
        net = self.net
        net.zero_grad()
        net.arena.grad[...] = np.nan  # what stands there before the first write means nothing
        once = self._backward(runner, scalar)
        twice = self._backward(runner, scalar)
        for path, param in self._trained().items():
            one, two = once[path], twice[path]
            if one is None or two is None or not np.isfinite(one).all():
                continue
            size = float(abs(one).max())
            if abs(two - 2 * one).max() > _SAME * size:
                layer, tensor = self._place(param)
                overwritten = bool(abs(two - one).max() <= _SAME * size)
                self._fail(
                    "accumulation",
                    layer,
                    tensor,
                    "a second pass with the same input does not add the same gradient again",
                    "it is overwritten instead of added to: use ctx.add_grad, or honour `accumulate`" * overwritten,
                )
        net.zero_grad()
        return once

    def _backward(self, runner: Runner, scalar: Scalar) -> Gradients:
        """Add one pass's gradients to the net's: what is there then, and the gradient of the input."""
        tape = runner.record(self._differentiable)
        dx = self.net.backward(tape, scalar.gradients(tape), update_buffers=False)
        scalar.add_gradients(tape)
        found: Gradients = {
            path: host(param.grad_buffer(), self.net) if param.has_grad else None
            for path, param in self._trained().items()
        }
        found[INPUT] = None if dx is None else host(dx, self.net)
        return found

    def _repeats(self, runner: Runner, first: Tape) -> bool:
        """Whether a recorded pass with the same key gives the same outputs."""
        second = runner.record(self._differentiable)
        for name, y in first.outputs.items():
            if float(abs(second.outputs[name] - y).max()) > _SAME * (1 + float(abs(y).max())):
                self._fail(
                    "determinism",
                    self._top,
                    name,
                    "two passes with the same input and the same key give different outputs",
                    "randomness that does not come from ctx.rng, or values kept on the layer",
                )
                return False
        return True

    # names

    @property
    def _top(self) -> str:
        return self.subject

    def _trained(self) -> dict[str, Param]:
        return {path: param for path, param in self.net.params().items() if not param.frozen}

    def _place(self, param: Param) -> tuple[str, str]:
        """(layer, tensor) as the report names them."""
        for path, layer in self.net.root.walk():
            for name, other in layer.own(Param).items():
                if other is param:
                    inner = path.removeprefix(self.net.layers[0].path).lstrip(".") if self._alone else path
                    return (f"{inner} ({type(layer).__name__})" if inner else self._top), name
        return self._top, param.path

    def _variable(
        self, layer: str, tensor: str, data: Array, gradient: HostArray | None, evaluate: Callable[[], float]
    ) -> Variable:
        known = np.zeros(data.shape) if gradient is None else gradient
        return Variable(layer, tensor, data, known, evaluate, missing=gradient is None)

    def _first_not_finite(self, runner: Runner) -> str:
        for index, step in enumerate(runner.steps):
            if not finite(runner.output_of(index)):
                return self._top if self._alone else step.label
        return self._top

    def _fail(self, rule: str, layer: str, tensor: str, message: str, cause: str = "") -> None:
        self._failures.append(Failure(rule, self.subject, self.mode, layer, tensor, message, cause=cause))
