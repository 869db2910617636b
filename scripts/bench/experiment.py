"""layernet's side: an experiment from a config, with the kernels that are to be measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path

import layernet as ln
from layernet.backend.device import Device, get_device
from layernet.train.experiment import Experiment

KERNELS = ("numba", "numpy")


def fastest() -> str:
    """The fastest kernels that can run here."""
    return "numba" if find_spec("numba") else "numpy"


def device(kernels: str | None) -> Device:
    """The CPU with these kernels; None: the fastest."""
    if (kernels or fastest()) == "numpy":
        return get_device("cpu")
    from layernet.backend.compiled.ops import CompiledOps

    return Device("cpu", CompiledOps())


def load(config: str | Path, kernels: str | None, overrides: Sequence[str] = ()) -> Experiment:
    """The config's experiment on `device(kernels)`."""
    experiment = ln.load(config, [*overrides, "device=cpu"])
    experiment.net.bind(device(kernels), experiment.config.dtype)
    return experiment


def computing(experiment: Experiment) -> AbstractContextManager[object]:
    """Within it, as many threads as training would run on."""
    return experiment._threads()
