"""How fast a config trains here: the time of a step, measured on real steps, and the memory that it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from layernet.backend import compiled
from layernet.core.memory import predict
from layernet.train.callbacks import Callback
from layernet.train.compute import computing, facts, in_words
from layernet.train.experiment import Experiment
from layernet.train.profile import Profile, StepTimes
from layernet.train.trainer import Row, Trainer

_SKIP = 3
"""Steps before the first that is timed: they compile and allocate."""


@dataclass(frozen=True)
class Speed:
    """What was measured of one kind of kernels. Times in seconds, memory in bytes."""

    kernels: str
    """With lanes and threads, in words."""
    device: str
    batch: int
    steps: int
    median: float
    """Of a step's time, waiting for data included."""
    fastest: float
    memory: int
    """That a step holds: parameters, gradients, the optimizer's state, what is kept for backward."""
    layers: StepTimes | None
    """The mean step by layer, where it was asked for; measuring it slows the step down a little."""

    @property
    def images_per_second(self) -> float:
        """Examples trained on in a second, by the median."""
        return self.batch / self.median

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "images_per_second": self.images_per_second}


def kinds(experiment: Experiment) -> list[str]:
    """The kernels that can be compared for an experiment: both of the CPU's where both are there."""
    config = experiment.config
    both = config.kernels == "auto" and config.dtype == "float32" and experiment.net.device.name == "cpu"
    return ["numpy", "numba"] if both and compiled.problem() is None else [config.kernels]


def measure(experiment: Experiment, steps: int, layers: bool = False) -> Speed:
    """Train `steps` steps and say how fast they were. Leaves no run directory; the experiment is used up.

    Its config must train `steps` + 4 steps or more: `overrides` makes it so.
    """
    clock = Profile(_SKIP) if layers else _Clock()
    config, net = experiment.config, experiment.net
    trainer = Trainer(config, net, {"train": experiment.loaders["train"]}, [clock])
    with computing(config, net):
        memory = sum(predict(net, config.data.batch_size).values())
        memory += net.arena.data.nbytes + net.arena.grad.nbytes
        memory += sum(array.nbytes for array in trainer.optimizer.state_dict().values())
        trainer.fit()
    found = clock.result() if isinstance(clock, Profile) else None
    times = clock.times if isinstance(clock, _Clock) else [seconds for seconds, _ in clock.steps]
    return Speed(
        kernels=in_words(facts(config, net)),
        device=net.device.name,
        batch=config.data.batch_size,
        steps=len(times),
        median=median(times),
        fastest=min(times),
        memory=memory,
        layers=found,
    )


def overrides(given: Sequence[str], steps: int) -> list[str]:
    """Those given, and those that make a config train just so many steps that are timed."""
    # after the last step comes an evaluation, and a step with one is not timed
    return [
        *given,
        "train.epochs=null",
        f"train.steps={_SKIP + steps + 1}",
        f"train.eval_every={_SKIP + steps + 1} steps",
    ]


class _Clock(Callback):
    """The time from step to step, once the first few are done; those with an evaluation are left out."""

    def on_start(self, trainer: Trainer) -> None:
        self.times: list[float] = []
        self._disturbed = False
        self._since = time.perf_counter()

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        self._disturbed = True

    def on_step(self, trainer: Trainer) -> None:
        trainer.net.device.synchronize()
        now = time.perf_counter()
        if trainer.step > _SKIP and not self._disturbed:
            self.times.append(now - self._since)
        self._disturbed, self._since = False, time.perf_counter()
