"""Parameters that learn for a part of training only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layernet.core.duration import Duration
from layernet.errors import UsageError
from layernet.train.callbacks import Callback

if TYPE_CHECKING:
    from layernet.train.trainer import Trainer


class Freeze(Callback):
    """The parameters that match `params` stay as they are from `start` (the beginning) `until` (the end) of training.

    `{params: "stem.*", until: 3 epochs}` trains the stem from epoch 3 on, `{params: "stem.*", start: 9 epochs}` stops
    there. What is frozen costs no backward, keeps its optimizer state, and its layers' running statistics stay too
    where all their parameters do. For all of training, freeze with `groups` of the optimizer.

    Raises UsageError where a parameter matches two of them, or is frozen by the optimizer's groups.
    """

    params: str

    def __init__(self, params: str, start: Duration | None = None, until: Duration | None = None) -> None:
        if start is None and until is None:
            raise ValueError("start or until must be given; to freeze for all of training use optimizer.groups")
        self.params, self.start, self.until = params, start, until

    def on_start(self, trainer: Trainer) -> None:
        self._refuse_clashes(trainer)
        self._from = self.start.steps(trainer.steps_per_epoch) if self.start else 0
        self._to = self.until.steps(trainer.steps_per_epoch) if self.until else trainer.total_steps
        if self._from > self._to:
            raise UsageError(f"{self!r} ends at step {self._to}, before it starts at step {self._from}")
        self._frozen = all(param.frozen for param in trainer.net.matching(self.params))
        self._follow(trainer)

    def on_step(self, trainer: Trainer) -> None:
        self._follow(trainer)

    def _follow(self, trainer: Trainer) -> None:
        frozen = self._from <= trainer.step < self._to
        if frozen != self._frozen:
            trainer.net.freeze(self.params, frozen)
            self._frozen = frozen
            trainer.say(f"step {trainer.step}: {self.params} {'is frozen' if frozen else 'learns'}")

    def _refuse_clashes(self, trainer: Trainer) -> None:
        groups = trainer.optimizer.groups or {}
        others = {f"optimizer.groups {name!r}": name for name, settings in groups.items() if "frozen" in settings}
        others |= {repr(c): c.params for c in trainer.callbacks if isinstance(c, Freeze) and c is not self}
        mine = {param.path for param in trainer.net.matching(self.params)}
        for label, pattern in others.items():
            both = sorted(mine & {param.path for param in trainer.net.matching(pattern)})
            if both:
                raise UsageError(f"{self!r} and {label} both freeze {both[0]}", "let each parameter match one of them")
