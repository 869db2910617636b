"""Logs beside metrics.csv: callbacks that write every row in another form. Off unless a config lists them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from layernet.errors import UsageError
from layernet.train.callbacks import Callback
from layernet.train.events import EventFile
from layernet.train.files import saying, write_text

if TYPE_CHECKING:
    from layernet.train.trainer import Row, Trainer


class JSONLines(Callback):
    """Writes metrics.jsonl in the run directory: a JSON object for every row of metrics.csv.

    A line is added when the row is made, so `tail -f` shows it; a value that is not finite is null. On resuming the
    file begins anew with the rows so far: what a killed run wrote after its last checkpoint is not in it twice.
    """

    def on_start(self, trainer: Trainer) -> None:
        self._file = _directory(self, trainer) / "metrics.jsonl"
        with saying(self._file):
            write_text(self._file, "".join(map(_line, trainer.history)))

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        with saying(self._file), open(self._file, "a", encoding="utf-8") as stream:
            stream.write(_line(row))

    on_test = on_evaluate


class TensorBoard(Callback):
    """Writes the values of every row as TensorBoard scalars, in `tensorboard/` of the run directory.

    Look at them with `tensorboard --logdir runs`. On resuming, what came after the checkpoint is hidden.
    """

    def on_start(self, trainer: Trainer) -> None:
        folder = _directory(self, trainer) / "tensorboard"
        with saying(folder):
            self._file = EventFile(folder, trainer.step)

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        values = {
            name.replace(".", "/"): value
            for name, value in row.items()
            if name not in ("epoch", "step") and value is not None
        }
        with saying(self._file.path):
            self._file.scalars(values, row["step"])

    on_test = on_evaluate


def _line(row: Row) -> str:
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    return json.dumps(plain, default=float) + "\n"  # a metric of the user's may be a number of numpy's


def _directory(callback: Callback, trainer: Trainer) -> Path:
    if trainer.directory is None:
        raise UsageError(f"{type(callback).__name__} writes into a run directory, and there is none")
    return trainer.directory
