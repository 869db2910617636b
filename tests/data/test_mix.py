"""MixUp and CutMix against loops, their shares against Beta's moments, and the loader that passes targets through."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.data.dataset import Arrays
from layernet.data.loader import Loader
from layernet.data.mix import CutMix, MixUp, beta
from layernet.data.normalize import Normalize
from layernet.errors import DataError, ShapeError, UsageError
from layernet.losses import CrossEntropy
from layernet.metrics import accuracy

RNG = np.random.default_rng(2)
PIXELS = RNG.integers(0, 256, (30, 6, 5, 2), dtype=np.uint8)
LABELS = RNG.integers(0, 4, 30)


def stream(*parts):
    return Stream(key_of(*parts), host().ops)


def drawn(alpha, p, name):
    """(partners, shares, the stream after them)."""
    rng = stream(name)
    partner = rng.permutation(30)
    keep = rng.keep_mask((30,), p)
    return partner, np.where(keep, beta(alpha, (30,), rng), 1.0), rng


def naive_label(n, partner, share):
    q = np.zeros(4)
    q[LABELS[n]] += share
    q[LABELS[partner]] += 1 - share
    return q


@pytest.mark.parametrize("p", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("x", [PIXELS, RNG.random((30, 7), dtype=np.float32)], ids=["uint8", "vectors"])
def test_mixup_is_its_formula(x, p):
    before = x.copy()
    y, q = MixUp(4, 0.4, p).with_target(x, LABELS, stream("mix"))
    partner, share, _ = drawn(0.4, p, "mix")
    assert (y.dtype, q.dtype, q.shape) == (np.float32, np.float32, (30, 4))
    unit = 255 if x.dtype == np.uint8 else 1
    for n in range(30):
        expected = share[n] * x[n].astype(float) + (1 - share[n]) * x[partner[n]].astype(float)
        assert np.abs(y[n] - expected / unit).max() < 1e-6
        assert np.abs(q[n] - naive_label(n, partner[n], share[n])).max() < 1e-6
    assert (x == before).all()
    assert ((share == 1).sum() > 5) == (p < 1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("alpha", "p"), [(1.0, 1.0), (1.0, 0.5), (0.3, 1.0)])
def test_cutmix_is_a_window_and_labels_by_its_area(alpha, p, dtype):
    x = PIXELS.astype(dtype)
    x.flags.writeable = False
    y, q = CutMix(4, alpha, p).with_target(x, LABELS, stream("cut"))
    assert y.dtype == dtype
    partner, share, rng = drawn(alpha, p, "cut")
    centres = [rng.integers(0, length, (30,)) for length in (6, 5)]
    for n in range(30):
        extent = [int(np.sqrt(1 - share[n]) * length) for length in (6, 5)]
        own = 0
        for place in np.ndindex(6, 5):
            start = [centres[axis][n] - extent[axis] // 2 for axis in range(2)]
            inside = all(start[axis] <= place[axis] < start[axis] + extent[axis] for axis in range(2))
            assert (y[n][place] == PIXELS[partner[n] if inside else n][place]).all()
            own += not inside
        assert np.abs(q[n] - naive_label(n, partner[n], own / 30)).max() < 1e-6


@pytest.mark.parametrize("kind", [MixUp, CutMix])
def test_an_image_alone_is_its_own_partner(kind):
    y, q = kind(4).with_target(PIXELS[:1], LABELS[:1], stream("alone"))
    np.testing.assert_allclose(y, PIXELS[:1] / (255 if kind is MixUp else 1), rtol=1e-6)
    np.testing.assert_allclose(q, np.eye(4)[LABELS[:1]], atol=1e-7)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0, 50.0])
def test_shares_have_the_moments_of_beta(alpha):
    s = beta(alpha, (20_000,), stream("beta", str(alpha)))
    assert ((s >= 0) & (s <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(s.mean() - 0.5) < 5 * np.sqrt(variance / 20_000)
    assert abs(s.var() / variance - 1) < 0.05
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(((s - 0.5) ** 4).mean() / fourth - 1) < 0.1


def test_the_loader_mixes_in_training_and_not_in_evaluation():
    data = Arrays(PIXELS, LABELS)
    steps = [MixUp(4), CutMix(4), Normalize(0.5, 0.5)]
    for batch, again in zip(*(Loader(data, 8, steps, shuffle=True).batches(3) for _ in range(2)), strict=True):
        assert (batch.x == again.x).all()
        assert (batch.target == again.target).all()
        assert (batch.target.dtype, batch.target.shape[1]) == (np.float32, 4)
        assert np.abs(batch.target.sum(axis=1) - 1).max() < 1e-6
        loss, _ = CrossEntropy()(batch.x[:, 0, :2].reshape(len(batch.x), -1)[:, :4], batch.target)
        assert np.isfinite(loss)
        metric = accuracy()
        metric.update(batch.target, batch.target)
        assert metric.result() == {"accuracy": 1.0}
    (plain,) = Loader(data, 30, steps).batches()
    assert (plain.target == LABELS).all()
    assert np.abs(plain.x - (PIXELS / 255 - 0.5) / 0.5).max() < 1e-6


def test_what_cannot_be_mixed_is_refused():
    for kind in (MixUp, CutMix):
        with pytest.raises(DataError, match=f"label 3 is none of num_classes 3 of {kind.__name__}"):
            kind(3).with_target(PIXELS, np.full(30, 3), stream(1))
        for target in (np.zeros(30, np.float32), np.zeros((30, 3), np.float32), np.zeros((30, 4), np.int64)):
            with pytest.raises(DataError, match="mixes class labels"):
                kind(4).with_target(PIXELS, target, stream(1))
        with pytest.raises(UsageError, match="changes targets too; call with_target"):
            kind(4)(PIXELS, stream(1))
        assert kind(4)(PIXELS) is PIXELS
        for arguments, message in (({"num_classes": 1}, "num_classes"), ({"alpha": 0.0}, "alpha"), ({"p": 2.0}, "p ")):
            with pytest.raises(ValueError, match=f"{message}.*must be"):
                kind(**{"num_classes": 4, **arguments})
    with pytest.raises(DataError, match="cannot mix indices"):
        MixUp(4).with_target(np.zeros((30, 2), np.int64), LABELS, stream(1))
    with pytest.raises(ShapeError, match="CutMix takes images"):
        CutMix(4).out_shape((3,))
