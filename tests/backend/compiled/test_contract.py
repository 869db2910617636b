"""The contract on the compiled kernels: one small case of every layer and of what a plan joins, in float32."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.backend import compiled
from layernet.backend.device import get_device
from layernet.testing.bench import Subject
from layernet.testing.cases import LAYERS, STEPS, Case
from layernet.testing.contract import RULES

pytestmark = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
ONE_EACH = list({case.name: case for case in reversed(LAYERS)}.values())[::-1]


@pytest.mark.parametrize("case", [*ONE_EACH, *STEPS], ids=lambda case: case.label)
def test_every_layer_keeps_the_contract(case: Case) -> None:
    batch = max(2, case.options.get("batch", 3))
    subject = Subject(case.make(), case.shape, batch=batch, device=get_device("cpu", "numba"), dtype="float32")
    with np.errstate(all="ignore"):
        for rule in RULES:
            rule(subject)
