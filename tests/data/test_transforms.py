"""Geometry: crops, flips and padding against loops over single pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.data.transforms import CenterCrop, Pad, RandomCrop, RandomHorizontalFlip, Transform
from layernet.errors import CheckpointError, ShapeError, UsageError


def stream(*parts):
    return Stream(key_of(*parts), host().ops)


def images(count=9, height=6, width=5, channels=3, dtype=np.uint8):
    """Every element has a value of its own as far as the type allows."""
    values = np.random.default_rng(1).permutation(count * height * width * channels)
    return values.astype(dtype).reshape(count, height, width, channels)


def naive_crop(x, size, padding, fill, top, left):
    """The window of one image whose first pixel is (top, left) of the padded image, pixel by pixel."""
    height, width, _ = x.shape
    y = np.empty((*size, x.shape[2]), dtype=x.dtype)
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = top + i - padding[0], left + j - padding[1]
            y[i, j] = x[row, column] if 0 <= row < height and 0 <= column < width else fill
    return y


CROPS = [
    ((6, 5), (0, 0), 0),
    ((3, 2), (0, 0), 0),
    ((6, 5), (2, 2), 0),
    ((1, 1), (1, 0), 7),
    ((4, 5), (0, 3), 255),
    ((8, 9), (1, 2), 3),
]


@pytest.mark.parametrize(("size", "padding", "fill"), CROPS)
@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.float32), (4, np.float64)])
def test_random_crop_is_a_window_of_the_padded_image(size, padding, fill, channels, dtype):
    x = images(channels=channels, dtype=dtype)
    before = x.copy()
    crop = RandomCrop(size, padding, fill)
    y = crop(x, stream("crop"))
    assert y.shape == (9, *crop.out_shape(x.shape[1:]))
    assert y.dtype == dtype
    rng = stream("crop")
    top = rng.integers(0, 6 + 2 * padding[0] - size[0] + 1, (9,))
    left = rng.integers(0, 5 + 2 * padding[1] - size[1] + 1, (9,))
    for n in range(9):
        assert (y[n] == naive_crop(x[n], size, padding, fill, top[n], left[n])).all()
    assert (x == before).all()


def test_random_crop_takes_every_place_alike():
    x = np.arange(9 * 9, dtype=np.float32).reshape(1, 9, 9, 1).repeat(8000, axis=0)
    corner = RandomCrop(7)(x, stream("places"))[:, 0, 0, 0]
    places, counts = np.unique(corner, return_counts=True)
    assert places.tolist() == [0, 1, 2, 9, 10, 11, 18, 19, 20]
    # 889 expected for each; 5 standard deviations of a binomial are 141
    assert np.abs(counts - 8000 / 9).max() < 141


@pytest.mark.parametrize(("size", "padding", "fill"), CROPS)
def test_random_crop_in_evaluation_is_the_middle(size, padding, fill):
    x = images()
    y = RandomCrop(list(size), list(padding), fill)(x, None)
    top, left = (6 + 2 * padding[0] - size[0]) // 2, (5 + 2 * padding[1] - size[1]) // 2
    for n in range(9):
        assert (y[n] == naive_crop(x[n], size, padding, fill, top, left)).all()
    if size <= (6, 5) and size[1] <= 5:
        assert (y == CenterCrop(size)(x)).all()


@pytest.mark.parametrize("size", [(6, 5), (5, 5), (4, 2), (1, 1)])
def test_center_crop_cuts_what_is_odd_at_the_bottom_and_right(size):
    x = images()
    crop = CenterCrop(size)
    assert crop.out_shape((6, 5, 3)) == (*size, 3)
    for rng in (None, stream("ignored")):
        for n, y in enumerate(crop(x, rng)):
            assert (y == naive_crop(x[n], size, (0, 0), 0, (6 - size[0]) // 2, (5 - size[1]) // 2)).all()


@pytest.mark.parametrize(("padding", "fill"), [(0, 0), (2, 9), ([1, 3], 255), ((0, 1), 0)])
def test_pad_adds_a_border_of_fill(padding, fill):
    x = images()
    pad = Pad(padding, fill)
    vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    height, width, _ = pad.out_shape((6, 5, 3))
    assert (height, width) == (6 + 2 * vertical, 5 + 2 * horizontal)
    for n, y in enumerate(pad(x, stream("ignored"))):
        assert (y == naive_crop(x[n], (height, width), (vertical, horizontal), fill, 0, 0)).all()


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (1, np.float32), (2, np.float64)])
def test_flip_mirrors_the_chosen_images_and_no_others(channels, dtype):
    x = images(count=40, channels=channels, dtype=dtype)
    before = x.copy()
    y = RandomHorizontalFlip()(x, stream("flip"))
    chosen = stream("flip").keep_mask((40,), 0.5)
    assert 5 < chosen.sum() < 35
    for n in range(40):
        for column in range(5):
            assert (y[n, :, column] == x[n, :, 4 - column if chosen[n] else column]).all()
    assert (x == before).all()


def test_flip_at_the_ends_of_its_probability_and_in_evaluation():
    x = images()
    assert (RandomHorizontalFlip(0.0)(x, stream("flip")) == x).all()
    assert (RandomHorizontalFlip(1.0)(x, stream("flip")) == x[:, :, ::-1]).all()
    assert (RandomHorizontalFlip(1.0)(x, None) == x).all()


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    padding=st.integers(0, 3),
    seed=st.integers(0, 100),
    flip=st.booleans(),
)
def test_crop_and_flip_work_on_views_in_any_order(height, width, padding, seed, flip):
    size = min(height, width) + padding
    transform = RandomHorizontalFlip() if flip else RandomCrop(size, padding)
    plain = images(count=6, height=height, width=width)
    view = np.asfortranarray(plain)[::-1]
    expected = transform(np.ascontiguousarray(view), stream(seed))
    assert (transform(view, stream(seed)) == expected).all()


@pytest.mark.parametrize("transform", [RandomCrop(3, 1), CenterCrop(2), Pad(1), RandomHorizontalFlip()])
@pytest.mark.parametrize("rng", [None, 1])
def test_a_batch_of_none_passes(transform, rng):
    y = transform(images()[:0], rng and stream(rng))
    assert y.shape == (0, *transform.out_shape((6, 5, 3)))


# what is refused


@pytest.mark.parametrize(
    ("transform", "in_shape", "message"),
    [
        (CenterCrop(7), (6, 9, 1), "CenterCrop of size 7x7 does not fit into an image of 6x9; pad first"),
        (CenterCrop([2, 10]), (6, 9, 1), "CenterCrop of size 2x10 does not fit into an image of 6x9"),
        (RandomCrop(9, 1), (6, 9, 1), "RandomCrop of size 9x9 does not fit into an image of 8x11; use more padding"),
        (RandomCrop(3), (6,), r"RandomCrop takes images of shape \(H, W, C\), got \(6,\)"),
        (Pad(1), (6, 6), r"Pad takes images of shape \(H, W, C\), got \(6, 6\)"),
        (RandomHorizontalFlip(), (6, 6), "RandomHorizontalFlip takes images"),
    ],
)
def test_shapes_that_cannot_be_taken_are_refused(transform, in_shape, message):
    with pytest.raises(ShapeError, match=message):
        transform.out_shape(in_shape)


@pytest.mark.parametrize("value", [0, -1, [3], [3, 0], [1, 2, 3], True, [2, True], 2.5])
def test_sizes_that_are_none_are_refused(value):
    for kind in (CenterCrop, RandomCrop):
        with pytest.raises(
            ValueError, match=r"size must be a whole number of at least 1, or two \[height, width\], got"
        ):
            kind(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pad(-1), "padding must be a whole number of at least 0"),
        (lambda: RandomCrop(2, [1, -1]), "padding must be a whole number of at least 0"),
        (lambda: Pad(1, float("nan")), "fill must be a finite number, got nan"),
        (lambda: RandomHorizontalFlip(1.5), "p must be a probability, got 1.5"),
        (lambda: RandomHorizontalFlip(float("nan")), "p must be a probability, got nan"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("fill", [0.5, -1, 256])
def test_a_fill_that_no_pixel_can_hold_is_refused(fill):
    for transform in (Pad(1, fill), RandomCrop(3, 1, fill)):
        with pytest.raises(UsageError, match="does not fit uint8 pixels"):
            transform(images(), stream("fill"))
    assert Pad(1, fill)(images(dtype=np.float32))[0, 0, 0, 0] == fill


def test_a_transform_without_a_state_refuses_one():
    assert Pad(1).state() == {}
    Pad(1).load_state({})
    with pytest.raises(CheckpointError, match="Pad stores nothing, found mean"):
        Pad(1).load_state({"mean": np.zeros(1)})
    with pytest.raises(NotImplementedError, match="Transform has no __call__"):
        Transform()(images())
