"""Where the time of training goes: by layer and pass, measured on real steps."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layernet.core.plan import running
from layernet.core.sequential import Sequential
from layernet.layers.composite import Block
from layernet.text import aligned
from layernet.train.callbacks import Callback

if TYPE_CHECKING:
    from layernet.data.loader import Batch, Loader
    from layernet.train.trainer import Row, Trainer

_MANY = 12
"""More layers than this want a summary by type."""

_Key = tuple[str, str]
"""(path of a layer, pass), or ("", part of a step)."""


@dataclass(frozen=True)
class LayerTime:
    """Seconds of a step spent in one layer itself, not in those that it is made of."""

    path: str
    type: str
    forward: float
    backward: float


@dataclass(frozen=True)
class StepTimes:
    """The mean step, in seconds. `layers`, the parts and `framework` add up to `step`."""

    steps: int
    """How many steps the means are of."""
    step: float
    """From one update to the next, evaluation and saving left out."""
    layers: list[LayerTime]
    loss: float
    optimizer: float
    metrics: float
    data: float
    """Waiting for the next batch."""
    framework: float
    """All that is not work itself: chains of layers, contexts, tapes, the loop, callbacks."""

    @property
    def forward(self) -> float:
        """All layers' forward."""
        return sum(layer.forward for layer in self.layers)

    @property
    def backward(self) -> float:
        """All layers' backward."""
        return sum(layer.backward for layer in self.layers)

    def table(self) -> str:
        """For a terminal: milliseconds and shares of the step."""

        def row(name: str, kind: str, *seconds: float) -> list[str]:
            shown = [f"{1e3 * value:.3f}" for value in seconds]
            return [name, kind, *[""] * (2 - len(shown)), *shown, f"{100 * sum(seconds) / self.step:.1f} %"]

        lines = [["layer", "type", "forward ms", "backward ms", "share"]]
        lines += [row(layer.path, layer.type, layer.forward, layer.backward) for layer in self.layers]
        lines += [row("all of type", kind, *times) for kind, times in self._by_type() if len(self.layers) > _MANY]
        lines.append(row("all layers", "", self.forward, self.backward))
        parts = ("loss", "optimizer", "metrics", "data", "framework", "step")
        lines += [row(f"{part} in all" if part == "step" else part, "", getattr(self, part)) for part in parts]
        return aligned(lines, right={2, 3, 4})

    def _by_type(self) -> list[tuple[str, tuple[float, float]]]:
        """(forward, backward) of all layers of a type, the slowest first."""
        sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for layer in self.layers:
            forward, backward = sums[layer.type]
            sums[layer.type] = (forward + layer.forward, backward + layer.backward)
        return sorted(sums.items(), key=lambda item: -sum(item[1]))


