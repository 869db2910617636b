"""Time of a training step over batch, image and channels, one varied at a time: is there a size that is a cliff?

    python scripts/bench_sizes.py [--axes batch,image,channels] [--kernels numba|numpy] [--threads N] [--json FILE]

The net is a 3x3 convolution that keeps the number of channels, BatchNorm, ReLU, GlobalAvgPool2d and Linear; sizes that
no vector divides are among those tried. A cliff is a size at which a second does less than half of the multiply-adds
that it does at each of the sizes beside it. Exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench.machine import cores, described, machine, with_threads

AXES: dict[str, list[int]] = {
    "batch": [1, 2, 3, 4, 7, 8, 16, 31, 32, 64, 128, 256, 512],
    "image": [16, 17, 28, 32, 33, 48, 56, 63, 64, 96, 112, 128, 160, 192, 224],
    "channels": [3, 4, 8, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 96, 128, 192, 256, 257, 384, 512],
}
BESIDE = {
    "batch": {"image": 32, "channels": 32},
    "image": {"batch": 8, "channels": 32},
    "channels": {"batch": 16, "image": 16},
}
"""What the other two sizes are while one varies."""

ROW = "{:<10}{:>6}{:>7}{:>10}{:>12}{:>12}{:>13}{:>10}  {}"


def cliffs(rates: Sequence[float]) -> list[bool]:
    """Which of the rates are below half of both neighbours'; the first and the last have one, and are none."""
    inner = [rate < min(before, after) / 2 for before, rate, after in zip(rates, rates[1:], rates[2:], strict=False)]
    return [False, *inner, False][: len(rates)]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", default=",".join(AXES), help="default: %(default)s")
    parser.add_argument("--largest", type=int, default=10**9, metavar="N", help="leave out larger sizes")
    parser.add_argument("--kernels", choices=("auto", "numba", "numpy"), default="auto")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores, %(default)s")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each size (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file")
    args = parser.parse_args(argv)
    if unknown := set(args.axes.split(",")) - set(AXES):
        parser.error(f"unknown axis {', '.join(sorted(unknown))}: choose from {', '.join(AXES)}")
    os.environ.update(with_threads(args.threads))  # before numpy and numba are imported
    from bench.sizes import step_times

    print(described())
    print(ROW.format("varied", "batch", "image", "channels", "median ms", "min ms", "us an image", "GFLOP/s", ""))
    rows: list[dict[str, Any]] = []
    for axis in args.axes.split(","):
        sizes = [{**BESIDE[axis], axis: size} for size in AXES[axis] if size <= args.largest]
        found = [step_times(**size, kernels=args.kernels, seconds=args.seconds) for size in sizes]
        marks = cliffs([flops / min(times) for times, flops in found])
        for size, (times, flops), cliff in zip(sizes, found, marks, strict=True):
            least = min(times)
            row = {"axis": axis, **size, "median_ms": 1e3 * median(times), "min_ms": 1e3 * least, "cliff": cliff}
            rows.append({**row, "us_per_image": 1e6 * least / size["batch"], "gflops": flops / least / 1e9})
            figures = f"{1e3 * median(times):.3f}", f"{1e3 * least:.3f}", f"{1e6 * least / size['batch']:.1f}"
            place = (axis, size["batch"], size["image"], size["channels"])
            print(ROW.format(*place, *figures, f"{flops / least / 1e9:.1f}", "cliff" if cliff else ""), flush=True)
    if args.json:
        found_all = {"machine": machine(), "kernels": args.kernels, "threads": args.threads, "rows": rows}
        Path(args.json).write_text(json.dumps(found_all, indent=1) + "\n")
    return 1 if any(row["cliff"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
