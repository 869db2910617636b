"""MNIST and CIFAR-10 files: round trips, absent files, damaged files, the real ones where they are."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from layernet.data.cifar import CIFAR10
from layernet.data.files import read_exactly
from layernet.data.mnist import MNIST, FashionMNIST
from layernet.errors import DataError


class SmallCIFAR10(CIFAR10):
    """Records by the dozen instead of by ten thousand."""

    records_per_file = 12


def idx(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_mnist(directory, count=7, split="train", packed=True):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        path = directory / f"{split}-{kind}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return images, labels


def write_cifar(directory):
    rng = np.random.default_rng(3)
    everything = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
        labels = rng.integers(0, 10, 12, dtype=np.uint8)
        records = b"".join(
            bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
            for image, label in zip(images, labels, strict=True)
        )
        (directory / name).write_bytes(records)
        everything[name] = images, labels
    return everything


# round trips


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_mnist_reads_what_was_written(tmp_path, split, prefix, packed):
    images, labels = write_mnist(tmp_path, split=prefix, packed=packed)
    data = MNIST(split, root=str(tmp_path))
    data.check()
    assert (len(data), data.shape) == (7, (28, 28, 1))
    x, y = data.batch(np.array([5, 0]))
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert (x[..., 0] == images[[5, 0]]).all()
    assert (y == labels[[5, 0]]).all()
    assert (data.targets() == labels).all()
    assert len(data) == 7


def test_gzip_is_known_by_its_content_not_its_name(tmp_path):
    images, _ = write_mnist(tmp_path, packed=False)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(f"{path.name}.gz"))  # as browsers do that unpack while they download
    assert (MNIST(root=str(tmp_path)).arrays[0][..., 0] == images).all()


def test_cifar_planes_become_channels(tmp_path):
    written = write_cifar(tmp_path)
    train, test = SmallCIFAR10(root=str(tmp_path)), SmallCIFAR10("test", root=str(tmp_path))
    for data in (train, test):
        data.check()
    images = np.concatenate([written[f"data_batch_{i}.bin"][0] for i in range(1, 6)])
    labels = np.concatenate([written[f"data_batch_{i}.bin"][1] for i in range(1, 6)])
    assert (len(train), len(test), train.shape) == (60, 12, (32, 32, 3))
    x, y = train.batch(np.array([59, 13]))
    assert (x.dtype, y.dtype) == (np.uint8, np.int64)
    assert (x == images[[59, 13]]).all()
    assert (y == labels[[59, 13]]).all()
    assert (test.arrays[0] == written["test_batch.bin"][0]).all()


def test_cifar_is_found_where_its_archive_unpacks(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    written = write_cifar(tmp_path / "cifar-10-batches-bin")
    assert (SmallCIFAR10("test", root=str(tmp_path)).targets() == written["test_batch.bin"][1]).all()


# where the files are


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_files_are_looked_for_under_layernet_data(tmp_path, monkeypatch, kind):
    folder = tmp_path / {MNIST: "mnist", FashionMNIST: "fashion_mnist"}[kind]
    folder.mkdir()
    write_mnist(folder)
    data = kind()
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path))
    assert len(data) == 7
    assert len(data.classes) == 10


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_is_the_directory_data(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERNET_DATA", "") if value == "" else monkeypatch.delenv("LAYERNET_DATA", raising=False)
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    write_mnist(tmp_path / "data" / "mnist")
    assert len(MNIST()) == 7


def test_root_may_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path)
    assert len(MNIST(root="~")) == 7


@pytest.mark.parametrize(
    ("kind", "name", "source"),
    [
        (MNIST, "train-images-idx3-ubyte or train-images-idx3-ubyte.gz", "https://ossci-datasets"),
        (FashionMNIST, "train-images-idx3-ubyte or train-images-idx3-ubyte.gz", "https://github.com/zalandoresearch"),
        (CIFAR10, "data_batch_1.bin", "https://www.cs.toronto.edu/~kriz"),
    ],
)
def test_absent_files_are_named_with_the_cure(tmp_path, monkeypatch, kind, name, source):
    monkeypatch.setenv("LAYERNET_DATA", str(tmp_path))
    data = kind()  # constructing reads nothing
    for use in (data.check, lambda: data.batch(np.arange(1))):
        with pytest.raises(DataError) as caught:
            use()
        message = str(caught.value)
        assert f"{kind.__name__}: there is no {name}" in message
        assert str(tmp_path / data.folder) in message
        assert f"LAYERNET_DATA ({tmp_path})" in message
        assert source in message


def test_absent_files_under_root_name_the_root(tmp_path):
    with pytest.raises(DataError, match=r"test_batch\.bin.*in .*nowhere; .*correct root.*LAYERNET_DATA/cifar10"):
        CIFAR10("test", root=str(tmp_path / "nowhere")).check()


def test_the_second_file_may_be_the_absent_one(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="there is no train-labels-idx1-ubyte or"):
        MNIST(root=str(tmp_path)).check()


# damage

LABELS, IMAGES = "train-labels-idx1-ubyte", "train-images-idx3-ubyte"
GOOD_IMAGES, GOOD_LABELS = np.zeros((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8)
HUGE = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 28, 28) + bytes(100)
MNIST_DAMAGE = {
    "empty": (IMAGES, b"", "starts with bytes , expected 00 00 08 03"),
    "web page": (IMAGES, b"<!DOCTYPE html>" + bytes(99), r"starts with bytes 3c 21 44 4f \(a web page\?\)"),
    "magic": (LABELS, idx(GOOD_IMAGES), "starts with bytes 00 00 08 03, expected 00 00 08 01"),
    "type": (IMAGES, idx(GOOD_IMAGES, kind=13), "starts with bytes 00 00 0d 03, expected 00 00 08 03"),
    "header": (IMAGES, idx(GOOD_IMAGES)[:9], "ends within its header of 16 bytes"),
    "truncated": (IMAGES, idx(GOOD_IMAGES)[:-1], "has 2367 bytes, expected 2368"),
    "too long": (LABELS, idx(GOOD_LABELS) + b"\0", "has 12 bytes, expected 11"),
    "lying header": (IMAGES, HUGE, "has 116 bytes, expected 3367254359296"),
    "image size": (IMAGES, idx(np.zeros((3, 28, 27), np.uint8)), "holds images of 28x27, expected 28x28"),
    "count": (LABELS, idx(np.zeros(4, np.uint8)), f"holds 4 labels, but {IMAGES}.* holds 3 images"),
    "label": (LABELS, idx(np.array([0, 10, 1], np.uint8)), "record 1 has label 10, expected 0 to 9"),
}


def write_damaged(directory, name, content, packed):
    for good, array in ((IMAGES, GOOD_IMAGES), (LABELS, GOOD_LABELS)):
        bytes_ = content if good == name else idx(array)
        (directory / f"{good}.gz").write_bytes(gzip.compress(bytes_) if packed else bytes_)


@pytest.mark.parametrize("case", MNIST_DAMAGE)
def test_a_damaged_idx_file_is_named_with_what_was_expected(tmp_path, case):
    name, content, message = MNIST_DAMAGE[case]
    write_damaged(tmp_path, name, content, packed=False)
    data = MNIST(root=str(tmp_path))
    with pytest.raises(DataError, match=f"{name}.*: {message}"):
        data.load()
    if case != "label":  # all but the content shows in the header and the length
        with pytest.raises(DataError, match=message):
            data.check()


@pytest.mark.parametrize("case", MNIST_DAMAGE)
def test_damage_is_found_under_gzip_too(tmp_path, case):
    name, content, message = MNIST_DAMAGE[case]
    write_damaged(tmp_path, name, content, packed=True)
    if case == "lying header":  # nothing but the other file contradicts it before it is read
        message = "holds 3 labels, but train-images.* holds 4294967295 images"
        name = LABELS
    elif "bytes, expected" in message:
        message = "should hold .* bytes of data, found"
    with pytest.raises(DataError, match=f"{name}.*: {message}"):
        MNIST(root=str(tmp_path)).load()


def test_headers_that_agree_on_a_lie_do_not_take_memory(tmp_path):
    write_damaged(tmp_path, IMAGES, HUGE, packed=True)
    lie = struct.pack(">BBBBI", 0, 0, 8, 1, 2**32 - 1) + bytes(100)
    (tmp_path / f"{LABELS}.gz").write_bytes(gzip.compress(lie))
    with pytest.raises(DataError, match="should hold 3367254359280 bytes of data, found 100"):
        MNIST(root=str(tmp_path)).load()


def test_a_file_without_end_is_not_read_to_its_end(tmp_path):
    pieces = iter([bytes(1000)] * 3)

    class Endless:
        def read(self, _):
            return next(pieces)  # StopIteration if it is asked on and on

    with pytest.raises(DataError, match="should hold 1500 bytes of data, found more than 1500"):
        read_exactly(Endless(), 1500, tmp_path)
    assert len(list(pieces)) == 1


def test_every_truncation_and_flip_of_a_gzip_file_is_a_data_error(tmp_path):
    write_mnist(tmp_path, count=2)
    path = tmp_path / f"{LABELS}.gz"
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    # bytes 4..9 hold the time and the system, 3 flags: those may change without harm
    damaged += [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(10, len(whole))]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DataError, match=LABELS):
            MNIST(root=str(tmp_path)).load()


CIFAR_DAMAGE = {
    "empty": (lambda content: b"", "has 0 bytes, expected 36876"),
    "a record short": (lambda content: content[:-3073], "has 33803 bytes, expected 36876"),
    "too long": (lambda content: content + b"\0", "has 36877 bytes, expected 36876"),
    "label": (
        lambda content: content[: 3073 * 4] + b"\x0a" + content[3073 * 4 + 1 :],
        "record 4 has label 10, expected 0 ",
    ),
}


@pytest.mark.parametrize("case", CIFAR_DAMAGE)
def test_a_damaged_cifar_file_is_named_with_what_was_expected(tmp_path, case):
    write_cifar(tmp_path)
    spoil, message = CIFAR_DAMAGE[case]
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(spoil(path.read_bytes()))
    data = SmallCIFAR10(root=str(tmp_path))
    if case == "label":
        with pytest.raises(DataError, match=rf"data_batch_4\.bin: {message}"):
            data.load()
    else:
        with pytest.raises(DataError, match=rf"data_batch_4\.bin: {message}"):
            data.check()
        with pytest.raises(DataError, match=r"data_batch_4\.bin: should hold 36876 bytes of data, found"):
            data.load()


def test_a_file_that_may_not_be_read_is_a_data_error(tmp_path, monkeypatch):
    write_cifar(tmp_path)

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop root
    with pytest.raises(DataError, match=r"test_batch\.bin: cannot be read \(Permission denied\)"):
        SmallCIFAR10("test", root=str(tmp_path)).check()


# the real ones


def real(kind, split):
    if not os.environ.get("LAYERNET_DATA"):
        pytest.skip("LAYERNET_DATA is not set")
    data = kind(split)
    try:
        data.check()
    except DataError as error:  # a directory may hold the data in another form
        pytest.skip(str(error))
    return data


def test_real_mnist():
    data = real(MNIST, "train")
    assert len(data) == 60_000
    assert np.bincount(data.targets()).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.targets()[:5].tolist() == [5, 0, 4, 1, 9]
    assert abs(data.arrays[0].mean() / 255 - 0.1306604762738429) < 1e-12


def test_real_cifar10():
    data = real(CIFAR10, "test")
    data.check()
    assert np.bincount(data.targets()).tolist() == [1000] * 10
    names = (data.directory / "batches.meta.txt").read_text().split()
    assert names == data.classes
