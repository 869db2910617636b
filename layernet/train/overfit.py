"""Whether a net can learn a few examples by heart: the first thing to try of a net that does not learn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from layernet.core.duration import Duration
from layernet.data.dataset import Subset
from layernet.data.loader import Loader
from layernet.errors import UsageError
from layernet.losses import Loss, Penalty
from layernet.objectives import without_penalties
from layernet.optim.schedules import Constant
from layernet.train.compute import computing
from layernet.train.console import values
from layernet.train.trainer import Trainer, evaluate

if TYPE_CHECKING:
    from layernet.train.experiment import Experiment

NEAR_ZERO = 0.01
"""The share of its first value below which a loss has come near to 0."""

_LOOK = 20  # passes over the examples between two looks
_PASSES = 1000


@dataclass(frozen=True)
class Overfit:
    """How it went: the losses (without penalties) before and after so many steps."""

    examples: int
    steps: int
    before: float
    after: float

    @property
    def reached(self) -> bool:
        """Whether the loss came near to 0."""
        return self.after <= NEAR_ZERO * self.before

    def verdict(self) -> str:
        """For people."""
        went = f"loss {self.before:.4g} -> {self.after:.4g} in {self.steps} steps on {self.examples} examples"
        if self.reached:
            return f"learned by heart: {went}"
        return (
            f"not learned: {went}; try another --set optimizer.lr (`layernet find-lr`), look at the labels and the "
            "loss, check the gradients (`layernet gradcheck`), take out dropout and penalties"
        )


def overfit(experiment: Experiment, examples: int, say: Callable[[str], None] = print) -> Overfit:
    """Train on the first `examples` of a fixed random order of train until the loss is near 0, and say how it goes.

    Without augmentation, label smoothing, schedule, average, callbacks and shuffling, with the config's optimizer and
    batch size; the loss is that of evaluation. At most 1000 passes over the examples. Writes nothing.
    """
    if examples < 1:
        raise UsageError(f"a net is overfitted to 1 example or more, got {examples}")
    loader = _few(experiment, examples)
    config = replace(
        experiment.config,
        objectives=[replace(o, loss=_sharp(o.loss)) for o in experiment.config.objectives],
        schedule=Constant(),
        average=None,
        callbacks=[],
        train=replace(
            experiment.config.train,
            epochs=_PASSES,
            steps=None,
            accumulate=1,
            eval_every=Duration(_PASSES, "epochs"),
        ),
    )
    measured = replace(config, objectives=without_penalties(config.objectives))
    net = experiment.net
    experiment.warm_start()
    with computing(config, net), np.errstate(all="ignore"):
        trainer = Trainer(config, net, {"train": loader})
        before = found = evaluate(measured, net, loader)["loss"]
        say(f"step 0  loss {before:.4g}")
        for number in range(_PASSES):
            with closing(loader.batches(number)) as batches:
                for batch in batches:
                    trainer.train_step(batch)
            if (number + 1) % _LOOK == 0:
                result = evaluate(measured, net, loader)
                found = result["loss"]
                say(f"step {trainer.step}  {values(result)}")
                if found <= NEAR_ZERO * before:
                    break
    return Overfit(len(loader.dataset), trainer.step, before, found)


def _sharp(loss: Loss | Penalty) -> Loss | Penalty:
    """The loss without label smoothing, with which it cannot come near to 0."""
    if not loss.arguments.get("label_smoothing"):
        return loss
    return type(loss)(**{**loss.arguments, "label_smoothing": 0.0})


def _few(experiment: Experiment, examples: int) -> Loader:
    every = experiment.loaders["train"]
    if examples > len(every.dataset):
        raise UsageError(f"train has {len(every.dataset)} examples, {examples} were asked for")
    chosen = Loader(every.dataset, 1, seed=every.seed, shuffle=True).order(0)[:examples]
    return Loader(
        Subset(every.dataset, [int(index) for index in chosen]),
        min(examples, every.batch_size),
        every.transforms,
        seed=every.seed,
        prefetch=every.prefetch,
    )
