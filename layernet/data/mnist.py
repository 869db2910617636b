"""MNIST and the data sets that share its files' form, IDX."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO

import numpy as np

from layernet.backend import Array, Shape
from layernet.data.files import OnDisk, check_labels, check_size, damaged, read_exactly, reading

_FILES = {"train": "train", "test": "t10k"}


class MNIST(OnDisk):
    """Handwritten digits: 60 000 for training and 10 000 for testing, uint8 pixels of shape (28, 28, 1).

    Reads the four IDX files, gzip or not (`train-images-idx3-ubyte`, ...), from `root`, by default
    `$LAYERNET_DATA/mnist`. Any number of examples will do, so subsets and look-alikes in the same form work.
    Raises DataError when a file is absent or damaged.
    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998.
    """

    folder = "mnist"
    source = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    shape: Shape = (28, 28, 1)
    classes = [str(digit) for digit in range(10)]  # noqa: RUF012 (declared in Dataset)

    def check(self) -> None:
        self._count()

    def __len__(self) -> int:
        return len(self.arrays[1]) if "arrays" in vars(self) else self._count()

    def load(self) -> tuple[Array, Array]:
        self._count()
        images, labels = (_read_idx(path, rank) for path, rank in self._paths())
        check_labels(self._paths()[1][0], labels, len(self.classes))
        return images[..., np.newaxis], labels.astype(np.int64)

    def _paths(self) -> list[tuple[Path, int]]:
        prefix = _FILES[self.split]
        kinds = [("images", 3), ("labels", 1)]
        names = [(f"{prefix}-{kind}-idx{rank}-ubyte", rank) for kind, rank in kinds]
        return [(self.find(name, f"{name}.gz"), rank) for name, rank in names]

    def _count(self) -> int:
        """The number of examples, as the files' headers agree on it."""
        (images, images_rank), (labels, labels_rank) = self._paths()
        count, *size = _idx_shape(images, images_rank)
        if tuple(size) != self.shape[:2]:
            raise damaged(images, f"holds images of {size[0]}x{size[1]}, expected {self.shape[0]}x{self.shape[1]}")
        (label_count,) = _idx_shape(labels, labels_rank)
        if label_count != count:
            raise damaged(labels, f"holds {label_count} labels, but {images.name} holds {count} images")
        return count


class FashionMNIST(MNIST):
    """Articles of clothing in MNIST's form: 60 000 for training and 10 000 for testing, uint8 pixels (28, 28, 1).

    Reads the four IDX files, gzip or not, from `root`, by default `$LAYERNET_DATA/fashion_mnist`.
    Raises DataError when a file is absent or damaged.
    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """

    folder = "fashion_mnist"
    source = "https://github.com/zalandoresearch/fashion-mnist"
    classes = [  # noqa: RUF012 (declared in Dataset)
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


def _idx_shape(path: Path, rank: int) -> Shape:
    """The shape of the array in an IDX file; refuses one whose length is seen to be wrong without reading it."""
    with reading(path) as stream:
        shape = _read_header(stream, path, rank)
    check_size(path, 4 + 4 * rank + math.prod(shape))
    return shape


def _read_idx(path: Path, rank: int) -> Array:
    """The array (uint8, of `rank` axes) of an IDX file."""
    with reading(path) as stream:
        shape = _read_header(stream, path, rank)
        return np.frombuffer(read_exactly(stream, math.prod(shape), path), dtype=np.uint8).reshape(shape)


def _read_header(stream: IO[bytes], path: Path, rank: int) -> Shape:
    """The shape that an IDX header gives: two zeros, the type (8: bytes), the rank, each size as big-endian uint32."""
    magic = bytes([0, 0, 8, rank])
    header = stream.read(4 + 4 * rank)
    if header[:4] != magic:
        page = " (a web page?)" if header[:1] == b"<" else ""
        raise damaged(path, f"starts with bytes {header[:4].hex(' ')}{page}, expected {magic.hex(' ')} (IDX)")
    if len(header) < 4 + 4 * rank:
        raise damaged(path, f"ends within its header of {4 + 4 * rank} bytes")
    return tuple(int(n) for n in np.frombuffer(header, dtype=">u4", offset=4))
