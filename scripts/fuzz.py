"""Coverage-guided fuzzing of what reads files of strangers: configs and checkpoints.

    python scripts/fuzz.py config --minutes 60
    python scripts/fuzz.py checkpoint --minutes 60 --corpus /tmp/fuzz-checkpoint

Needs atheris (`pip install atheris`, CPython 3.11), which no other part of layernet does. An input is a finding when
an exception other than ConfigError or CheckpointError comes out, or it takes more than a second of CPU or 200 MB. Each
finding is printed once with its traceback, and its input is kept beside the corpus; fuzzing goes on. The last line says
how many inputs were run; exits 1 where anything was found. No module that a config names is imported but layernet's.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import types
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

INSTRUMENTED = [f"layernet.{room}" for room in ("config", "core", "data", "errors", "layers", "optim", "train")] + [
    "yaml"
]
SECONDS, MEGABYTES, LONGEST = 1.0, 200, 64 * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz for the time given; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("config", "checkpoint"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder for the inputs that reach new code (default: a new one)")
    args = parser.parse_args(argv)
    import atheris

    corpus = args.corpus or Path(tempfile.mkdtemp(prefix=f"fuzz-{args.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=INSTRUMENTED):
        read, mutate = TARGETS[args.target]()
    instrument_readers(atheris)
    for number, seed in enumerate(SEEDS[args.target]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = corpus.with_name(corpus.name + ".dict")
    words.write_text("\n".join(DICTIONARY[args.target]()) + "\n")
    watch = Watch(read, corpus.with_name(corpus.name + ".findings"), args.minutes * 60)
    options = [f"-dict={words}", f"-max_len={LONGEST}", "-timeout=300", "-rss_limit_mb=0", "-print_final_stats=1"]
    options.append("-max_total_time=0")  # the watch ends it: by its own clock, with a line of its own
    atheris.Setup([sys.argv[0], *options, str(corpus)], watch, custom_mutator=mutate and mutate(atheris))
    atheris.Fuzz()
    return 0


def instrument_readers(atheris: Any) -> None:
    """The code of others that looks at a checkpoint's bytes, too: it was imported before atheris could see to it."""
    from numpy.lib import format as numpy_format

    behind = sys.modules[numpy_format.__name__.replace("format", "_format_impl")]  # where numpy 2 keeps them
    for holder in (zipfile, zipfile.ZipFile, zipfile.ZipExtFile, behind):
        for name, function in list(vars(holder).items()):
            if isinstance(function, types.FunctionType):
                setattr(holder, name, atheris.instrument_func(function))
                if hasattr(numpy_format, name) and holder is behind:
                    setattr(numpy_format, name, getattr(behind, name))


class Watch:
    """Runs inputs and keeps what they find."""

    def __init__(self, read: Callable[[bytes], None], folder: Path, seconds: float) -> None:
        self.read, self.folder = read, folder
        self.start, self.seconds = time.monotonic(), seconds
        self.runs, self.slowest = 0, 0.0
        self.found: set[str] = set()

    def __call__(self, data: bytes) -> None:
        self.runs += 1
        begun, peak = time.process_time(), _peak()
        try:
            self.read(data)
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            self.keep(f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}", data, error)
        seconds = time.process_time() - begun
        self.slowest = max(self.slowest, seconds)
        if seconds > SECONDS:
            self.keep(f"more than {SECONDS:.0f} s", data, None, f"{seconds:.1f} s")
        if _peak() - peak > MEGABYTES:
            self.keep(f"more than {MEGABYTES} MB", data, None, f"{_peak() - peak} MB")
        if time.monotonic() - self.start > self.seconds:
            self.finish()

    def keep(self, what: str, data: bytes, error: BaseException | None, figure: str = "") -> None:
        """Say a finding once, and keep its input."""
        if what in self.found:
            return
        self.found.add(what)
        self.folder.mkdir(exist_ok=True)
        file = self.folder / hashlib.sha256(data).hexdigest()[:16]
        file.write_bytes(data)
        print(f"FOUND {what} {figure}: {file}", flush=True)
        if error is not None:
            traceback.print_exception(error)

    def finish(self) -> None:
        """The last line, and out: libFuzzer ends in no other way."""
        minutes = (time.monotonic() - self.start) / 60
        print(f"{self.runs} inputs in {minutes:.1f} minutes, slowest {self.slowest:.2f} s, {len(self.found)} findings")
        sys.stdout.flush()
        os._exit(1 if self.found else 0)


def _peak() -> int:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# configs


