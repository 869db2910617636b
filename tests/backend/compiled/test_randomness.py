"""The compiled Philox against numpy's, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from layernet.backend.compiled.ops import CompiledOps
from layernet.backend.compiled.randomness import _FEW
from layernet.backend.ops import Ops

COMPILED, REFERENCE = CompiledOps(), Ops(np)
words = st.integers(0, 2**64 - 1)


@settings(max_examples=25, deadline=None)
@given(words, words, st.integers(0, 2**40), st.sampled_from([0, _FEW - 1, _FEW]), st.integers(0, 100))
def test_the_same_bits(key0, key1, draw, least, more):
    count = least + more
    ours = COMPILED.random_words((key0, key1), draw, count)
    generator = np.random.Philox(
        key=np.array([key0, key1], dtype=np.uint64), counter=np.array([0, draw, 0, 0], dtype=np.uint64)
    )
    np.testing.assert_array_equal(ours, generator.random_raw(count))
    np.testing.assert_array_equal(ours, REFERENCE.random_words((key0, key1), draw, count))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**32 - 1)
)
def test_masks_are_applied_as_by_the_reference_bit_for_bit(shape, keep, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    x.reshape(-1)[0] = rng.choice([np.nan, np.inf, 0.0, 1.0])
    for mask in (rng.random(shape) < keep, rng.random((shape[0], *[1] * (len(shape) - 1))) < keep):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(COMPILED.drop(x, mask, 1.7), REFERENCE.drop(x, mask, 1.7))
