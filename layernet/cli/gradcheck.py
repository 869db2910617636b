"""`layernet gradcheck CONFIG | CLASS`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from layernet.cli.common import add_set, parse_shape
from layernet.errors import UsageError

if TYPE_CHECKING:
    from layernet.testing.report import Report

HELP = "hold a layer to the whole contract, or a config to its gradients, which are compared with numeric ones"
EXAMPLE = "layernet gradcheck configs/my_layers.py:PReLU --shape 8,8,4 --arg init=0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "target", metavar="CONFIG|CLASS", help="a config; or a layer: Name, module:Class, file.py:Class"
    )
    parser.add_argument("--shape", metavar="H,W,C", help="input shape of a layer, without N")
    parser.add_argument("--arg", metavar="KEY=VALUE", action="append", default=[], help="an argument of the layer")
    add_set(parser)
    parser.add_argument("--seed", type=int, default=0, help="of inputs and parameters (default: 0)")
    parser.add_argument("--rtol", type=float, default=1e-6, help="relative tolerance (default: 1e-6)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check and print the report; 1 when a gradient is wrong or a promise of the contract is broken."""
    options = {"seed": args.seed, "rtol": args.rtol}
    report = _check_config(args, options) if args.target.endswith((".yaml", ".yml")) else _check_layer(args, options)
    print(json.dumps(report.as_dict()) if args.json else report)
    return 0 if report.ok else 1


def _check_config(args: argparse.Namespace, options: dict[str, Any]) -> Report:
    from layernet.config.experiment import load_config
    from layernet.testing.configcheck import check_config

    if args.shape or args.arg:
        raise UsageError("--shape and --arg are for a layer", "a config says its own; change it with --set")
    return check_config(load_config(args.target, args.overrides), **options)


def _check_layer(args: argparse.Namespace, options: dict[str, Any]) -> Report:
    from layernet.config.layer import load_layer
    from layernet.testing.check_layer import inspect_layer

    if args.overrides:
        raise UsageError("--set is for a config", "give a layer's arguments with --arg KEY=VALUE")
    if args.shape is None:
        raise UsageError("a layer needs --shape, that of one input example", "for example --shape 8,8,4")
    return inspect_layer(load_layer(args.target, args.arg), parse_shape(args.shape), **options)
