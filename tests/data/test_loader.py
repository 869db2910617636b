"""The loader: pure order and randomness, prefetch that changes nothing, threads that end, errors that arrive."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.data.dataset import Arrays, Dataset, Subset
from layernet.data.fake import FakeData
from layernet.data.loader import Loader, fit_transforms, out_shape
from layernet.data.normalize import Normalize
from layernet.data.transforms import CenterCrop, Pad, RandomCrop, RandomHorizontalFlip, Transform
from layernet.errors import ContractError, DataError, ShapeError, UsageError

AUGMENT = [RandomCrop(5, padding=2), RandomHorizontalFlip(), Normalize(0.5, 0.25)]


def loader(length=23, size=5, transforms=AUGMENT, **options):
    return Loader(FakeData([6, 6, 2], classes=3, length=length), size, transforms, **{"shuffle": True, **options})


def same(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for name in ("x", "target", "indices"):
            one, other = getattr(a, name), getattr(b, name)
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


# order


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 40),
    size=st.integers(1, 15),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 10**6),
    shuffle=st.booleans(),
)
def test_an_epoch_is_every_example_once_in_the_order_of_seed_and_epoch(length, size, seed, epoch, shuffle):
    made = loader(length, size, [], seed=seed, shuffle=shuffle, prefetch=False)
    batches = list(made.batches(epoch))
    order = np.concatenate([batch.indices for batch in batches])
    assert len(batches) == len(made) == -(-length // size)
    assert sorted(order) == list(range(length))
    assert (order == made.order(epoch)).all()
    if not shuffle:
        assert (order == np.arange(length)).all()
    # no history: another loader, other epochs read in between, the same order
    again = loader(length, size, [], seed=seed, shuffle=shuffle, prefetch=False)
    list(again.batches(epoch + 1))
    same(again.batches(epoch), batches)


def test_seeds_and_epochs_give_other_orders():
    orders = {loader(seed=seed).order(epoch).tobytes() for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_every_place_of_the_order_is_chance():
    made = Loader(FakeData([1], length=10), 5, shuffle=True)
    first = [made.order(epoch)[0] for epoch in range(2000)]
    # 200 expected for each; 5 standard deviations of a binomial are 67
    assert np.abs(np.bincount(first, minlength=10) - 200).max() < 67


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_an_epoch_can_start_at_any_batch(prefetch, start):
    made = loader(prefetch=prefetch)
    same(made.batches(2, start), list(made.batches(2))[start:])


def test_batches_before_the_start_are_not_read():
    read = []

    class Noting(FakeData):
        def batch(self, indices):
            read.extend(indices)
            return super().batch(indices)

    made = Loader(Noting([2], length=10), 3)
    list(made.batches(0, start=2))
    assert read == [6, 7, 8, 9]


@pytest.mark.parametrize("start", [-1, 6])
def test_a_start_outside_the_epoch_is_refused_at_once(start):
    with pytest.raises(UsageError, match=f"an epoch of 5 batches cannot start at batch {start}"):
        loader().batches(0, start)


def test_drop_last_leaves_out_the_short_batch():
    whole, dropped = loader(), loader(drop_last=True)
    assert (len(whole), len(dropped)) == (5, 4)
    same(dropped.batches(1), list(whole.batches(1))[:4])
    assert len(list(whole.batches(1))[-1].x) == 3
    assert len(loader(20, drop_last=True)) == 4


def test_an_epoch_without_a_batch_is_an_error():
    with pytest.raises(DataError, match="3 examples give no batch of 5; use a smaller batch_size"):
        loader(3, drop_last=True).batches(0)
    empty = Loader(Subset(FakeData([2]), []), 5)
    with pytest.raises(DataError, match=r"0 examples give no batch of 5$"):
        len(empty)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        loader(size=0)


# randomness


def test_prefetching_changes_no_bit():
    for epoch in range(3):
        same(loader(prefetch=True, seed=4).batches(epoch), loader(prefetch=False, seed=4).batches(epoch))


def test_interleaved_epochs_do_not_disturb_each_other():
    made = loader()
    pairs = list(zip(made.batches(0), made.batches(1), strict=True))
    same([a for a, _ in pairs], made.batches(0))
    same([b for _, b in pairs], made.batches(1))


def test_each_transform_of_each_batch_of_each_epoch_has_numbers_of_its_own():
    drawn = {}

    class Drawing(Transform):
        def __call__(self, x, rng=None):
            drawn[epoch, len(drawn)] = rng.bits((4,)).tobytes()
            return x

    made = loader(transforms=[Drawing(), Drawing()], prefetch=False)
    for epoch in range(2):
        list(made.batches(epoch))
    assert len(drawn) == 2 * 5 * 2
    assert len(set(drawn.values())) == 20


def test_evaluation_is_deterministic_and_in_order():
    made = loader(shuffle=False)
    same(made.batches(0), made.batches(7))
    x, labels = made.dataset.arrays
    np.testing.assert_allclose(
        np.concatenate([b.x for b in made.batches(0)]), (x[:, :5, :5] / 255 - 0.5) / 0.25, atol=1e-6
    )
    assert np.concatenate([b.target for b in made.batches(0)]).tolist() == labels.tolist()


def test_augmenting_can_be_asked_for_or_forbidden():
    ordered = loader(shuffle=False, augment=True)
    first, second = (next(ordered.batches(epoch)) for epoch in (0, 1))
    assert first.indices.tolist() == [0, 1, 2, 3, 4]
    assert (first.x != second.x).any()
    plain = loader(augment=False)
    batch = next(plain.batches(0))
    assert (batch.x == AUGMENT[2](plain.dataset.arrays[0][batch.indices][:, :5, :5])).all()


def test_the_consumers_numpy_error_state_holds_in_the_thread():
    class Dividing(Transform):
        def __call__(self, x, rng=None):
            return np.divide(1.0, np.zeros_like(x, dtype=np.float32))

    made = loader(transforms=[Dividing()], prefetch=True)
    with np.errstate(divide="ignore"):
        assert np.isinf(next(made.batches(0)).x).all()
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        next(made.batches(0))


# what comes out


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.array([[0, 255, 51]], np.uint8), np.array([[0, 1, 0.2]], np.float32)),
        (np.array([[0.5, 2.0]], np.float64), np.array([[0.5, 2.0]], np.float32)),
        (np.array([[True, False]]), np.array([[1, 0]], np.float32)),
        (np.array([[3, 70000]], np.int32), np.array([[3, 70000]], np.int32)),
    ],
    ids=["uint8", "float64", "bool", "int32"],
)
def test_pixels_and_floats_become_float32_and_indices_stay(x, expected):
    batch = next(Loader(Arrays(x, [0]), 1).batches())
    assert batch.x.dtype == expected.dtype
    assert np.array_equal(batch.x, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float64, np.float32, bool])
def test_labels_become_int64_and_other_targets_float32(dtype):
    batch = next(Loader(Arrays(np.zeros((2, 1)), np.array([1, 0], dtype)), 2).batches())
    assert batch.target.dtype == (np.int64 if np.dtype(dtype).kind in "iu" else np.float32)
    assert batch.target.tolist() == [1, 0]


@pytest.mark.parametrize("transforms", [[], [CenterCrop(3)], [CenterCrop(3), RandomHorizontalFlip()], AUGMENT])
def test_what_comes_out_is_contiguous_and_of_the_promised_shape(transforms):
    made = loader(transforms=transforms)
    for batch in made.batches(0):
        assert batch.x.flags.c_contiguous
        assert batch.x.shape[1:] == made.shape


def test_shapes_follow_the_transforms():
    assert loader(transforms=[Pad(1), CenterCrop([4, 8])]).shape == (4, 8, 2)
    assert out_shape([], (3,)) == (3,)
    with pytest.raises(ShapeError, match="CenterCrop of size 9x9 does not fit"):
        _ = loader(transforms=[Pad(1), CenterCrop(9)]).shape


def test_the_data_set_is_not_changed_by_an_epoch():
    made = loader()
    before = made.dataset.arrays[0].copy()
    list(made.batches(0))
    assert (made.dataset.arrays[0] == before).all()


# measuring


def test_transforms_measure_what_those_before_them_leave():
    data = FakeData([6, 6, 2], length=1500)
    given, measured = Normalize(0.0, 2.0), Normalize(per="pixel")
    fit_transforms([CenterCrop(4), given, measured], data)
    seen = data.arrays[0][:, 1:5, 1:5] / 255 / 2
    np.testing.assert_allclose(measured.state()["mean"], seen.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(measured.state()["std"], seen.std(axis=0), rtol=1e-6)


def test_what_was_measured_is_not_measured_again():
    transform = Normalize()
    fit_transforms([transform], FakeData([6, 6, 2]))
    state = transform.state()
    fit_transforms([transform], FakeData([6, 6, 2], seed=8))
    assert transform.state() == state


# errors and threads


class Failing(FakeData):
    def __init__(self, shape, error, at):
        super().__init__(shape, length=60)
        self.error, self.at = error, at

    def batch(self, indices):
        if indices[0] == self.at:
            raise self.error
        return super().batch(indices)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("error", [OwnError("mine"), DataError("damaged"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("at", [0, 30])
def test_an_error_arrives_as_itself_after_the_batches_before_it(prefetch, error, at):
    batches = Loader(Failing([2], error, at), 6, prefetch=prefetch).batches()
    for _ in range(at // 6):
        next(batches)
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert caught.value is error
    assert "batch" in [entry.name for entry in caught.traceback]
    with pytest.raises(StopIteration):
        next(batches)


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("read", [0, 1, 2, 10])
def test_a_consumer_may_stop_early(prefetch, read):
    batches = loader(60, prefetch=prefetch).batches(0)
    for _ in range(read):
        next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)


def test_a_consumer_may_break_out_of_the_loop():
    for batch in loader(60).batches(0):
        assert len(batch.x) == 5
        break


def test_the_thread_runs_two_batches_ahead_and_no_more():
    made, wanted = [], threading.Semaphore(0)

    class Counting(FakeData):
        def batch(self, indices):
            made.append(threading.current_thread().name)
            wanted.release()
            return super().batch(indices)

    batches = Loader(Counting([2], length=60), 6).batches()
    next(batches)
    for _ in range(3):
        assert wanted.acquire(timeout=30)
    batches.close()
    assert len(made) == 3
    assert all(name.startswith("layernet-loader") for name in made)


def test_an_iterator_left_behind_does_not_keep_the_program_alive():
    code = (
        "from layernet.data.fake import FakeData\n"
        "from layernet.data.loader import Loader\n"
        "batches = Loader(FakeData([2], length=60), 6).batches()\n"
        "next(batches)\n"
        "print('done')\n"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


# a user's data set that breaks the contract


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize(
    ("x", "target"),
    [(np.zeros((4, 3)), np.zeros(4)), (np.zeros((3, 2)), np.zeros(3)), (np.zeros((4, 2)), np.zeros(1)), (0.0, 0.0)],
)
def test_a_batch_of_the_wrong_shape_names_the_class(prefetch, x, target):
    class Wrong(Dataset):
        shape = (2,)

        def __len__(self):
            return 4

        def batch(self, indices):
            return x, target

    with pytest.raises(ContractError, match=r"Wrong\.batch returned x of shape .* expected x of shape \(4, 2\)"):
        next(Loader(Wrong(), 4, prefetch=prefetch).batches())
