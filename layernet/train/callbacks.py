"""What happens around the loop: a callback sees the trainer at fixed moments and may read and log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layernet.core.configurable import Configurable

if TYPE_CHECKING:
    from layernet.train.trainer import Row, Trainer


class Callback(Configurable):
    """Base of callbacks; each method does nothing by itself. They are called in the order in which they are listed.

    `trainer` offers `step` (updates done), `epoch`, `net`, `config`, `history` (rows so far), `directory` (of the run),
    `say(line)` and `stop()`. What a callback must know to go on where a run was interrupted is its `state`: checkpoints
    keep it.
    """

    watch: str | None = None
    """The column of metrics.csv that it follows. As an argument it may be `auto`, beside `mode: str = "auto"`: a config
    puts in what `best` is chosen by, and `min` or `max`."""

    params: str | None = None
    """The pattern of the parameters that it is about: a config is held to it that some match."""

    def check(self) -> None:
        """Raise UsageError where it cannot work here. Called before a run directory is made."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: plain data that JSON can hold, taken after the other methods have run."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`: called on resuming, before `on_start`, where the checkpoint has one."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step; on resuming too."""

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        """After every evaluation: `row` is what goes to metrics.csv."""

    def on_step(self, trainer: Trainer) -> None:
        """After every update of the parameters, and the evaluation where one was due."""

    def on_epoch(self, trainer: Trainer) -> None:
        """After the last step of every epoch."""

    def on_test(self, trainer: Trainer, row: Row) -> None:
        """After the test set was run, once training went through: `row` is the last of metrics.csv."""

    def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
        """At the end: `error` is None when training went through, else what ended it."""
