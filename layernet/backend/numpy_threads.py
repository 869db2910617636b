"""The threads that numpy's kernels run on: numpy and BLAS let go of Python's lock, so plain threads are enough.

Work is split by shapes and by the number of threads alone, never by who is free, so results are equal to the last bit
from run to run. Meanwhile BLAS has one thread (`layernet.backend.pool`).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from layernet.backend import Shape
from layernet.backend.pool import one_blas_thread

T = TypeVar("T")
P = TypeVar("P")

LEAST_PRODUCT = 1 << 21
"""Multiply-adds that are worth a thread: waking one takes about 20 us."""

LEAST_PASS = 1 << 16
"""Elements of a pass over arrays that are worth a thread."""

BLOCK = 1 << 17
"""Elements of each array of a pass that are worked on at a time.

Fewer would stay in a nearer cache, but between numpy's calls threads wait for Python's lock: VGG's batch norms take
30 ms a step so, and 38 with 2^15.
"""


class Workers:
    """Threads of a process, made when first needed, and again after a fork. They end with the process."""

    def __init__(self) -> None:
        self._own = threading.local()
        self.forget()

    def forget(self) -> None:
        """Be without threads: those that there were stayed behind in the parent process."""
        self._free = threading.Lock()
        self._doors: list[SimpleQueue[Callable[[], None]]] = []

    @property
    def most(self) -> int:
        """One for each core, and no more than BLAS takes: OMP_NUM_THREADS and its like are for us too."""
        return blas()[0]

    @property
    def count(self) -> int:
        """Threads that work is split for, the caller's own included."""
        limit: int | None = getattr(self._own, "limit", None)
        return self.most if limit is None else limit

    @contextmanager
    def limited(self, threads: int | None) -> Iterator[None]:
        """Within it, this thread's work is split for so many: at most `most`, which None stands for."""
        most = self.most
        before, self._own.limit = getattr(self._own, "limit", None), min(threads or most, most)
        try:
            with one_blas_thread:
                yield
        finally:
            self._own.limit = before

    def shares(self, work: int, least: int) -> int:
        """In how many parts to do work of which each thread wants `least`."""
        return max(1, min(self.count, work // least))

    def split(self, n: int, shares: int, task: Callable[[slice], T]) -> list[T]:
        """What `task` returns for each of `shares` stretches of range(n), all at once where threads are free.

        They are not inside of a task, nor while another thread has them: then one follows the other. An error in a
        task is raised here, when all have ended.
        """
        parts = _alike(n, max(1, min(shares, n)))
        if len(parts) == 1 or not self._free.acquire(blocking=False):
            return [task(part) for part in parts]
        try:
            with one_blas_thread:
                return self._at_once(parts, task)
        finally:
            self._free.release()

    def each(self, pieces: Sequence[P], shares: int, task: Callable[[P], T]) -> list[T]:
        """What `task` returns for every one of some pieces, in order; a share is a stretch of them."""

        def several(part: slice) -> list[T]:
            return [task(piece) for piece in pieces[part]]

        return [result for results in self.split(len(pieces), shares, several) for result in results]

    def _at_once(self, parts: list[slice], task: Callable[[slice], T]) -> list[T]:
        results: list[Any] = [None] * len(parts)
        errors: list[BaseException | None] = [None] * len(parts)
        done: SimpleQueue[None] = SimpleQueue()
        state = np.geterr()  # of the caller's thread alone

        def do(i: int) -> None:
            try:
                with np.errstate(**state):
                    results[i] = task(parts[i])
            except BaseException as error:
                errors[i] = error

        def give(i: int) -> None:
            do(i)
            done.put(None)

        helpers = self._helpers(len(parts) - 1)
        for i, door in enumerate(helpers, start=1):
            door.put(lambda i=i: give(i))  # type: ignore[misc]
        try:
            do(0)
            for i in range(len(helpers) + 1, len(parts)):  # threads that could not be had
                do(i)
        finally:  # an interrupt too waits for those that still write
            for _ in helpers:
                done.get()
        for error in errors:
            if error is not None:
                raise error
        return results

    def _helpers(self, count: int) -> list[SimpleQueue[Callable[[], None]]]:
        """The doors of so many threads, or of as many as can be had: none start while the interpreter ends."""
        while len(self._doors) < count:
            door: SimpleQueue[Callable[[], None]] = SimpleQueue()
            try:
                threading.Thread(target=_serve, args=(door,), name="layernet-numpy", daemon=True).start()
            except RuntimeError:
                break
            self._doors.append(door)
        return self._doors[:count]


def _serve(door: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        door.get()()


@cache
def blas() -> tuple[int, str]:
    """How many threads BLAS took before it was limited, and which processor it has its kernels from, where it tells."""
    one_blas_thread.find()
    pools = one_blas_thread.at_first
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    architecture = pools[0].get("architecture", "") if pools else ""
    return max((pool["num_threads"] for pool in pools), default=cores), architecture


workers = Workers()
"""Cores belong to the machine, so there is one set of threads a process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.forget)


def slices(count: int, most: int, shares: int = 1) -> list[slice]:
    """range(count) in slices of at most `most`, alike in length, and as many for each of the shares."""
    least = -(-count // max(1, most))
    return _alike(count, min(count, -(-least // shares) * shares))


def _alike(count: int, parts: int) -> list[slice]:
    return [slice(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def passes(shape: Shape, task: Callable[[slice], T]) -> list[T]:
    """`task` on every block of rows of arrays of this shape, over the threads; what it returns, in order.

    The blocks follow from the shape alone, so what is summed over them does not depend on the number of threads.
    """
    size, width = shape[0], math.prod(shape[1:])
    return workers.each(slices(size, BLOCK // max(1, width)), workers.shares(size * width, LEAST_PASS), task)
