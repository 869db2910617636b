"""`layernet layers`: everything built in is there, and every example it prints works."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

from layernet.cli.main import main
from layernet.config.build import Builder
from layernet.config.experiment import load_config
from layernet.config.lookup import Lookup
from layernet.config.marks import Document
from layernet.config.names import BUILT_IN
from layernet.core.net import Net
from layernet.errors import DataError
from layernet.report.catalogue import built_in, example, spell_type

ENTRIES = list(built_in())
NOT_FOR_CONFIGS = {"Arrays"}

OWN = '''
from layernet import Layer, Param, init

class Scale(Layer):
    """y = factor * w * x (Nobody et al. 2031, arXiv:3101.00001).

    Shape: any -> same.
    """

    def __init__(self, factor: float, window: int | tuple[int, int] = 2, inner: list[Layer] | None = None):
        self.factor = factor

    def build(self, in_shape):
        self.weight = Param(in_shape[-1:], init.constant(1.0))
        return in_shape

class Undocumented(Layer):
    pass

def tiny(shape, rng, size: float = 0.1):
    """Uniform, tiny."""
    return rng.uniform(shape, -size, size)

class NoPart:
    pass
'''


def shown(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["layers", *argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


def test_the_list_has_everything_built_in_with_its_formula(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys).splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert set(rows) == {name for table in BUILT_IN.values() for name in table}
    assert rows["Linear"] == "y = x weight^T + bias, over the last axis"
    assert rows["kaiming_normal"] == "N(0, gain^2 / fan): keeps the second moment through layers"
    families = [line for line in lines if line and not line.startswith(" ")]
    assert families.index("conv") < families.index("composite") < families.index("loss")
    assert lines.index("composite") < lines.index(next(line for line in lines if line.startswith("  Sequential ")))


def test_nothing_is_cut_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out = shown(capsys)
    assert next(e.formula for e in ENTRIES if e.name == "Conv2d") in out
    assert "\x1b" not in out + shown(capsys, "Conv2d")


def test_on_a_terminal_lines_are_wrapped_under_their_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = shown(capsys) + shown(capsys, "Conv2d")
    monkeypatch.setattr("layernet.cli.layers.terminal_width", lambda: 80)
    wrapped = shown(capsys) + shown(capsys, "Conv2d")
    assert max(map(len, wrapped.splitlines())) <= 80 < max(map(len, plain.splitlines()))
    assert wrapped.split() == plain.split()  # nothing is lost
    lines = wrapped.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  Conv2d "))
    assert len(lines[first + 1]) - len(lines[first + 1].lstrip()) == lines[first].index("y[h, w, o]")
    assert lines[lines.index("arguments") + 1] in plain.splitlines()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_page_says_the_formula_and_every_argument(entry, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, entry.name)
    assert entry.formula
    assert entry.formula in out
    for argument in entry.arguments:
        assert re.search(rf"^  {argument.name} +{re.escape(argument.type)} ", out, re.M), argument
        assert argument.type != "any" or entry.name in NOT_FOR_CONFIGS
    assert ("\nexample\n" in out) is (entry.name not in NOT_FOR_CONFIGS)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.kind == "layer"], ids=lambda entry: entry.name)
def test_every_layer_example_builds_and_runs(entry) -> None:
    data = yaml.safe_load(example(entry, Lookup(Path())) or "")["net"]
    builder = Builder(Document({"net": data}), Lookup(Path()))
    layers = [builder.layer(raw, ("net", "layers", i)) for i, raw in enumerate(data["layers"])]
    assert not builder.problems
    net = Net(layers, data["input"]).bind("cpu", "float64")
    integers = net.layers[0].integer_input
    tape = net.forward(np.ones((2, *data["input"]), dtype=int if integers else float), training=True)
    net.backward(tape, np.ones_like(tape.output))
    assert np.isfinite(tape.output).all()


FLOAT_TARGETS = {
    *("MSE", "L1", "BCEWithLogits", "SigmoidFocal", "Hinge", "SmoothL1", "Huber", "SumOfSquares", "KLDiv"),
}


@pytest.mark.parametrize(
    "entry",
    [e for e in ENTRIES if e.kind != "layer" and e.name not in NOT_FOR_CONFIGS],
    ids=lambda entry: f"{entry.kind}-{entry.name}",
)
def test_every_other_example_is_part_of_a_config(entry, tmp_path: Path) -> None:
    part = yaml.safe_load(example(entry, Lookup(Path())) or "")
    float_targets = entry.kind == "loss" and entry.name in FLOAT_TARGETS
    train = {"type": "FakeData", "shape": [8, 8, 1], "classes": 0} if float_targets else "Digits"
    config = {
        "data": {"train": train, "val": {"fraction": 0.1}, "batch_size": 4},
        "net": {
            "input": [8, 8, 1],
            "layers": ["Flatten", {"type": "Linear", "out_features": 1 if float_targets else 10}],
        },
        "loss": "CrossEntropy",
        "optimizer": {"type": "SGD", "lr": 0.1},
        "train": {"epochs": 1},
    }
    path = tmp_path / "example.yaml"
    shape = (8, 8, 1)
    if entry.kind in ("dataset", "transform"):  # the net follows the data
        builder = Builder(Document(part), Lookup(Path()))
        source = builder._source(part["data"]["train"], ("data", "train")).value
        with suppress(DataError):  # its files are not here: then any net will do
            shape = source.dataset.shape
        config["net"]["layers"][1]["out_features"] = max(10, len(source.dataset.classes or []))
        for transform in source.transforms or []:
            shape = transform.out_shape(shape)
    config["net"]["input"] = list(shape)
    if entry.name == "Dice":  # an image of classes
        config["data"]["train"] = {"type": "FakeData", "shape": [8, 8, 1], "classes": 2}
        config["net"]["layers"] = [{"type": "Conv2d", "out_channels": 2, "kernel_size": 1}]
    for key, value in part.items():
        if key == "net":
            config["net"]["layers"][1] = value["layers"][0]
        elif key == "data":
            config["data"]["train"] = value["train"]
        else:
            config[key] = value
    path.write_text(yaml.safe_dump(config))
    load_config(path)


def test_a_page_has_what_the_issue_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "BatchNorm")
    for line in (
        "y = (x - mean) / sqrt(var + eps) * weight + bias",
        "Shape: (N, ..., C) -> same",
        "  momentum  float  0.1",
        "  input [5] -> output [5]",
        "  parameter  weight        [5]",
        "  buffer     running_mean  [5]",
        "- BatchNorm",
        "https://arxiv.org/abs/1502.03167",
    ):
        assert line in out or line.replace("- BatchNorm", "layers: [BatchNorm]") in out, line


def test_a_layer_of_ones_own(own: None, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "mine.py:Scale")
    assert "mine.py:Scale (layer, your own)" in out
    assert re.search(r"factor +float +required", out)
    assert re.search(r"window +int \| \[int, int\] +2", out)
    assert re.search(r"inner +\[layer, ...\] \| null +null", out)
    assert "Nobody et al. 2031, arXiv:3101.00001  https://arxiv.org/abs/3101.00001" in out
    assert "--shape" in out
    assert "example" not in out
    out = shown(capsys, "mine.py:Scale", "--shape", "4,3", "--arg", "factor=2")
    assert re.search(r"parameter +weight +\[3\]", out)
    assert yaml.safe_load(out.partition("example\n")[2].partition("\npaper")[0]) == {
        "net": {"input": [4, 3], "layers": [{"type": "./mine.py:Scale", "factor": 2}]}
    }


def test_parts_of_ones_own_are_called_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(
        "import layernet as ln\n\n\nclass Mine(ln.CrossEntropy):\n    pass\n\n\nclass Told(ln.Callback):\n    pass\n"
    )
    file = f"{tmp_path / 'parts.py'}"
    assert "Mine (your own loss)" in shown(capsys, f"{file}:Mine")
    assert main(["gradcheck", file]) == 2  # no layer in it: all others are named
    assert f"write {file}:Mine or {file}:Told" in capsys.readouterr().err
    assert "Told (your own callback)" in shown(capsys, f"{file}:Told")
    assert main(["layers", file]) == 2
    assert capsys.readouterr().err.endswith(f"is not said; write {file}:Mine or {file}:Told\n")


def test_what_has_no_docstring_and_what_is_a_function(own: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert "hand-written" not in shown(capsys, "mine.py:Undocumented")  # that is Layer's docstring, not its own
    out = shown(capsys, "mine.py:tiny")
    assert "Uniform, tiny" in out
    assert re.search(r"size +float +0.1", out)
    assert "rng" not in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["Conv2"], "nothing built in is called 'Conv2'; did you mean 'Conv2d'?"),
        (["sgd"], "did you mean 'SGD'?"),
        (["mine.py:Scal"], "did you mean 'Scale'?"),
        (["mine.py:NoPart"], "expected a subclass of Layer"),
        (["nowhere.py:Scale"], "cannot read nowhere.py"),
        (["nowhere:Scale"], "no module 'nowhere'"),
        ([":Scale"], "names nothing"),
        (["Conv2d", "--shape", "8,8"], "Conv2d"),
        (["Linear", "--shape", "4", "--arg", "out_feature=3"], "did you mean 'out_features'?"),
        (["Linear", "--shape", "4,x", "--arg", "out_features=3"], "--shape must be the shape"),
        (["SGD", "--shape", "4"], "--shape and --arg are for layers"),
        (["--shape", "4"], "--shape and --arg are for one layer"),
    ],
)
def test_mistakes_exit_with_2(argv: list[str], message: str, own: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (str, "text"),
        (list[str], "[text, ...]"),
        (tuple[int, ...], "[int, ...]"),
        (dict[str, float], "{text: float, ...}"),
        (bool | None, "bool | null"),
    ],
)
def test_types_read_like_yaml(annotation, text: str) -> None:
    assert spell_type(annotation) == text
