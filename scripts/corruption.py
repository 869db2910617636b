"""Damages a checkpoint in every way that a disk does, and counts what loading makes of it: `corruption.py [FLIPS]`.

Every bit of the first and last 200 bytes and FLIPS random ones (default 4000) are flipped; the file is cut at every
byte of its first member's header and of the directory at its end, and at 200 random places; a random 512-byte sector is
zeroed or replaced 200 times. A load must give exactly what was saved or raise CheckpointError. Exit code 1 otherwise.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import layernet as ln
from layernet.errors import CheckpointError
from layernet.train import checkpoint, state
from layernet.train.trainer import Trainer

_HEAD, _ENDS = 256, 200

CONFIG = """
data:
  train: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 64, transforms: [Normalize]}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers:
    [{type: Conv2d, out_channels: 4, kernel_size: 3}, BatchNorm, ReLU, Flatten, {type: Linear, out_features: 4}]
loss: CrossEntropy
optimizer: {type: Adam, lr: 0.01}
average: {type: EMA, decay: 0.9}
train: {epochs: 2}
"""


def example(folder: Path) -> Path:
    """The checkpoint of a small run."""
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    experiment = ln.load(config)
    trainer = Trainer(experiment.config, experiment.net, experiment.loaders)
    trainer.fit()
    path = folder / "last.npz"
    checkpoint.save(path, state.capture(trainer))
    return path


def damages(content: bytes, flips: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """(kind, damaged content)."""
    size = len(content)
    ends = [*range(_ENDS * 8), *range((size - _ENDS) * 8, size * 8)]
    for bit in [*ends, *(rng.randrange(size * 8) for _ in range(flips))]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield "bit flipped", bytes(damaged)
    directory = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[directory + 16 : directory + 20], "little")
    for length in [*range(_HEAD), *range(start, size), *(rng.randrange(size) for _ in range(200))]:
        yield "cut", content[:length]
    for _ in range(200):
        place = rng.randrange(size // 512) * 512
        sector = bytes(512) if rng.random() < 0.5 else rng.randbytes(512)
        yield "sector lost", content[:place] + sector + content[place + 512 :]


def same(a: checkpoint.Checkpoint, b: checkpoint.Checkpoint) -> bool:
    """Whether two checkpoints hold the same bits."""
    return repr(a.meta) == repr(b.meta) and [(name, x.dtype, x.shape, x.tobytes()) for name, x in a.arrays.items()] == [
        (name, x.dtype, x.shape, x.tobytes()) for name, x in b.arrays.items()
    ]


def sweep(path: Path, flips: int) -> Counter[tuple[str, str]]:
    """What came of every damage: by its kind, `refused`, `loaded the same`, or what must not be."""
    content, whole = path.read_bytes(), checkpoint.load(path)
    found: Counter[tuple[str, str]] = Counter()
    bad = path.with_name("bad.npz")
    for kind, damaged in damages(content, flips, random.Random(0)):
        bad.unlink(missing_ok=True)  # over an old file, some file systems write through
        bad.write_bytes(damaged)
        try:
            result = "loaded the same" if same(checkpoint.load(bad), whole) else "LOADED WRONG"
        except CheckpointError as error:
            result = "refused" if str(bad) in str(error) else "REFUSED WITHOUT A NAME"
        except BaseException as error:
            result = f"ESCAPED: {type(error).__name__}: {error}"
        found[kind, "unchanged" if damaged == content else result] += 1
    return found


def main() -> int:
    """Sweep, print the table; the exit code."""
    warnings.simplefilter("error")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = example(Path(folder))
        print(f"a checkpoint of {path.stat().st_size} bytes")
        found = sweep(path, int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
    for (kind, result), count in sorted(found.items()):
        print(f"{kind:12} {result:16} {count}")
    print(f"{sum(found.values())} damages in {time.perf_counter() - start:.0f} s")
    return int(any(result[0].isupper() for _, result in found))


if __name__ == "__main__":
    sys.exit(main())
