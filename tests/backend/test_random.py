"""The generator against known answers and numpy's own, and the distributions drawn from it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layernet.backend.device import host
from layernet.backend.ops import Ops
from layernet.backend.random import Stream, key_of
from layernet.backend.reference.randomness import RandomOps

REFERENCE, FAST = Ops(np), host().ops
BOTH = pytest.mark.parametrize("ops", [REFERENCE, FAST], ids=["reference", "numpy"])
MASK = 2**64 - 1
words64 = st.integers(0, MASK)


def stream(seed=0, dtype="float64", ops=FAST):
    return Stream(key_of("test", seed), ops, dtype)


def philox(counter, key):
    """One block of Philox4x64-10 in plain Python integers, after the paper's figure 6."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 64) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123's kat_vectors, philox4x64 10
        ([0] * 4, [0] * 2, [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]),
        ([MASK] * 4, [MASK] * 2, [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    assert philox(counter, key) == answer
    before = (sum(word << 64 * i for i, word in enumerate(counter)) - 1) % 2**256  # numpy counts before it draws
    generator = np.random.Philox(counter=before, key=key[0] + (key[1] << 64))
    assert [int(word) for word in generator.random_raw(4)] == answer


@BOTH
@given(words64, words64, st.integers(0, 50), st.integers(0, 41))
def test_words_are_philox_of_the_block_the_draw_and_the_key(ops, k0, k1, draw, count):
    words = ops.random_words((k0, k1), draw, count)
    assert words.dtype == np.uint64
    expected = [word for block in range(1, 12) for word in philox([block, draw, 0, 0], [k0, k1])]
    assert [int(word) for word in words] == expected[:count]


@given(words64, words64, st.integers(0, 5), st.integers(0, 300))
def test_the_reference_and_numpys_c_code_draw_the_same_bits(k0, k1, draw, count):
    a, b = (ops.random_words((k0, k1), draw, count) for ops in (REFERENCE, FAST))
    np.testing.assert_array_equal(a, b)
    assert FAST.random_words.__func__ is not RandomOps.random_words


@BOTH
def test_every_kind_of_draw_is_the_same_on_every_backend(ops):
    ours, theirs = stream(ops=ops), stream(ops=REFERENCE)
    for name, arguments in [
        ("bits", ((3, 5),)),
        ("uniform", ((7,), -1.0, 3.0)),
        ("keep_mask", ((4, 4), 0.3)),
        ("integers", (0, 10, (6,))),
        ("permutation", (13,)),
    ]:
        np.testing.assert_array_equal(getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments))
    np.testing.assert_allclose(ours.normal((9,)), theirs.normal((9,)), rtol=1e-14)


# keys


def test_keys_depend_on_every_part_and_its_type():
    keys = [key_of(), key_of(1), key_of("1"), key_of(1, 2), key_of(12), key_of("1", "2"), key_of("12"), key_of(2, 1)]
    assert len(set(keys)) == len(keys)
    assert key_of("a", 3) == key_of("a", 3)


def test_keys_are_the_same_in_every_process():
    code = "from layernet.backend.random import key_of; print(*key_of('conv1', 7))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("0", "1")
    }
    assert found == {"{} {}\n".format(*key_of("conv1", 7))}


def test_draws_of_a_stream_differ_and_come_again():
    one, again = stream(), stream()
    first, second = one.uniform((100,)), one.uniform((100,))
    assert (first != second).all()
    assert (again.uniform((100,)) == first).all()
    assert (again.uniform((100,)) == second).all()
    other = stream()
    other.bits((3,))  # the second draw does not depend on how much the first one took
    assert (other.uniform((100,)) == second).all()


# distributions

N = 200_000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_moments_and_open_ends(dtype):
    u = stream(1, dtype).uniform((N,))
    assert u.dtype == dtype
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert abs(u.mean(dtype="float64") - 0.5) < 5 / math.sqrt(12 * N)
    assert abs(u.var(dtype="float64") - 1 / 12) < 5 / math.sqrt(180 * N)
    counts = np.histogram(u, 50, (0, 1))[0]
    assert ((counts - N / 50) ** 2 / (N / 50)).sum() < 100  # chi square, 49 degrees: beyond 1 in 10 000
    v = stream(2, dtype).uniform((N,), -3.0, 5.0)
    assert -3 <= v.min() < -2.99
    assert 4.99 < v.max() <= 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_moments(dtype):
    z = stream(1, dtype).normal((N,))
    assert z.dtype == dtype
    z = z.astype("float64")
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * math.sqrt(variance / N)
    assert 4 < abs(z).max() < 7
    halves = z[: N // 2], z[N // 2 :]  # the two of a Box-Muller pair
    assert abs(np.corrcoef(*halves)[0, 1]) < 5 / math.sqrt(N / 2)
    w = stream(1, dtype).normal((N,), 3.0, 0.5)
    np.testing.assert_allclose(w, 3 + 0.5 * z, atol=1e-5)


def test_both_float_types_draw_the_same_numbers():
    single, double = stream(3, "float32"), stream(3, "float64")
    np.testing.assert_allclose(single.uniform((1000,)), double.uniform((1000,)), atol=2.0**-23)
    np.testing.assert_allclose(single.normal((1000,)), double.normal((1000,)), atol=1e-6)


@pytest.mark.parametrize("keep", [0.0, 1e-3, 0.1, 0.5, 0.9, 1.0])
def test_keep_rates(keep):
    mask = stream(4).keep_mask((N,), keep)
    assert mask.dtype == bool
    assert abs(mask.mean() - keep) <= 5 * math.sqrt(keep * (1 - keep) / N)


@pytest.mark.parametrize("keep", [-0.1, 1.1, math.nan])
def test_what_is_no_probability(keep):
    with pytest.raises(ValueError, match="probability"):
        stream().keep_mask((3,), keep)


def test_masks_are_the_same_in_both_float_types():
    assert (stream(5, "float32").keep_mask((N,), 0.3) == stream(5, "float64").keep_mask((N,), 0.3)).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (10, 1000)])
def test_integers_fill_their_range_evenly(low, high):
    found = stream(6).integers(low, high, (N,))
    assert found.dtype == np.int64
    counts = np.bincount(found - low, minlength=high - low)
    assert len(counts) == high - low
    each = N / len(counts)
    assert abs(counts - each).max() < 6 * math.sqrt(each)


def test_an_empty_range_is_an_error():
    with pytest.raises(ValueError, match="low < high"):
        stream().integers(3, 3, (1,))


@given(st.integers(0, 300), st.integers(0, 3))
def test_permutations_hold_everything_once(n, seed):
    assert sorted(stream(seed).permutation(n)) == list(range(n))


def test_permutations_are_even():
    places = np.array([stream(seed).permutation(5) for seed in range(4000)])
    for position in range(5):
        counts = np.bincount(places[:, position], minlength=5)
        assert abs(counts - 800).max() < 5 * math.sqrt(800)


@BOTH
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 0, 4), (5, 7)])
def test_shapes(ops, shape):
    source = stream(ops=ops)
    for draw in (source.bits, source.uniform, source.normal):
        assert draw(shape).shape == shape
    assert source.keep_mask(shape, 0.5).shape == shape
    assert source.integers(0, 5, shape).shape == shape
