"""`layernet inspect CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_config
from layernet.text import aligned, size

HELP = "show a config's net: shapes, parameters, multiply-adds, bytes; makes no arrays and reads no data"
EXAMPLE = "layernet inspect configs/cifar10_resnet20.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table; the exit code."""
    from layernet.config.experiment import load_config
    from layernet.core.summary import summarize

    config = load_config(args.config, args.overrides)
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
    return 0
