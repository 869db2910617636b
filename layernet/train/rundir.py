"""The run directory: everything that a run read and wrote, in one place made for it alone."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import threadpoolctl

import layernet
from layernet.errors import CheckpointError, LayernetError, UsageError, did_you_mean
from layernet.text import size as in_bytes
from layernet.train import checkpoint
from layernet.train.checkpoint import Checkpoint
from layernet.train.files import keep_as, locked, saying, write_bytes, write_text

_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_LIBRARY = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
"""What tells one linear algebra library from another: results differ with it in the last digits."""


class RunDirectory:
    """`runs/<name>-NNN/`: config.yaml (as given), resolved.yaml, run.json, metrics.csv, log.txt, checkpoints/."""

    def __init__(self, path: Path, above: Sequence[Path] = ()) -> None:
        self.path = path
        self._above = above
        """Folders over it that were made with it, the innermost first."""

    @classmethod
    def create(cls, root: Path, name: str) -> Self:
        """Make the next free `<name>-NNN` under root; two runs started at once get two directories.

        Raises UsageError when it cannot be made there, LayernetError when the disk is full or fails.
        """
        if "/" in name or os.sep in name:
            raise UsageError(f"a run cannot be called {name!r}", "its directory is chosen with --runs")
        above = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
            number = 1 + max((_number(p.name, name) for p in root.iterdir()), default=0)
            while True:
                path = root / f"{name}-{number:03d}"
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    number += 1
                    continue
                run = cls(path, above)
                with run.gone_where_refused():
                    (path / "checkpoints").mkdir()
                return run
        except OSError as error:
            kind = LayernetError if error.errno in _FAILED else UsageError
            raise kind(f"the run directory cannot be made: {error}", "choose another with --runs") from error

    @contextmanager
    def gone_where_refused(self) -> Iterator[None]:
        """Within it, what ends the run before it has begun leaves nothing: no directory, and none made over it.

        It has begun once its first files stand; where usage or config are wrong, with the first that it wrote itself.
        """
        try:
            yield
        except (LayernetError, OSError) as error:
            refused = getattr(error, "exit_code", 1) == 2 and not self.checkpoints() and not self._metrics.exists()
            if refused or not self.resolved.exists():
                shutil.rmtree(self.path, ignore_errors=True)
                with suppress(OSError):  # another run has begun there
                    for folder in self._above:
                        folder.rmdir()
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run. Raises UsageError when there is none."""
        if not (path / "resolved.yaml").is_file():
            holder = path if path.is_dir() else path.parent
            runs = [str(found.parent) for found in sorted(holder.glob("*/resolved.yaml"))]
            what = "it has no resolved.yaml" if path.exists() else "it does not exist"
            hint = did_you_mean(str(path), runs) if runs else "give one that `train` made"
            if (path / "checkpoints").is_dir():
                what, hint = "it was ended before it had begun", "train again"
            raise UsageError(f"{path} is no run directory: {what}", hint)
        return cls(path)

    @property
    def resolved(self) -> Path:
        """The config with every default filled in."""
        return self.path / "resolved.yaml"

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says; nothing where it cannot be read."""
        try:
            return dict(json.loads((self.path / "run.json").read_text()))
        except (OSError, ValueError):
            return {}

    def describe(
        self, given: str, resolved: str, files: Mapping[str, bytes], facts: Mapping[str, Any], config: Path | None
    ) -> None:
        """Write what went in: the config twice, the user's own Python files, and run.json with their SHA-256."""
        written = {**files, "config.yaml": given.encode(), "resolved.yaml": resolved.encode()}
        run = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "config": str(config) if config else None,
            "directory": os.getcwd(),
            "files": {name: _digest(content) for name, content in written.items()},
            "versions": {
                "layernet": layernet.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
            "platform": platform.platform(),
            "cpu": processor(),
            "libraries": [{key: info.get(key) for key in _LIBRARY} for info in threadpoolctl.threadpool_info()],
            **facts,
        }
        with saying(self.path):
            write_text(self.path / "config.yaml", given)
            self.keep(files)
            self._note(run)
            write_text(self.resolved, resolved)  # the last: with it, there is a run to go on with

    def change(self, resolved: str) -> None:
        """Write another resolved config: the run goes on with it. `config.yaml` stays what it was begun with."""
        facts = self.facts
        facts["files"] = {**facts.get("files", {}), "resolved.yaml": _digest(resolved.encode())}
        with saying(self.path):
            write_text(self.resolved, resolved)
            self._note(facts)

    def edited(self) -> list[str]:
        """Those of the files that the run goes on with, and config.yaml, that are not as layernet wrote them."""

        def is_as_written(name: str, digest: str) -> bool:
            try:
                return _digest((self.path / name).read_bytes()) == digest
            except OSError:  # who needs it says so
                return True

        return [name for name, digest in self.facts.get("files", {}).items() if not is_as_written(name, digest)]

    def _note(self, facts: Mapping[str, Any]) -> None:
        write_text(self.path / "run.json", json.dumps(facts, indent=2) + "\n")

    def keep(self, files: Mapping[str, bytes]) -> None:
        """Write the user's own files, each at its place, where they are not there yet."""
        for name, content in files.items():
            file = self.path / name
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(file, content)  # as they are: Python files may have another encoding

    def checkpoint(self, which: str) -> Path:
        """The file of the checkpoint called `which`: last, best, or step-N."""
        return self.path / "checkpoints" / f"{which}.npz"

    def find(self, which: str) -> Path:
        """The file of a checkpoint as people call it: also last.npz, step-3528 and 3528. Raises UsageError."""
        known, name = self.checkpoints(), which.removesuffix(".npz")
        if step := re.fullmatch(r"(?:step-)?(\d+)", name):
            name = f"step-{int(step[1]):08d}"
        if not known:
            raise UsageError(f"{self.path} has no checkpoint: it ended before its first one", "train again")
        if name not in known:
            raise UsageError(f"{self.path} has no checkpoint {which!r}", did_you_mean(name, known))
        return self.checkpoint(name)

    def sweep(self) -> None:
        """Remove what processes that were killed while they wrote have left behind. For who has the lock."""
        with saying(self.path):
            for file in [*self.path.glob(".*.tmp"), *(self.path / "checkpoints").glob(".*.tmp")]:
                file.unlink(missing_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """Within it, the directory is this process's alone. Raises UsageError where another has it, naming it."""
        return locked(self.path)

    def load(self, which: str) -> Checkpoint:
        """A checkpoint, as `find` finds it. Raises CheckpointError, naming the others, where it cannot be used."""
        path = self.find(which)
        try:
            return checkpoint.load(path)
        except CheckpointError as error:
            others = [name for name in self.checkpoints() if name != path.stem]
            raise CheckpointError(
                error.message, f"{error.hint}; beside it are {', '.join(others) or 'none'}"
            ) from error

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint to go on from, and what to say of newer ones that are damaged; None where there never was one.

        Every checkpoint holds all that training needs, so an older one leads to the same end. Raises CheckpointError
        where there are some and none can be read.
        """
        known, damaged = self.checkpoints(), []
        order = ["last", *sorted((name for name in known if name.startswith("step-")), reverse=True), "best"]
        for name in order:
            if name in known:
                try:
                    found = checkpoint.load(self.checkpoint(name))
                except CheckpointError as error:
                    damaged.append(error.message)
                    continue
                return found, [*damaged, f"going on from checkpoint {name} in its place"] if damaged else []
        if damaged:
            raise CheckpointError("\n".join(damaged), "no other is there: train again")
        return None, []

    def check_space(self, size: int, count: int) -> None:
        """Raise UsageError where the disk has no room for `count` checkpoints of `size` bytes and one in the making."""
        files = {entry.stat().st_ino: entry.stat().st_size for entry in self.path.glob("checkpoints/*.npz")}
        needed, free = size * (count + 1) - sum(files.values()), shutil.disk_usage(self.path).free
        if needed > free:
            raise UsageError(
                f"{self.path} needs {in_bytes(needed)} more for {count} checkpoints of {in_bytes(size)} and one in the "
                f"making, its disk has {in_bytes(free)} free",
                "free some, choose another disk with --runs, or keep fewer: train.checkpoint.keep",
            )

    def checkpoints(self) -> list[str]:
        """What the checkpoints that are there are called."""
        return sorted(path.stem for path in (self.path / "checkpoints").glob("*.npz"))

    def save_best(self, state: Checkpoint) -> None:
        """Write the checkpoint `best`."""
        checkpoint.save(self.checkpoint("best"), state)

    def save_last(self, state: Checkpoint, keep: int) -> None:
        """Write the checkpoint `last`; with `keep` above 1, the newest `keep` also stay as step-N."""
        last = self.checkpoint("last")
        checkpoint.save(last, state)
        with saying(last.parent):
            if keep > 1:
                keep_as(last, self.checkpoint(f"step-{state.meta['step']:08d}"))
            snapshots = sorted(last.parent.glob("step-*.npz"), reverse=True)
            for old in snapshots[keep if keep > 1 else 0 :]:
                old.unlink()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """metrics.csv anew from all rows; a value that a row lacks is left empty."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with saying(self._metrics):
            write_text(self._metrics, text.getvalue())

    def log(self, line: str) -> None:
        """Add a line to log.txt, which repeats what is said elsewhere: a full disk ends no run for the sake of it."""
        with suppress(OSError), open(self.path / "log.txt", "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def processor() -> str:
    """The processor's model, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _number(entry: str, name: str) -> int:
    suffix = entry.removeprefix(f"{name}-")
    return int(suffix) if suffix != entry and suffix.isdecimal() else 0
