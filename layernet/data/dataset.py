"""What a data set is, data sets of arrays, and parts of data sets."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import host
from layernet.backend.random import Key, Stream, key_of
from layernet.core.configurable import Configurable
from layernet.errors import DataError

_CHUNK = 1024  # examples read at a time where only their targets are wanted


class Dataset(Configurable):
    """Examples with targets, read a batch at a time.

    Subclasses write `__init__` (plain annotated arguments; it reads nothing), `shape`, `__len__` and `batch`, and
    `check` where something can be missing. What fits memory is simpler as an `InMemory`.

    Attributes: `shape`, that of one example, known without reading data: images (H, W, C), vectors (C,); `classes`, the
    names of the labels 0, 1, ..., or None where targets are no labels.
    """

    shape: Shape
    classes: list[str] | None = None

    def check(self) -> None:
        """Raise DataError, with the cure, when files are absent or plainly damaged; quick, reads no data."""

    def pinned(self) -> dict[str, str]:
        """Arguments that depend on the working directory, so that they do not: relative paths, made absolute.

        A run's resolved config has them in place of those given, and `eval` and `resume` find the data from anywhere.
        """
        return {}

    def __len__(self) -> int:
        """The number of examples."""
        raise NotImplementedError(f"{type(self).__name__} has no __len__")

    def batch(self, indices: Array) -> tuple[Array, Array]:
        """(x, target) of the examples at `indices`, int64 (N,): x is (N, *shape), target (N, ...).

        Pixels are uint8 0..255 (the loader makes them float32 0..1), other numbers float32; other integers stay
        integers, for layers that take indices. Labels are integers. May run in a thread of the loader.
        Raises DataError when the data is damaged.
        """
        raise NotImplementedError(f"{type(self).__name__} has no batch")

    def targets(self) -> Array:
        """The targets of all examples, in order."""
        every = np.arange(len(self))
        starts = range(0, max(1, len(every)), _CHUNK)
        return np.concatenate([self.batch(every[start : start + _CHUNK])[1] for start in starts])


class InMemory(Dataset):
    """A data set that fits memory. Subclasses write `shape` and `load`, which runs once, on first use."""

    def load(self) -> tuple[Array, Array]:
        """(x, target) of all examples, in order. Raises DataError when the data is absent or damaged."""
        raise NotImplementedError(f"{type(self).__name__} has no load")

    @cached_property
    def arrays(self) -> tuple[Array, Array]:
        """What `load` returned. Not to be written to."""
        return self.load()

    def __len__(self) -> int:
        return len(self.arrays[1])

    def batch(self, indices: Array) -> tuple[Array, Array]:
        x, target = self.arrays
        return x[indices], target[indices]

    def targets(self) -> Array:
        return self.arrays[1]


class Arrays(InMemory):
    """Examples x (N, *shape) and targets y (N, ...) that are arrays already, or become arrays.

    `classes`: names of the labels, where y holds labels; without it, labels have no names.
    Raises ValueError where lengths differ, or a label has no name.
    """

    def __init__(self, x: Array, y: Array, classes: list[str] | None = None) -> None:
        pair = np.asarray(x), np.asarray(y)
        lengths = [array.shape[:1] for array in pair]
        if lengths[0] != lengths[1] or not lengths[0]:
            raise ValueError(f"x and y need one length, got shapes {pair[0].shape} and {pair[1].shape}")
        if classes is not None and pair[1].dtype.kind in "iu" and pair[1].max(initial=0) >= len(classes):
            raise ValueError(f"y holds label {pair[1].max()}, but there are {len(classes)} classes")
        self.shape = pair[0].shape[1:]
        self.classes = classes
        self._pair = pair

    def load(self) -> tuple[Array, Array]:
        return self._pair


class Subset(Dataset):
    """The examples of `dataset` at `indices`, in that order; an example may stand in it twice.

    Raises ValueError for a negative index.
    """

    def __init__(self, dataset: Dataset, indices: list[int]) -> None:
        self.dataset = dataset
        self.indices: Array = np.array(indices, dtype=np.int64).reshape(-1)
        if self.indices.min(initial=0) < 0:
            raise ValueError(f"indices count from 0, got {self.indices.min()}")
        self.shape = dataset.shape
        self.classes = dataset.classes

    def check(self) -> None:
        self.dataset.check()

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Array) -> tuple[Array, Array]:
        return self.dataset.batch(self.indices[indices])

    def targets(self) -> Array:
        return self.dataset.targets()[self.indices]

    def __repr__(self) -> str:
        return f"Subset({self.dataset!r}, {len(self)} examples)"


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Subset, Subset]:
    """(train, val): a random `fraction` of the examples goes to val, the others to train, each in ascending order.

    A function of the targets, the fraction and the seed alone. Where targets are labels, every class gives its share to
    within one example. Raises ValueError for a fraction outside 0..1, DataError where a part would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    targets = dataset.targets()
    chosen = stratified(targets, fraction, key_of(seed, "split"))
    if not 0 < chosen.sum() < len(targets):
        raise DataError(f"a fraction of {fraction} of {len(targets)} examples leaves an empty part")
    return Subset(dataset, np.flatnonzero(~chosen)), Subset(dataset, np.flatnonzero(chosen))  # type: ignore[arg-type]


def stratified(targets: Array, fraction: float, key: Key) -> Array:
    """A mask (N,) with round(fraction * N) True, spread evenly over the labels where targets are labels.

    In random order, sorted by label, every (1/fraction)-th example is taken: a class then gives its share rounded up or
    down, whatever the sizes, and which of its examples is chance.
    """
    count = len(targets)
    order = Stream(key, host().ops).permutation(count)
    if targets.ndim == 1 and targets.dtype.kind in "iu":
        order = order[np.argsort(targets[order], kind="stable")]
    taken = np.diff(np.arange(count + 1) * round(fraction * count) // max(1, count))
    mask = np.zeros(count, dtype=bool)
    mask[order] = taken > 0
    return mask
