"""Starting from the values of another run, by path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layernet.config.sections import WarmStartConfig
from layernet.core.net import Net
from layernet.errors import CheckpointError
from layernet.train import checkpoint
from layernet.train.rundir import RunDirectory

_SHOWN = 8
"""So many paths of a kind stand in a line."""


@dataclass(frozen=True)
class WarmStart:
    """What was taken from where. `taken`, `kept` (initial values) are paths of this net, `unused` of the other."""

    file: Path
    sha256: str
    step: int | None
    taken: list[str]
    kept: list[str]
    unused: list[str]

    def lines(self) -> list[str]:
        """For people."""
        after = "" if self.step is None else f", step {self.step}"
        found = [f"warm start from {self.file}{after}: {len(self.taken)} of {len(self.taken) + len(self.kept)} taken"]
        found += [f"  starts from the seed: {_few(self.kept)}"] if self.kept else []
        found += [f"  not used of it: {_few(self.unused)}"] if self.unused else []
        return found

    def facts(self) -> dict[str, Any]:
        """For run.json."""
        return {**vars(self), "file": str(self.file)}


def warm_start(net: Net, config: WarmStartConfig) -> WarmStart:
    """Give the net's parameters and running statistics that the config chooses the values that a checkpoint has.

    Everything chosen must be there in the same shape. Raises CheckpointError, naming all that does not fit, before any
    change; UsageError where there is no such run.
    """
    file = _file(Path(config.from_))
    saved = checkpoint.load(file)
    theirs, mine = saved.group("net"), net.state_dict()
    chosen = config.chosen(mine)
    problems = [f"missing: {path} {mine[path].shape}" for path in chosen if path not in theirs]
    problems += [
        f"shape: {path} is {theirs[path].shape} there, {mine[path].shape} here"
        for path in chosen
        if path in theirs and theirs[path].shape != mine[path].shape
    ]
    if problems:
        raise CheckpointError(
            f"warm_start: {file} does not have what was chosen:\n  " + "\n  ".join(problems),
            "leave these out with exclude; its other paths are " + (_few(sorted(set(theirs) - set(chosen))) or "none"),
        )
    net.load_state_dict(mine | {path: theirs[path] for path in chosen})
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    taken = set(chosen)
    kept, unused = [path for path in mine if path not in taken], [path for path in theirs if path not in taken]
    return WarmStart(file, digest, saved.meta.get("step"), chosen, kept, unused)


def _file(path: Path) -> Path:
    """The checkpoint of a run that `eval` would take, or the file itself."""
    if path.is_file():
        return path
    run = RunDirectory.open(path)
    return run.find("best" if run.checkpoint("best").exists() else "last")


def _few(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
