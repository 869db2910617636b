"""layernet's side of a comparison: steps through its public API, from a YAML config."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import layernet as ln
from layernet.data.loader import Batch
from layernet.train.compute import computing
from layernet.train.trainer import Trainer


class Job:
    """Steps of one kind: `step()` does one, `facts` says on what."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.experiment = ln.load(spec["config"], {"kernels": spec["kernels"]})
        config, self.net = self.experiment.config, self.experiment.net
        augmented = any(type(t).__name__.startswith("Random") for t in config.data.transforms["train"])
        batch = {"inference1": 1, "inference128": 128}.get(spec["kind"], config.data.batch_size)
        self.facts = {
            "kernels": self.net.device.facts()["kernels"],
            "parameters": self.net.size,
            "input": self.net.input_shape,
            "examples": batch,
            "augmented": augmented,
            "output": self.net.output_shape,
        }
        self.limits = computing(config, self.net)
        self.limits.__enter__()  # for the rest of the process, as training does for its length
        rng = np.random.default_rng(0)
        self.x = rng.random((batch, *self.net.input_shape), dtype=np.float32)
        if spec["kind"].startswith("inference"):
            self.step = self.predict
            return
        self.trainer = Trainer(config, self.net, {"train": self.experiment.loaders["train"]})
        labels = rng.integers(0, self.net.output_shape[-1], batch)
        self.batch = Batch(self.x, labels, np.arange(batch))
        self.batches = self.stream()
        self.step = self.train_on_data if spec["kind"] == "data" else self.train

    def predict(self) -> None:
        """One answer."""
        self.net.predict(self.x)

    def train(self) -> None:
        """One update on the batch at hand."""
        self.trainer.train_step(self.batch)

    def train_on_data(self) -> None:
        """One update on the next batch from the loader."""
        self.trainer.train_step(next(self.batches))

    def stream(self) -> Iterator[Batch]:
        """Batches without end."""
        epoch = 0
        while True:
            yield from self.experiment.loaders["train"].batches(epoch)
            epoch += 1
