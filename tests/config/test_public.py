"""The names of `import layernet`, and the table of built-in names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import layernet as ln
from layernet.config.lookup import kind_of, load
from layernet.config.names import BASES, BUILT_IN, PUBLIC

ENTRIES = [(kind, name) for kind, names in BUILT_IN.items() for name in names]


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_a_built_in_name_is_a_class_of_its_kind(kind: str, name: str) -> None:
    cls = load(BUILT_IN[kind][name])  # type: ignore[index]
    assert kind_of(cls) == kind
    assert cls.__name__ == name
    assert f"{cls.__module__}:{name}" == BUILT_IN[kind][name]  # type: ignore[index]
    assert cls.__doc__


@pytest.mark.parametrize("kind", BASES)
def test_bases_are_classes(kind: str) -> None:
    for place in BASES[kind]:  # type: ignore[index]
        assert isinstance(load(place), type)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(ln, name) == load(PUBLIC[name])
    assert name in dir(ln)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Conv3d'"):
        ln.Conv3d  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ln.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    seen = {name: place.replace("layernet.core:init", "layernet.core.init") for name, place in seen.items() if name}
    assert seen | {"load": PUBLIC["load"]} == PUBLIC


def test_importing_layernet_is_light() -> None:
    code = "import sys, layernet; print([m for m in ('numpy', 'yaml', 'pydantic', 'rich', 'cupy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_users_own_block_needs_is_public() -> None:
    assert issubclass(ln.BasicBlock, ln.Block)
