"""Predictions as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from layernet.errors import LayernetError
from layernet.text import aligned
from layernet.train.files import write_text
from layernet.train.predict import Prediction


def table(found: Sequence[Prediction], values: str) -> str:
    """For people: a line for each, probabilities in per cent."""

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if values == "probability" else f"{value:.4g}"

    rows = [(each.name, *(f"{name} {shown(value)}" for name, value in _pairs(each))) for each in found]
    return aligned(rows)


def write(path: Path, found: Sequence[Prediction], values: str) -> None:
    """Write a .csv or .json file, whole or not at all. Raises LayernetError where it cannot be written."""
    text = as_json(found, values) if path.suffix.lower() == ".json" else as_csv(found, values)
    try:
        write_text(path, text)
    except OSError as error:
        raise LayernetError(f"{path} cannot be written: {error.strerror or error}", "choose another --out") from error


def as_csv(found: Sequence[Prediction], values: str) -> str:
    """A line for each: `file`, then `class`, `probability`, `class_2`, `probability_2`, ..., or the outputs by name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = found[0]
    if first.ranked is None:
        writer.writerow(["file", *first.outputs])
        writer.writerows([each.name, *each.outputs.values()] for each in found)
    else:
        places = ["" if i == 0 else f"_{i + 1}" for i in range(len(first.ranked))]
        writer.writerow(["file", *(f"{what}{place}" for place in places for what in ("class", values))])
        writer.writerows([each.name, *(cell for pair in _pairs(each) for cell in pair)] for each in found)
    return text.getvalue()


def as_json(found: Sequence[Prediction], values: str) -> str:
    """A list with an object for each; what is not finite is null."""

    def plain(each: Prediction) -> dict[str, Any]:
        if each.ranked is None:
            return {"file": each.name, "outputs": {name: _finite(value) for name, value in each.outputs.items()}}
        ranked = [{"class": name, values: _finite(value)} for name, value in each.ranked]
        return {"file": each.name, **ranked[0], "top": ranked}

    return json.dumps([plain(each) for each in found], indent=1) + "\n"


def _pairs(each: Prediction) -> list[tuple[str, float]]:
    return list(each.outputs.items()) if each.ranked is None else each.ranked


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
