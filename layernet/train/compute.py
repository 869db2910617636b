"""What a run computes with: its device, kernels and threads. Recorded as it begins, taken up again as it goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from layernet.backend import compiled
from layernet.backend.device import Device, get_device, kernels_for
from layernet.config.experiment import ExperimentConfig
from layernet.core.net import Net
from layernet.core.summary import count_flops

_TINY = 10**6
"""Multiply-adds of a batch's forward below which numpy is faster at every step, and does not wait for numba."""

_SMALL = {"numpy": 10**8, "numba": 2 * 10**7}  # multiply-adds of a batch's forward that one thread does as fast


def device_for(config: ExperimentConfig) -> Device:
    """The device of a config, with its kernels. Raises DeviceError where they cannot be used."""
    kernels = kernels_for(config.dtype, config.kernels)
    if kernels == "auto" and work_of(config) < _TINY:
        kernels = "numpy"
    return get_device(config.device, kernels, config.precise)


def work_of(config: ExperimentConfig) -> int:
    """Multiply-adds of a batch's forward, as far as they are counted."""
    return (count_flops(config.net.root) or 0) * config.data.batch_size


def computing(config: ExperimentConfig, net: Net) -> AbstractContextManager[Any]:
    """Within it, kernels run on the config's threads, and nothing else does beside them."""
    threads = config.threads
    if threads is None and is_small(config, net.device.facts()["kernels"]):
        threads = 1  # several would wait for each other more than work
    return net.device.limited(threads)


def is_small(config: ExperimentConfig, kernels: str) -> bool:
    """Whether a batch is done before threads are up."""
    return work_of(config) < _SMALL.get(kernels, 0)


def facts(config: ExperimentConfig, net: Net) -> dict[str, Any]:
    """What run.json records: `kernels`, `threads` and what else makes a difference to the last bit."""
    with computing(config, net):
        return net.device.facts()


def as_it_began(began: dict[str, Any]) -> dict[str, object]:
    """The overrides that make a run go on as it began, going by its recorded facts."""
    kernels = began.get("kernels")
    if kernels == "numpy" or (kernels == "numba" and compiled.problem() is None):
        return {"kernels": kernels, "threads": began.get("threads")}
    return {}


def differences(began: dict[str, Any], now: dict[str, Any]) -> str:
    """What is computed with now that the run did not begin with, in words; empty where it is all the same."""
    names = [name for name in ("kernels", "precise", "blas", "lanes", "threads") if name in began and name in now]
    changed = [f"{name} {began[name]}, now {now[name]}" for name in names if began[name] != now[name]]
    return f"it began with {', '.join(changed)}: the same within rounding" if changed else ""


def hint(config: ExperimentConfig, net: Net) -> str:
    """How a larger net would train faster here; empty where there is nothing to say."""
    facts = net.device.facts()
    if (
        config.kernels != "auto"
        or config.dtype != "float32"
        or facts["kernels"] != "numpy"
        or is_small(config, "numpy")
    ):
        return ""
    return f"hint: it would train several times as fast with compiled kernels: {compiled.problem()}; {compiled.CURE}"


def in_words(facts: dict[str, Any]) -> str:
    """Kernels in a few words."""
    lanes = f"{facts['lanes']} lanes, " if "lanes" in facts else ""
    return f"{facts['kernels']} ({lanes}threads: {facts['threads']})" if "threads" in facts else str(facts["kernels"])
