"""The loader: batches of a data set, in an order that is a pure function of (seed, epoch)."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.data.dataset import Dataset
from layernet.data.transforms import Transform
from layernet.errors import ContractError, DataError, Interrupted, UsageError

_AHEAD = 2  # batches made in advance: one ready while the next is in the making
_FIT_BATCH = 1024
_SIGNALS = (KeyboardInterrupt, Interrupted)


@dataclass(frozen=True, slots=True)
class Batch:
    """x (N, *shape) float32, or integers for layers that take indices; target: int64 labels or float32; indices (N,).

    `indices` are the examples' places in the data set.
    """

    x: Array
    target: Array
    indices: Array


class Loader:
    """Batches of a data set for training (`shuffle`) or evaluation.

    Order and random transforms are pure functions of (seed, epoch, batch number): a batch can be made again at any
    time, and an epoch can start at any batch. `augment`: whether transforms are random; None: where it shuffles.
    `drop_last` leaves out a last batch that is short. `prefetch` makes batches in a thread, two ahead, and changes
    nothing else.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        transforms: Sequence[Transform] = (),
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        prefetch: bool = True,
        augment: bool | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.transforms = list(transforms)
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.prefetch = prefetch
        self.augment = shuffle if augment is None else augment

    @property
    def shape(self) -> Shape:
        """The shape of one example after the transforms. Raises ShapeError where one cannot take what it gets."""
        return out_shape(self.transforms, self.dataset.shape)

    def __len__(self) -> int:
        """The number of batches in an epoch. Raises DataError where there is none."""
        examples = len(self.dataset)
        count = examples // self.batch_size if self.drop_last else -(-examples // self.batch_size)
        if not count:
            cure = "use a smaller batch_size, or drop_last: false" if examples else ""
            raise DataError(f"{examples} examples give no batch of {self.batch_size}", cure)
        return count

    def order(self, epoch: int) -> Array:
        """The indices of all examples (int64) as the epoch reads them."""
        count = len(self.dataset)
        return self._stream("order", epoch).permutation(count) if self.shuffle else np.arange(count)

    def batches(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from number `start` on; the ones before are not read.

        What the data set or a transform raises is raised here, from the batch that failed. The thread has ended when
        the iterator is exhausted, closed or dropped; only where a signal ends the loop, nobody waits for the batch that
        it is making.
        """
        count = len(self)
        if not 0 <= start <= count:
            raise UsageError(f"an epoch of {count} batches cannot start at batch {start}")
        order = self.order(epoch)

        def make(number: int) -> Batch:
            return self._make(order[number * self.batch_size : (number + 1) * self.batch_size], epoch, number)

        numbers = range(start, count)
        return _ahead(make, numbers) if self.prefetch else (make(number) for number in numbers)

    def _make(self, indices: Array, epoch: int, number: int) -> Batch:
        x, target = _read(self.dataset, indices)
        for place, transform in enumerate(self.transforms):
            rng = self._stream("transform", epoch, number, place) if self.augment else None
            x, target = transform.with_target(x, target, rng)
        kind = np.int64 if target.dtype.kind in "iu" else np.float32
        return Batch(_finished(x), np.ascontiguousarray(target, dtype=kind), indices)

    def _stream(self, purpose: str, *numbers: int) -> Stream:
        return Stream(key_of(self.seed, purpose, *numbers), host().ops)


def out_shape(transforms: Sequence[Transform], in_shape: Shape) -> Shape:
    """The shape of one example after the transforms. Raises ShapeError where one cannot take what it gets."""
    for transform in transforms:
        in_shape = transform.out_shape(in_shape)
    return in_shape


def fit_transforms(transforms: Sequence[Transform], dataset: Dataset) -> None:
    """Let the transforms that need it measure the training set, each after those before it, in evaluation form."""
    for place, transform in enumerate(transforms):
        if transform.needs_fit:
            transform.fit(_examples(dataset, transforms[:place]))


def _examples(dataset: Dataset, transforms: Sequence[Transform]) -> Iterator[Array]:
    every = np.arange(len(dataset))
    for start in range(0, len(every), _FIT_BATCH):
        x, _ = _read(dataset, every[start : start + _FIT_BATCH])
        for transform in transforms:
            x = transform(x, None)
        yield x


def _read(dataset: Dataset, indices: Array) -> tuple[Array, Array]:
    """A batch, held to the contract of `Dataset.batch`: a user's class is told what is wrong with it."""
    x, target = (np.asarray(part) for part in dataset.batch(indices))
    expected = (len(indices), *dataset.shape)
    if x.shape != expected or target.shape[:1] != expected[:1]:
        raise ContractError(
            f"{type(dataset).__name__}.batch returned x of shape {x.shape} and targets of shape {target.shape} "
            f"for {len(indices)} examples, expected x of shape {expected} and as many targets"
        )
    return x, target


def prepared(x: Array, transforms: Sequence[Transform]) -> Array:
    """Examples as a net takes them to predict: after the transforms in their deterministic form. x is not changed."""
    for transform in transforms:
        x = transform(x, None)
    return _finished(x)


def _finished(x: Array) -> Array:
    """The batch as a net takes it: C-contiguous, pixels as float32 0..1, floats as float32, indices as they are."""
    if x.dtype == np.uint8:
        return np.divide(np.ascontiguousarray(x), np.float32(255), dtype=np.float32)
    return np.ascontiguousarray(x, dtype=None if x.dtype.kind in "iu" else np.float32)


def _ahead(make: Callable[[int], Batch], numbers: range) -> Generator[Batch, None, None]:
    """The batches `make(number)`, made by one thread a little before they are asked for."""
    run = contextvars.copy_context().run  # numpy's error state, for one, is the consumer's in the thread too
    made: SimpleQueue[Batch | BaseException] = SimpleQueue()
    wanted, left, waits = threading.Semaphore(1 + _AHEAD), threading.Event(), True

    def work() -> None:
        for number in numbers:
            wanted.acquire()
            if left.is_set():
                return
            try:
                made.put(run(make, number))
            except BaseException as error:
                made.put(error)
                return

    # a daemon, as what is left to it when a signal ends the program may take long
    thread = threading.Thread(target=work, name="layernet-loader", daemon=True)
    thread.start()
    try:
        for number in numbers:
            if number > numbers[0]:
                wanted.release()
            batch = made.get()
            if isinstance(batch, BaseException):
                thread.join()
                raise batch
            yield batch
    except _SIGNALS:
        waits = False
        raise
    except GeneratorExit as closed:  # while the context is dealt with: what ended the consumer's loop
        waits = not isinstance(closed.__context__, _SIGNALS)
        raise
    finally:
        left.set()
        wanted.release()
        if waits and not sys.is_finalizing():
            thread.join()
