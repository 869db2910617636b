"""Tables of numbers in text files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.data.dataset import InMemory
from layernet.data.files import pin, reading
from layernet.errors import DataError, did_you_mean

_LARGEST = float(np.finfo(np.float32).max)
Row = tuple[int, list[str]]
"""A line's number, counted from 1, and its cells."""


class Csv(InMemory):
    """A table, one example a line: columns of numbers, float32 (C,), and one column of labels or of numbers to predict.

    `path`: a text file, gzip or not, UTF-8; empty lines are passed over. `label`: the target's column, by its name or
    by its index, -1 the last. `target`: `class` for labels, or `number`, float32 (1,). A list of columns has `target:
    number`, float32 (K,): several numbers to predict, or a 0 or 1 for each of several labels, as BCEWithLogits takes.
    `header`: whether the first line holds names; `auto`: where a cell of it is no number, the label's cell aside.
    Labels that are whole numbers are taken as they are; with `classes`, the names of the labels 0, 1, ..., the column
    holds names. Text without `classes` is an error that says what to write: a test file need not hold every name.
    `shape`: of one example, where the columns are an image, row by row, say [28, 28, 1].
    Raises DataError, with file and line, for a cell that is no finite number and a line of another length.
    """

    def __init__(
        self,
        path: str,
        label: int | str | list[int | str] = -1,
        target: Literal["class", "number"] = "class",
        header: bool | Literal["auto"] = "auto",
        classes: list[str] | None = None,
        shape: list[int] | None = None,
        delimiter: str = ",",
    ) -> None:
        if target not in ("class", "number"):
            raise ValueError(f"target must be class or number, got {target!r}")
        self._labels = label if isinstance(label, list) else [label]
        if header is False and (names := [each for each in self._labels if isinstance(each, str)]):
            raise ValueError(f"without a header no column is called {names[0]!r}: give label as an index")
        if isinstance(label, list) and (target == "class" or not label):
            raise ValueError(f"label as a list names columns of numbers: give target: number, got {target} and {label}")
        if target == "number" and classes is not None:
            raise ValueError("classes name labels, but target is number")
        if classes is not None and len(set(classes)) != len(classes):
            raise ValueError(f"classes must differ from one another, got {classes}")
        if shape is not None and (not shape or any(n < 1 for n in shape)):
            raise ValueError(f"shape needs sizes of at least 1, got {shape}")
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise ValueError(f"delimiter must be one character, got {delimiter!r}")
        self.path = path
        self.label = label
        self.target = target
        self.header = header
        self.classes = classes
        self.delimiter = delimiter
        self._asked_shape = shape

    @property
    def shape(self) -> Shape:  # type: ignore[override]
        """That of one example: as asked for, or the number of columns. Raises DataError where there is no such file."""
        width, places, _ = self._columns()
        return (width - len(places),) if self._asked_shape is None else tuple(self._asked_shape)

    def check(self) -> None:
        self._columns()

    def load(self) -> tuple[Array, Array]:
        width, places, named = self._columns()
        others = [column for column in range(width) if column not in places]
        rows: list[Array] = []
        targets: list[list[float]] = []
        for number, cells in self._body(width, named):
            targets.append([self._target(cells[place], number) for place in places])
            rows.append(self._numbers([cells[column] for column in others], number, others))
        y = np.array(targets, dtype=np.int64 if self.target == "class" else np.float32)
        return np.stack(rows).reshape(-1, *self.shape), y[:, 0] if self.target == "class" else y

    def examples(self, path: Path, shape: Shape, labelled: bool = True) -> Array:
        """x of another table in this form, (N, *shape) float32.

        Its targets' columns may be there and are left out, unless not `labelled`: then it must have none. Raises
        DataError, with file and line.
        """
        table = Csv(str(path), self.label, "number", self.header, None, list(shape), self.delimiter)
        with table._rows() as lines:
            _, first = next(lines, (0, []))
        if not labelled or len(first) == math.prod(shape):
            table._labels = []
        width, places, named = table._columns()
        others = [column for column in range(width) if column not in places]
        rows = [
            table._numbers([cells[column] for column in others], number, others)
            for number, cells in table._body(width, named)
        ]
        return np.stack(rows).reshape(-1, *shape)

    def _body(self, width: int, named: bool) -> Iterator[Row]:
        """The lines that are examples, of `width` cells each. Raises DataError where there are none."""
        empty = True
        with self._rows() as lines:
            for index, (number, cells) in enumerate(lines):
                if index == 0 and named:
                    continue
                if len(cells) != width:
                    raise self._wrong(number, f"has {len(cells)} cells, the first line {width}")
                empty = False
                yield number, cells
        if empty:
            raise DataError(f"{self._file}: holds no examples")

    def _columns(self) -> tuple[int, list[int], bool]:
        """(how many columns, which of them are targets, whether the first line holds their names)."""
        with self._rows() as lines:
            _, first = next(lines, (0, []))
        if not first or (self._labels and len(first) < 2):
            what = f"has {len(first)} columns" if first else "is empty"
            raise DataError(f"{self._file}: {what}", "it needs numbers and a label, with `delimiter` between them")
        places = [self._place(label, first) for label in self._labels]
        if len(set(places)) < len(places) or len(places) == len(first):
            what = "names a column twice" if len(set(places)) < len(places) else "leaves no column for the examples"
            raise DataError(f"{self._file}: label {self.label} {what}")
        named = self.header
        if named == "auto":
            others = (cell for column, cell in enumerate(first) if column not in places)
            named = any(isinstance(label, str) for label in self._labels) or any(_number(c) is None for c in others)
        if self._asked_shape is not None and math.prod(self._asked_shape) != len(first) - len(places):
            count = len(first) - len(places)
            raise DataError(f"{self._file}: {count} columns of numbers do not fill shape {self._asked_shape}")
        return len(first), places, named

    def _place(self, label: int | str, first: list[str]) -> int:
        """Where the target's column is, in a file with this first line."""
        if isinstance(label, str):
            if label not in first:
                raise DataError(f"{self._file}: its first line has no {label!r}", did_you_mean(label, first))
            return first.index(label)
        place = label + (len(first) if label < 0 else 0)
        if not 0 <= place < len(first):
            raise DataError(f"{self._file}: there is no column {label} among {len(first)}")
        return place

    def _numbers(self, cells: list[str], number: int, columns: list[int]) -> Array:
        try:
            row = np.array(list(map(float, cells)), dtype=np.float64)
            with np.errstate(over="ignore"):
                single = row.astype(np.float32)
        except ValueError:
            single = None
        if single is not None and np.isfinite(single).all():
            return single
        for column, cell in zip(columns, cells, strict=True):
            value = _number(cell)
            if value is None or not np.isfinite(value) or abs(value) > _LARGEST:
                raise self._wrong(number, f"column {column} holds {cell!r}, expected a number")
        raise AssertionError("every cell is a number, the row is not")

    def _target(self, cell: str, number: int) -> float:
        if self.target == "class" and self.classes is not None:
            if cell.strip() not in self.classes:
                raise self._wrong(number, f"has label {cell!r}", did_you_mean(cell, self.classes))
            return self.classes.index(cell.strip())
        value = _number(cell)
        if self.target == "number":
            if value is None or abs(value) > _LARGEST or value != value:
                raise self._wrong(number, f"has target {cell!r}, expected a number")
            return value
        if value is None or not 0 <= value < 2**31 or value != int(value):
            cure = "give the names as `classes`, or `target: number` for numbers to predict"
            raise self._wrong(number, f"has label {cell!r}, expected a whole number from 0 up", cure)
        return int(value)

    def pinned(self) -> dict[str, str]:
        return pin(path=self.path)

    @property
    def _file(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def _wrong(self, number: int, what: str, hint: str = "") -> DataError:
        return DataError(f"{self._file}, line {number}: {what}", hint)

    @contextmanager
    def _rows(self) -> Iterator[Iterator[Row]]:
        """The lines that are not empty. Raises DataError for a file that cannot be read."""
        if not self._file.is_file():
            raise DataError(f"Csv: there is no {self._file}", "correct path")
        with reading(self._file) as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            lines = csv.reader(text, delimiter=self.delimiter, strict=True)
            try:
                yield ((lines.line_num, [cell.strip() for cell in cells]) for cells in lines if cells)
            except UnicodeDecodeError as error:
                raise DataError(f"{self._file}: is no UTF-8 text ({error.reason})") from error
            except csv.Error as error:
                raise self._wrong(lines.line_num, f"cannot be read ({error})") from error
            finally:
                text.detach()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
