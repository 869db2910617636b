"""CIFAR-10 and CIFAR-100 in their binary versions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.data.files import OnDisk, check_labels, check_size, read_exactly, reading


class CIFAR10(OnDisk):
    """Photographs of ten kinds of things: 50 000 for training and 10 000 for testing, uint8 RGB of shape (32, 32, 3).

    Reads the binary version, `data_batch_1.bin` ... `data_batch_5.bin` and `test_batch.bin`, from `root`, by default
    `$LAYERNET_DATA/cifar10`, or from `cifar-10-batches-bin` in it, as the archive unpacks.
    A record is the label's byte and 3072 bytes of pixels, a plane each of red, green and blue.
    Raises DataError when a file is absent or damaged.
    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    folder = "cifar10"
    source = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    shape: Shape = (32, 32, 3)
    classes = [  # noqa: RUF012 (declared in Dataset)
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    records_per_file = 10_000
    """So many in each of the original's files: one that was cut off between two records is noticed too."""
    unpacked = "cifar-10-batches-bin"
    """The folder in the archive."""
    label_bytes = 1
    """How many labels a record starts with."""
    label_place = 0
    """Which of them is the target."""

    def check(self) -> None:
        for path in self._paths():
            check_size(path, self._file_size)

    def __len__(self) -> int:
        return self.records_per_file * len(self._names())

    def load(self) -> tuple[Array, Array]:
        parts = [self._records(path) for path in self._paths()]
        height, width, channels = self.shape
        x = np.empty((len(self), height * width, channels), dtype=np.uint8)
        for records, place in zip(parts, np.split(x, len(parts)), strict=True):
            # plane by plane: six times as fast as one transposed copy
            for channel, plane in enumerate(np.split(records[:, self.label_bytes :], channels, axis=1)):
                place[..., channel] = plane
        labels = np.concatenate([records[:, self.label_place] for records in parts])
        return x.reshape(-1, *self.shape), labels.astype(np.int64)

    def _names(self) -> list[str]:
        return [f"data_batch_{i}.bin" for i in range(1, 6)] if self.split == "train" else ["test_batch.bin"]

    def _paths(self) -> list[Path]:
        return [self.find(name, f"{self.unpacked}/{name}") for name in self._names()]

    @property
    def _file_size(self) -> int:
        return self.records_per_file * (self.label_bytes + math.prod(self.shape))

    def _records(self, path: Path) -> Array:
        with reading(path) as stream:
            content = read_exactly(stream, self._file_size, path)
        records = np.frombuffer(content, dtype=np.uint8).reshape(self.records_per_file, -1)
        check_labels(path, records[:, self.label_place], len(self.classes))
        return records


_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
"""


class CIFAR100(CIFAR10):
    """Photographs of a hundred kinds of things: 50 000 for training and 10 000 for testing, uint8 RGB (32, 32, 3).

    `labels`: `fine`, the hundred kinds, or `coarse`, the twenty groups of five that they form.
    Reads the binary version, `train.bin` and `test.bin`, from `root`, by default `$LAYERNET_DATA/cifar100`, or from
    `cifar-100-binary` in it, as the archive unpacks. A record is a byte each of the coarse and the fine label, and 3072
    bytes of pixels as in CIFAR10.
    Raises DataError when a file is absent or damaged.
    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """

    folder = "cifar100"
    source = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    unpacked = "cifar-100-binary"
    label_bytes = 2

    def __init__(
        self,
        split: Literal["train", "test"] = "train",
        root: str | None = None,
        labels: Literal["fine", "coarse"] = "fine",
    ) -> None:
        super().__init__(split, root)
        if labels not in ("fine", "coarse"):
            raise ValueError(f"labels must be fine or coarse, got {labels!r}")
        self.label_place = 1 if labels == "fine" else 0
        self.classes = (_FINE if labels == "fine" else _COARSE).split()

    @property
    def records_per_file(self) -> int:  # type: ignore[override]
        """So many in the original's file of this split."""
        return 50_000 if self.split == "train" else 10_000

    def _names(self) -> list[str]:
        return [f"{self.split}.bin"]
