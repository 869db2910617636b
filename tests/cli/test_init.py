"""`layernet init`: configs that run as they are written, fitted to the data; and what cannot be fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from layernet.cli.main import main
from layernet.config.experiment import load_config
from layernet.config.marks import parse
from tests.config.test_jsonschema import errors

STEP = ["--set", "train.epochs=null", "--set", "train.steps=1", "--set", "data.batch_size=4", "--set", "kernels=numpy"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERNET_DATA", raising=False)
    return tmp_path


def runs(*arguments: str, name: str) -> Path:
    """The config that is written, after it was validated and trained for a step as the output says."""
    assert main(["init", *arguments]) == 0
    path = Path(name)
    yaml.safe_load(path.read_text())  # which editors read too
    assert errors(parse(path.read_text(), name).data) == []
    assert main(["validate", str(path)]) == 0
    assert main(["train", str(path), *STEP]) == 0
    return path


@pytest.mark.parametrize(
    ("shape", "classes", "kind"),
    [
        ("12", "3", None),
        ("5,7", "2", "mlp"),
        ("9,9,3", "4", None),
        ("9,9,3", "4", "mlp"),
        ("16,12,1", "3", "resnet"),
        ("20,33,3", "5", "convnet"),
        ("2,2,1", "3", None),
        ("6", "0", None),
    ],
)
def test_what_is_written_for_a_shape_runs(shape: str, classes: str, kind: str | None) -> None:
    short = ["--kind", kind] if kind else []
    path = runs("my.yaml", "--shape", shape, "--classes", classes, *short, name="my.yaml")
    config = load_config(path)
    assert config.net.input_shape == tuple(map(int, shape.split(",")))
    assert config.net.output_shape == (int(classes) or 1,)


def test_digits_run_and_the_output_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    path = runs("--data", "digits", name="digits.yaml")
    assert path.read_text().startswith("# yaml-language-server: $schema=layernet.schema.json\n")
    assert Path("layernet.schema.json").stat().st_size > 50_000
    assert "next: layernet train digits.yaml\n" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("kind", ["mlp", "convnet", "resnet"])
def test_data_that_is_not_there_yet_is_fitted_too(data: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--data", data, "--kind", kind]) == 0
    config = load_config(f"{data.lower()}.yaml")
    assert config.net.input_shape == config.data.train.shape
    assert config.net.output_shape == (len(config.data.train.classes or ()),)
    assert "its data is not there yet" in capsys.readouterr().out


def test_large_images_are_made_small_first() -> None:
    assert main(["init", "--shape", "224,224,3", "--classes", "7", "--kind", "resnet"]) == 0
    net = load_config("example.yaml").net
    assert net.layers[-3].out_shape == (7, 7, 512)
    assert main(["init", "big", "--shape", "224,224,3", "--classes", "7"]) == 0
    assert load_config("big.yaml").net.output_shape == (7,)


def images(root: Path, mode: str = "RGB") -> None:
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for i in range(8):
            colour = i * 20 if mode == "L" else (i * 20, 30, 99)
            Image.new(mode, (40, 36), colour).save(root / kind / f"{i}.png")


def test_a_folder_of_images(folder: Path) -> None:
    images(folder / "pets")
    config = load_config(runs("--data", "pets", name="pets.yaml"))
    assert config.net.input_shape == (32, 32, 3)
    assert config.data.val == 0.1
    assert main(["init", "small", "--data", "pets", "--shape", "8,10,1"]) == 0
    assert load_config("small.yaml").data.train.shape == (8, 10, 1)


def test_a_folder_with_splits(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        images(folder / "my pets" / split, "L")
    config = load_config(runs("--data", "my pets", name="my pets.yaml"))
    assert config.net.input_shape == (32, 32, 1)
    assert [config.resolved["data"][split]["root"] for split in ("train", "val", "test")] == [
        str(folder / "my pets" / split) for split in ("train", "valid", "test")
    ]


TABLES = {
    "names": ("a,b,kind\n" + "1,2.5,iris\n3,4,rose\n" * 8, [], ["iris", "rose"], 2),
    "numbered": ("1;2;0\n3;4;1\n5;6;2\n" * 8, [], None, 3),
    "column": ("kind\ta\tb\n" + "x\t1\t2\ny\t3\t4\n" * 8, ["--label", "kind"], ["x", "y"], 2),
    "first": ("0,1,2\n1,3,4\n" * 8, ["--label", "0"], None, 2),
    "numbers": ("a,b,price\n" + "1,2,0.5\n3,4,1.5\n" * 8, [], None, 0),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table(case: str, folder: Path) -> None:
    text, arguments, classes, count = TABLES[case]
    (folder / "t.csv").write_text(text)
    config = load_config(runs("--data", "t.csv", *arguments, name="t.yaml"))
    assert config.data.train.classes == classes
    assert config.net.output_shape == (count or 1,)


def test_arrays(folder: Path) -> None:
    x = np.zeros((20, 9, 9), "uint8")
    np.savez("a.npz", x=x, y=np.arange(20) % 3)
    assert load_config(runs("--data", "a.npz", name="a.yaml")).net.output_shape == (3,)
    np.savez("keras.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x[:5], y_test=np.arange(5) % 2)
    assert load_config(runs("--data", "keras.npz", name="keras.yaml")).data.test is not None
    np.savez("numbers.npz", x=np.zeros((20, 5), "f"), y=np.zeros((20, 2), "f"))
    assert load_config(runs("--data", "numbers.npz", name="numbers.yaml")).net.output_shape == (2,)


def test_nothing_is_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("digits.yaml").write_text("mine")
    Path("layernet.schema.json").write_text("mine too")
    assert main(["init", "--data", "Digits"]) == 2
    assert "digits.yaml exists; name another file, or overwrite it with --force" in capsys.readouterr().err
    assert Path("digits.yaml").read_text() == "mine"
    assert main(["init", "--data", "Digits", "--force"]) == 0
    assert load_config("digits.yaml").net.output_shape == (10,)
    assert Path("layernet.schema.json").read_text() == "mine too"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "init needs --data, or --shape and --classes"),
        (["--data", "MNITS"], "'MNITS' is no data set, no folder and no file; did you mean 'MNIST'?"),
        (["--data", "nowhere.csv"], "'nowhere.csv' is no data set, no folder and no file; known by name: Digits"),
        (["--data", "."], "holds no images; it needs one folder a class"),
        (["--data", "t.csv"], "t.csv: is empty"),
        (["--data", "bad.npz"], "bad.npz: is no sound .npz file"),
        (["--data", "odd.xyz"], "odd.xyz is of no known kind"),
        (["--data", "Digits", "--shape", "9,9,1"], "Digits has examples of shape [8, 8, 1], not [9, 9, 1]"),
        (["--data", "Digits", "--classes", "3"], "Digits has 10 classes, more than 3"),
        (["--data", "Digits", "--label", "x"], "--label names a column of a table"),
        (["--shape", "5", "--kind", "convnet"], "a convnet is for images, shape [5] is none; take --kind mlp"),
        (["--shape", "2,2,3", "--kind", "resnet"], "images of 2 x 2 are too small for a resnet"),
        (["--shape", "5", "--classes", "-1"], "--classes must be at least 0, got -1"),
        (["no/where", "--shape", "5"], "cannot write no/where.yaml: No such file or directory"),
    ],
)
def test_what_cannot_be_fitted_is_said(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("t.csv", "bad.npz", "odd.xyz"):
        Path(name).touch()
    code = main(["init", *arguments])
    assert code in (1, 2)
    assert told in capsys.readouterr().err
    assert not list(Path().glob("*.yaml"))
