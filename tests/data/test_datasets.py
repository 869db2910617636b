"""The contract of data sets, digits, invented data, arrays, subsets and splits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.data.dataset import Arrays, Dataset, Subset, split
from layernet.data.digits import Digits
from layernet.data.fake import FakeData
from layernet.errors import DataError

# Digits


def test_digits_are_the_same_everywhere_and_forever():
    digest = hashlib.sha256()
    for name in ("train", "test"):
        x, labels = Digits(name).arrays
        digest.update(x.astype("<f4").tobytes() + labels.astype("<i8").tobytes())
    assert digest.hexdigest() == "b2b83fec17cbcce48144a9d9cafa7b63a7ce6c1d75570dd9fdf47f6ce20acbba"


def test_digits_split_into_disjoint_stratified_parts():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1438, 359)
    counts = np.bincount(train.targets()), np.bincount(test.targets())
    assert (counts[0] + counts[1]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(counts[1] - 0.2 * (counts[0] + counts[1])).max() < 1
    rows = {x.tobytes() for x in train.arrays[0]}
    assert not any(x.tobytes() in rows for x in test.arrays[0])


def test_digits_are_numbers_between_0_and_1():
    x, labels = Digits().batch(np.array([3, 1]))
    assert (x.shape, x.dtype, labels.dtype) == ((2, *Digits.shape), np.float32, np.int64)
    every = Digits().arrays[0] * 16
    assert every.min() == 0
    assert every.max() == 16
    assert (every == every.astype(int)).all()
    assert Digits().classes == list("0123456789")


@pytest.mark.parametrize("split_name", ["val", "Train", ""])
def test_an_unknown_part_is_refused(split_name):
    with pytest.raises(ValueError, match="split must be train or test"):
        Digits(split_name)


# FakeData


def test_fake_data_has_the_shape_and_type_asked_for():
    images, labels = FakeData([5, 4, 3], classes=4, length=9).batch(np.arange(9))
    assert (images.shape, images.dtype) == ((9, 5, 4, 3), np.uint8)
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    vectors, _ = FakeData([7], length=9).batch(np.array([8]))
    assert (vectors.shape, vectors.dtype) == ((1, 7), np.float32)
    assert vectors.min() >= 0
    assert vectors.max() <= 1
    _, numbers = FakeData([7], classes=0).batch(np.arange(12))
    assert (numbers.shape, numbers.dtype, FakeData([7], classes=0).classes) == ((12, 1), np.float32, None)


def test_fake_data_is_a_function_of_its_arguments_and_prefixes_agree():
    x, _ = FakeData([3, 3, 1], length=20, seed=5).arrays
    again, _ = FakeData([3, 3, 1], length=11, seed=5).arrays
    other, _ = FakeData([3, 3, 1], length=20, seed=6).arrays
    assert (x[:11] == again).all()
    assert (x != other).any()


@pytest.mark.parametrize("shape", [[6, 6, 1], [30], [8, 4]])
def test_fake_data_can_be_learned_across_seeds(shape):
    train, val = (FakeData(shape, classes=3, length=90, seed=seed).arrays for seed in (0, 1))
    means = np.stack([train[0][train[1] == c].mean(axis=0) for c in range(3)])
    distance = ((val[0][:, None] - means) ** 2).reshape(90, 3, -1).sum(axis=2)
    assert (distance.argmin(axis=1) == val[1]).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": []}, "shape needs sizes"),
        ({"shape": [3, 0]}, "shape needs sizes"),
        ({"shape": [3], "classes": -1}, "classes must be from 0 to 100000, got -1"),
        ({"shape": [3], "length": 0}, "length must be at least 1, got 0"),
    ],
)
def test_fake_data_refuses_what_makes_no_data(arguments, message):
    with pytest.raises(ValueError, match=message):
        FakeData(**arguments)


# arrays and the base class


def test_arrays_give_back_what_they_were_made_of():
    data = Arrays([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 1, 0], classes=["no", "yes"])
    x, y = data.batch(np.array([2, 0, 2]))
    assert (data.shape, len(data), data.classes) == ((2,), 3, ["no", "yes"])
    assert x.tolist() == [[5, 6], [1, 2], [5, 6]]
    assert y.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("x", "y", "classes", "message"),
    [
        (np.zeros((3, 2)), np.zeros(2), None, "one length, got shapes"),
        (np.float32(1), np.float32(1), None, "one length, got shapes"),
        (np.zeros((2, 2)), np.array([0, 2]), ["a", "b"], "y holds label 2, but there are 2 classes"),
    ],
)
def test_arrays_refuse_what_does_not_belong_together(x, y, classes, message):
    with pytest.raises(ValueError, match=message):
        Arrays(x, y, classes)


class Squares(Dataset):
    """A user's own: the number i with target i squared."""

    shape = (1,)

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self):
        return self.length

    def batch(self, indices):
        return indices[:, None].astype(np.float32), indices**2


