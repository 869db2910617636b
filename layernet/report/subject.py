"""What a first config is to learn from: built-in data, a folder, a table, arrays; looked at as far as is needed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from layernet.backend import Shape
from layernet.config.lookup import load
from layernet.config.names import BUILT_IN
from layernet.data.files import reading
from layernet.errors import DataError, UsageError, did_you_mean

_BUILT_IN = ("Digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100")
_SIZES = (224, 160, 128, 96, 64, 48, 32)
_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_VALIDATION, _TEST = ("val", "valid", "validation"), ("test",)
_MOST_CLASSES = 1000
_MOST_LINES = 100_000  # of a table, that are looked at for its labels

_SHIFT = "in training: a shift; in evaluation: nothing"
_FLIP = "leave it out where left and right differ in meaning"
_NORMALIZE = ("Normalize", "mean and std, measured on the training set")


@dataclass
class Subject:
    """Data as a config names it. `classes` is 0 where numbers are predicted, `outputs` of them."""

    name: str
    train: dict[str, Any]
    shape: Shape
    classes: int
    outputs: int = 1
    val: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    transforms: list[tuple[Any, str]] = field(default_factory=lambda: [_NORMALIZE])
    """(transform, what to know of it)."""
    note: str = ""


def look_at(data: str | None, shape: Shape | None, classes: int | None, label: str | None) -> Subject:
    """The subject that a command line names. Raises UsageError or DataError where it cannot be told what it is.

    `data` is a built-in name, a folder, or a file .csv or .npz; None: invented data of the shape. A shape, the number
    of classes and a table's column of labels that are given count more than what is found.
    """
    if data is None:
        if shape is None:
            raise UsageError("init needs --data, or --shape and --classes", "for example --data MNIST")
        return _invented(shape, 10 if classes is None else classes)
    named = {name.casefold(): name for name in _BUILT_IN}
    path = Path(data).expanduser()
    if data.casefold() in named:
        found = _built_in(named[data.casefold()])
    elif path.is_dir():
        found = _folder(data, path, shape)
    elif path.is_file():
        found = _file_kind(path)(data, path, label)
    else:
        near = did_you_mean(data, _BUILT_IN)
        hint = near if near.startswith("did you mean") else f"known by name: {', '.join(_BUILT_IN)}"
        raise UsageError(f"{data!r} is no data set, no folder and no file", hint)
    if label is not None and found.train["type"] != "Csv":
        raise UsageError("--label names a column of a table", "leave it out")
    if shape is not None and shape != found.shape:
        raise UsageError(f"{data} has examples of shape {list(found.shape)}, not {list(shape)}", "leave out --shape")
    if classes is not None and classes < found.classes:
        raise UsageError(f"{data} has {found.classes} classes, more than {classes}", "leave out --classes")
    found.classes = found.classes if classes is None else classes
    return found


def _invented(shape: Shape, classes: int) -> Subject:
    given = {"type": "FakeData", "shape": list(shape), "classes": classes, "length": 2048}
    return Subject(
        "example",
        given,
        shape,
        classes,
        test={**given, "length": 512, "seed": 1},
        transforms=[],
        note="invented: put your own data in its place",
    )


def _built_in(name: str) -> Subject:
    dataset = load(BUILT_IN["dataset"][name])
    both = [{"type": name, "split": split} for split in ("train", "test")]
    made = dataset(split="train")
    height = made.shape[0]
    padding = {8: 1, 28: 2}.get(height, 4)
    transforms: list[tuple[Any, str]] = [({"type": "RandomCrop", "size": height, "padding": padding}, _SHIFT)]
    if height == 32 or name == "FashionMNIST":
        transforms.append(("RandomHorizontalFlip", ""))
    place = "it comes with layernet" if name == "Digits" else f"its files in $LAYERNET_DATA/{made.folder}"
    return Subject(
        name.lower(),
        both[0],
        made.shape,
        len(made.classes),
        test=both[1],
        transforms=[*transforms, _NORMALIZE],
        note=place,
    )


def _folder(given: str, path: Path, shape: Shape | None) -> Subject:
    """A folder of images, one folder a class; or one that has such folders for train, val and test."""
    train = path / "train" if (path / "train").is_dir() else path
    first = next((file for file in sorted(train.rglob("*")) if file.suffix.lower() in _IMAGES), None)
    if first is None:
        raise DataError(f"{train} holds no images", "it needs one folder a class, with images in it")
    classes = sum(entry.is_dir() and entry.name[0] != "." for entry in train.iterdir())
    if not classes:
        raise DataError(f"{train} holds images, but no folders", "it needs one folder a class")
    if shape is None:
        shape = _image_shape(first)
    elif len(shape) != 3 or shape[2] not in (1, 3):
        raise UsageError("the --shape of images is H,W,3 or H,W,1", "for example --shape 64,64,3")
    height, width, channels = shape
    rest: dict[str, Any] = {"size": height if height == width else [height, width]}
    rest |= {"color": "grey"} if channels == 1 else {}

    def split(names: tuple[str, ...]) -> dict[str, Any] | None:
        beside = [name for name in names if train != path and (path / name).is_dir()]
        return {"type": "ImageFolder", "root": str(Path(given) / beside[0]), **rest} if beside else None

    return Subject(
        path.resolve().name,
        {"type": "ImageFolder", "root": str(Path(given) / "train") if train != path else given, **rest},
        shape,
        classes,
        val=split(_VALIDATION),
        test=split(_TEST),
        transforms=[("RandomHorizontalFlip", _FLIP), _NORMALIZE],
        note=f"{classes} folders, one a class; images are scaled and cut to the size",
    )


def _image_shape(file: Path) -> Shape:
    """A size that suits an image, and its channels."""
    try:
        with Image.open(file) as image:
            side, grey = min(image.size), image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: is no image that can be read ({error})", "mend or remove it") from None
    size = next((each for each in _SIZES if each <= side), side)
    return (size, size, 1 if grey else 3)


def _file_kind(path: Path) -> Callable[[str, Path, str | None], Subject]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".npz"):
        return _arrays
    if name.endswith((".csv", ".tsv", ".txt", ".data")):
        return _table
    raise UsageError(f"{path} is of no known kind", "known: .csv, .tsv, .txt, .npz, and folders of images")


def _table(given: str, path: Path, label: str | None) -> Subject:
    rows, delimiter = _rows(path)
    width = len(rows[0])
    if width < 2:
        raise DataError(f"{path}: has {width} columns", "it needs numbers and a label")
    column, asked = _column(path, rows[0], label)
    named = isinstance(asked, str) or any(_number(cell) is None for i, cell in enumerate(rows[0]) if i != column)
    cells = [row[column] for row in rows[named:] if len(row) == width]
    train: dict[str, Any] = {"type": "Csv", "path": given}
    train |= {} if asked == -1 else {"label": asked}
    train |= {} if delimiter == "," else {"delimiter": delimiter}
    numbers = [_number(cell) for cell in cells]
    count = 0
    if any(number is None for number in numbers):
        names = sorted(set(cells))
        if len(names) > _MOST_CLASSES:
            raise DataError(
                f"{path}: column {column} holds {len(names)} different texts", "name the labels with --label"
            )
        train["classes"], count = names, len(names)
    elif all(number is not None and number in range(_MOST_CLASSES) for number in numbers):
        count = 1 + int(max((number or 0 for number in numbers), default=0))
    else:
        train["target"] = "number"
    return Subject(path.name.partition(".")[0], train, (width - 1,), count, note=f"{len(cells)} lines were looked at")


def _column(path: Path, first: list[str], label: str | None) -> tuple[int, str | int]:
    """(the index of the column of labels, how a config calls it)."""
    if label is None:
        return len(first) - 1, -1
    if label in first:
        return first.index(label), label
    if not label.removeprefix("-").isdecimal():
        raise DataError(f"{path}: its first line has no {label!r}", did_you_mean(label, first))
    column = int(label)
    if not -len(first) <= column < len(first):
        raise DataError(f"{path}: there is no column {column} among {len(first)}")
    return column % len(first), column


def _rows(path: Path) -> tuple[list[list[str]], str]:
    """(the cells of the first lines that are not empty, what stands between them)."""
    with reading(path) as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        try:
            first = text.readline()
            delimiter = max(",;\t", key=first.count) if any(map(first.count, ",;\t")) else ","
            lines = csv.reader(
                [first, *(line for _, line in zip(range(_MOST_LINES), text, strict=False))], delimiter=delimiter
            )
            rows = [[cell.strip() for cell in cells] for cells in lines if cells]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: is no table of UTF-8 text ({error})") from None
        finally:
            text.detach()
    if not rows:
        raise DataError(f"{path}: is empty", "it needs numbers and a label")
    return rows, delimiter


def _arrays(given: str, path: Path, label: str | None) -> Subject:
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = set(archive.files)
            x, y = next((pair for pair in (("x", "y"), ("x_train", "y_train")) if held.issuperset(pair)), (None, None))
            if x is None or y is None:
                raise DataError(f"{path}: holds {', '.join(sorted(held)) or 'nothing'}", "call its arrays x and y")
            examples, targets = archive[x], archive[y]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is no sound .npz file ({str(error).partition(chr(10))[0]})") from None
    names: dict[str, str] = {} if x == "x" else {"x": x, "y": y}
    test = {"type": "Npz", "path": given, "x": "x_test", "y": "y_test"} if {"x_test", "y_test"} <= held else None
    if not examples.shape[1:]:
        raise DataError(f"{path}: array {x!r} has the shape {list(examples.shape)}", "its first axis is examples")
    labels = targets.dtype.kind in "iu" and targets.ndim == 1
    if not labels and targets.ndim != 2:
        raise DataError(
            f"{path}: {y!r} has the shape {list(targets.shape)}", "labels are (N,) integers, numbers (N, K)"
        )
    return Subject(
        path.name.partition(".")[0],
        {"type": "Npz", "path": given, **names},
        tuple(examples.shape[1:]),
        1 + int(targets.max(initial=0)) if labels else 0,
        outputs=1 if labels else targets.shape[1],
        test=test,
        note=f"{len(examples)} examples",
    )


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
