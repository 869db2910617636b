"""scripts/compare_torch.py passes on what is there, and fails on what is wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from layernet.layers.activation import Tanh
from layernet.losses import MSE
from layernet.optim.optimizers import Adam

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_torch.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("compare_torch", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["compare_torch"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_agrees(script, capsys):
    assert script.main([]) == 0
    out = capsys.readouterr().out
    assert "not compared" not in out
    for name in ("Conv2d", "BatchNorm", "CrossEntropy", "AdamW"):
        assert name in out


@pytest.mark.parametrize(
    ("cls", "method"), [(Tanh, "forward"), (Tanh, "backward"), (MSE, "forward"), (MSE, "backward"), (Adam, "_follow")]
)
def test_what_is_slightly_wrong_fails(script, capsys, monkeypatch, cls, method):
    right = getattr(cls, method)

    def wrong(self, *args):
        if cls is Adam:
            w, g, state, lr, t = args
            return right(self, w, g, state, lr * (1 + 1e-8), t)
        found = right(self, *args)
        return (found[0] * (1 + 1e-8), found[1]) if isinstance(found, tuple) else found * (1 + 1e-8)

    monkeypatch.setattr(cls, method, wrong)
    assert script.main([cls.__name__]) == 1
    assert "above 1e-10" in capsys.readouterr().out


def test_what_is_in_no_table_fails(script, capsys, monkeypatch):
    monkeypatch.setattr(script, "LAYERS", [case for case in script.LAYERS if case.ours is not Tanh])
    assert script.main([]) == 1
    assert "Tanh" in capsys.readouterr().out.rpartition("AdamW")[2]


def test_an_unknown_name_fails(script, capsys):
    assert script.main(["Tan"]) == 1
    assert "unknown: Tan" in capsys.readouterr().err
