"""The handwritten digits that come with layernet."""

from __future__ import annotations

import gzip
from importlib import resources
from typing import Literal

import numpy as np

from layernet.backend import Array, Shape
from layernet.backend.random import key_of
from layernet.data.dataset import InMemory, stratified

_TEST_FRACTION = 0.2


class Digits(InMemory):
    """1797 handwritten digits of shape (8, 8, 1), part of layernet: 1438 for training and 359 for testing.

    Values are the original's 0..16 divided by 16: float32 0..1. The split is stratified and always the same.
    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998, CC BY 4.0; its test part.
    """

    shape: Shape = (8, 8, 1)
    classes = [str(digit) for digit in range(10)]  # noqa: RUF012 (declared in Dataset)

    def __init__(self, split: Literal["train", "test"] = "train") -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be train or test, got {split!r}")
        self.split = split

    def load(self) -> tuple[Array, Array]:
        packed = resources.files(__package__).joinpath("digits/digits.csv.gz").read_bytes()
        rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.int64)
        mine = stratified(rows[:, -1], _TEST_FRACTION, key_of("Digits", "test")) == (self.split == "test")
        x = rows[mine, :-1].astype(np.float32) / np.float32(16)
        return x.reshape(-1, *self.shape), rows[mine, -1]
