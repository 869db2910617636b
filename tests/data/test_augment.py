"""Windows, holes and colours against loops over single images, pixels and numbers."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from layernet.backend.device import host
from layernet.backend.random import Stream, key_of
from layernet.data.augment import ColorJitter, ColorNoise, Cutout, RandomResizedCrop
from layernet.errors import CheckpointError, ContractError, DataError, ShapeError

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 256, (40, 7, 9, 3), dtype=np.uint8)
FLOATS = RNG.random((40, 7, 9, 3), dtype=np.float32)


def stream(*parts):
    return Stream(key_of(*parts), host().ops)


EVERY = [Cutout(3, holes=2), RandomResizedCrop([5, 4]), ColorJitter(0.5, 0.5, 0.5, 0.3)]


@pytest.mark.parametrize("transform", EVERY, ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("x", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_a_stream_decides_all_and_x_stays(transform, x):
    before = x.copy()
    y = transform(x, stream(1))
    assert y.dtype == x.dtype
    assert y.shape == (40, *transform.out_shape(x.shape[1:]))
    assert (y == transform(x, stream(1))).all()
    assert (y != transform(x, stream(2))).any()
    assert (x == before).all()
    view = np.asfortranarray(x[::-1])[::-1]
    assert (transform(view, stream(1)) == y).all()
    for rng in (None, stream(1)):
        assert transform(x[:0], rng).shape == (0, *y.shape[1:])
    if not isinstance(transform, RandomResizedCrop):
        assert (transform(x, None) == x).all()


@pytest.mark.parametrize("turn", [lambda x: np.asfortranarray(x[::-1])[::-1], lambda x: x[:, ::-1][:, ::-1]])
def test_no_bit_of_a_colour_hangs_on_the_layout(turn):
    """As a matrix product's bits do: on the layout, the threads and the processor."""
    noise = ColorNoise(1.0)
    noise.load_state({"axes": np.array([[0.3, 0.1, 0.7], [0.2, 0.9, 0.1], [0.5, 0.6, 0.4]])})
    for seed in range(20):
        for transform in (ColorJitter(0.0, 0.9, 0.9), noise):
            np.testing.assert_array_equal(transform(turn(FLOATS), stream(seed)), transform(FLOATS, stream(seed)))


# Cutout


