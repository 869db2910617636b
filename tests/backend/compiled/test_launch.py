"""Kernels are given their arguments by name."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from layernet.backend import compiled

pytestmark = pytest.mark.skipif(compiled.problem() is not None, reason=str(compiled.problem()))

if compiled.problem() is None:
    from layernet.backend.compiled.elementwise import _add
    from layernet.backend.compiled.launch import MOST, Kernel
    from layernet.backend.compiled.scratch import Scratch
    from layernet.backend.compiled.warmup import kernels

X = np.ones(5, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, r"_add() missing 1 required keyword-only argument: 'size'"),
        ({"dy": X}, r"_add() got an unexpected keyword argument 'dy'"),
    ],
)
def test_arguments_that_are_not_the_kernels_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"a": X, "b": X, "size": 5, "y": X} | change
    with pytest.raises(TypeError, match=re.escape(message)):
        _add.launch(**{name: value for name, value in arguments.items() if value is not None})


def test_arguments_come_in_any_order() -> None:
    y = np.zeros(5, np.float32)
    _add.launch(y=y, size=5, b=X, a=X)
    assert np.array_equal(y, 2 * X)


@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_every_task_is_run_whatever_the_threads(tasks: int) -> None:
    a, y = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    _add.launch(a=a, b=a, size=a.size, y=y, tasks=tasks)
    assert np.array_equal(y, 2 * a)


def test_every_kernel_begins_with_task_and_tasks() -> None:
    assert {kernel.parameters[:2] for kernel in kernels() if isinstance(kernel, Kernel)} == {("task", "tasks")}


def test_more_arguments_than_can_be_passed_are_refused() -> None:
    scope: dict[str, object] = {}
    exec(f"def many(task, tasks, {', '.join(f'a{i}' for i in range(MOST + 1))}): ...", scope)
    with pytest.raises(TypeError, match=f"at most {MOST} arguments, many {MOST + 1}"):
        Kernel(scope["many"])  # type: ignore[arg-type]


def test_scratch_is_its_owners_and_the_threads() -> None:
    one, other = Scratch(), Scratch()
    start = one.room(100)
    assert start % 64 == 0
    assert one.room(50) == start  # the same again
    assert other.room(100) != start
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(one.room, 100).result() != start
    one.room(1_000_000)
    assert one.room(100) == one.room(1_000_000)  # it has grown
