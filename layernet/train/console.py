"""What a run says while it trains: a live bar on a terminal, plain lines anywhere else, the same lines in log.txt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from layernet.train.callbacks import Callback
from layernet.train.trainer import Row, Trainer


class Display(Callback):
    """Shows progress on `console` and gives every line to `log`."""

    def __init__(self, console: Console, log: Callable[[str], None]) -> None:
        self.console = console
        self.log = log
        self._progress: Progress | None = None

    def say(self, line: str) -> None:
        """One line, on the console and in the log."""
        self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self.log(line)

    def on_start(self, trainer: Trainer) -> None:
        self._log_every = trainer.config.train.log_every.steps(trainer.steps_per_epoch)
        self._clock, self._first = time.perf_counter(), trainer.step
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
                refresh_per_second=8,
            )
            self._task = self._progress.add_task(
                "", total=trainer.total_steps, completed=trainer.step, epoch="", text=""
            )
            self._progress.start()

    def on_step(self, trainer: Trainer) -> None:
        if trainer.skipped_in_row == 1:  # of many in a row, the first
            self.say(f"skipped: {trainer.skipped_because}; {trainer.skipped} so far")
        if self._progress is not None:
            epoch = f"{trainer.epoch:.1f}/{trainer.epochs:.4g}"
            self._progress.update(self._task, completed=trainer.step, epoch=epoch)
            if trainer.examples and (trainer.step % 10 == 0):
                self._progress.update(self._task, text=self._running(trainer))
        elif trainer.step % self._log_every == 0 and trainer.examples:
            self.say(f"{self._place(trainer)}  {self._running(trainer)}  eta {self._eta(trainer)}")

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        shown = {name: value for name, value in row.items() if "." in name or name == "lr"}
        speed = row["images_per_second"] or 0.0
        self.say(f"{self._place(trainer)}  {values(shown)}  {speed:.0f} images/s  eta {self._eta(trainer)}")

    def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _place(self, trainer: Trainer) -> str:
        return f"epoch {trainer.epoch:.4g}/{trainer.epochs:.4g}  step {trainer.step}/{trainer.total_steps}"

    def _running(self, trainer: Trainer) -> str:
        running = {f"train.{name}": value for name, value in trainer.meter.result().items()}
        return f"{values(running)}  {trainer.examples / trainer.row_seconds:.0f} images/s"

    def _eta(self, trainer: Trainer) -> str:
        done = trainer.step - self._first
        rate = (time.perf_counter() - self._clock) / done if done else 0.0
        return duration(rate * (trainer.total_steps - trainer.step))


def stdout() -> Console:
    """The console to train on. Only a terminal gets escapes, whatever the environment wants in files (FORCE_COLOR)."""
    return Console(force_terminal=None if sys.stdout.isatty() else False)


def values(row: dict[str, Any]) -> str:
    """Named numbers on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items() if value is not None)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
