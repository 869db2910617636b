"""Several Python threads on compiled kernels at once: each gets what it would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from layernet.backend.device import get_device
from layernet.core.layer import Layer
from layernet.core.net import Net
from layernet.layers.activation import GELU, ReLU, Softmax
from layernet.layers.composite import BasicBlock, Concat
from layernet.layers.conv import Conv2d
from layernet.layers.linear import Linear
from layernet.layers.local_norm import LocalResponseNorm
from layernet.layers.norm import BatchNorm, LayerNorm
from layernet.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d

pytestmark = pytest.mark.usefixtures("needs_numba")


def layers() -> list[Layer]:
    """Every family of kernels, among them those that keep work space beside them: Winograd's, direct, products."""
    return [
        Conv2d(18, 3, stride=2, padding=1),
        BatchNorm(),
        ReLU(),
        Conv2d(18, 5, padding=2),
        LocalResponseNorm(5),
        Concat([[Conv2d(18, 3, padding=1, groups=18)], [Conv2d(6, 3, padding=1, groups=3)], [Conv2d(9, 1), GELU()]]),
        MaxPool2d(2),
        BasicBlock(20),
        AvgPool2d(2),
        Conv2d(250, 3, padding=1),
        Conv2d(250, 3, padding=1),
        GlobalAvgPool2d(),
        LayerNorm(),
        Linear(7),
        Softmax(),
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_predicting_from_several_threads_is_predicting_one_by_one(threads: int) -> None:
    net = Net(layers(), (23, 21, 3)).bind(get_device("cpu", "numba"))
    sizes = (1, 2, 5, 9)
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((sizes[i % 4], 23, 21, 3)).astype(np.float32) for i in range(12)]

    def answer(x: Any) -> Any:
        with net.device.limited(threads):  # numba counts threads anew in every Python thread
            return net.predict(x)

    alone = [answer(x) for x in batches]
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(answer, batches))
        assert all((a == b).all() for a, b in zip(alone, together, strict=True))
