"""Whether a run can fit into memory at all: told from shapes, before anything is allocated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from layernet.backend.device import available_memory
from layernet.config.experiment import ExperimentConfig
from layernet.config.marks import Path, dotted
from layernet.core.memory import Least, least
from layernet.core.param import Param
from layernet.errors import ConfigError, Problem
from layernet.text import size


class Needs(NamedTuple):
    """The least bytes that a run holds at once, whatever its kernels and its plan; `example` is of one more in a batch.

    A run needs more: this only refuses what cannot be.
    """

    parameters: int
    """With their gradients, the optimizer's state and the mean of the weights."""
    example: int
    """Of training, for backward."""
    evaluated: int
    """Of a pass without backward."""


def needs(config: ExperimentConfig, found: Least) -> Needs:
    """What the config asks for, of which `found` is the net's part."""
    number = np.dtype(config.dtype).itemsize
    copies = 2 + len(config.optimizer.state_names) + (config.average is not None)
    return Needs(number * copies * config.net.size, number * (found.kept + found.passing), number * found.alone)


def check_memory(config: ExperimentConfig, training: bool = True) -> None:
    """Raise ConfigError where the config cannot fit into the memory that the device has now. Allocates nothing."""
    free = available_memory(config.device)
    if free is None:
        return
    found, data = least(config.net), config.data
    need = needs(config, found)
    if not training:
        need = Needs(np.dtype(config.dtype).itemsize * config.net.size, 0, need.evaluated)
    batches = {"batch_size": data.batch_size * need.example, "eval_batch_size": data.eval_batch_size * need.evaluated}
    key, most = max(batches.items(), key=lambda item: item[1])
    if need.parameters + most <= free:
        return
    parts = "parameters, gradients and optimizer state" if training else "parameters"
    message = (
        f"it does not fit into memory: at least {size(need.parameters + most)} are needed, {size(free)} are free: "
        f"{size(need.parameters)} for {parts}, {size(most)} for a batch of {getattr(data, key)} "
        f"(the largest, {found.largest.label}, gives {found.largest.out_shape})"
    )
    each = need.example if key == "batch_size" else need.evaluated
    fits = (free - need.parameters) // max(1, each)
    if fits >= 1:
        path: Path = ("data", key if ("data", key) in config.document.values else "batch_size")
        hint = f"by this estimate a batch of {fits} fits, and a run needs more than it says"
        hint += "; train.accumulate makes one update of several" * (key == "batch_size")
        raise ConfigError([Problem(message, dotted(path), config.document.mark(path), hint)])
    layer, hint = found.largest, "make the net or its input smaller"
    params = config.net.params().values()
    if params and need.parameters > most:
        heaviest = max(params, key=lambda param: param.size)
        hint += f": {heaviest.path} alone has {heaviest.size} numbers, {heaviest.shape}"
        layer = next(one for _, one in config.net.root.walk() if heaviest in one.own(Param).values())
    raise ConfigError([Problem(message, "net", config.layer_marks.get(layer) or config.document.mark(("net",)), hint)])