@pytest.mark.parametrize(("size", "holes", "fill"), [(3, 1, 0), (4, 2, 9), ([1, 20], 1, 255), (1, 1, 0)])
def test_cutout_covers_squares_around_drawn_centres(size, holes, fill):
    y = Cutout(size, holes, fill)(PIXELS, stream("holes"))
    rng = stream("holes")
    centres = [(rng.integers(0, 7, (40, 1)), rng.integers(0, 9, (40, 1))) for _ in range(holes)]
    height, width = (size, size) if isinstance(size, int) else size
    for n, i, j in np.ndindex(40, 7, 9):
        covered = any(
            0 <= i - (rows[n, 0] - height // 2) < height and 0 <= j - (columns[n, 0] - width // 2) < width
            for rows, columns in centres
        )
        assert (y[n, i, j] == (fill if covered else PIXELS[n, i, j])).all()


# RandomResizedCrop


def naive_resample(x, box, size):
    """One image, one pixel at a time: the value at a pixel's centre, linear between the centres around it."""
    top, left, height, width = box
    y = np.empty((*size, x.shape[2]))
    for i, j in np.ndindex(*size):
        row = min(max(top + (i + 0.5) * height / size[0] - 0.5, top), top + height - 1)
        column = min(max(left + (j + 0.5) * width / size[1] - 0.5, left), left + width - 1)
        r, c = int(row), int(column)
        r2, c2 = min(r + 1, int(top + height - 1)), min(c + 1, int(left + width - 1))
        upper = x[r, c] * (1 - column + c) + x[r, c2] * (column - c)
        lower = x[r2, c] * (1 - column + c) + x[r2, c2] * (column - c)
        y[i, j] = upper * (1 - row + r) + lower * (row - r)
    return y


@pytest.mark.parametrize("size", [(5, 4), (1, 1), (12, 15), (7, 9)])
@pytest.mark.parametrize("x", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_random_resized_crop_scales_the_windows_it_draws(size, x):
    crop = RandomResizedCrop(list(size))
    y = crop(x, stream("crop"))
    windows = crop.windows(40, 7, 9, stream("crop"))
    assert len(np.unique(windows, axis=0)) > 20
    for n, box in enumerate(windows):
        error = np.abs(naive_resample(x[n].astype(float), box, size) - y[n]).max()
        assert error < (0.5001 if x.dtype == np.uint8 else 1e-5)


def test_windows_are_drawn_by_area_and_proportion():
    boxes = RandomResizedCrop(8, scale=(0.25, 0.5), ratio=(0.5, 2.0)).windows(4000, 100, 100, stream("boxes"))
    top, left, height, width = boxes.T
    assert (boxes == boxes.round()).all()
    assert ((top >= 0) & (left >= 0) & (top + height <= 100) & (left + width <= 100)).all()
    share, ratio = height * width / 1e4, width / height
    assert 0.24 < share.min() < 0.26 < 0.49 < share.max() < 0.51
    assert 0.49 < ratio.min() < 0.53 < 1.9 < ratio.max() < 2.05
    # evenly in area and in the logarithm of the ratio: means within 5 standard deviations
    assert abs(share.mean() - 0.375) < 5 * 0.25 / math.sqrt(12 * 4000)
    assert abs(np.log(ratio).mean()) < 5 * math.log(4) / math.sqrt(12 * 4000)
    room = (100 - height) > 20
    assert abs((top / (100 - height))[room].mean() - 0.5) < 0.03


def test_windows_that_never_fit_become_the_largest_middle_one():
    wide = RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(1.0, 1.0)).windows(3, 6, 10, stream("wide"))
    assert wide.tolist() == [[0, 2, 6, 6]] * 3
    high = RandomResizedCrop(4, scale=(1.0, 1.0), ratio=(2.0, 2.0)).windows(3, 10, 6, stream("high"))
    assert high.tolist() == [[3, 0, 3, 6]] * 3


def test_random_resized_crop_in_evaluation_is_the_middle_in_the_sizes_proportions():
    y = RandomResizedCrop(7)(FLOATS, None)
    assert np.abs(y - FLOATS[:, :, 1:8]).max() < 1e-6
    assert (RandomResizedCrop([7, 9])(PIXELS, None) == PIXELS).all()
    assert np.abs(RandomResizedCrop([3, 3])(np.full((1, 8, 5, 2), 7.0), None) - 7).max() < 1e-6


# ColorJitter


def naive_jitter(x, order, amounts):
    """One image, pixels one at a time, by the definitions; the hue by the standard library."""
    y = x.astype(float)
    for step in order:
        if step == 0:
            y = y * amounts[0]
        elif step == 1:
            mean = sum(float(p @ [0.299, 0.587, 0.114]) for p in y.reshape(-1, 3)) / (y.size // 3)
            y = amounts[1] * y + (1 - amounts[1]) * mean
        elif step == 2:
            y = np.array([[amounts[2] * p + (1 - amounts[2]) * (p @ [0.299, 0.587, 0.114]) for p in row] for row in y])
        else:
            for place in np.ndindex(y.shape[:2]):
                h, s, v = colorsys.rgb_to_hsv(*y[place])
                y[place] = colorsys.hsv_to_rgb((h + amounts[3]) % 1.0, s, v)
        y = np.clip(y, 0, 1)
    return y


@pytest.mark.parametrize("x", [PIXELS, FLOATS], ids=["uint8", "float32"])
def test_color_jitter_is_its_definition(x):
    x = x.copy()
    x[0] = x[0, :, :, :1]  # greys have no hue
    y = ColorJitter(0.4, [0.5, 2.0], 0.9, 0.5)(x, stream("colours"))
    rng = stream("colours")
    order = rng.uniform((40, 4)).argsort(axis=1)
    ranges = [(0.6, 1.4), (0.5, 2.0), (0.1, 1.9), (-0.5, 0.5)]
    amounts = np.stack([rng.uniform((40,), *pair) for pair in ranges], axis=1)
    unit = 255 if x.dtype == np.uint8 else 1
    for n in range(40):
        expected = naive_jitter(x[n] / unit, order[n], amounts[n].astype(float)) * unit
        assert np.abs(y[n] - expected).max() < (0.501 if unit == 255 else 1e-4)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_color_jitter_changes_only_what_is_asked(name):
    assert (ColorJitter()(PIXELS, stream("none")) == PIXELS).all()
    y = ColorJitter(**{name: [0.25, 0.25]})(FLOATS, stream("one"))
    order = [["brightness", "contrast", "saturation", "hue"].index(name)]
    for n in range(3):
        assert np.abs(y[n] - naive_jitter(FLOATS[n], order, [0.25] * 4)).max() < 1e-5


# ColorNoise


def noise(**arguments):
    transform = ColorNoise(**arguments)
    transform.fit([PIXELS[:13], PIXELS[13:]])
    return transform


def test_color_noise_measures_the_principal_axes():
    axes = noise().state()["axes"]
    pixels = PIXELS.reshape(-1, 3) / 255
    assert np.abs(axes.T @ axes - np.cov(pixels.T, bias=True)).max() < 1e-12
    gram = axes @ axes.T
    assert np.abs(gram - np.diag(np.diag(gram))).max() < 1e-12


@pytest.mark.parametrize("rescale", [False, True])
def test_color_noise_adds_one_colour_to_an_image(rescale):
    transform = noise(std=0.5, rescale=rescale)
    y = transform(PIXELS, stream("noise"))
    assert y.dtype == np.float32
    amounts = stream("noise").normal((40, 3), std=0.5)
    for n in range(40):
        added = sum(amounts[n, i] * transform.state()["axes"][i] for i in range(3))
        assert np.abs(y[n] - (PIXELS[n] / 255 + added) / (1.5 if rescale else 1.0)).max() < 1e-6
    assert np.abs(transform(PIXELS, None) - PIXELS / 255 / (1.5 if rescale else 1.0)).max() < 1e-6


def test_color_noise_of_floats_far_from_zero_keeps_its_digits():
    transform = ColorNoise()
    values = RNG.normal(size=(5, 4, 4, 2)) * [1.0, 1e-3]
    transform.fit([values[:2] + 1e6, values[2:] + 1e6])
    axes = transform.state()["axes"]
    assert np.allclose(axes.T @ axes, np.cov(values.reshape(-1, 2).T, bias=True), rtol=1e-5, atol=1e-12)


def test_color_noise_keeps_what_it_measured_and_refuses_another():
    fitted, other = noise(), ColorNoise()
    assert other.needs_fit
    with pytest.raises(ContractError, match="has not measured"):
        other(PIXELS)
    other.load_state(fitted.state())
    assert not other.needs_fit
    assert (other(PIXELS, stream(1)) == fitted(PIXELS, stream(1))).all()
    for state in ({}, {"axes": np.zeros((2, 3))}, {"axes": np.full((3, 3), np.nan)}, {"mean": np.zeros((3, 3))}):
        with pytest.raises(CheckpointError, match="stores axes"):
            other.load_state(state)
    for use in (lambda: fitted.out_shape((4, 4, 1)), lambda: fitted(PIXELS[..., :1])):
        with pytest.raises(ShapeError, match="measured 3 channels"):
            use()
    with pytest.raises(DataError, match="no training data"):
        ColorNoise().fit([])
    with pytest.raises(DataError, match="NaN or infinite"):
        ColorNoise().fit([np.full((1, 1, 1, 3), np.nan)])


# what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cutout(0), "size must be a whole number"),
        (lambda: Cutout(2, holes=0), "holes must be at least 1"),
        (lambda: Cutout(2, fill=math.inf), "fill must be a finite number"),
        (lambda: RandomResizedCrop(4, scale=(0.0, 1.0)), "scale must be"),
        (lambda: RandomResizedCrop(4, scale=(0.5, 1.1)), "scale must be"),
        (lambda: RandomResizedCrop(4, ratio=(2.0, 1.0)), "ratio must be"),
        (lambda: RandomResizedCrop(4, ratio=(1.0, math.inf)), "ratio must be"),
        (lambda: ColorJitter(brightness=-0.1), "brightness must be"),
        (lambda: ColorJitter(contrast=[2.0, 1.0]), "contrast must be"),
        (lambda: ColorJitter(saturation=[-1.0, 1.0]), "saturation must be"),
        (lambda: ColorJitter(saturation=[1.0]), "saturation must be"),
        (lambda: ColorJitter(brightness=math.nan), "brightness must be"),
        (lambda: ColorJitter(hue=0.6), "hue must be"),
        (lambda: ColorNoise(-1.0), "std must be"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shapes_and_fills_that_cannot_be_taken_are_refused():
    for transform in (Cutout(2), RandomResizedCrop(2), ColorJitter(), ColorNoise()):
        with pytest.raises(ShapeError, match="takes images"):
            transform.out_shape((6,))
    with pytest.raises(ShapeError, match="takes images of 3 channels"):
        ColorJitter().out_shape((6, 6, 1))
    with pytest.raises(DataError, match=r"fill 0\.5 does not fit uint8 pixels"):
        Cutout(2, fill=0.5)(PIXELS, stream(1))
