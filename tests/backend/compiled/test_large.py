"""Winograd's ways with many channels: as near to float64 as its ways with few, and the sizes here do take them."""

from __future__ import annotations

from typing import Any

import pytest

from layernet.backend import compiled

if compiled.problem() is not None:
    pytest.skip(str(compiled.problem()), allow_module_level=True)

from layernet.backend.compiled import winograd, winograd_gradient
from layernet.backend.compiled.launch import Kernel
from layernet.backend.window import Window
from tests.backend.compiled.test_kernels import FAST, check_convolution

PANELS, AT_ONCE, CHUNKS = "_convolve_panels", "_multiply_and_transform_back", "_multiply_frequencies"

# (kernel, images, size, channels in, out, threads) and what runs; channels are odd, the last panels and blocks not full
SIZES: dict[str, tuple[int, int, tuple[int, int], int, int, int, set[str]]] = {
    "panels, at once": (3, 1, (3, 5), 249, 259, 1, {PANELS, AT_ONCE}),
    "panels, at once, three threads": (3, 2, (6, 9), 263, 241, 3, {PANELS, AT_ONCE}),
    "panels, a chunk": (3, 3, (25, 23), 201, 187, 3, {PANELS, CHUNKS}),
    "no panels, several chunks": (3, 2, (67, 65), 83, 81, 3, {CHUNKS}),
    "5x5, panels, at once": (5, 1, (5, 6), 181, 187, 3, {PANELS, AT_ONCE}),
    "5x5, panels, a chunk": (5, 2, (29, 27), 113, 167, 1, {PANELS, CHUNKS}),
}


@pytest.mark.parametrize("name", SIZES)
def test_many_channels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, images, size, ins, outs, threads, expected = SIZES[name]
    ran: list[str] = []
    for found in [*vars(winograd).values(), *vars(winograd_gradient).values()]:
        if not isinstance(found, Kernel):
            continue

        def note(found: Kernel = found, launch: Any = found.launch, **arguments: Any) -> None:
            ran.append(found.function.__name__)
            launch(**arguments)

        monkeypatch.setattr(found, "launch", note)
    pad = kernel // 2
    check_convolution(
        FAST,
        {
            "window": Window((kernel, kernel), padding=((pad, pad), (pad, pad))),
            "n": images,
            "size": size,
            "ins": ins,
            "outs": outs,
            "groups": 1,
            "bias": True,
            "relu": True,
            "layouts": ["C"] * 4,
            "threads": threads,
            "filtered": True,
            "seed": 0,
        },
    )
    assert {PANELS, AT_ONCE, CHUNKS} & set(ran) == expected
    if name.endswith("several chunks"):
        assert ran.count(CHUNKS) > 1
