"""ImageFolder: what becomes of each kind of image, the cache, and files that are no images."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from layernet.data.folder import ImageFolder, read_image
from layernet.errors import DataError

RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)


def save(path, pixels=PIXELS, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


def tree(root, classes=("cat", "ant", "Bee"), count=2):
    for label, name in enumerate(sorted(classes)):
        for i in range(count):
            save(root / name / f"{i}.png", np.full((6, 6, 3), 10 * label + i, np.uint8))
    return root


def test_folders_are_classes_in_sorted_order(tmp_path):
    tree(tmp_path)
    save(tmp_path / "cat" / "deeper" / "5.PNG")
    save(tmp_path / "cat" / ".hidden.png")
    (tmp_path / "cat" / "notes.txt").write_text("passed over")
    (tmp_path / ".git").mkdir()
    data = ImageFolder(str(tmp_path), 6)
    assert (data.shape, data.classes) == ((6, 6, 3), ["Bee", "ant", "cat"])
    data.check()
    assert len(data) == 7
    assert not (tmp_path / ".layernet").exists()  # so far nothing was decoded
    x, y = data.batch(np.array([3, 6, 0]))
    assert (x.dtype, y.dtype, type(x)) == (np.uint8, np.int64, np.ndarray)
    assert y.tolist() == [1, 2, 0]
    assert (x[0] == 11).all()
    assert (x[1] == PIXELS).all()
    assert data.targets().tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_a_split_need_not_hold_all_classes(tmp_path):
    tree(tmp_path, classes=["b", "c"])
    data = ImageFolder(str(tmp_path), 6, classes=["c", "a", "b"])
    assert (data.classes, data.targets().tolist()) == (["c", "a", "b"], [2, 2, 0, 0])
    with pytest.raises(DataError, match="c is none of the classes a, b"):
        ImageFolder(str(tmp_path), 6, classes=["a", "b"]).check()


# kinds of images

GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
BLACK_OR_WHITE = (GREY > 128).astype(np.uint8) * 255
WIDE = RNG.integers(0, 65536, (6, 6), dtype=np.uint16)
ALPHA = RNG.integers(0, 256, (6, 6, 1), dtype=np.uint8)


def over_white(pixels, alpha):
    y = np.empty(pixels.shape)
    for place in np.ndindex(pixels.shape):
        a = int(alpha[place[:2]][0]) / 255
        y[place] = int(pixels[place]) * a + 255 * (1 - a)
    return y


@pytest.mark.parametrize(
    ("name", "pixels", "mode", "expected", "tolerance"),
    [
        ("rgb.png", PIXELS, None, PIXELS, 0),
        ("rgb.bmp", PIXELS, None, PIXELS, 0),
        ("rgb.ppm", PIXELS, None, PIXELS, 0),
        ("cmyk.tiff", PIXELS, "CMYK", PIXELS, 1),
        ("grey.png", GREY, None, GREY[..., None].repeat(3, axis=2), 0),
        (
            "black and white.png",
            (GREY > 128).astype(np.uint8) * 255,
            "1",
            (GREY > 128)[..., None].repeat(3, 2) * 255,
            0,
        ),
        ("16 bits.png", WIDE, None, np.rint(WIDE / 257)[..., None].repeat(3, axis=2), 0),
        ("16 bits.tiff", WIDE, None, np.rint(WIDE / 257)[..., None].repeat(3, axis=2), 0),
        ("palette.gif", PIXELS, None, PIXELS, 0),
        ("alpha.png", np.concatenate([PIXELS, ALPHA], axis=2), None, over_white(PIXELS, ALPHA), 1),
    ],
)
def test_images_of_every_kind_become_rgb_bytes(tmp_path, name, pixels, mode, expected, tolerance):
    save(tmp_path / name, pixels, mode)
    y = read_image(tmp_path / name, (6, 6), "crop", grey=False)
    assert (y.shape, y.dtype) == ((6, 6, 3), np.uint8)
    assert np.abs(y - expected.astype(float)).max() <= tolerance
    y = read_image(tmp_path / name, (6, 6), "crop", grey=True)
    luma = expected.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(y[..., 0] - luma).max() <= tolerance + 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cameras_rotation_is_undone(tmp_path, orientation):
    upright = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    # where the camera stored the upright image's first row and column, by EXIF 2.3, tag 0x0112
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "it.png", np.ascontiguousarray(stored), exif=exif)
    assert (read_image(tmp_path / "it.png", (4, 6), "crop", grey=True)[..., 0] == upright).all()


@pytest.mark.parametrize(("fit", "columns"), [("crop", range(4, 12)), ("stretch", range(16))])
def test_scaling_is_the_mean_of_what_a_pixel_covers(tmp_path, fit, columns):
    """A ramp stays a ramp under any symmetric filter, apart from its ends: value 10 + 8 column."""
    ramp = np.broadcast_to(10 + 8 * np.arange(16), (8, 16)).astype(np.uint8)
    save(tmp_path / "it.png", ramp)
    y = read_image(tmp_path / "it.png", (4, 4), fit, grey=True)[..., 0]
    expected = 10 + 8 * np.array(columns).reshape(4, -1).mean(axis=1)
    assert np.abs(y[:, 1:-1] - expected[1:-1]).max() <= 1
    assert (y == y[0]).all()


# the cache


def test_images_are_decoded_once(tmp_path, monkeypatch):
    tree(tmp_path / "data")
    first = ImageFolder(str(tmp_path / "data"), 5, cache=str(tmp_path / "cache"))
    x, _ = first.batch(np.arange(6))
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert {name.rpartition(".")[2] for name in names} == {"npy", "json"}
    assert len(names) == 2
    monkeypatch.setattr("layernet.data.folder.read_image", lambda *_, **__: pytest.fail("decoded again"))
    again = ImageFolder(str(tmp_path / "data"), 5, cache=str(tmp_path / "cache"))
    assert (again.batch(np.arange(6))[0] == x).all()


def test_a_changed_file_or_argument_is_decoded_anew(tmp_path):
    tree(tmp_path)
    assert (ImageFolder(str(tmp_path), 6).batch(np.array([0]))[0] == 0).all()
    save(tmp_path / "Bee" / "0.png")
    os.utime(tmp_path / "Bee" / "0.png", ns=(1, 1))
    assert (ImageFolder(str(tmp_path), 6).batch(np.array([0]))[0] == PIXELS).all()
    assert ImageFolder(str(tmp_path), 6, color="grey").batch(np.array([0]))[0].shape == (1, 6, 6, 1)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nonsense"])
def test_a_spoiled_cache_is_made_again(tmp_path, content):
    tree(tmp_path)
    x, _ = ImageFolder(str(tmp_path), 6).batch(np.arange(6))
    (path,) = (tmp_path / ".layernet").glob("*.npy")
    for spoiled in (path, path.with_suffix(".json")):
        spoiled.write_bytes(content)
        assert (ImageFolder(str(tmp_path), 6).batch(np.arange(6))[0] == x).all()


def test_a_decoding_that_fails_leaves_nothing(tmp_path):
    tree(tmp_path)
    (tmp_path / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat.1\.png: is no image that can be read"):
        ImageFolder(str(tmp_path), 6).batch(np.array([0]))
    assert list((tmp_path / ".layernet").iterdir()) == []


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    tree(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"the cache .* cannot be written .*; name another folder for it: cache"):
        ImageFolder(str(tmp_path / "data"), 6, cache=str(tmp_path / "file")).batch(np.array([0]))


# what is no image


def damaged(tmp_path, ending):
    save(tmp_path / f"whole.{ending}", RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return (tmp_path / f"whole.{ending}").read_bytes()


BAD = {
    "empty": lambda _: b"",
    "web page": lambda _: b"<!DOCTYPE html>",
    "another format": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n",
    "jpeg cut off": lambda folder: damaged(folder, "jpg")[:-400],
    "png cut off": lambda folder: damaged(folder, "png")[:-400],
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_or_skipped_and_counted(tmp_path, case, caplog):
    tree(tmp_path / "data")
    (tmp_path / "data" / "ant" / "0.png").write_bytes(BAD[case](tmp_path))
    with pytest.raises(DataError, match=r"ant.0\.png: is no image that can be read .*; mend it, or set skip_bad: true"):
        ImageFolder(str(tmp_path / "data"), 6).batch(np.array([0]))
    for _ in range(2):  # decoded, and from the cache
        data = ImageFolder(str(tmp_path / "data"), 6, skip_bad=True)
        assert len(data) == 5
        assert data.targets().tolist() == [0, 0, 1, 2, 2]
        x, y = data.batch(np.arange(5))
        assert x[:, 0, 0, 0].tolist() == [0, 1, 11, 20, 21]
        assert y.tolist() == data.targets().tolist()
        assert data.skipped == [os.path.join("ant", "0.png")]
    (warning,) = caplog.messages
    assert "skipped 1 of 6 images" in warning


def test_floats_and_more_than_16_bits_are_refused(tmp_path):
    save(tmp_path / "float.tiff", np.zeros((3, 3), np.float32))
    save(tmp_path / "wide.tiff", np.full((3, 3), 70_000, np.int32))
    with pytest.raises(DataError, match=r"float\.tiff: .*floating-point"):
        read_image(tmp_path / "float.tiff", (3, 3), "crop", grey=True)
    with pytest.raises(DataError, match=r"wide\.tiff: .*more than 16 bits"):
        read_image(tmp_path / "wide.tiff", (3, 3), "crop", grey=True)


def test_folders_that_hold_nothing_are_named(tmp_path):
    data = ImageFolder(str(tmp_path / "no"), 6)
    assert data.classes is None
    with pytest.raises(DataError, match=r"no cannot be read .*; correct root"):
        data.check()
    with pytest.raises(DataError, match="holds no folders; it needs one folder a class"):
        ImageFolder(str(tmp_path), 6).check()
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"a holds no images; endings read: \.bmp"):
        ImageFolder(str(tmp_path), 6).check()
    (tmp_path / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images"):
        len(ImageFolder(str(tmp_path), 6, skip_bad=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be a whole number"),
        ({"size": 4, "fit": "pad"}, "fit must be crop or stretch"),
        ({"size": 4, "color": "red"}, "color must be rgb or grey"),
        ({"size": 4, "classes": ["a", "a"]}, "classes must differ"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder("root", **arguments)
