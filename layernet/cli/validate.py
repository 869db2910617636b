"""`layernet validate CONFIG`."""

from __future__ import annotations

import argparse

from layernet.cli.common import add_config

HELP = "check a config, that its data is there and that it can fit into memory; reads no data"
EXAMPLE = "layernet validate configs/mnist_lenet.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Validate; the exit code."""
    from layernet.config.experiment import check_data, load_config
    from layernet.train.memory import check_memory

    config = load_config(args.config, args.overrides)
    check_data(config)
    check_memory(config)
    net = config.net
    print(
        f"{args.config}: ok, {len(net.layers)} layers, {net.size} parameters, {net.input_shape} -> {net.output_shape}"
    )
    return 0
