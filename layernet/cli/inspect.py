"""`layernet inspect CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_config
from layernet.text import aligned

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
    lines = [("path", "type", "output", "parameters", "MFLOPs", "output bytes")]
    for row in rows:
        shape = "x".join(map(str, row.out_shape))
        flops = "-" if row.flops is None else f"{row.flops / 1e6:.3f}"
        lines.append(("  " * row.depth + row.path, row.type, shape, f"{row.params:,}", flops, f"{row.bytes:,}"))
    print(aligned(lines, right={3, 4, 5}))
    top = [row for row in rows if row.depth == 0]
    counted = [row.flops for row in top if row.flops is not None]
    print(
        f"input {'x'.join(map(str, config.net.input_shape))}, batch {config.data.batch_size}: "
        f"{config.net.size:,} parameters, {sum(counted) / 1e6:.3f} MFLOPs (multiply-adds) an example, "
        f"{sum(row.bytes for row in top):,} bytes of outputs a batch"
    )
    return 0
