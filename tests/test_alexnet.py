"""configs/alexnet.yaml against the published net: shapes, parameters, multiply-adds of every layer."""

from __future__ import annotations

from pathlib import Path

import layernet as ln
from layernet.config.experiment import load_config
from layernet.core.summary import summarize

CONFIG = Path(__file__).parents[1] / "configs" / "alexnet.yaml"

# output shapes of Caffe's bvlc_alexnet; parameters and multiply-adds counted by hand: filters x (window + bias)
PUBLISHED = {
    "conv1": ((55, 55, 96), 96 * (11 * 11 * 3 + 1), 55 * 55 * 96 * 11 * 11 * 3),
    "pool1": ((27, 27, 96), 0, None),
    "conv2": ((27, 27, 256), 256 * (5 * 5 * 48 + 1), 27 * 27 * 256 * 5 * 5 * 48),
    "pool2": ((13, 13, 256), 0, None),
    "conv3": ((13, 13, 384), 384 * (3 * 3 * 256 + 1), 13 * 13 * 384 * 3 * 3 * 256),
    "conv4": ((13, 13, 384), 384 * (3 * 3 * 192 + 1), 13 * 13 * 384 * 3 * 3 * 192),
    "conv5": ((13, 13, 256), 256 * (3 * 3 * 192 + 1), 13 * 13 * 256 * 3 * 3 * 192),
    "pool5": ((6, 6, 256), 0, None),
    "flat": ((9216,), 0, None),
    "fc6": ((4096,), 4096 * 9217, 4096 * 9216),
    "fc7": ((4096,), 4096 * 4097, 4096 * 4096),
    "fc8": ((1000,), 1000 * 4097, 1000 * 4096),
}


def test_every_layer_is_as_published() -> None:
    net = load_config(CONFIG).net
    rows = {row.path: row for row in summarize(net)}
    assert len(rows) == 23
    shape: tuple[int, ...] = (227, 227, 3)
    for path, row in rows.items():
        shape, params, flops = PUBLISHED.get(path, (shape, 0, None))
        assert (row.out_shape, row.params) == (shape, params), path
        if flops is not None:
            assert row.flops == flops, path
    assert net.size == 60_965_224
    assert sum(flops or 0 for _, _, flops in PUBLISHED.values()) == 724_406_816


def test_cuda_convnets_input_and_rounding_give_the_same_shapes() -> None:
    first = ln.Net([ln.Conv2d(96, 11, stride=4, ceil_mode=True)], (224, 224, 3))
    assert first.output_shape == (55, 55, 96)
