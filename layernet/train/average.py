"""The mean of the weights of several checkpoints, as a checkpoint (`layernet average`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layernet.errors import CheckpointError, UsageError
from layernet.train import checkpoint
from layernet.train.checkpoint import Checkpoint
from layernet.train.rundir import RunDirectory

_OF_PREDICTION = ("step", "config", "classes", "seed", "dtype", "history")
"""What of a checkpoint's plain data holds for an average too: that of the last of them."""


def average_of(files: Sequence[Path]) -> Checkpoint:
    """The mean of parameters and running statistics, summed in float64; of the last file what else predicting needs.

    It predicts; training cannot go on from it. Raises CheckpointError, naming all that does not fit, UsageError for
    less than two files.
    """
    if len(files) < 2:
        raise UsageError(f"an average is of 2 checkpoints or more, got {len(files)}")
    sums: dict[str, Any] = {}
    last = Checkpoint()
    for file in files:
        last = checkpoint.load(file)
        values = {name: array for name, array in last.arrays.items() if name.startswith("net/")}
        if not sums:
            sums = {name: array.astype("float64") for name, array in values.items()}
            kinds = {name: array.dtype for name, array in values.items()}
            transforms, first = _transforms(last), file
            continue
        problems = _problems(values, sums, _transforms(last), transforms)
        if problems:
            raise CheckpointError(f"{file} does not fit {first}:\n  " + "\n  ".join(problems))
        for name, array in values.items():
            sums[name] += array
    if not sums:
        raise CheckpointError(f"{files[0]} has no weights")
    mean = {name: (total / len(files)).astype(kinds[name]) for name, total in sums.items()}
    meta = {key: last.meta[key] for key in _OF_PREDICTION if key in last.meta}
    return Checkpoint({**mean, **_transforms(last)}, {**meta, "average_of": [str(file) for file in files]})


def checkpoints_of(run: RunDirectory, which: Sequence[str] = ()) -> list[Path]:
    """The files of a run's checkpoints as people call them; without names, all `step-N`. Raises UsageError."""
    if which:
        return [run.find(name) for name in which]
    found = [run.checkpoint(name) for name in run.checkpoints() if name.startswith("step-")]
    if len(found) < 2:
        raise UsageError(
            f"{run.path} has {len(found)} checkpoints of steps", "keep more with train.checkpoint.keep, or name them"
        )
    return found


def _problems(values: dict[str, Any], sums: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    problems = [f"missing: {name[4:]} {array.shape}" for name, array in sums.items() if name not in values]
    problems += [f"unknown: {name[4:]} {array.shape}" for name, array in values.items() if name not in sums]
    problems += [
        f"shape: {name[4:]} is {array.shape}, expected {sums[name].shape}"
        for name, array in values.items()
        if name in sums and array.shape != sums[name].shape
    ]
    if theirs.keys() != ours.keys() or any(not np.array_equal(theirs[name], ours[name]) for name in ours):
        problems.append("its transforms measured other data: the nets get other inputs")
    return problems


def _transforms(saved: Checkpoint) -> dict[str, Any]:
    return {name: array for name, array in saved.arrays.items() if name.startswith("transform/")}