@pytest.mark.parametrize("length", [0, 1, 1024, 2500])
def test_a_users_data_set_needs_no_targets_method(length):
    assert Squares(length).targets().tolist() == [i * i for i in range(length)]


def test_a_data_set_without_a_method_says_which():
    with pytest.raises(NotImplementedError, match="Dataset has no batch"):
        Dataset().batch(np.arange(1))


# Subset and split


def test_a_subset_of_a_subset_reads_through_both():
    inner = Subset(Squares(10), [9, 3, 3, 5])
    outer = Subset(inner, [3, 0])
    x, y = outer.batch(np.array([1, 0]))
    assert x.ravel().tolist() == [9, 5]
    assert y.tolist() == [81, 25]
    assert outer.targets().tolist() == [25, 81]
    assert (len(outer), outer.shape) == (2, (1,))
    assert repr(outer) == "Subset(Subset(Squares(length=10), 4 examples), 2 examples)"
    with pytest.raises(ValueError, match="count from 0, got -1"):
        Subset(inner, [0, -1])


def test_a_subset_checks_the_files_of_its_data_set():
    class Absent(Squares):
        def check(self):
            raise DataError("no such file")

    with pytest.raises(DataError, match="no such file"):
        Subset(Absent(3), [0]).check()


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=120),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63),
)
def test_a_split_is_disjoint_covering_stratified_and_repeatable(labels, fraction, seed):
    data = Arrays(np.zeros((len(labels), 1)), np.array(labels))
    wanted = round(fraction * len(labels))
    if wanted in (0, len(labels)):
        with pytest.raises(DataError, match="leaves an empty part"):
            split(data, fraction, seed)
        return
    train, val = split(data, fraction, seed)
    assert len(val) == wanted
    assert sorted([*train.indices, *val.indices]) == list(range(len(labels)))
    assert (np.diff(train.indices) > 0).all()
    assert (np.diff(val.indices) > 0).all()
    share = np.bincount(labels, minlength=6) * (wanted / len(labels))
    assert (np.abs(np.bincount(val.targets(), minlength=6) - share) < 1).all()
    assert (split(data, fraction, seed)[1].indices == val.indices).all()


def test_a_split_depends_on_the_seed_and_draws_every_example_alike():
    data = Arrays(np.zeros((40, 1)), np.repeat([0, 1, 2, 3], 10))
    chosen = np.stack([np.isin(np.arange(40), split(data, 0.25, seed)[1].indices) for seed in range(400)])
    assert len({row.tobytes() for row in chosen}) > 390
    # 100 of 400 expected for each; 5 standard deviations of a binomial are 43
    assert np.abs(chosen.sum(axis=0) - 100).max() < 43


def test_a_split_of_numbers_is_plain_chance():
    data = Arrays(np.zeros((50, 1)), np.linspace(0.0, 1.0, 50))
    train, val = split(data, 0.3, 1)
    assert (len(train), len(val)) == (35, 15)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="fraction must be between 0 and 1"):
        split(Squares(10), fraction)


def test_a_split_of_nothing_is_an_error():
    with pytest.raises(DataError, match="empty part"):
        split(Squares(0), 0.5)
