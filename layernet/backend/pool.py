"""One pool of threads at a time: BLAS works alone while compiled kernels run on all cores.

BLAS's threads wait for work by spinning, and so do those of the compiled kernels; together they would take the cores
from each other.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import threadpoolctl


class OneBlasThread:
    """Within it BLAS runs on one thread; whoever leaves last puts back what the first one found.

    Entered by passes, so it costs microseconds; by several threads at once, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._found: list[Any] | None = None
        self._before: list[int] = []
        self.at_first: list[dict[str, Any]] = []
        """What the libraries told of themselves before anything was limited here."""

    def find(self) -> list[Any]:
        """The libraries, looked for when first asked."""
        if self._found is None:
            self._found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
            self.at_first = [library.info() for library in self._found]
        return self._found

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within > 1:
                return
            libraries = self.find()
            self._before = [library.get_num_threads() for library in libraries]
            for library in libraries:
                library.set_num_threads(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._within -= 1
            if self._within == 0:
                for library, count in zip(self.find(), self._before, strict=True):
                    library.set_num_threads(count)


one_blas_thread = OneBlasThread()
"""BLAS belongs to the process, so this does."""
