"""`layernet predict`: files, folders and arrays in; class names of the checkpoint, CSV and JSON out."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import layernet as ln
from layernet.cli.main import main
from layernet.train.predict import Predictor

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}

IMAGES = """
device: cpu
data:
  train: {type: ImageFolder, root: images, size: 4, transforms: [{type: Normalize}]}
  batch_size: 6
net: {input: [4, 4, 3], layers: [Flatten, {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 20}
"""

NUMBERS = """
device: cpu
data: {train: {type: Npz, path: train.npz}, batch_size: 8}
net: {input: [2], layers: [{type: Linear, out_features: 1}]}
loss: MSE
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 1}
"""


FLOWERS = """
device: cpu
data:
  train: {type: Csv, path: flowers.csv, label: kind, classes: [rose, lily], delimiter: ";", transforms: [Normalize]}
  batch_size: 8
net: {input: [2], layers: [{type: Linear, out_features: 2}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 1.0}
train: {epochs: 20}
"""


def paint(path: Path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), color).save(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that tells three colours apart, and one that adds up two numbers."""
    folder = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, color in COLORS.items():
            for i in range(4):
                paint(folder / "images" / name / f"{i}.png", tuple(c * (12 + i) // 16 for c in color))  # type: ignore[arg-type]
        Path("colors.yaml").write_text(IMAGES)
        ln.load("colors.yaml").train()
        x = np.random.default_rng(0).random((64, 2), dtype=np.float32)
        np.savez("train.npz", x=x, y=x.sum(axis=1, keepdims=True))
        Path("sums.yaml").write_text(NUMBERS)
        ln.load("sums.yaml").train()
        shutil.rmtree(folder / "images")
        lines = [
            f"{i / 10};{kind};{10 + i}" for i, kind in enumerate(["rose", "lily"] * 20) for i in [i % 2 * 9 + i % 5]
        ]
        Path("flowers.csv").write_text("\n".join(["length;kind;width", *lines]))
        Path("flowers.yaml").write_text(FLOWERS)
        ln.load("flowers.yaml").train()
        Path("flowers.csv").unlink()
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(trained / "runs" / "colors-001")
    (tmp_path / "sums").symlink_to(trained / "runs" / "sums-001")
    (tmp_path / "flowers").symlink_to(trained / "runs" / "flowers-001")
    paint(tmp_path / "new" / "z.png", (255, 0, 0))
    paint(tmp_path / "new" / "deep" / "a.png", (0, 255, 0))
    paint(tmp_path / "new" / "B.JPG", (0, 0, 255))
    (tmp_path / "new" / "notes.txt").write_text("no image")
    (tmp_path / "new" / ".hidden.png").write_text("no image")
    return tmp_path


def test_one_image(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "new/z.png", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    name, first, *_ = out.split("  ")
    assert (name, first.split()[0]) == ("new/z.png", "red")
    assert out.count("%") == 2


def test_a_folder_as_csv(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "new", "--out", "found.csv"]) == 0
    assert capsys.readouterr().out == "3 predictions in found.csv\n"
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    assert [(row["file"], row["class"]) for row in rows] == [
        ("new/B.JPG", "blue"),
        ("new/deep/a.png", "green"),
        ("new/z.png", "red"),
    ]
    assert [*rows[0]] == ["file", "class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    for row in rows:
        assert sum(float(row[f"probability{i}"]) for i in ("", "_2", "_3")) == pytest.approx(1)


def test_as_json(here: Path) -> None:
    assert main(["predict", "run", "new/z.png", "new/deep", "--out", "found.json", "--top", "1"]) == 0
    first, second = json.loads(Path("found.json").read_text())
    assert (first["file"], first["class"], second["class"]) == ("new/z.png", "red", "green")
    assert first["top"] == [{"class": "red", "probability": first["probability"]}]
    assert 0.5 < first["probability"] <= 1


def test_classes_are_those_of_the_checkpoint_whatever_the_folder_holds_now(trained: Path, here: Path) -> None:
    for name in ("aaa", "zebra", "red"):  # another order, another number, no more of the others
        paint(trained / "images" / name / "0.png", (1, 2, 3))
    predictor = Predictor.open("run")
    shutil.rmtree(trained / "images")
    assert predictor.classes == ["blue", "green", "red"]
    assert [p.ranked[0][0] for p in predictor.predict("new") if p.ranked] == ["blue", "green", "red"]


def test_what_it_computes_is_the_net_after_the_preprocessing(here: Path) -> None:
    predictor = Predictor.open("run")
    x = np.random.default_rng(1).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    (normalize,) = predictor.config.data.all_transforms()
    scores = predictor.net.predict(normalize(x, None)).astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor(x), expected, rtol=1e-5)
    assert not np.allclose(expected, predictor(x[::-1]))


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_arrays(name: str, here: Path) -> None:
    x = np.stack([np.full((4, 4, 3), color, dtype=np.uint8) for color in COLORS.values()])
    for count in (3, 14):  # more than a batch
        many = np.concatenate([x] * 5)[:count]
        if name == "x.npz":
            np.savez(name, x=many)
        else:
            np.save(name, many)
        assert main(["predict", "run", name, "--out", "found.csv"]) == 0
        rows = list(csv.reader(Path("found.csv").read_text().splitlines()))[1:]
        assert [row[0] for row in rows] == [f"{name}[{i}]" for i in range(count)]
        assert [row[1] for row in rows[:3]] == list(COLORS)
    np.save("one.npy", x[1])
    assert [p.ranked and p.ranked[0][0] for p in Predictor.open("run").predict("one.npy")] == ["green"]


def test_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.array([[1, 2], [3, 4]]))
    assert main(["predict", "sums", "x.npy", "--out", "found.csv"]) == 0
    assert main(["predict", "sums", "x.npy", "--out", "found.json"]) == 0
    assert main(["predict", "sums", "x.npy"]) == 0
    header, *rows = csv.reader(Path("found.csv").read_text().splitlines())
    assert header == ["file", "output_0"]
    net = Predictor.open("sums").net
    expected = net.predict(np.array([[1, 2], [3, 4]], dtype=np.float32))[:, 0]
    assert [float(row[1]) for row in rows] == pytest.approx(expected, rel=1e-6)
    assert [each["outputs"]["output_0"] for each in json.loads(Path("found.json").read_text())] == pytest.approx(
        expected, rel=1e-6
    )
    assert "x.npy[1]  output_0 " in capsys.readouterr().out


@pytest.mark.parametrize("header", ["", "a, b\n"])
def test_a_table_of_numbers(header: str, here: Path) -> None:
    Path("x.csv").write_text(f"{header}1, 2\n\n3,4e0\n")
    assert main(["predict", "sums", "x.csv", "--out", "found.csv"]) == 0
    rows = list(csv.DictReader(Path("found.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == ["x.csv[0]", "x.csv[1]"]
    expected = Predictor.open("sums").net.predict(np.array([[1, 2], [3, 4]], dtype=np.float32))[:, 0]
    assert [float(row["output_0"]) for row in rows] == pytest.approx(expected, rel=1e-6)


def test_a_table_of_pixels_is_what_the_array_is(here: Path) -> None:
    x = np.random.default_rng(2).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    with gzip.open("x.csv.gz", "wt") as stream:
        np.savetxt(stream, x.reshape(9, -1), fmt="%d", delimiter=",")
    np.save("x.npy", x)
    predictor = Predictor.open("run")
    first, second = (list(predictor.predict(name)) for name in ("x.csv.gz", "x.npy"))
    assert [each.ranked for each in first] == [each.ranked for each in second]


def test_a_table_like_the_one_that_was_trained_on(here: Path) -> None:
    """Its labels, which may be unknown ones, are left out; without them it is the same. The training data is gone."""
    Path("labelled.csv").write_text("length;kind;width\n0.1;?;11\n1.2;lily;22\n")
    Path("plain.data").write_text("length;width\n0.1;11\n1.2;22\n")
    Path("numbers.csv").write_text("0.1;11\n1.2;22\n")
    predictor = Predictor.open("flowers")
    found = [
        [each.ranked for each in predictor.predict(name)] for name in ("labelled.csv", "plain.data", "numbers.csv")
    ]
    assert found[0] == found[1] == found[2]
    assert [ranked and ranked[0][0] for ranked in found[0]] == ["rose", "lily"]


def test_bad_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "new" / "c.png").write_bytes(b"\x89PNG nothing")
    (here / "new" / "d.png").touch()
    assert main(["predict", "run", "new", "--out", "found.csv"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: new/c.png: is no image that can be read")
    assert err.count("\n") == 1
    assert "--skip-bad" in err
    assert not Path("found.csv").exists()
    assert main(["predict", "run", "new", "--out", "found.csv", "--skip-bad"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": is")[0] for line in lines[:2]] == ["skipped: new/c.png", "skipped: new/d.png"]
    assert lines[2:] == ["skipped 2 of 5 files"]
    assert len(Path("found.csv").read_text().splitlines()) == 4
    assert main(["predict", "run", "new/c.png", "--skip-bad"]) == 1
    assert "nothing could be predicted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere", "new"], "is no run directory"),
        (["run", "nowhere.png"], "there is no nowhere.png"),
        (["run", "new", "--checkpoint", "12"], "has no checkpoint '12'"),
        (["run", "new", "--out", "found.xlsx"], "--out writes .csv or .json"),
        (["run", "new", "--top", "0"], "--top must be at least 1"),
        (["run", "new", "--out", "no/where.csv"], "where.csv cannot be written: No such file"),
        (["run", "empty"], "holds no images"),
        (["sums", "new/z.png"], "was trained on examples of shape [2], which are no images"),
        (["run", "wrong.npy"], "holds an array of shape [2, 5], expected [N, 4, 4, 3]"),
        (["run", "pickle.npy"], "is no sound .npy file"),
        (["run", "text.npz"], "is no sound .npz file"),
        (["sums", "three.csv"], "three.csv: 3 columns of numbers do not fill shape [2]"),
        (["sums", "word.csv"], "word.csv, line 2: column 1 holds 'x', expected a number"),
        (["sums", "ragged.csv"], "ragged.csv, line 3: has 1 cells, the first line 2"),
        (["sums", "empty.csv"], "empty.csv: is empty"),
        (["sums", "head.csv"], "head.csv: holds no examples"),
        (["run", "unit.csv"], "unit.csv: pixels would be whole numbers from 0 to 255"),
        (["flowers", "three.csv"], "three.csv"),
    ],
)
def test_mistakes(argv: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "empty").mkdir()
    np.save("wrong.npy", np.zeros((2, 5)))
    np.save("pickle.npy", np.array([{}]), allow_pickle=True)
    Path("text.npz").write_text("text")
    tables = {"three": "1,2,3", "word": "1,2\n1,x", "ragged": "1,2\n3,4\n5", "empty": "", "head": "a,b"}
    for name, text in {**tables, "unit": ",".join(["0.5"] * 48)}.items():
        Path(f"{name}.csv").write_text(text)
    assert main(["predict", *argv]) in (1, 2)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
