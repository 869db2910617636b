"""A batch of no examples, as a filter may leave it, goes through every layer and back."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.testing.cases import LAYERS


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.label)
def test_no_examples_give_no_outputs_and_no_gradients(case):
    net = Net([case.make()], case.shape).bind("cpu")
    integers = net.root.reader.integer_input
    x = np.empty((0, *case.shape), dtype="int64" if integers else "float32")
    tape = net.forward(x, needs_input_grad=not integers)
    assert tape.output.shape == (0, *net.output_shape)
    dx = net.backward(tape, tape.output)
    assert integers or dx.shape == x.shape
    assert not any(param.grad.any() for param in net.params().values())
