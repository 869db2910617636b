"""The gradient check of a whole config: its net and its objectives, on a batch of the right shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from layernet.config.experiment import ExperimentConfig
from layernet.testing.engine import Settings
from layernet.testing.gradcheck import check_net
from layernet.testing.report import Report
from layernet.testing.sampling import HostArray, stream, tie_free


def check_config(config: ExperimentConfig, batch: int = 2, **options: Any) -> Report:
    """Check each layer of the config's net alone, then the net with its real objectives; as `check_net` does.

    The inputs are invented, free of ties. So are the labels where the training set says its classes; otherwise the
    targets are those of its first examples, which are read. `options` are the fields of `Settings`.
    """
    seed = Settings(**options).seed
    x = tie_free((batch, *config.net.input_shape), stream(seed, "input"))
    report = check_net(config.net, config.objectives, x, _targets(config, batch, seed), **options)
    report.title = config.name
    return report


def _targets(config: ExperimentConfig, batch: int, seed: int) -> HostArray:
    classes = config.data.train.classes
    if classes is None or len(config.net.output_shape) != 1:
        return np.asarray(config.data.train.batch(np.arange(batch))[1])
    return np.asarray(stream(seed, "targets").integers(0, len(classes), (batch,)))
