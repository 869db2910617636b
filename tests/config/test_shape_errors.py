"""Every built-in layer that refuses a shape: the answer names it and the layer before it, both shapes, both lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layernet.config.build import Builder
from layernet.config.experiment import load_config_text
from layernet.config.lookup import Lookup
from layernet.config.marks import Document, dump
from layernet.config.names import BUILT_IN
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.core.sequential import Sequential
from layernet.errors import ConfigError, ContractError, ShapeError
from layernet.layers.activation import ReLU
from layernet.layers.composite import Add, AuxiliaryHead, Concat, Maximum, Multiply, Recompute
from layernet.layers.conv import Conv2d
from layernet.layers.local_norm import LocalResponseNorm
from layernet.layers.rearrange import Squeeze, Unsqueeze
from layernet.layers.weight_norm import WeightNorm
from layernet.testing.cases import LAYERS

SHAPES = [(1,), (7,), (3, 5), (1, 1, 1), (5, 3, 7), (2, 2, 11), (3, 3, 2, 2)]
NEVER = {
    # any shape, elementwise or by the last axis
    *(
        "Linear",
        "Scale",
        "Bias",
        "LayerNorm",
        "RMSNorm",
        "BatchNorm",
        "Flatten",
        "Dropout",
        "DropPath",
        "GaussianNoise",
    ),
    *("ReLU", "LeakyReLU", "PReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax", "Hardtanh", "ReLU6", "ELU", "SELU"),
    *("Hardswish", "Mish", "Softplus", "ScaledTanh", "Tanhshrink", "Softsign", "LogSigmoid", "LogSoftmax"),
    *("Embedding", "Affine", "Abs", "Square", "Sqrt", "Log", "Exp", "Power"),
}


def refused(layer: Layer) -> tuple[int, ...] | None:
    """A shape that the layer does not take."""
    for shape in SHAPES:
        try:
            Net([ReLU().named("before"), layer.clone()], shape)
        except (ShapeError, ContractError):
            return shape
    return None


CASES: dict[str, Callable[[], Layer]] = {
    **{case.name: case.make for case in reversed(LAYERS)},
    # those that refuse what is in them, and not every case of which does
    "Add": lambda: Add([[Conv2d(2, 1)], [Conv2d(3, 1)]]),
    "Multiply": lambda: Multiply([[Conv2d(2, 1)], [Conv2d(3, 1)]]),
    "Maximum": lambda: Maximum([[Conv2d(2, 1)], [Conv2d(3, 1)]]),
    "Concat": lambda: Concat([[Conv2d(2, 1)], [Conv2d(2, 2)]]),
    "AuxiliaryHead": lambda: AuxiliaryHead("wrong", [Conv2d(2, 9)]),
    "Recompute": lambda: Recompute([Conv2d(2, 9)]),
    "Sequential": lambda: Sequential([Conv2d(2, 9)]),
    "WeightNorm": lambda: WeightNorm(Conv2d(2, 9)),
    "Squeeze": lambda: Squeeze(2),
    "Unsqueeze": lambda: Unsqueeze(6),
    "LocalResponseNorm": lambda: LocalResponseNorm(3, region="within_channel"),
}


@pytest.mark.parametrize("name", sorted(set(BUILT_IN["layer"]) - NEVER))
def test_both_layers_both_shapes_both_lines(name: str) -> None:
    layer = CASES[name]()
    shape = refused(layer)
    assert shape is not None, f"{name} takes every shape tried"
    described = Builder(Document({}), Lookup(Path())).describe(layer)
    assert described is not None
    plain = described.plain if isinstance(described.plain, dict) else {"type": described.plain}
    layers = [{"type": "ReLU", "name": "before"}, {**plain, "name": "wrong"}]
    config = {
        "device": "cpu",
        "data": {"train": {"type": "Npz", "file": "absent.npz"}, "batch_size": 2},
        "net": {"input": list(shape), "layers": layers},
        "loss": "CrossEntropy",
        "optimizer": {"type": "SGD", "lr": 0.1},
        "train": {"steps": 1},
    }
    with pytest.raises(ConfigError) as caught:
        load_config_text(dump(config), "c.yaml")
    text = dump(config).splitlines()
    (problem,) = [problem for problem in caught.value.problems if problem.path.startswith("net.layers")]
    assert problem.mark is not None
    assert "wrong" in problem.message  # the layer, or one in it
    assert f"it gets {shape}" in problem.message
    block = problem.block()
    if problem.path == "net.layers.1":
        (note,) = problem.notes
        assert note.message == f"layer before (ReLU) gives {shape}"
        assert "before" in text[note.mark.line - 1]
        assert text[note.mark.line - 1][:90] in block
    assert text[problem.mark.line - 1][:90] in block


def test_the_others_take_every_shape() -> None:
    assert all(refused(CASES[name]()) is None for name in NEVER)
