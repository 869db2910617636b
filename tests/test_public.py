"""The public names: loaded when asked for, and the same for Python and for type checkers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import layernet
from layernet.config.names import PUBLIC


def test_type_checkers_see_every_public_name_and_no_other():
    tree = ast.parse(Path(layernet.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    names |= {target.id for node in block.body if isinstance(node, ast.Assign) for target in node.targets}
    assert names == set(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had(name):
    assert getattr(layernet, name) is not None
    assert name in dir(layernet)


def test_what_a_users_own_block_needs_is_public():
    assert issubclass(layernet.BasicBlock, layernet.Block)
