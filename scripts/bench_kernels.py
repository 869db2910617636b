"""Every kernel by itself: GFLOP/s and GB/s, and the shares of what the machine can do, measured in the same run.

    python scripts/bench_kernels.py [--only conv] [--kernels numba|numpy] [--threads N] [--json FILE]

FLOPs are those of the definition, so Winograd's filtering may exceed the peak. Bytes are the least there can be: every
input read and every output written once. Rates and shares are of the fastest call, as the machine's own are: others
share it. A layer is called through a net of its own, which costs some ten microseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))

from bench.machine import cores, described, machine, with_threads

ROW = "{:<46}{:<9}{:>10}{:>10}{:>9}{:>8}{:>8}{:>8}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="kernels with this in their name")
    parser.add_argument("--kernels", choices=("auto", "numba", "numpy"), default="auto")
    parser.add_argument("--threads", type=int, default=cores(), help="default: all cores, %(default)s")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each kernel and pass (default: %(default)s)")
    parser.add_argument("--copy", type=int, default=256, metavar="MB", help="what is copied to measure bandwidth")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to a file")
    args = parser.parse_args(argv)
    os.environ.update(with_threads(args.threads))  # before numpy and numba are imported
    from bench.kernels import all_cases
    from bench.limits import bandwidth, peak

    from layernet.backend.device import get_device
    from layernet.errors import LayernetError

    try:
        device = get_device("cpu", args.kernels)
    except LayernetError as error:
        print(error, file=sys.stderr)
        return 1
    kernels = device.facts()["kernels"]
    flops, how = peak(5 * args.seconds)
    copied = bandwidth(args.copy, args.threads, 5 * args.seconds)
    print(described())
    print(f"kernels: {kernels}, threads: {args.threads}")
    print(f"peak {flops / 1e9:.0f} GFLOP/s ({how}), bandwidth {copied / 1e9:.1f} GB/s (a copy of {args.copy} MB)\n")
    print(ROW.format("kernel", "pass", "median ms", "min ms", "GFLOP/s", "share", "GB/s", "share"))
    rows = []
    for timed in all_cases(device, args.seconds, args.only):
        least = min(timed.times)
        rate = None if timed.flops is None else timed.flops / least
        moved = timed.bytes / least
        rows.append(
            {
                "kernel": timed.name, "pass": timed.what, "median_ms": 1e3 * median(timed.times), "min_ms": 1e3 * least,
                "gflops": rate and rate / 1e9, "share_of_peak": rate and rate / flops, "gbytes_per_second": moved / 1e9,
                "share_of_bandwidth": moved / copied,
            }
        )  # fmt: skip
        computed = ("-", "-") if rate is None else (f"{rate / 1e9:.1f}", f"{100 * rate / flops:.0f} %")
        times = (f"{1e3 * median(timed.times):.3f}", f"{1e3 * least:.3f}")
        brought = (f"{moved / 1e9:.1f}", f"{100 * moved / copied:.0f} %")
        print(ROW.format(timed.name, timed.what, *times, *computed, *brought), flush=True)
    if not rows:
        print(f"no kernel has {args.only!r} in its name", file=sys.stderr)
        return 1
    if args.json:
        limits = {"peak_gflops": flops / 1e9, "bandwidth_gbytes_per_second": copied / 1e9}
        settings = {"kernels": kernels, "threads": args.threads}
        found = {"machine": machine(), **settings, **limits, "rows": rows}
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
