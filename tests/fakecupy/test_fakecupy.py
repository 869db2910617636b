"""The rules of the stand-in. Their numbers are those of the notes on GPUs, shared/gpu.md 5a; 1 has the facts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layernet.backend import Array
from layernet.core.context import Context
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.layers.linear import Linear
from tests import fakecupy as xp
from tests.fakecupy import make_surface
from tests.fakecupy._surface import SURFACE, signature
from tests.fakecupy.device import fake_device

HOST = np.arange(12.0).reshape(3, 4)


@pytest.fixture
def x() -> xp.ndarray:
    return xp.asarray(HOST)


# rule 1: no way out but by name


@pytest.mark.parametrize("leak", [np.asarray, np.array, np.float64, memoryview, list.__len__, np.ascontiguousarray])
def test_no_conversion_to_numpy(x: xp.ndarray, leak: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        leak(x)


@pytest.mark.parametrize(
    "absent",
    ["__index__", "__array_interface__", "ctypes", "setflags", "resize", "itemset", "__array_wrap__", "__buffer__"],
)
def test_absent_from_the_array(x: xp.ndarray, absent: str) -> None:
    assert not hasattr(x, absent)


def test_no_writeable_flag_and_no_hash(x: xp.ndarray) -> None:
    assert not hasattr(x.flags, "writeable")
    assert x.flags.c_contiguous
    assert not x.T.flags.c_contiguous
    with pytest.raises(TypeError):
        hash(x)


def test_is_no_index_and_no_container(x: xp.ndarray) -> None:
    n = xp.asarray(2)
    for use in (
        lambda: range(n),
        lambda: [1, 2, 3][n],
        lambda: xp.zeros((n, 3)),
        lambda: x.reshape(n, 6),
        lambda: x[:n],
        lambda: x.sum(axis=n),
        lambda: np.zeros(n),
    ):
        with pytest.raises(TypeError, match=r"__index__|as an integer|integer"):
            use()
    with pytest.raises(TypeError, match="container"):
        3.0 in x  # noqa: B015
    with pytest.raises(TypeError, match="in-place @"):
        x @= x.T


@pytest.mark.parametrize("name", ["exp", "sum", "maximum", "concatenate", "where", "mean"])
def test_numpy_functions_on_device_arrays_are_refused(x: xp.ndarray, name: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {"maximum": (x, 0.0), "concatenate": ([x, x],), "where": (x, x, x)}
    with pytest.raises(TypeError, match=rf"numpy\.{name} was called on a device array: write ctx\.xp\.{name}"):
        getattr(np, name)(*arguments.get(name, (x,)))


# rule 2: host and device do not mix, scalars do


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + HOST,
        lambda x: HOST + x,
        lambda x: x * np.array(2.0),  # no axes, still an array
        lambda x: np.array(2.0) * x,
        lambda x: x.__iadd__(HOST),
        lambda x: x == HOST,
        lambda x: x @ HOST.T,
        lambda x: xp.maximum(x, HOST),
        lambda x: xp.where(x > 0, x, HOST),
        lambda x: xp.where(HOST > 0, x, x),
        lambda x: xp.concatenate([x, HOST]),
        lambda x: xp.einsum("ij,ij->i", x, HOST),
        lambda x: xp.add(x, x, out=np.empty((3, 4))),
        lambda x: x.sum(axis=0, out=np.empty(4)),
        lambda x: xp.sum(HOST),  # CuPy lets this one through and answers in numpy
        lambda x: xp.ascontiguousarray(HOST),
        lambda x: x[np.array([0, 1])],  # CuPy copies these to the device every time
        lambda x: x[HOST > 1],
        lambda x: x[[0, 1]],
        lambda x: x.__setitem__(slice(1, 2), HOST[:1]),
        lambda x: x.__setitem__(slice(1, 2), [1.0] * 4),
        lambda x: x.__setitem__(0, np.array(1.0)),
        lambda x: xp.add.at(x, np.array([0]), 1.0),
        lambda x: xp.take(x, [0, 1]),
    ],
)
def test_numpy_arrays_and_lists_do_not_mix_with_device_arrays(x: xp.ndarray, mix: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"numpy array|from the host|takes a? ?device array|unsupported type"):
        mix(x)


def test_the_message_of_a_mixture_says_what_to_do(x: xp.ndarray) -> None:
    with pytest.raises(TypeError, match=r"numpy array of shape \(4,\).*make a constant on the device once, as a Const"):
        x * np.ones(4)


def test_scalars_of_python_and_numpy_mix() -> None:
    single = xp.zeros(3, dtype="float32")
    assert (single + 2.5).dtype == (2 * single).dtype == "float32"  # Python's are weak
    assert (single + np.float32(2)).dtype == "float32"
    assert (single + np.float64(2)).dtype == (np.float64(2) * single).dtype == "float64"  # numpy's are strong
    assert isinstance(np.float64(2) * single, xp.ndarray)
    assert (1 - single).get().tolist() == [1.0, 1.0, 1.0]
    assert (np.float32(1) > single).get().all()
    for stranger in (None, "a", object(), [1.0, 2.0, 3.0]):
        with pytest.raises(TypeError, match="unsupported type"):
            single + stranger


# rule 3: crossings are explicit, and counted


def test_crossings_by_name_copy(x: xp.ndarray) -> None:
    host = HOST.copy()
    there = xp.asarray(host)
    host[...] = 0
    np.testing.assert_array_equal(there.get(), HOST)
    back = there.get()
    back[...] = 0
    np.testing.assert_array_equal(xp.asnumpy(there), HOST)
    there.set(HOST + 1)
    out = np.empty((3, 4))
    assert there.get(out=out) is out
    np.testing.assert_array_equal(out, HOST + 1)
    assert xp.asarray(there) is there
    assert xp.array(there) is not there
    assert xp.asarray(there, dtype="float32").dtype == "float32"
    assert xp.asarray(there.T, order="C").flags.c_contiguous
    np.testing.assert_array_equal(xp.array([there[0], there[1]]).get(), HOST[:2] + 1)


def test_waiting_for_the_device_is_counted(x: xp.ndarray) -> None:
    with xp.count_syncs() as counts:
        float(x.sum())
        int(x.argmax())
        bool(x[0, 0])
        f"{x[0, 0]:.2f}"
        math.sqrt(x[0, 1])
        x.get()
        x[0, 0].item()
        x[0].tolist()
        max(x[0])  # compares three times
        x[x > 3]
        x[x > 3] = 0.0
        xp.nonzero(x)
        xp.unique(x)
        xp.where(x > 0)
        xp.asarray(HOST)
    assert counts == {"float": 2, "int": 1, "bool": 4, "format": 1, "get": 1, "item": 1, "tolist": 1, "mask": 2} | {
        "nonzero": 1,
        "unique": 1,
        "where": 1,
        "to_device": 1,
    }


def test_forbidden_waiting_raises(x: xp.ndarray) -> None:
    with xp.forbid_sync():
        y = xp.where(x > 3, x, 0.0).sum(axis=0) + xp.asarray(HOST)[0]
        for wait in (float, bool, xp.ndarray.get, lambda y: y[y > 0], xp.nonzero, lambda y: y if y[0] > 0 else None):
            with pytest.raises(xp.DeviceSynchronized, match="waits for the device"):
                wait(y[0] if wait is float else y)
    assert float(y[0]) == 12.0


# rule 4: what comes out is on the device, and parts are views


def test_results_without_axes_stay_on_the_device(x: xp.ndarray) -> None:
    for result in (
        x.sum(),
        x[0, 0],
        xp.max(x),
        xp.dot(x[0], x[0]),
        xp.count_nonzero(x),
        xp.allclose(x, x),
        x[0] @ x[0],
    ):
        assert isinstance(result, xp.ndarray)
        assert result.shape == ()
    assert xp.sqrt(4.0).shape == ()
    assert all(isinstance(row, xp.ndarray) for row in x)


def test_parts_are_views_even_single_elements(x: xp.ndarray) -> None:
    element, row, turned, flat = x[0, 0], x[1], x.T, x.reshape(-1)
    x += 1
    assert float(element) == 1.0
    np.testing.assert_array_equal(row.get(), HOST[1] + 1)
    np.testing.assert_array_equal(turned.get(), HOST.T + 1)
    np.testing.assert_array_equal(flat.get(), HOST.ravel() + 1)
    taken = x[xp.asarray([0])]
    x[...] = 0
    assert taken.get().any()


def test_bits_can_be_read_as_another_type() -> None:
    words = xp.asarray(np.array([2**32 + 7, 5], dtype="uint64"))
    assert words.view("uint32").get().tolist() == [7, 1, 5, 0]
    with pytest.raises(ValueError, match="C-contiguous"):
        xp.zeros((4, 4))[:, ::2].view("float32")


def test_copies_are_deep(x: xp.ndarray) -> None:
    for made in (x.copy(), copy.copy(x), copy.deepcopy(x), xp.array(x)):
        made[...] = 0
    np.testing.assert_array_equal(x.get(), HOST)


# rule 5: the names and keywords of CuPy 14.2


@pytest.mark.parametrize("name", ["vecdot", "matvec", "unstack", "insert", "block", "errstate", "nditer", "object_"])
def test_names_that_cupy_lacks(name: str) -> None:
    assert not hasattr(xp, name)
    with pytest.raises(AttributeError, match=rf"cupy 14\.2 has no function or name '{name}'"):
        getattr(xp, name)
    with pytest.raises(AttributeError, match=r"cupy 14\.2 has no linalg\.vector_norm"):
        xp.linalg.vector_norm  # noqa: B018


@pytest.mark.parametrize(
    "call",
    [
        lambda x: xp.sum(x, where=x > 0),
        lambda x: x.sum(where=x > 0),
        lambda x: x.max(initial=0.0),
        lambda x: xp.mean(x, where=x > 0),
        lambda x: xp.clip(x, min=0.0, max=1.0),
        lambda x: xp.sort(x, stable=True),
        lambda x: xp.count_nonzero(x, keepdims=True),
        lambda x: xp.einsum("ij->i", x, out=x[:, 0]),
        lambda x: xp.var(x, correction=1),
        lambda x: x.var(mean=0.0),
        lambda x: xp.zeros(3, device="cpu"),
        lambda x: xp.add(x, x, where=x > 0),
        lambda x: xp.take(x, xp.asarray([0]), axis=0, mode="clip"),
        lambda x: xp.pad(x, 1, mode="edge", values=0),
        lambda x: xp.matmul(x, x.T, subok=True),
    ],
)
def test_keywords_that_cupy_lacks(x: xp.ndarray, call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"cupy 14\.2 has no keyword '\w+' for [\w.]+\(\); it takes "):
        call(x)


def test_arguments_that_cupy_wants(x: xp.ndarray) -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'axis'"):
        xp.take_along_axis(x, xp.asarray([[0]]))
    with pytest.raises(ValueError, match="kind can only be None or 'stable'"):
        xp.argsort(x, kind="quicksort")
    with pytest.raises(TypeError, match="casting"):
        x.astype("float32", casting="safe")
    with pytest.raises(NotImplementedError, match=r"no maximum\.reduce"):
        xp.maximum.reduce(x)
    with pytest.raises(NotImplementedError, match=r"draw from ctx\.rng"):
        xp.random.normal(3)


def test_functions_answer_as_numpy_does(x: xp.ndarray) -> None:
    h = HOST
    pairs: list[tuple[Any, Any]] = [
        (xp.sum(x, axis=1, keepdims=True), np.sum(h, axis=1, keepdims=True)),
        (x.mean(axis=(0, 1), dtype="float32"), h.mean(axis=(0, 1), dtype="float32")),
        (xp.stack([x, x], axis=1), np.stack([h, h], axis=1)),
        (xp.pad(x, ((1, 0), (0, 2)), constant_values=3.0), np.pad(h, ((1, 0), (0, 2)), constant_values=3.0)),
        (xp.clip(x, 2.0, None), np.clip(h, 2.0, None)),
        (xp.take_along_axis(x, x.argsort(axis=1), axis=1), np.take_along_axis(h, h.argsort(axis=1), axis=1)),
        (xp.einsum("ij,kj->ik", x, x), np.einsum("ij,kj->ik", h, h)),
        (xp.tensordot(x, x, axes=([1], [1])), np.tensordot(h, h, axes=([1], [1]))),
        (xp.broadcast_to(x[0], (2, 4)), np.broadcast_to(h[0], (2, 4))),
        (xp.linalg.norm(x, axis=1), np.linalg.norm(h, axis=1)),
        (xp.add.reduce(x, axis=1), np.add.reduce(h, axis=1)),
        (xp.moveaxis(x, 0, 1), np.moveaxis(h, 0, 1)),
        (x.swapaxes(0, 1).ravel(), h.swapaxes(0, 1).ravel()),
        (-(abs(x - 3) ** 2) // 2 % 5, -(abs(h - 3) ** 2) // 2 % 5),
        (~(x > 3) & (x != 1), ~(h > 3) & (h != 1)),
        (xp.diag(x[:, :3]), np.diag(h[:, :3])),
        (xp.full_like(x, 2.0), np.full_like(h, 2.0)),
        (xp.arange(1, 7, 2, dtype="int32"), np.arange(1, 7, 2, dtype="int32")),
        (divmod(x, 5)[1], divmod(h, 5)[1]),
        (xp.log(xp.zeros(2)), np.array([-np.inf, -np.inf])),  # and no warning
    ]
    for device, host in pairs:
        assert isinstance(device, xp.ndarray)
        assert device.dtype == host.dtype
        np.testing.assert_array_equal(device.get(), host)
    assert xp.result_type(x, xp.float32) == "float64"
    assert (xp.ndim(x), xp.shape(x), xp.pi, xp.get_array_module(x)) == (2, (3, 4), math.pi, xp)
    assert xp.issubdtype(x.dtype, xp.floating)


def test_every_signature_can_be_read() -> None:
    for table in ("functions", "methods", "linalg", "stride_tricks"):
        for words in SURFACE[table].values():
            signature(words)
    assert str(signature(SURFACE["functions"]["cumulative_sum"])) == (
        "(x, /, *, axis=None, dtype=None, out=None, include_initial=None)"
    )


def test_the_surface_is_that_of_the_installed_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    if cupy.__version__ != SURFACE["version"]:
        pytest.skip(f"cupy is {cupy.__version__}")
    assert make_surface.surface(cupy) == SURFACE


# rule 6: where CuPy is silently wrong


def test_empty_memory_is_poisoned(x: xp.ndarray) -> None:
    assert np.isnan(xp.empty((2, 2), dtype="float32").get()).all()
    assert np.isnan(xp.empty_like(x).get()).all()
    assert np.isnan(xp.ndarray((2,)).get()).all()
    assert (xp.empty(3, dtype="uint8").get() == 0xFF).all()
    assert (xp.empty(3, dtype="int32").get() == -1).all()


def test_out_of_range_indices_raise(x: xp.ndarray) -> None:
    for use in (
        lambda: x[xp.asarray([3])],
        lambda: x.__setitem__((xp.asarray([0]), xp.asarray([4])), 0.0),
        lambda: xp.take(x, xp.asarray([12])),
        lambda: xp.take_along_axis(x, xp.asarray([[4]]), axis=1),
    ):
        with pytest.raises(IndexError, match="CuPy would"):
            use()
    with pytest.raises(IndexError, match="two boolean arrays"):
        x[x[:, 0] > 0, x[0] > 0]


def test_elements_assigned_twice_raise(x: xp.ndarray) -> None:
    rows = xp.asarray([0, 0, 2])
    with pytest.raises(ValueError, match="named twice"):
        x[rows, 1] += 1.0
    with pytest.raises(ValueError, match="named twice"):
        x[xp.asarray([0, -3])] = x[:2]
    x[rows] = 7.0  # one value for all: nothing depends on the order
    xp.add.at(x, (rows, 1), 1.0)  # made for it
    assert x.get()[:, 1].tolist() == [9.0, 5.0, 8.0]
    x[xp.asarray([2, 0])] = x[:2]
    with pytest.raises(TypeError, match=r"no add\.at for int8"):
        xp.add.at(xp.zeros(3, dtype="int8"), rows, 1)


def test_views_whose_elements_share_memory_are_read_only(x: xp.ndarray) -> None:
    spread = xp.broadcast_to(x[0], (5, 4))
    windows = xp.lib.stride_tricks.sliding_window_view(x, (2, 2))
    strided = xp.lib.stride_tricks.as_strided(x, (3, 2, 3), (32, 8, 8))
    for view in (spread, windows, strided, spread[1:].T):
        with pytest.raises(ValueError, match="share memory"):
            view[...] = 0.0
        with pytest.raises(ValueError, match="share memory"):
            view += 1.0
        with pytest.raises(ValueError, match="share memory"):
            xp.exp(view, out=view)
    xp.lib.stride_tricks.as_strided(x, (3, 2), (32, 16))[...] = 0.0  # these do not
    x.diagonal()[...] = 5.0
    assert x.get()[1, 1] == 5.0


# rule 7: types


def test_types_that_do_not_exist_there() -> None:
    for host in (np.array(["a"]), np.array([None]), np.zeros(2, dtype=np.longdouble)):
        with pytest.raises(ValueError, match="has no arrays of"):
            xp.asarray(host)
    with pytest.raises(ValueError, match="different numbers"):
        xp.asarray([math.nan]).astype("int32")
    with pytest.raises(TypeError, match="same_kind"):
        xp.zeros(2, dtype="int32").__iadd__(0.5)


@pytest.mark.parametrize("product", [xp.dot, xp.matmul, lambda a, b, out: a.dot(b, out=out)])
def test_outputs_of_products_must_fit_exactly(product: Callable[..., Any]) -> None:
    a, b = xp.ones((3, 4)), xp.ones((4, 2))
    out = xp.empty((3, 2))
    assert product(a, b, out=out) is out
    assert (out.get() == 4.0).all()
    for wrong in (xp.empty((3, 2), dtype="float32"), xp.empty((2, 3)).T):
        with pytest.raises(ValueError, match="C-contiguous float64"):
            product(a, b, out=wrong)


def test_half_precision_is_summed_in_single() -> None:
    half = xp.full((1, 4096), 1.0, dtype="float16")  # 2048 + 1 is 2048 in half precision
    assert float(half.sum()) == float((half @ half.T)[0, 0]) == float(xp.dot(half, half.T)[0, 0]) == 4096.0
    assert half.sum().dtype == (half @ half.T).dtype == "float16"


# three mistakes, planted: the acceptance of the stand-in


class NumpyCall(Layer):
    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return np.tanh(x)

    def backward(self, dy: Array, ctx: Context) -> Array:
        (x,) = ctx.saved
        return dy * (1.0 - ctx.xp.tanh(x) ** 2)


class HostConstant(Layer):
    def build(self, in_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.gain = np.linspace(0.5, 1.5, in_shape[-1])
        return in_shape

    def forward(self, x: Array, ctx: Context) -> Array:
        return x * self.gain

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy * self.gain


class UnknownKeyword(Layer):
    def forward(self, x: Array, ctx: Context) -> Array:
        ctx.save(x)
        return x / ctx.xp.sum(x, axis=-1, keepdims=True, where=x > 0)

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


class Waits(Layer):
    def forward(self, x: Array, ctx: Context) -> Array:
        return x / x.max() if x.max() > 1 else x

    def backward(self, dy: Array, ctx: Context) -> Array:
        return dy


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (NumpyCall, r"numpy\.tanh was called on a device array: write ctx\.xp\.tanh"),
        (
            HostConstant,
            r"multiply\(\) mixes a device array with a numpy array of shape \(4,\).*as a Const of the layer",
        ),
        (UnknownKeyword, r"cupy 14\.2 has no keyword 'where' for sum\(\); it takes a, axis, dtype, out, keepdims"),
    ],
)
def test_planted_mistakes_are_caught(mistake: type[Layer], message: str) -> None:
    Net([Linear(4), mistake()], (3,)).bind("cpu", "float64").forward(np.ones((2, 3)))  # which numpy takes
    net = Net([Linear(4), mistake()], (3,)).bind(fake_device(), "float64")
    with pytest.raises(TypeError, match=message):
        net.forward(np.ones((2, 3)))


def test_a_planted_wait_is_caught() -> None:
    net = Net([Waits()], (3,)).bind(fake_device())
    net.forward(np.ones((2, 3)))
    with pytest.raises(xp.DeviceSynchronized, match="bool waits for the device"), xp.forbid_sync():
        net.forward(np.ones((2, 3)))
