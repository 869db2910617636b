"""An experiment: a validated config with its net, its data and its runs."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console

from layernet.config.experiment import ExperimentConfig, check_data, load_config
from layernet.core.blame import blame
from layernet.core.net import Net
from layernet.data.dataset import split
from layernet.data.loader import Batch, Loader, fit_transforms
from layernet.errors import CheckpointError, Interrupted, LayernetError, UsageError, did_you_mean
from layernet.train import state
from layernet.train.changes import Changes, changes
from layernet.train.checkpoint import Checkpoint
from layernet.train.compute import (
    as_it_began,
    computing,
    device_for,
    differences,
    facts,
    hint,
    in_words,
)
from layernet.train.console import Display, duration, stdout, values
from layernet.train.memory import check_memory
from layernet.train.recorder import Recorder
from layernet.train.rundir import RunDirectory
from layernet.train.trainer import Row, Trainer, evaluate
from layernet.train.warm import WarmStart, warm_start

Overrides = Mapping[str, object] | Sequence[str]


class Experiment:
    """What a config describes, ready to train and evaluate.

    `net` is bound and initialised from the seed. Data is read when it is first needed.
    """

    def __init__(self, config: ExperimentConfig, *, training: bool = True) -> None:
        check_memory(config, training)
        self.config = config
        self.net: Net = config.net.bind(device_for(config), config.dtype, config.seed)
        self._loaders: dict[str, Loader] | None = None
        self._measured = False
        self._fresh = True

    @classmethod
    def load(cls, path: str | Path, overrides: Overrides = ()) -> Self:
        """From a config file; `overrides` as {"train.epochs": 2} or ["train.epochs=2"]. Raises ConfigError."""
        return cls(load_config(path, overrides))

    @classmethod
    def open(cls, run: str | Path, which: str | None = None, compute: Overrides = ()) -> Self:
        """From a run directory, with the values of its checkpoint `which`: by default `best`, else `last`.

        `compute` overrides what the config says of `device`, `kernels`, `precise` and `threads`. Raises UsageError when
        there is no such run or checkpoint, CheckpointError when it cannot be used.
        """
        directory = RunDirectory.open(Path(run))
        experiment = cls(load_config(directory.resolved, compute), training=False)
        saved = directory.load(which or ("best" if directory.checkpoint("best").exists() else "last"))
        state.restore_net(saved, experiment.net, experiment.config.data.all_transforms())
        if warning := state.not_finite(saved):
            print(f"{directory.path}: {warning}", file=sys.stderr)
        experiment._measured, experiment._fresh = True, False
        return experiment

    def train(self, runs: str | Path = "runs", name: str | None = None, console: Console | None = None) -> Path:
        """Train to the end in a new run directory `<runs>/<name>-NNN`, then evaluate on the test set; its path.

        Afterwards the net has the values that were tested: those of `best` where there are any. Raises UsageError for
        an experiment that has trained or was opened from a run: the new run would not start where its config says.
        """
        if not self._fresh:
            raise UsageError("this experiment does not start from its seed any more", "load its config anew")
        for callback in self.config.callbacks:
            callback.check()
        len(self.loaders["train"])  # data that gives no batch is an error before there is a run
        warm = self.warm_start()
        run = RunDirectory.create(Path(runs), name or self.config.name)
        with run.gone_where_refused(), run.locked(), _saying_how_to_go_on(run):
            run.describe(
                given=self.config.text,
                resolved=self.config.dump(),
                files=self.config.files,
                facts={
                    "seed": self.config.seed,
                    "device": self.net.device.name,
                    **facts(self.config, self.net),
                    "parameters": self.net.size,
                    **({"warm_start": warm.facts()} if warm else {}),
                },
                config=self.config.path,
            )
            self._train(run, None, console or stdout(), notes=warm.lines() if warm else ())
        return run.path

    def warm_start(self) -> WarmStart | None:
        """Take over the values that the config's `warm_start` names, as `train` does; what was taken."""
        return None if self.config.warm_start is None else warm_start(self.net, self.config.warm_start)

    @classmethod
    def resume(cls, run: str | Path, console: Console | None = None, overrides: Overrides = ()) -> Self:
        """Go on with a run that ended early, from its newest checkpoint, to the same end as if it had not ended.

        One that ended before its first checkpoint begins anew. A damaged checkpoint is named, and the one before taken.
        With the kernels and threads that it began with where they are to be had; with others, it comes to the same end
        within rounding. With `overrides`, such as more epochs or another learning rate, the run's resolved.yaml
        changes too; a run that a callback stopped goes on. Raises UsageError for those that a run cannot change.
        """
        directory = RunDirectory.open(Path(run))
        with directory.locked(), _saying_how_to_go_on(directory):
            return cls._go_on(directory, console or stdout(), overrides)

    @classmethod
    def _go_on(cls, directory: RunDirectory, console: Console, overrides: Overrides) -> Self:
        began = as_it_began(directory.facts)
        if isinstance(overrides, Mapping):
            config = load_config(directory.resolved, {**began, **overrides})
        else:
            pairs = [f"{key}={'null' if value is None else value}" for key, value in began.items()]
            config = load_config(directory.resolved, [*pairs, *overrides])
        changed = changes(load_config(directory.resolved, began).resolved, config.resolved) if overrides else {}
        experiment = cls(config)
        for callback in config.callbacks:
            callback.check()
        directory.sweep()
        saved, notes = directory.newest()
        if saved is not None:
            state.restore_net(saved, experiment.net, experiment.config.data.all_transforms())
            experiment._measured = True
        else:
            warm = experiment.warm_start()
            notes = ["no checkpoint was saved yet: it begins anew", *(warm.lines() if warm else ())]
        experiment._train(directory, saved, console, changed, [*_edits(directory), *notes])
        return experiment

    def evaluate(self, split: str = "test") -> dict[str, float]:
        """Loss and metrics of the net as it is on `train`, `val` or `test`."""
        return self._evaluate(split)

    def _evaluate(self, split: str, between: Callable[[Iterator[Batch]], Iterator[Batch]] = iter) -> dict[str, float]:
        loaders = self.loaders
        if split not in loaders:
            raise UsageError(f"the config has no data.{split}", did_you_mean(split, set(loaders) - {"train_eval"}))
        with computing(self.config, self.net):
            return evaluate(self.config, self.net, loaders["train_eval" if split == "train" else split], between)

    @property
    def loaders(self) -> dict[str, Loader]:
        """The batches of each split: `train` (shuffled, augmented), `train_eval`, and `val`, `test` where given."""
        if self._loaders is None:
            self._loaders = self._open_data()
        return self._loaders

    def _open_data(self) -> dict[str, Loader]:
        check_data(self.config)
        data, seed = self.config.data, self.config.seed
        sets = {"train": data.train}
        if isinstance(data.val, float):
            sets["train"], sets["val"] = split(data.train, data.val, seed)
        elif data.val is not None:
            sets["val"] = data.val
        if data.test is not None:
            sets["test"] = data.test
        if not self._measured:
            for transforms in data.transforms.values():
                fit_transforms(transforms, sets["train"])
            self._measured = True
        loaders = {
            "train": Loader(
                sets["train"],
                data.batch_size,
                data.transforms["train"],
                seed=seed,
                shuffle=data.shuffle,
                drop_last=data.drop_last,
                prefetch=data.prefetch,
                augment=True,
            )
        }
        for name, dataset in sets.items():
            loaders["train_eval" if name == "train" else name] = Loader(
                dataset, data.eval_batch_size, data.transforms[name], seed=seed, shuffle=False, prefetch=data.prefetch
            )
        return loaders

    def _train(
        self,
        run: RunDirectory,
        saved: Checkpoint | None,
        console: Console,
        changed: Changes | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._fresh = False
        run.check_space(state.size_of(self.config, self.net), self.config.train.checkpoint.files)
        display = Display(console, run.log)
        # the display comes first, so that a save that fails at the end finds the terminal as it was
        trainer = Trainer(self.config, self.net, self.loaders, [display, *self.config.callbacks, Recorder(run)])
        trainer.directory, trainer.say = run.path, display.say
        sizes = ", ".join(
            f"{len(loader.dataset)} {name}" for name, loader in self.loaders.items() if name != "train_eval"
        )
        used = facts(self.config, self.net)
        display.say(
            f"run {run.path}  device {self.net.device.name}  kernels {in_words(used)}  {self.net.size} parameters  "
            f"images: {sizes}"
        )
        if saved is not None:
            state.restore(saved, trainer)
        bad = state.not_finite(saved) if saved is not None else ""
        for note in (*notes, differences(run.facts, used), bad, hint(self.config, self.net)):
            if note:
                display.say(note)
        if changed:
            trainer.unstop()
            run.change(self.config.dump())
            for key, (before, after) in changed.items():
                display.say(f"{key}: {before} -> {after}")
        if saved is not None:
            display.say(f"resumed at step {trainer.step}/{trainer.total_steps} (epoch {trainer.epoch:.4g})")
        try:
            with trainer.signals.noted():
                with computing(self.config, self.net):
                    trainer.fit()
                self._finish(run, trainer, display)
        except Interrupted as error:
            told = Interrupted(error.number, str(run.path))
            run.log(str(told))
            raise told from error
        except Exception as error:
            _log(error, run)
            raise
        finally:
            run.keep(self.config.files)  # those imported only when a function of theirs ran

    def _finish(self, run: RunDirectory, trainer: Trainer, display: Display) -> None:
        """Run the test set once, with the best values where they were kept, and close metrics.csv with its row."""
        row: Row = {"epoch": round(trainer.epoch, 4), "step": trainer.step, "seconds": round(trainer.seconds, 3)}
        which = "last"
        if trainer.average is not None:
            trainer.average.adopt()
        if run.checkpoint("best").exists():
            try:
                best = run.load("best")
                state.restore_net(best, self.net, self.config.data.all_transforms())
                row["epoch"], row["step"], which = best.meta["history"][-1]["epoch"], best.meta["step"], "best"
            except CheckpointError as error:  # written by this run, and damaged since
                display.say(f"warning: {error}; the values of last are tested in its place")
        if "test" in self.loaders:
            measured = self._evaluate("test", trainer.signals.between)
            row.update({f"test.{name}": value for name, value in measured.items()})
            run.write_metrics([*trainer.history, row])
            trainer.tested(row)
        found = {name: value for name, value in row.items() if name.startswith("test.")} or {
            name: value for name, value in trainer.history[-1].items() if "." in name
        }
        display.say(
            f"done: {values(found)}  (checkpoint {which}, epoch {row['epoch']:.4g})  "
            f"training took {duration(trainer.seconds)}  run {run.path}"
        )


def _edits(run: RunDirectory) -> Iterator[str]:
    """What to say of files in the run directory that somebody has edited."""
    for name in run.edited():
        cure = (
            "it goes by resolved.yaml: change that with --set" if name == "config.yaml" else "it goes on as that says"
        )
        yield f"warning: {run.path / name} was edited since the run was begun; {cure}"


@contextmanager
def _saying_how_to_go_on(run: RunDirectory) -> Iterator[None]:
    """What Ctrl-C leaves where it acts at once: the second one, or one before the first step."""
    try:
        yield
    except KeyboardInterrupt as error:
        again = (
            "train again" if not run.resolved.exists() else f"go on with `layernet resume {shlex.quote(str(run.path))}`"
        )
        error.add_note(again if run.checkpoints() else f"{again}, from the start: nothing was saved yet")
        raise


def _log(error: Exception, run: RunDirectory) -> None:
    """Leave in the log what ended a run: of an exception that nobody raised on purpose, all there is to know."""
    if isinstance(error, LayernetError):
        run.log(f"error: {error}")
    else:
        run.log(f"error: {blame(error) or 'a mistake in layernet'}\n{''.join(traceback.format_exception(error))}")
        error.add_note(f"the traceback is in {run.path / 'log.txt'}")
