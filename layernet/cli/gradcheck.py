"""`layernet gradcheck CONFIG | module:Class`."""

from __future__ import annotations

import argparse

HELP = "compare the gradients of a config, or of one layer, with numeric ones"
EXAMPLE = "layernet gradcheck my_layers:PReLU --shape 8,8,4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "target", metavar="CONFIG|CLASS", help="a config file; or a layer: Name, module:Class, file.py:Class"
    )
    parser.add_argument("--shape", metavar="H,W,C", help="input shape of a layer, without N")
    parser.add_argument("--arg", metavar="KEY=VALUE", action="append", default=[], help="an argument of the layer")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters (default: 0)")
    parser.add_argument("--rtol", type=float, default=1e-6, help="relative tolerance (default: 1e-6)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check and print the report; 1 when a gradient is wrong."""
    raise NotImplementedError
