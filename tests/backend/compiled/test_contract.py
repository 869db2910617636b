"""The contract and the gradients in all combinations of kernels and plan, on one small case of every layer and step.

The contract with numpy's kernels and the plan is tests/testing/test_contract.py's, on every case; docs/architecture.md
has the table.
"""

from __future__ import annotations

import numpy as np
import pytest

from layernet.backend import compiled
from layernet.backend.device import get_device, host
from layernet.core.net import Net
from layernet.testing import gradcheck
from layernet.testing.bench import Bench, Subject, close
from layernet.testing.cases import LAYERS, STEPS, Case
from layernet.testing.contract import RULES

needs_numba = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
ONE_EACH = list({case.name: case for case in reversed(LAYERS)}.values())[::-1]


def planned(case: Case) -> bool:
    """Whether anything in it runs as one step."""
    net = Net([case.make()], case.shape)
    return bool(net.steps() or net.steps(inference=True))


JOINED = [case for case in (*LAYERS, *STEPS) if planned(case)]


def keeps_the_contract(case: Case, kernels: str, plan: bool) -> None:
    batch = max(2, case.options.get("batch", 3))
    dtype = "float32" if kernels == "numba" else "float64"
    device = get_device("cpu", kernels)
    subject = Subject(case.make(), case.shape, batch=batch, device=device, dtype=dtype, plan=plan)
    with np.errstate(all="ignore"):
        for rule in RULES:
            rule(subject)


def test_every_step_is_among_those_that_are_joined() -> None:
    assert set(map(id, STEPS)) <= set(map(id, JOINED))


@needs_numba
@pytest.mark.parametrize("case", [*ONE_EACH, *STEPS], ids=lambda case: case.label)
def test_every_layer_keeps_the_contract(case: Case) -> None:
    keeps_the_contract(case, "numba", plan=True)


@pytest.mark.parametrize("kernels", ["numpy", pytest.param("numba", marks=needs_numba)])
@pytest.mark.parametrize("case", JOINED, ids=lambda case: case.label)
def test_what_is_joined_keeps_the_contract_without_the_plan(case: Case, kernels: str) -> None:
    keeps_the_contract(case, kernels, plan=False)


@pytest.mark.parametrize("plan", [True, False])
@pytest.mark.parametrize("case", STEPS, ids=lambda case: case.label)
def test_gradients_of_steps_with_and_without_the_plan(case: Case, plan: bool) -> None:
    report = gradcheck(Net([case.make()], case.shape, plan=plan), elements=2)
    assert report.ok, report


@needs_numba
@pytest.mark.parametrize(
    ("case", "plan"),
    [*((case, True) for case in (*LAYERS, *STEPS)), *((case, False) for case in JOINED)],
    ids=lambda value: value.label if isinstance(value, Case) else f"plan {value}",
)
def test_gradients_are_those_that_are_checked_in_float64(case: Case, plan: bool) -> None:
    """Difference quotients need float64, which compiled kernels have not; the reference's gradients passed them."""
    batch = max(2, case.options.get("batch", 3))
    ours = Bench(case.make(), case.shape, dtype="float32", device=get_device("cpu", "numba"), plan=plan)
    theirs = Bench(case.make(), case.shape, device=host(), plan=False)
    with np.errstate(all="ignore"):
        for training in theirs.modes(batch):
            found, exact = (
                bench.run(bench.input(batch), bench.output_grad(batch), training) for bench in (ours, theirs)
            )
            close(found, exact, "compiled kernels", tolerance=5e-5)
