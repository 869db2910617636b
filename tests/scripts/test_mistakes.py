"""scripts/mistakes.py shows every mistake with the rule that caught it, and fails when one is not caught."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.testing import broken_contract, broken_losses

SCRIPT = Path(__file__).parents[2] / "scripts" / "mistakes.py"


@pytest.fixture
def mistakes(monkeypatch):
    spec = importlib.util.spec_from_file_location("mistakes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.test_broken, "MISTAKES", module.test_broken.MISTAKES[:2])
    for kind, names in (
        (broken_contract, ["MISTAKES"]),
        (broken_losses, ["MISTAKES", "WRONG_PENALTIES"]),
    ):
        for name in names:
            monkeypatch.setattr(kind, name, dict(list(getattr(kind, name).items())[:2]))
    return module


def test_every_mistake_has_a_line(mistakes, capsys):
    assert mistakes.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "8 mistakes, 0 not caught"
    assert "gradient  WrongSign" in lines[1]
    assert "a pass changed CacheOnSelf.x: what a pass makes belongs into ctx.save" in lines[3]


def test_one_that_is_not_caught_fails(mistakes, capsys, monkeypatch):
    monkeypatch.setitem(broken_contract.MISTAKES, broken_contract.Square, ((3, 4), "tied"))
    assert mistakes.main([]) == 1
    assert "9 mistakes, 1 not caught: Square" in capsys.readouterr().out
