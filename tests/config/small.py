"""A small config, and ways to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layernet.config.experiment import ExperimentConfig, load_config_text

HEAD = """
data: {train: {type: FakeData, shape: [6], classes: 3}, batch_size: 10}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
net:
  input: [6]
"""


def net_of(layers: str, **arguments: Any) -> ExperimentConfig:
    return load_config_text(
        HEAD + "  layers:\n" + "\n".join(f"    {line}" for line in layers.splitlines()), **arguments
    )


def again(config: ExperimentConfig, folder: str | Path = ".") -> ExperimentConfig:
    """Loaded from its own resolved text, which must be the same."""
    second = load_config_text(config.dump(), "resolved.yaml", folder)
    assert second.resolved == config.resolved
    assert second.dump() == config.dump()
    assert list(second.net.params()) == list(config.net.params())
    return second
