"""The gradient check of a config: every layer alone, then its whole net with its objectives. Needs no data on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from layernet.config.experiment import ExperimentConfig
from layernet.errors import DataError
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import check_net
from layernet.testing.report import Report
from layernet.testing.sampling import stream, tie_free


def check_config(config: ExperimentConfig, *, progress: Callable[[str], None] | None = None, **options: Any) -> Report:
    """Check the net of a config with its objectives, in float64, on a small batch made up for it.

    `options` are the fields of `Settings`; `seed` is the config's by default, `batch` 2. Inputs are drawn without ties.
    Labels are drawn from the data set's classes; other targets, and inputs of integers, are taken from the data set.
    Where it is not there, targets are drawn between 0 and 1 in the output's shape. `progress` is told what is being
    checked.

    Raises DataError where a net of integer inputs has no data.
    """
    settings = Settings(**{"seed": config.seed, "batch": 2, **options})
    x, targets = sample(config, settings)
    net = config.net
    if not net.bound:
        net.bind(settings.device, "float64", settings.seed)
    report = check_net(net, config.objectives, x, targets, progress=progress, **vars(settings))
    report.title = config.name
    return report


def sample(config: ExperimentConfig, settings: Settings) -> tuple[Any, Any]:
    """(x, targets) that the config's net and objectives take."""
    net, train = config.net, config.data.train
    rng = stream(settings.seed, "targets")
    x: Any = tie_free((settings.batch, *net.input_shape), stream(settings.seed, "input"))
    if net.root.reader.integer_input:
        return train.batch(np.arange(settings.batch))
    if train.classes is not None:
        return x, rng.integers(0, len(train.classes), (settings.batch, *net.output_shape[:-1]))
    try:
        return x, train.batch(np.arange(settings.batch))[1]
    except DataError:
        return x, rng.uniform((settings.batch, *net.output_shape))
