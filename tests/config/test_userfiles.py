"""The user's own files: what they may import, what a run keeps of them, and that versions do not mix."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from layernet import Experiment
from layernet.cli.main import main
from layernet.config.experiment import ExperimentConfig, load_config, load_config_text
from layernet.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG = """
device: cpu
data:
  train: {type: FakeData, shape: [4], classes: 3, length: 12}
  test: {type: FakeData, shape: [4], classes: 3, length: 12}
  batch_size: 4
net: {input: [4], layers: ["LAYER", {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""
MINE = """
from layernet import Layer
from helpers import factor
import parts.deep as deep
from parts import shallow
import parts.deep


class Times(Layer):
    def forward(self, x, ctx):
        if ctx.training:
            import late

            assert late.factor == factor
        return x * ctx.xp.asarray(factor * deep.factor * shallow.factor, x.dtype)

    def backward(self, dy, ctx):
        return dy * parts.deep.factor
"""
FILES = {
    "mine.py": MINE,
    "helpers.py": "factor = 2.0\n",
    "parts/__init__.py": "",
    "parts/deep.py": "from . import shallow\nfrom .shallow import factor as other\nfactor = 3.0 * other\n",
    "parts/shallow.py": "import helpers\nfactor = helpers.factor / 2\n",
    "late.py": "from helpers import factor\n",
    "unused.py": "raise SystemExit\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "config.yaml").write_text(CONFIG.replace("LAYER", "./mine.py:Times"))
    return folder / "config.yaml"


def output(config: ExperimentConfig) -> float:
    """What the first layer makes of 1."""
    net = config.net.bind("cpu", "float64")
    y = net.forward(np.ones((1, 4)), training=True).output
    return float(y[0, 0] / net.params()["linear_1.weight"].data[0].sum())


def test_a_file_imports_what_stands_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    config = load_config(write(tmp_path, FILES))
    assert output(config) == pytest.approx(6)
    kept = set(FILES) - {"unused.py"}
    assert {name: content.decode() for name, content in config.files.items()} == {name: FILES[name] for name in kept}
    assert not {"helpers", "parts", "late", "mine"} & set(sys.modules)
    assert str(tmp_path) not in sys.path
    assert not list(tmp_path.rglob("*.pyc"))


def test_versions_and_folders_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = load_config(write(tmp_path / "a", FILES))
    other = load_config(write(tmp_path / "b", FILES | {"helpers.py": "factor = 4.0\n"}))
    write(tmp_path / "a", FILES | {"helpers.py": "factor = 6.0\n"})  # as long, and as old to a second
    second = load_config(tmp_path / "a" / "config.yaml")
    assert [output(config) for config in (second, first, other)] == pytest.approx([6 * 9 * 3, 2 * 3 * 1, 4 * 6 * 2])
    assert first.files["helpers.py"] == b"factor = 2.0\n"
    assert second.files["helpers.py"] == b"factor = 6.0\n"


def test_a_run_stands_by_itself(tmp_path: Path) -> None:
    """Kept is what was imported, not what is there when training starts; without the originals, all goes on."""
    experiment = Experiment.load(write(tmp_path / "mine", FILES))
    write(tmp_path / "mine", FILES | {"helpers.py": "factor = 99\n"})
    run = experiment.train(tmp_path / "runs", console=Console(file=io.StringIO()))
    assert (run / "helpers.py").read_text() == "factor = 2.0\n"
    assert (run / "parts" / "deep.py").read_text() == FILES["parts/deep.py"]
    assert (run / "late.py").exists()  # imported only when training
    assert not (run / "unused.py").exists()
    assert set(json.loads((run / "run.json").read_text())["files"]) == {
        *(set(FILES) - {"unused.py", "late.py"}),
        *("config.yaml", "resolved.yaml"),
    }
    expected = experiment.evaluate("test")
    shutil.rmtree(tmp_path / "mine")
    assert Experiment.open(run).evaluate("test") == expected


def test_what_is_installed_is_not_looked_for_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "layernet").mkdir()  # a checkout
    (tmp_path / "layernet" / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "numpy").mkdir()  # a directory that is no package
    files = {"mine.py": "import numpy\nimport bare.inner\n" + MINE, "bare/inner.py": "import numpy.linalg\n"}
    assert output(load_config(write(tmp_path, FILES | files))) == pytest.approx(6)


def test_compiled_modules_are_kept_too(tmp_path: Path) -> None:
    native = f"native{EXTENSION_SUFFIXES[0]}"
    mine = "try:\n    import native\nexcept ImportError:\n    pass  # it is none\n" + MINE
    write(tmp_path, FILES | {"mine.py": mine, native: "not really"})
    assert load_config(tmp_path / "config.yaml").files[native] == b"not really"


def test_a_config_with_files_of_two_folders(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    write(tmp_path / "sub", {"other.py": MINE.replace("Times", "More"), "helpers.py": "factor = 5.0\n", "late.py": ""})
    shutil.copytree(tmp_path / "parts", tmp_path / "sub" / "parts")
    text = CONFIG.replace('"LAYER"', "'./mine.py:Times', './sub/other.py:More'")
    with pytest.raises(ConfigError, match=r"sub/helpers.py and .*/helpers.py have one name; rename one"):
        load_config_text(text, folder=tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"helpers.py": "\n\nfactor = absent\n"}, r"NameError: name 'absent' is not defined (helpers.py:3)"),
        ({"helpers.py": "factor = (\n"}, r"SyntaxError: '(' was never closed (helpers.py:1)"),
        ({"helpers.py": ""}, "ImportError: cannot import name 'factor' from 'helpers'"),
        ({"helpers.py": "import helpers.more\n"}, "No module named 'helpers.more'"),
        ({"helpers.py": "import no_such_module\n"}, r"No module named 'no_such_module' (helpers.py:1)"),
    ],
)
def test_what_is_wrong_beside_a_file_is_located(files: dict[str, str], message: str, tmp_path: Path) -> None:
    config = write(tmp_path, FILES | files)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            load_config(config)
        assert message in re.sub(r"\(\S*/(\w+\.py:)", r"(\1", str(caught.value))
        assert "_layernet_user" not in str(caught.value)


def test_an_object_of_a_neighbour_as_a_default(tmp_path: Path) -> None:
    """The resolved config names its class by the neighbour's file."""
    mine = "from layernet import Layer\nfrom helpers import Half\n\n\nclass Times(Layer):\n"
    mine += "    def __init__(self, inner: Layer = Half()):\n        self.inner = inner\n\n"
    mine += "    def build(self, in_shape):\n        return self.inner.connect(in_shape)\n"
    helpers = "from layernet import Layer\n\n\nclass Half(Layer):\n    pass\n"
    config = load_config(write(tmp_path, {"mine.py": mine, "helpers.py": helpers}))
    assert config.resolved["net"]["layers"][0] == {"type": "./mine.py:Times", "inner": "./helpers.py:Half"}
    again = load_config_text(config.dump(), folder=tmp_path)
    assert again.dump() == config.dump()


@pytest.mark.parametrize(
    "start", [["-m", "layernet"], ["-c", "import sys; from layernet.cli.main import script; sys.exit(script())"]]
)
def test_modules_of_the_working_directory_are_found_by_either_command(start: list[str], tmp_path: Path) -> None:
    write(tmp_path, FILES)
    where = "import sys; sys.path[:] = [p for p in sys.path if p]; " if start[0] == "-c" else ""  # as a script has it
    command = [sys.executable, *start[:1], where + start[1], "layers", "mine:Times", "--shape", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mine:Times (layer" in done.stdout


def test_a_layer_is_shown_with_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, FILES)
    monkeypatch.chdir(tmp_path)
    assert main(["layers", "mine.py:Times", "--shape", "4"]) == 0
    assert "./mine.py:Times" in capsys.readouterr().out
