"""scripts/compare_torch.py passes on what is there, and fails on what is wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from layernet.config.names import BUILT_IN
from layernet.core.context import Context
from layernet.layers.activation import Tanh
from layernet.layers.pool import MaxPool2d
from layernet.losses import MSE
from layernet.optim.optimizers import Adam

pytest.importorskip("torch")
from tests.pytorch import table

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_torch.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_torch", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    path = list(sys.path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_everything_agrees(script, capsys):
    assert script.main(["--draws", "8"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line and "examples," not in line]
    built_in = {name for kind in ("layer", "loss", "optimizer") for name in BUILT_IN[kind]}
    assert set(names) | set(table.NO_COUNTERPART) == built_in


def test_the_same_examples_are_drawn_in_every_run(script):
    first, second = (list(table.rows(4, ["Linear", "CrossEntropy"])) for _ in range(2))
    assert first == second
    assert [row.draws for row in first] == [4, 8]  # CrossEntropy has two entries
    assert first[0].worst_at.startswith("Linear(out_features=")


def wrong_result(cls, method, monkeypatch):
    right = getattr(cls, method)

    def wrong(self, *args, **options):
        found = right(self, *args, **options)
        return (found[0] * (1 + 1e-8), *found[1:]) if isinstance(found, tuple) else found * (1 + 1e-8)

    monkeypatch.setattr(cls, method, wrong)


@pytest.mark.parametrize(
    ("name", "cls", "method"),
    [
        ("Tanh", Tanh, "forward"),
        ("Tanh", Tanh, "backward"),
        ("MaxPool2d", MaxPool2d, "backward"),
        ("MSE", MSE, "forward"),
        ("MSE", MSE, "backward"),
    ],
)
def test_a_result_that_is_slightly_wrong_fails(script, capsys, monkeypatch, name, cls, method):
    wrong_result(cls, method, monkeypatch)
    assert script.main([name, "--draws", "2"]) == 1
    out = capsys.readouterr().out
    assert "above 1e-10" in out
    assert f"{name}(" in out  # the example


def test_a_wrong_parameter_gradient_fails(script, capsys, monkeypatch):
    right = Context.add_grads
    monkeypatch.setattr(
        Context, "add_grads", lambda self, *pairs: right(self, *((p, g * (1 + 1e-8)) for p, g in pairs))
    )
    assert script.main(["PReLU", "--draws", "2"]) == 1
    output, dx, dw = map(float, capsys.readouterr().out.splitlines()[1].split()[2:5])
    assert max(output, dx) < 1e-10 < dw


def test_wrong_running_statistics_fail(script, monkeypatch):
    right = Context.update_buffer
    monkeypatch.setattr(
        Context, "update_buffer", lambda self, buffer, value, momentum: right(self, buffer, value, momentum * 0.999)
    )
    assert script.main(["BatchNorm", "--draws", "3"]) == 1


def test_an_optimizer_that_is_slightly_wrong_fails(script, monkeypatch):
    right = Adam._follow
    monkeypatch.setattr(Adam, "_follow", lambda self, w, g, s, lr, *rest: right(self, w, g, s, lr * (1 + 1e-8), *rest))
    assert script.main(["Adam", "--draws", "2"]) == 1


def test_what_is_in_no_list_fails(script, capsys, monkeypatch):
    monkeypatch.setitem(BUILT_IN["layer"], "Forgotten", "nowhere:Forgotten")
    monkeypatch.setitem(table.NO_COUNTERPART, "Tanh", "a reason that is none")
    monkeypatch.setitem(table.NO_COUNTERPART, "Gone", "it was taken out")
    assert script.main(["Tanh", "--draws", "1"]) == 1
    out = capsys.readouterr().out
    for complaint in (
        "Forgotten is compared with nothing",
        "Tanh is in the table and in NO_COUNTERPART",
        "Gone is not built in",
    ):
        assert complaint in out


def test_an_unknown_name_fails(script, capsys):
    assert script.main(["Tan"]) == 1
    assert "Tan: no such entry" in capsys.readouterr().err
