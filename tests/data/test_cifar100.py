"""CIFAR-100 files: both kinds of labels, and damage."""

from __future__ import annotations

import numpy as np
import pytest

from layernet.data.cifar import CIFAR100
from layernet.errors import DataError


class Small(CIFAR100):
    """Records by the dozen."""

    records_per_file = 12


def write(path):
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    coarse, fine = rng.integers(0, 20, 12), rng.integers(0, 100, 12)
    records = [
        bytes([int(coarse[i]), int(fine[i])]) + b"".join(images[i, :, :, c].tobytes() for c in range(3))
        for i in range(12)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(records))
    return images, coarse, fine


@pytest.mark.parametrize("folder", [".", "cifar-100-binary"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_both_kinds_of_labels_are_read(tmp_path, split, folder):
    images, coarse, fine = write(tmp_path / folder / f"{split}.bin")
    for labels, expected, count in (("fine", fine, 100), ("coarse", coarse, 20)):
        data = Small(split, str(tmp_path), labels=labels)
        data.check()
        x, y = data.batch(np.arange(12))
        assert (x == images).all()
        assert y.dtype == np.int64
        assert y.tolist() == expected.tolist()
        assert len(data) == 12
        assert len(set(data.classes)) == count


def test_lengths_are_the_originals():
    assert (len(CIFAR100("train")), len(CIFAR100("test"))) == (50_000, 10_000)
    assert CIFAR100().classes[:3] == ["apple", "aquarium_fish", "baby"]
    assert CIFAR100(labels="coarse").classes[-1] == "vehicles_2"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-3074], "has 33814 bytes, expected 36888"),
        (lambda content: content[:3074] + b"\0\x64" + content[3076:], "record 1 has label 100, expected 0 to 99"),
    ],
)
def test_damage_is_named(tmp_path, spoil, message):
    write(tmp_path / "train.bin")
    (tmp_path / "train.bin").write_bytes(spoil((tmp_path / "train.bin").read_bytes()))
    with pytest.raises(DataError, match=rf"train\.bin: {message}"):
        (data := Small(root=str(tmp_path))).check() or data.load()


def test_absent_files_and_unknown_labels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR100: there is no train\.bin or cifar-100-binary/train\.bin"):
        CIFAR100(root=str(tmp_path)).check()
    with pytest.raises(ValueError, match="labels must be fine or coarse, got 'rough'"):
        CIFAR100(labels="rough")
