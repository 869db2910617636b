"""What a folder of runs holds, and how runs differ. Reads what runs left behind, whole or damaged; checks no config."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from layernet.config.marks import parse
from layernet.errors import ConfigError, UsageError
from layernet.text import aligned
from layernet.train.console import duration

_TAIL = 1 << 16  # bytes of a log that are looked at
_EVENTS = {"done: ": "done", "interrupted by ": "interrupted", "error: ": "failed", "run ": "killed"}
"""How a line of a log begins, and what has become of a run whose last such line it is."""


@dataclass
class Run:
    """One run as its directory tells of it. `damage`: what cannot be read, in words."""

    path: Path
    state: str
    started: str = ""
    given: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @property
    def epochs(self) -> float | None:
        """Epochs done; the row of the test tells of the checkpoint that was tested, not of the end."""
        return max((row["epoch"] for row in self.rows if "epoch" in row), default=None)

    @property
    def seconds(self) -> float | None:
        """Seconds of training."""
        return max((row["seconds"] for row in self.rows if "seconds" in row), default=None)

    @property
    def best(self) -> tuple[str, float] | None:
        """What `best` is chosen by and its best value; without one, the loss of training."""
        name = _at(self.config, "train", "checkpoint", "best") or "train.loss"
        values = [row[name] for row in self.rows if math.isfinite(row.get(name, math.nan))]
        if not values:
            return None
        losses = {"loss", *(_at(loss, "name") for loss in self.config.get("loss") or [])}
        return name, (min if name.partition(".")[2] in losses else max)(values)

    def measured(self) -> dict[str, float]:
        """The last value of everything measured, and the best."""
        found = {name: value for row in self.rows for name, value in row.items() if "." in name}
        best = self.best
        return {**({f"best {best[0]}": best[1]} if best else {}), **found}


def read_run(path: Path) -> Run:
    """All that can be read of a run directory. Raises nothing: what is damaged is told in `damage`."""
    run = Run(path, _state(path))
    try:
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        run.started, run.given = str(facts.get("started") or ""), facts.get("config")
    except (OSError, ValueError, AttributeError) as error:
        run.damage.append(f"run.json {_why(error)}")
    try:
        run.config = parse((path / "resolved.yaml").read_text(encoding="utf-8"), "resolved.yaml").data
    except (OSError, ValueError, ConfigError) as error:
        run.damage.append(f"resolved.yaml {_why(error)}")
    try:
        run.rows = _rows(path / "metrics.csv")
    except FileNotFoundError:
        pass  # no evaluation yet
    except (OSError, ValueError, csv.Error) as error:
        run.damage.append(f"metrics.csv {_why(error)}")
    if not list((path / "checkpoints").glob("*.npz")) and run.rows:
        run.damage.append("no checkpoint is there")
    return run


def find_runs(folder: Path) -> list[Run]:
    """The runs in a folder, or that which it is itself; the newest last. Raises UsageError where there is none."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "name the one that was given to train as --runs")
    paths = [folder] if _is_run(folder) else [path for path in folder.iterdir() if path.is_dir() and _is_run(path)]
    if not paths:
        raise UsageError(f"{folder} holds no runs", "name the folder that was given to train as --runs")
    return sorted(map(read_run, paths), key=lambda run: (_when(run), run.path.name))


def overview(runs: Sequence[Run]) -> str:
    """A line for each run; what is damaged is told below its line."""
    lines = [("run", "state", "epochs", "best", "time", "config")]
    for run in runs:
        wanted = _at(run.config, "train", "epochs")
        done = "-" if run.epochs is None else f"{run.epochs:.4g}"
        lines.append(
            (
                run.path.name,
                run.state,
                f"{done}/{wanted}" if wanted else done,
                f"{run.best[0]} {run.best[1]:.4g}" if run.best else "-",
                "-" if run.seconds is None else duration(run.seconds),
                str(run.given or "-"),
            )
        )
    head, *rows = aligned(lines, right={2}).split("\n")
    damaged = [f"\n  damaged: {'; '.join(run.damage)}" if run.damage else "" for run in runs]
    return "\n".join([head, *(row + damage for row, damage in zip(rows, damaged, strict=True))])


def comparison(runs: Sequence[Run]) -> str:
    """Side by side: how the configs differ, and what was measured."""
    head = ("", *(run.path.name for run in runs))
    configs, measured = differing([run.config for run in runs]), [run.measured() for run in runs]
    lines = [head, ("state", *(run.state for run in runs))]
    lines += [(key, *map(_shown, values)) for key, values in configs.items()]
    if not configs:
        lines.append(("(the configs are the same)", *[""] * len(runs)))
    for name in dict.fromkeys(name for each in measured for name in each):
        lines.append((name, *(_shown(each.get(name, _ABSENT)) for each in measured)))
    lines.append(("epochs", *("-" if run.epochs is None else f"{run.epochs:.4g}" for run in runs)))
    lines.append(("time", *("-" if run.seconds is None else duration(run.seconds) for run in runs)))
    text = aligned(lines)
    damaged = [f"{run.path}: damaged: {'; '.join(run.damage)}" for run in runs if run.damage]
    return "\n".join([text, *damaged])


def as_plain(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What JSON can hold of it."""
    return [
        {
            "run": str(run.path),
            "state": run.state,
            "started": run.started or None,
            "config": run.given,
            "epochs": run.epochs,
            "seconds": run.seconds,
            "measured": {name: value if math.isfinite(value) else None for name, value in run.measured().items()},
            "damage": run.damage,
        }
        for run in runs
    ]


class _Absent:
    def __repr__(self) -> str:
        return "-"


_ABSENT = _Absent()


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of every key, by its dotted path, that is not the same in all configs."""
    leaves = [dict(_leaves(config)) for config in configs]
    keys = dict.fromkeys(key for each in leaves for key in each)
    rows = {key: [each.get(key, _ABSENT) for each in leaves] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if _is_long(value) else ()
    for key, part in inner:
        yield from _leaves(part, f"{path}.{key}" if path else str(key))
    if not inner:
        yield path, value


def _is_long(value: Any) -> bool:
    """Whether a list holds more than plain numbers and words: it is told apart by entry."""
    return isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else "-" if value is _ABSENT else json.dumps(value, default=str)


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in ("resolved.yaml", "run.json", "checkpoints"))


def _when(run: Run) -> float:
    try:
        return datetime.fromisoformat(run.started).timestamp()
    except ValueError:
        return run.path.stat().st_mtime


def _state(path: Path) -> str:
    """done, interrupted (by a signal, saved), failed, running, killed (nothing was said at the end)."""
    if _owner_lives(path / ".lock"):
        return "running"
    try:
        with open(path / "log.txt", "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return "killed"
    ends = (state for line in reversed(lines) for start, state in _EVENTS.items() if line.startswith(start))
    return next(ends, "killed")


def _owner_lives(lock: Path) -> bool:
    """Whether the process is there that a run's lock names; the file is empty where it ended by itself."""
    try:
        os.kill(int(lock.read_text()), 0)
    except PermissionError as error:  # somebody else's process, or somebody else's file
        return error.filename is None
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _rows(path: Path) -> list[dict[str, float]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return [
            {name: float(value) for name, value in row.items() if name and value}
            for row in csv.DictReader(stream, restkey="")
        ]


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return f"cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _at(data: Any, *path: str) -> Any:
    """What stands there; None where nothing does."""
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
