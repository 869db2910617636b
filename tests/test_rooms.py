"""The rooms of the house: who may import whom (docs/architecture.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "layernet"
TINY = """\
device: cpu
kernels: numpy
data: {train: {type: FakeData, shape: [4], classes: 3, length: 8}, batch_size: 4}
net: {input: [4], layers: [{type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""

# each room, and the rooms that its code may import at run time
BELOW: dict[str, set[str]] = {"errors": set(), "text": set()}
BELOW["backend"] = {"errors"}
BELOW["core"] = {"backend"} | BELOW["backend"]
for _room in ("layers", "losses", "metrics", "optim", "data"):
    BELOW[_room] = {"core"} | BELOW["core"]
BELOW["objectives"] = {"losses", "metrics"} | BELOW["metrics"]
BELOW["config"] = {"layers", "losses", "metrics", "optim", "data"} | BELOW["layers"]
BELOW["train"] = {"config", "objectives", "text"} | BELOW["config"]
BELOW["testing"] = {"config", "objectives", "text"} | BELOW["config"]
BELOW["report"] = {"train", "testing"} | BELOW["train"] | BELOW["testing"]
BELOW["cli"] = {"report"} | BELOW["report"]


def imports(path: Path) -> set[str]:
    """Every module that a file imports at run time, inside functions too; what only type checkers see is left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem in BELOW]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "layernet" and len(parts) > 1 and parts[1] in BELOW:
            assert parts[1] == room or parts[1] in BELOW[room], f"{room} must not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_backend_knows_cupy_and_layers_know_no_array_module(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    roots = {module.split(".")[0] for module in imports(path)}
    if room != "backend":
        assert not roots & {"cupy", "cupyx"}
    if path.parent != PACKAGE / "backend" / "compiled":
        assert not roots & {"numba", "llvmlite"}
    if room == "layers":
        assert "numpy" not in roots


def test_nothing_in_the_package_is_long() -> None:
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 450}
    assert not long


@pytest.mark.parametrize(
    "command", [["-c", "import layernet"], ["-m", "layernet", "--help"], ["-m", "layernet", "--version"]]
)
def test_starting_imports_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "layernet" in loaded
    assert not loaded & {"numpy", "pydantic", "yaml", "rich", "cupy", "PIL", "numba"}


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        # what a config names is imported for it: `validate` makes no arrays, and draws no bars
        ("validate", {"rich", "PIL", "matplotlib", "numba", "cupy", "layernet.train.experiment", "layernet.testing"}),
        ("inspect", {"PIL", "matplotlib", "numba", "cupy", "layernet.testing"}),
        ("train", {"PIL", "matplotlib", "cupy", "onnx", "layernet.testing", "layernet.report"}),
    ],
)
def test_a_command_imports_what_it_needs_alone(command: str, heavy: set[str], tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    words = [command, str(config), *(["--runs", str(tmp_path)] if command == "train" else [])]
    code = f"from layernet.cli.main import main; import sys; main({words!r}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=120
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "layernet.config.experiment" in loaded
    assert not loaded & heavy


def test_the_compiled_kernels_are_imported_where_they_are_chosen_alone() -> None:
    choosers = {"backend/device.py", "cli/warmup.py", "report/doctor.py"}  # and where people ask after them
    for path in FILES:
        name = path.relative_to(PACKAGE).as_posix()
        inside = {module for module in imports(path) if module.startswith("layernet.backend.compiled.")}
        allowed = name in choosers or name.startswith("backend/compiled/")
        assert allowed or inside <= {"layernet.backend.compiled.CURE", "layernet.backend.compiled.problem"}, name
