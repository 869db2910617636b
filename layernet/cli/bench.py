"""`layernet bench CONFIG`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from layernet.cli.common import add_compute, add_config, with_chosen
from layernet.errors import UsageError
from layernet.text import aligned, size

HELP = "time a config's training step; numpy's kernels and the compiled ones, where both are there"
EXAMPLE = "layernet bench configs/digits_convnet.yaml --layers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_config(parser)
    add_compute(parser)
    parser.add_argument("--steps", type=int, metavar="N", default=30, help="steps to time (default: 30)")
    parser.add_argument("--layers", action="store_true", help="also show the time of each layer")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print; the exit code. Leaves no run directory."""
    from layernet.train.bench import Speed, kinds, measure, overrides
    from layernet.train.experiment import Experiment

    if args.steps < 1:
        raise UsageError(f"--steps must be at least 1, got {args.steps}")
    given = overrides(with_chosen(args), args.steps)
    found: list[Speed] = []
    for kernels in kinds(Experiment.load(args.config, given)):
        speed = measure(Experiment.load(args.config, [*given, f"kernels={kernels}"]), args.steps, args.layers)
        found.append(speed)
        if speed.layers is not None and not args.json:
            print(f"{speed.kernels}\n{speed.layers.table()}\n", flush=True)
    if args.json:
        print(json.dumps([speed.as_dict() for speed in found], indent=1))
        return 0
    rows = [("kernels", "step ms", "fastest ms", "images/s", "memory of a step")]
    for speed in found:
        times = f"{1e3 * speed.median:.3f}", f"{1e3 * speed.fastest:.3f}", f"{speed.images_per_second:.0f}"
        rows.append((speed.kernels, *times, size(speed.memory)))
    print(aligned(rows, right={1, 2, 3, 4}))
    first = found[0]
    what = f"{Path(args.config).name}: medians of {first.steps} steps, batch of {first.batch}, device {first.device}"
    faster = f"; compiled kernels: {first.median / found[-1].median:.2f} times as fast" if len(found) > 1 else ""
    print(what + faster)
    return 0
