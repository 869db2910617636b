"""What compiled kernels must not be given, and what they must not swallow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.numpy_ops import NumpyOps
from layernet.backend.window import Window

ROOT = Path(__file__).parents[3]
SAME = Window((3, 3), padding=((1, 1), (1, 1)))
ONE = Window((3, 3), (2, 2))


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def poisoned(*shape: int) -> np.ndarray[Any, Any]:
    x = floats(*shape)
    x.reshape(-1)[x.size // 2] = np.nan
    return x


NAN: dict[str, Callable[[Any], Any]] = {
    "Winograd": lambda ops: ops.conv2d(poisoned(3, 16, 16, 32), floats(20, 3, 3, 32), None, SAME)[0],
    "Winograd with ReLU": lambda ops: ops.conv2d_relu(poisoned(3, 16, 16, 32), floats(20, 3, 3, 32), None, SAME)[0],
    "direct": lambda ops: ops.conv2d_relu(poisoned(2, 9, 9, 3), floats(20, 3, 3, 3), floats(20), ONE)[0],
    "linear": lambda ops: ops.linear_relu(poisoned(40, 20), floats(7, 20), floats(7))[0],
    "linear, few": lambda ops: ops.linear_relu(poisoned(5, 20), floats(7, 20), floats(7))[0],
    "linear, one": lambda ops: ops.linear_relu(poisoned(1, 20), floats(7, 20), floats(7))[0],
    "relu": lambda ops: ops.relu(poisoned(3, 20))[0],
    "add": lambda ops: ops.add(poisoned(3, 20), floats(3, 20)),
    "batch norm": lambda ops: ops.batch_norm(poisoned(3, 4, 4, 20), floats(20), floats(20), 1e-5)[0],
    "batch norm's weight": lambda ops: ops.batch_norm(floats(3, 4, 4, 20), poisoned(20), floats(20), 1e-5)[0],
    "given norm": lambda ops: ops.batch_norm_given(
        poisoned(3, 4, 4, 20), floats(20), np.ones(20, np.float32), None, None, 1e-5
    )[0],
    "shortcut": lambda ops: ops.batch_norm_relu(floats(3, 4, 20), None, None, 1e-5, poisoned(3, 4, 20))[0],
    "layer norm": lambda ops: ops.layer_norm(poisoned(3, 20), floats(20), floats(20), 1e-5)[0],
    "group norm": lambda ops: ops.group_norm(poisoned(3, 4, 20), 5, floats(20), floats(20), 1e-5)[0],
    "softmax": lambda ops: ops.softmax(poisoned(3, 20))[0],
    "log softmax": lambda ops: ops.log_softmax(poisoned(3, 20))[0],
    "prelu": lambda ops: ops.prelu(poisoned(3, 20), floats(20))[0],
    "glu": lambda ops: ops.glu(poisoned(3, 20))[0],
    "concat": lambda ops: ops.concat([poisoned(3, 20), floats(3, 7)]),
    "cross entropy": lambda ops: ops.cross_entropy(poisoned(3, 20), np.arange(3))[0][0],
    "gelu": lambda ops: ops.gelu(poisoned(3, 20), "none")[0],
    "sigmoid": lambda ops: ops.sigmoid(poisoned(3, 20))[0],
    "tanh": lambda ops: ops.tanh(poisoned(3, 20))[0],
    "max pool": lambda ops: ops.max_pool2d(poisoned(2, 6, 6, 20), Window((2, 2), (2, 2)))[0],
    "max pool, furthest": lambda ops: ops.peak_pool2d(
        poisoned(2, 6, 6, 20), Window((2, 2), (2, 2)), "max_abs", "first"
    )[0],
    "max pool, spans": lambda ops: ops.span_max_pool2d(poisoned(2, 6, 6, 20), ((0, 6),), ((0, 3), (3, 6)))[0],
    "avg pool": lambda ops: ops.avg_pool2d(poisoned(2, 6, 6, 20), Window((2, 2), (2, 2)), 4.0)[0],
}


@pytest.mark.parametrize("name", NAN)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_no_number_stays_none(name: str) -> None:
    """A net that diverges must show it: NaN wherever the reference has it."""
    ours, theirs = NAN[name](CompiledOps()), NAN[name](NumpyOps())
    assert np.isnan(theirs).any()
    assert np.isnan(ours[np.isnan(theirs)]).all()


X, W = floats(4, 16), floats(5, 16)
IMAGES, FILTERS = floats(2, 8, 8, 16), floats(6, 3, 3, 16)


def back(name: str, dy: Any, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """The backward of a pair, given this gradient after the forward on these arguments."""

    def run(ops: Any) -> Any:
        *_, res = getattr(ops, name)(*arguments, **options)
        return getattr(ops, f"{name}_backward")(dy, res)

    return run


UNFIT: dict[str, Callable[[Any], Any]] = {
    "linear": lambda ops: ops.linear(X, floats(5, 17), None),
    "linear's bias": lambda ops: ops.linear(X, W, floats(4)),
    "linear_relu": lambda ops: ops.linear_relu(X, floats(5, 17), None),
    "conv2d": lambda ops: ops.conv2d(IMAGES, floats(6, 3, 3, 15), None, SAME),
    "conv2d's bias": lambda ops: ops.conv2d(IMAGES, FILTERS, floats(5), SAME),
    "batch_norm's weight": lambda ops: ops.batch_norm(X, floats(15), None, 1e-5),
    "batch_norm_relu's shortcut": lambda ops: ops.batch_norm_relu(X, None, None, 1e-5, floats(3, 16)),
    "layer_norm's weight": lambda ops: ops.layer_norm(X, floats(15), None, 1e-5),
    "cross_entropy's labels": lambda ops: ops.cross_entropy(X, np.arange(3)),
    "linear, back": back("linear", floats(3, 5), X, W, None),
    "linear_relu, back": back("linear_relu", floats(3, 5), X, W, None),
    "conv2d, back": back("conv2d", floats(2, 8, 8, 5), IMAGES, FILTERS, None, SAME),
    "conv2d_relu, back": back("conv2d_relu", floats(2, 8, 7, 6), IMAGES, FILTERS, None, SAME),
    "relu, back": back("relu", floats(3, 16), X),
    "batch_norm, back": back("batch_norm", floats(3, 16), X, None, None, 1e-5),
    "batch_norm_relu, back": back("batch_norm_relu", floats(3, 16), X, None, None, 1e-5),
    "layer_norm, back": back("layer_norm", floats(3, 16), X, None, None, 1e-5),
    "group_norm's weight": lambda ops: ops.group_norm(X, 4, floats(15), None, 1e-5),
    "prelu's weight": lambda ops: ops.prelu(X, floats(15)),
    "embedding, back": lambda ops: ops.embedding_backward(floats(3, 16), (np.arange(4), (5, 16))),
    "group_norm, back": back("group_norm", floats(3, 16), X, 4, None, None, 1e-5),
    "log_softmax, back": back("log_softmax", floats(3, 16), X),
    "elu, back": back("elu", floats(3, 16), X, 1.0, 1.0),
    "mish, back": back("mish", floats(3, 16), X),
    "prelu, back": back("prelu", floats(3, 16), X, floats(16)),
    "glu, back": back("glu", floats(3, 8), X),
    "softmax, back": back("softmax", floats(3, 16), X),
    "gelu, back": back("gelu", floats(3, 16), X, "none"),
    "max_pool2d, back": back("max_pool2d", floats(2, 3, 4, 16), IMAGES, Window((2, 2), (2, 2))),
    "peak_pool2d, back": back("peak_pool2d", floats(2, 3, 4, 16), IMAGES, Window((2, 2), (2, 2)), "max_abs", "first"),
    "peak_pool2d of ties, back": back("peak_pool2d", floats(2, 3, 4, 16), IMAGES, Window((2, 2), (2, 2)), "max", "all"),
    "span_max_pool2d, back": back("span_max_pool2d", floats(2, 1, 2, 16), IMAGES, ((0, 8),), ((0, 8),)),
    "resample2d": lambda ops: ops.resample2d(IMAGES, floats(4, 7), floats(4, 8)),
    "resample2d, back": back("resample2d", floats(2, 4, 5, 16), IMAGES, floats(4, 8), floats(4, 8)),
    "sample2d, back": back("sample2d", floats(2, 4, 5, 16), IMAGES, np.arange(4), np.arange(4)),
    "avg_pool2d, back": back("avg_pool2d", floats(2, 3, 4, 16), IMAGES, Window((2, 2), (2, 2)), 4.0),
}


@pytest.mark.parametrize("name", UNFIT)
def test_arrays_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        UNFIT[name](CompiledOps())


BACK: dict[str, tuple[Any, ...]] = {
    "linear": (X, W, None),
    "linear_relu": (X, W, None),
    "conv2d": (IMAGES, FILTERS, None, SAME),
    "conv2d_relu": (IMAGES, FILTERS, None, SAME),
    "batch_norm": (X, None, None, 1e-5),
    "batch_norm_relu": (X, None, None, 1e-5),
    "layer_norm": (X, None, None, 1e-5),
    "relu": (X,),
    "max_pool2d": (IMAGES, Window((2, 2), (2, 2))),
}


@pytest.mark.parametrize("name", BACK)
def test_a_gradient_of_another_type_or_layout_means_the_same(name: str) -> None:
    ops = CompiledOps()
    y, *_ = getattr(ops, name)(*BACK[name])
    dy = floats(*y.shape)
    expected = back(name, dy, *BACK[name])(ops)
    for other in (dy.astype(np.float64), np.repeat(dy, 2, axis=0)[::2]):
        found = back(name, other, *BACK[name])(ops)
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
            np.testing.assert_array_equal(a, b)


FORK = """
import os
import sys
import numba
from layernet.backend.compiled.ops import CompiledOps
import numpy as np

x = np.ones((64, 64), np.float32)
CompiledOps().linear(x, x, None)
child = os.fork()
if child == 0:
    try:
        CompiledOps().linear(x, x, None)
    except Exception as error:
        print(type(error).__name__, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(numba.threading_layer())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_computes_or_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() in (["tbb"], ["DeviceError", "omp"]), done.stderr
