"""Normalize: what it computes with given statistics, what it measures, what it refuses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.data.normalize import Normalize
from layernet.errors import CheckpointError, ContractError, DataError, ShapeError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
VECTORS = (RNG.normal(size=(40, 6)) * [1, 2, 3, 1e3, 1e-3, 1] + [0, 5, -5, 1e4, 1, 0]).astype(np.float32)
AXES = {"channel": lambda x: tuple(range(x.ndim - 1)), "pixel": lambda x: 0, "all": lambda x: None}


def batches(x, size=16):
    return [x[i : i + size] for i in range(0, len(x), size)]


def fitted(x, size=16, **arguments):
    transform = Normalize(**arguments)
    assert transform.needs_fit
    transform.fit(batches(x, size))
    assert not transform.needs_fit
    return transform


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ([0.1, 0.2, 0.3], [1.0, 2.0, 0.5]), (0, np.array([3, 2, 1]))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_given_statistics_are_in_units_of_0_to_1(mean, std, dtype):
    x = PIXELS if dtype == np.uint8 else (PIXELS / 255).astype(dtype)
    before = x.copy()
    y = Normalize(mean, std)(x)
    assert (y.dtype, y.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_allclose(y, (PIXELS / 255 - np.array(mean)) / np.array(std), rtol=0, atol=3e-6)
    assert (x == before).all()


@pytest.mark.parametrize("per", AXES)
@pytest.mark.parametrize("x", [PIXELS, VECTORS, PIXELS[:, :, :, 0], PIXELS.astype(np.float64)], ids=lambda x: x.dtype)
def test_measured_statistics_are_those_of_the_whole_set(per, x):
    transform = fitted(x, per=per)
    unit = 255 if x.dtype == np.uint8 else 1
    wide, axes = x.astype(np.float64) / unit, AXES[per](x)
    state = transform.state()
    np.testing.assert_allclose(state["mean"], wide.mean(axis=axes), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state["std"], wide.std(axis=axes), rtol=1e-9)
    y = transform(x).astype(np.float64)
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-4)  # the mean is rounded to float32
    np.testing.assert_allclose(y.std(axis=axes), 1, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=30), size=st.integers(1, 9))
def test_pixels_are_measured_exactly(values, size):
    transform = Normalize()
    transform.fit(batches(np.array(values, dtype=np.uint8)[:, None], size))
    mean = Fraction(sum(values), len(values))
    variance = Fraction(sum(v * v for v in values), len(values)) - mean**2
    assert transform.state()["mean"].item() == pytest.approx(float(mean) / 255, rel=4e-16)
    expected = float(variance) ** 0.5 / 255 if variance else 1.0
    assert transform.state()["std"].item() == pytest.approx(expected, rel=4e-16)


def test_a_million_pixels_are_measured_exactly():
    x = np.full((1000, 1000), 200, dtype=np.uint8)
    x[7, 7] = 201  # n sum(x^2) and sum(x)^2 now agree in 16 of their 17 digits
    variance = Fraction(1, 10**6) - Fraction(1, 10**12)
    expected = float(variance) ** 0.5 / 255
    assert fitted(x, size=300, per="all").state()["std"].item() == pytest.approx(expected, rel=4e-16)


@pytest.mark.parametrize("per", AXES)
def test_the_size_of_the_batches_does_not_matter(per):
    for x, tolerance in ((PIXELS, 0.0), (VECTORS, 1e-12)):
        whole, parts = (fitted(x, size, per=per).state() for size in (len(x), 7))
        for name in ("mean", "std"):
            np.testing.assert_allclose(parts[name], whole[name], rtol=tolerance)


def test_a_large_offset_does_not_swallow_the_spread():
    x = 1e9 + np.random.default_rng(2).normal(size=(500, 1))
    transform = fitted(x)
    np.testing.assert_allclose(transform.state()["std"], x.std(axis=0), rtol=1e-9)
    assert abs(transform(x).std() - 1) < 1e-6


@pytest.mark.parametrize("value", [np.uint8(200), np.float32(0.1), np.float64(1e30), np.float64(0)])
@pytest.mark.parametrize("per", AXES)
def test_a_constant_becomes_zero_and_is_not_divided_by_zero(value, per):
    x = np.full((33, 3, 2), value)
    transform = fitted(x, size=10, per=per)
    assert (transform.state()["std"] == 1).all()
    np.testing.assert_allclose(transform(x), 0, atol=1e-6)


def test_the_mean_image_alone_as_cuda_convnet_subtracts_it():
    transform = fitted(PIXELS, std=1 / 255, per="pixel")
    assert list(transform.state()) == ["mean"]
    np.testing.assert_allclose(transform(PIXELS), PIXELS - PIXELS.mean(axis=0), atol=1e-4)


def test_what_is_measured_is_stored_and_loaded_bit_for_bit():
    first = fitted(PIXELS, per="pixel")
    second = Normalize(per="pixel")
    second.load_state(first.state())
    assert not second.needs_fit
    assert (second(PIXELS) == first(PIXELS)).all()
    assert Normalize(0.5, 0.5).state() == {}
    assert not Normalize(0.5, 0.5).needs_fit


GOOD = {"mean": np.zeros(3), "std": np.ones(3)}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mean": np.zeros(3)},
        {**GOOD, "more": np.zeros(3)},
        {**GOOD, "std": np.array([1.0, 0.0, 1.0])},
        {**GOOD, "mean": np.array([1.0, np.nan, 1.0])},
    ],
)
def test_a_state_that_does_not_fit_is_refused(state):
    transform = Normalize()
    with pytest.raises(CheckpointError, match=r"Normalize\(\) stores mean, std; found"):
        transform.load_state(state)
    assert transform.needs_fit


def test_use_before_measuring_is_an_error():
    with pytest.raises(ContractError, match="has not measured the training data"):
        Normalize()(PIXELS)


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (Normalize([0.1, 0.2], 1.0), (4, 5, 3), "a mean of 2 values, which does not fit examples of shape"),
        (Normalize(0.0, [1.0]), (6,), "a std of 1 values"),
        (fitted(PIXELS, per="pixel"), (5, 5, 3), r"a mean of shape \(4, 5, 3\)"),
        (fitted(VECTORS), (5,), "a mean of 6 values"),
    ],
)
def test_statistics_of_another_shape_are_refused(transform, shape, message):
    with pytest.raises(ShapeError, match=message):
        transform.out_shape(shape)
    with pytest.raises(ShapeError, match=message):
        transform(np.zeros((2, *shape), dtype=np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("per", AXES)
def test_data_that_is_not_finite_is_refused(bad, per):
    for row in (0, 30):
        x = VECTORS.copy()
        x[row, 2] = bad
        with pytest.raises(DataError, match="NaN or infinite"):
            Normalize(per=per).fit(batches(x))


def test_nothing_cannot_be_measured():
    with pytest.raises(DataError, match="no training data"):
        Normalize().fit([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"std": 0}, "std must be positive, got 0"),
        ({"std": [1.0, -1.0]}, "std must be positive"),
        ({"std": float("inf")}, "std must be a number"),
        ({"mean": float("nan")}, "mean must be a number"),
        ({"mean": []}, "mean must be a number"),
        ({"mean": "imagenet"}, "mean must be a number, a list of numbers or 'measure', got 'imagenet'"),
        ({"per": "row"}, "per must be channel, pixel or all, got 'row'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalize(**arguments)