class Profile(Callback):
    """Times every layer, pass and part of the steps between `on_start` and `on_stop`; `result()` has the means.

    While it runs it stands between trainer, net and layers, which costs about a microsecond a call. The first `skip`
    steps are left out (they compile and allocate), and so are those with an evaluation after them. The means are those
    of the faster half: a step that another process disturbed says nothing about the net.
    """

    def __init__(self, skip: int = 3) -> None:
        if skip < 0:
            raise ValueError(f"skip must not be negative, got {skip}")
        self.skip = skip

    def on_start(self, trainer: Trainer) -> None:
        self._watch = watch = _Stopwatch(trainer.net.device.synchronize)
        self.steps: list[tuple[float, dict[_Key, float]]] = []
        """(seconds, seconds by part) of every step that was timed."""
        self._layers: list[tuple[str, str]] = []
        watch.wrap(trainer, "train_step", ("", "framework"), outermost=True)
        for layer in running(trainer.net.root, trainer.net.steps()):
            only_runs_layers = type(layer).forward in (Sequential.forward, Block.forward)
            if not only_runs_layers:
                self._layers.append((layer.path, layer.type_name))
            for what in ("forward", "backward"):
                watch.wrap(layer, what, ("", "framework") if only_runs_layers else (layer.path, what))
        for objective in trainer.config.objectives:
            for what in ("forward", "backward"):
                watch.wrap(objective.loss, what, ("", "loss"))
        watch.wrap(trainer.optimizer, "step", ("", "optimizer"))
        if trainer.average is not None:
            watch.wrap(trainer.average, "update", ("", "optimizer"))
        for measure in trainer.meter.measures:
            watch.wrap(measure.metric, "update", ("", "metrics"))
        watch.replace(trainer.loaders["train"], "batches", self._waiting(trainer.loaders["train"]))
        self._disturbed = False
        self._clock = time.perf_counter()

    def on_evaluate(self, trainer: Trainer, row: Row) -> None:
        self._disturbed = True

    def on_step(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        found = self._watch.take()
        if not self._disturbed and trainer.step > self.skip:
            self.steps.append((now - self._clock, found))
        self._disturbed = False
        self._clock = time.perf_counter()

    def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
        self._watch.restore()

    def result(self) -> StepTimes | None:
        """The mean step; None where no step was timed."""
        steps = sorted(self.steps, key=lambda step: step[0])[: (len(self.steps) + 1) // 2]
        if not steps:
            return None
        total: dict[_Key, float] = defaultdict(float)
        for _, found in steps:
            for key, seconds in found.items():
                total[key] += seconds / len(steps)
        step = sum(seconds for seconds, _ in steps) / len(steps)
        total.pop(("", "framework"), None)
        return StepTimes(
            steps=len(steps),
            step=step,
            layers=[
                LayerTime(path, kind, total[path, "forward"], total[path, "backward"])
                for path, kind in self._layers
                if (path, "forward") in total
            ],
            loss=total["", "loss"],
            optimizer=total["", "optimizer"],
            metrics=total["", "metrics"],
            data=total["", "data"],
            framework=step - sum(total.values()),
        )

    def _waiting(self, loader: Loader) -> Callable[..., Generator[Batch, None, None]]:
        batches = loader.batches

        def waiting(*args: Any, **kwargs: Any) -> Generator[Batch, None, None]:
            with closing(batches(*args, **kwargs)) as made:
                following = self._watch.timed(made.__next__, ("", "data"), outermost=True)
                while True:
                    try:
                        batch = following()
                    except StopIteration:
                        return
                    yield batch

        return waiting


class _Stopwatch:
    """Seconds by key. A call within a call counts for its own key alone; calls outside the outermost ones for none."""

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._seconds: dict[_Key, float] = defaultdict(float)
        self._inside: list[float] = []
        self._replaced: list[tuple[Any, str]] = []

    def wrap(self, owner: Any, name: str, key: _Key, outermost: bool = False) -> None:
        """Time the method `name` of an object."""
        self.replace(owner, name, self.timed(getattr(owner, name), key, outermost))

    def replace(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        """Put a function in the place of a method until `restore`."""
        if (owner, name) not in self._replaced:
            setattr(owner, name, function)
            self._replaced.append((owner, name))

    def restore(self) -> None:
        """Take everything away again."""
        for owner, name in self._replaced:
            delattr(owner, name)
        self._replaced.clear()

    def take(self) -> dict[_Key, float]:
        """What was measured since the last time."""
        found, self._seconds = self._seconds, defaultdict(float)
        return found

    def timed(self, function: Callable[..., Any], key: _Key, outermost: bool = False) -> Callable[..., Any]:
        """The function, its time counted."""
        inside, synchronize, clock = self._inside, self._synchronize, time.perf_counter

        def run(*args: Any, **kwargs: Any) -> Any:
            if not inside and not outermost:
                return function(*args, **kwargs)
            synchronize()
            start = clock()
            inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                synchronize()
                took = clock() - start
                self._seconds[key] += took - inside.pop()
                if inside:
                    inside[-1] += took

        return run
