"""Devices by name, and what is said where one cannot be used. A module stands in for cupy."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from layernet.backend.arrays import sum_to
from layernet.backend.device import Device, _cuda, _find, device_of, get_device, host
from layernet.backend.numpy_ops import NumpyOps
from layernet.errors import DeviceError


@pytest.fixture(autouse=True)
def fresh():
    """Devices are found once a process: find them anew here."""
    _find.cache_clear()
    _cuda.cache_clear()
    yield
    _find.cache_clear()
    _cuda.cache_clear()


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def pretend_cupy(monkeypatch, count=0, broken=False):
    """A cupy that finds `count` devices, or whose driver is broken."""

    class CUDARuntimeError(RuntimeError):
        pass

    def count_devices():
        if broken:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return count

    runtime = types.SimpleNamespace(getDeviceCount=count_devices, CUDARuntimeError=CUDARuntimeError)
    module = types.ModuleType("cupy")
    module.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_the_cpu():
    cpu = get_device("cpu")
    assert cpu.name == "cpu"
    assert cpu.xp is np
    assert isinstance(cpu.ops, NumpyOps)
    assert get_device("cpu") is cpu
    with cpu.activate():
        cpu.synchronize()


def test_arrays_come_in_c_order_and_are_copied_only_where_needed():
    cpu = get_device("cpu")
    x = np.arange(6.0).reshape(2, 3)
    assert cpu.asarray(x) is x
    assert cpu.asarray(x, "float32").dtype == np.float32
    turned = cpu.asarray(x.T)
    assert turned.flags.c_contiguous
    assert (turned == x.T).all()
    assert cpu.to_numpy(x) is x
    assert cpu.asarray([1, 2]).tolist() == [1, 2]


def test_auto_is_the_cpu_without_cuda(no_cupy):
    assert get_device("auto").name == "cpu"


@pytest.mark.parametrize("options", [{"count": 0}, {"broken": True}])
def test_auto_is_the_cpu_where_cupy_finds_nothing(monkeypatch, options):
    pretend_cupy(monkeypatch, **options)
    assert get_device("auto").name == "cpu"


def test_auto_is_the_first_device_where_there_is_one(monkeypatch):
    module = pretend_cupy(monkeypatch, count=2)
    device = get_device("auto")
    assert device.name == "cuda:0"
    assert device.xp is module
    assert get_device("cuda").name == "cuda:0"
    assert get_device("cuda:1").index == 1


def test_a_device_says_what_a_run_was_computed_on(monkeypatch):
    assert get_device("cpu", "numpy").facts()["kernels"] == "numpy"
    module = pretend_cupy(monkeypatch, count=2)
    module.__version__ = "14.0.1"
    runtime = module.cuda.runtime
    runtime.getDeviceProperties = lambda index: {"name": b"GPU %d" % index}
    runtime.runtimeGetVersion, runtime.driverGetVersion = (lambda: 12090), (lambda: 13000)
    facts = {"gpu": "GPU 1", "cupy": "14.0.1", "cuda_runtime": "12090", "cuda_driver": "13000"}
    assert get_device("cuda:1").facts().items() >= facts.items()


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_cuda_without_cupy_says_what_to_install(no_cupy, name):
    with pytest.raises(DeviceError, match=r"needs cupy.*install layernet\[cuda12\] or layernet\[cuda13\]"):
        get_device(name)


def test_a_broken_driver_is_told(monkeypatch):
    pretend_cupy(monkeypatch, broken=True)
    with pytest.raises(DeviceError, match=r"cudaErrorInsufficientDriver.*check the driver"):
        get_device("cuda")


def test_a_device_that_is_not_there_is_told(monkeypatch):
    pretend_cupy(monkeypatch, count=1)
    with pytest.raises(DeviceError, match="no CUDA device 3: cupy finds 1"):
        get_device("cuda:3")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "", "cpu:0"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(DeviceError, match=r"unknown device.*cpu, cuda, cuda:N or auto"):
        get_device(name)


def test_the_device_of_an_array(monkeypatch):
    assert device_of(np.zeros(3)) is host()
    assert device_of([1.0]) is host()
    pretend_cupy(monkeypatch, count=2)
    on_second = types.SimpleNamespace(device=types.SimpleNamespace(id=1))
    assert device_of(on_second).name == "cuda:1"


def test_a_device_is_a_name_with_kernels():
    assert Device("mine", NumpyOps()).xp is np


@pytest.mark.parametrize(
    ("big", "small"),
    [((2, 3, 4), (4,)), ((2, 3, 4), (3, 1)), ((2, 3), (2, 3)), ((5,), ()), ((2, 3), (1, 1)), ((0, 3), (3,))],
)
def test_sum_to_is_broadcastings_backward(big, small):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=small), rng.normal(size=big)
    # <broadcast(x), dy> = <x, sum_to(dy)> for all x and dy
    found = sum_to(dy, small)
    assert found.shape == small
    np.testing.assert_allclose((np.broadcast_to(x, big) * dy).sum(), (x * found).sum(), rtol=1e-12)
