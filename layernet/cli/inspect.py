"""`layernet inspect CONFIG`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from layernet.cli.common import add_compute, add_config, with_chosen
from layernet.errors import DeviceError
from layernet.text import aligned, size

if TYPE_CHECKING:
    from layernet.config.experiment import ExperimentConfig

HELP = "show a config's net: shapes, parameters, multiply-adds, bytes; makes no arrays and reads no data"
EXAMPLE = "layernet inspect configs/cifar10_resnet20.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    add_compute(parser)
    parser.add_argument(
        "--memory",
        action="store_true",
        help="also what a training step keeps, by what runs; makes the net's arrays and tries a few examples",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table; the exit code."""
    from layernet.config.experiment import load_config
    from layernet.core.summary import summarize

    config = load_config(args.config, with_chosen(args))
    rows = summarize(config.net, batch_size=config.data.batch_size, dtype=config.dtype)
    lines = [("path", "type", "output", "params", "MFLOPs", "memory")]
    for row in rows:
        shape = "x".join(map(str, row.out_shape))
        flops = "-" if row.flops is None else f"{row.flops / 1e6:.3f}"
        kind = row.type if row.tied_to is None else f"{row.type} (ref {row.tied_to})"
        lines.append((" " * row.depth + row.path, kind, shape, f"{row.params:,}", flops, size(row.bytes)))
    print(aligned(lines, right={3, 4, 5}))
    top = [row for row in rows if row.depth == 0]
    counted = [row.flops for row in top if row.flops is not None]
    print(
        f"input {'x'.join(map(str, config.net.input_shape))}: {config.net.size:,} parameters, "
        f"{sum(counted) / 1e6:.3f} MFLOPs (multiply-adds) an example\n"
        f"batch of {config.data.batch_size}: {size(sum(row.bytes for row in top))} of outputs"
    )
    print(f"it computes with {_what(config)}")
    if args.memory:
        print(_memory(config))
    return 0


def _memory(config: ExperimentConfig) -> str:
    """What a training step holds on to: a line for everything that runs and keeps something, and the sum."""
    from layernet.core.memory import predict
    from layernet.train.compute import device_for

    net = config.net.bind(device_for(config), config.dtype, config.seed)
    state = config.optimizer.attach(net).state_dict().values()
    batch = config.data.batch_size
    bytes_kept = predict(net, batch)
    lines = [(f"kept from forward to backward, batch of {batch}", "memory")]
    lines += [(label.removeprefix("layer "), size(n)) for label, n in bytes_kept.items()]
    lines.append(("in all", size(sum(bytes_kept.values()))))
    lines.append(("parameters and gradients", size(net.arena.data.nbytes + net.arena.grad.nbytes)))
    lines.append(("the optimizer's state", size(sum(array.nbytes for array in state))))
    return "\n" + aligned(lines, right={1})


def _what(config: ExperimentConfig) -> str:
    """The device and the kernels; or why there are none here: a net can be looked at anywhere."""
    from layernet.train.compute import device_for, in_words

    try:
        device = device_for(config)
    except DeviceError as error:
        return f"nothing here: {error}"
    with device.limited(config.threads):
        return f"device {device.name}, kernels {in_words(device.facts())}"
