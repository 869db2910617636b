"""What the tests of runs share."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from layernet.train.experiment import Experiment

Uncut = Callable[..., Path]


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Uncut:
    """The run of a config (and overrides) that nobody cut short: made once, and not to be changed."""
    runs: dict[tuple[str, str], Path] = {}

    def run_of(config: Path, overrides: dict[str, Any] | None = None) -> Path:
        key = config.read_text(), repr(overrides)
        if key not in runs:
            folder = tmp_path_factory.mktemp("uncut")
            runs[key] = Experiment.load(config, overrides or {}).train(folder, console=Console(file=io.StringIO()))
        return runs[key]

    return run_of
