"""Compiled kernels are kept: where, for how long, and what is said the first time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from layernet.backend import compiled

pytestmark = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))
ROOT = Path(__file__).parents[3]
MULTIPLY = """
import numpy as np
from layernet.backend.device import get_device
from layernet.backend.compiled.cache import folder
get_device("cpu", "numba").ops.relu(np.ones((3, 4), np.float32))
print(folder())
"""


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, cwd=ROOT, env={**env, **environment}
    )


def test_a_machine_compiles_once_and_says_so(tmp_path: Path) -> None:
    first, second = (run("-c", MULTIPLY, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert re.fullmatch(r"compiling kernels for this machine, once: .*\n", first.stderr)
    assert second.stderr == ""
    assert first.stdout == second.stdout
    assert Path(first.stdout.strip()).parent == tmp_path / "layernet" / "kernels"


def test_numbas_own_variable_comes_first(tmp_path: Path) -> None:
    code = "from layernet.backend.compiled.cache import folder; print(folder())"
    chosen = run("-c", code, NUMBA_CACHE_DIR=str(tmp_path / "a"), XDG_CACHE_HOME=str(tmp_path / "b")).stdout
    assert chosen.startswith(str(tmp_path / "a" / "layernet" / "kernels"))
    assert run("-c", code, HOME=str(tmp_path)).stdout.startswith(str(tmp_path / ".cache" / "layernet"))


def test_a_home_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = "from layernet.backend.compiled.cache import folder; print(folder())"
    environment = {"HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    path = Path(run("-c", code, **environment).stdout.strip())
    assert path.is_relative_to(tmp_path)
    top = path.parents[1]
    assert top.stat().st_mode & 0o077 == 0  # what lies in it is run: nobody else may write there
    top.chmod(0o777)
    elsewhere = Path(run("-c", code, **environment).stdout.strip())
    assert elsewhere.is_relative_to(tmp_path)
    assert not elsewhere.is_relative_to(top)


def test_any_change_of_the_room_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layernet.backend.compiled import cache

    before = cache.fingerprint()
    for changed in ("compiled/vectors.py", "reference/activation.py"):  # whose constants are compiled in
        copy = tmp_path / Path(changed).stem
        shutil.copytree(Path(cache.__file__).parents[1], copy)
        assert cache.fingerprint(copy) == before
        (copy / changed).write_text((copy / changed).read_text() + "# changed\n")
        assert cache.fingerprint(copy) != before
    monkeypatch.setattr("numba.__version__", "0")
    assert cache.fingerprint() != before


def test_warmup_finds_every_kernel() -> None:
    from layernet.backend.compiled.warmup import kernels

    names = {kernel.function.__name__ for kernel in kernels()}
    source = "".join(path.read_text() for path in Path(compiled.__path__[0]).glob("*.py"))
    assert set(re.findall(r"^@Kernel\ndef (\w+)", source, re.M)) <= names
    assert len(names) > 10