def _config() -> tuple[Callable[[bytes], None], None]:
    from layernet.config import lookup
    from layernet.config.experiment import load_config
    from layernet.config.names import BUILT_IN
    from layernet.errors import ConfigError

    folder = Path(tempfile.mkdtemp())
    file = folder / "c.yaml"
    found = lookup._module

    def module(name: str) -> object:
        if not name.startswith("layernet.") or "__main__" in name:
            raise lookup.LookupFailure(f"{name} is not imported here")
        return found(name)

    def user_file(self: object, place: str, path: object) -> object:
        raise lookup.LookupFailure(f"{place} is not imported here")

    lookup._module = module  # type: ignore[assignment]
    lookup.Lookup._file = user_file  # type: ignore[assignment, method-assign]
    for table in BUILT_IN.values():
        for place in table.values():
            lookup.load(place)  # now: what an import costs is no input's doing

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            load_config(file).dump()
        except ConfigError as error:
            str(error)
            error.block()

    return read, None


def _config_seeds() -> list[bytes]:
    from tests.config.test_bad_configs import CASES, GOOD

    files = [*(ROOT / "configs").glob("*.yaml"), *(ROOT / "scripts" / "bench").glob("*.yaml")]
    bad = [GOOD.replace(old.replace("§", ""), new.replace("§", ""), 1) for old, new, *_ in CASES.values()]
    return [*(file.read_bytes() for file in files), *(text.encode(errors="replace") for text in (GOOD, *bad))]


def _config_words() -> list[str]:
    from layernet.config.names import BUILT_IN
    from layernet.config.schema import schema_of
    from layernet.config.sections import DataSection, NetSection, RootSection, TrainConfig

    words = {name for table in BUILT_IN.values() for name in table}
    for section in (DataSection, NetSection, RootSection, TrainConfig):
        words |= set(schema_of(section).names)
    words |= {"&a ", "*a", "<<: ", "!!str ", "---", "1e-3", ".nan", "true", "null", "999999999", "repeat: ", "ref: "}
    return [f'"{word}"' for word in sorted(words)]


# checkpoints


def _checkpoint() -> tuple[Callable[[bytes], None], Callable[[object], Callable[..., bytes]]]:
    from layernet.errors import CheckpointError
    from layernet.train.checkpoint import load

    file = Path(tempfile.mkdtemp()) / "c.npz"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        try:
            load(file)
        except CheckpointError as error:
            str(error)

    return read, lambda atheris: lambda data, size, seed: _mutated(atheris, data, size, seed)


def _mutated(atheris: object, data: bytes, size: int, seed: int) -> bytes:
    """The file changed; or every second time one of its members, under a checksum that fits: what is behind it."""
    rng = random.Random(seed)
    change: Callable[[bytes, int], bytes] = atheris.Mutate  # type: ignore[attr-defined]
    if rng.random() < 0.5:
        return change(data, size)
    if members := members_of(data):
        which = rng.randrange(len(members))
        name, content = members[which]
        if rng.random() < 0.1:
            name = change(name.encode(), 40).decode(errors="replace") or "x"
        members[which] = (name, change(content, max(len(content) + 16, 16)))
        return sealed(members)[:size]
    return change(data, size)


def members_of(data: bytes) -> list[tuple[str, bytes]]:
    """(name, content) of what a zip file holds but its checksum; nothing where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [info for info in archive.infolist() if info.file_size < LONGEST and info.filename != "sha256"]
            return [(info.filename, archive.read(info)) for info in infos]
    except Exception:  # whatever a damaged zip raises
        return []


def sealed(members: list[tuple[str, bytes]]) -> bytes:
    """A checkpoint file of these members, with the checksum that fits them."""
    stream, digest = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members:
            digest.update(f"{name}:{len(content)}:".encode(errors="replace") + content)
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr(zipfile.ZipInfo("sha256"), digest.hexdigest())
    return stream.getvalue()


def _checkpoint_seeds() -> list[bytes]:
    import numpy as np

    from layernet.train.checkpoint import Checkpoint, save

    arrays = {"params/a.weight": np.ones((2, 3), "f4"), "state/n": np.array(3), "b": np.zeros((0, 2), ">i8")}
    file = Path(tempfile.mkdtemp()) / "c.npz"
    save(file, Checkpoint(arrays, {"step": 3, "config": "seed: 1"}))
    small = sealed([("meta.json", b'{"format": 1}')])
    return [file.read_bytes(), small]


def _checkpoint_words() -> list[str]:
    words = [
        r"PK\x01\x02",
        r"PK\x03\x04",
        r"PK\x05\x06",
        r"\x93NUMPY",
        "meta.json",
        "sha256",
        ".npy",
        "descr",
        "format",
    ]
    return [f'"{word}"' for word in [*words, "fortran_order", "(999999999999,)", "|O", "<f4", "True", "NaN", "1e999"]]


TARGETS: dict[str, Callable[[], tuple[Callable[[bytes], None], Callable[..., Callable[..., bytes]] | None]]] = {
    "config": _config,
    "checkpoint": _checkpoint,
}
SEEDS = {"config": _config_seeds, "checkpoint": _checkpoint_seeds}
DICTIONARY = {"config": _config_words, "checkpoint": _checkpoint_words}


if __name__ == "__main__":
    sys.exit(main())
