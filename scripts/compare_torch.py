"""Compare every layer and loss, and a hundred steps of every optimizer, with PyTorch on the CPU in float64.

    python scripts/compare_torch.py [--draws N] [NAME ...]

Shapes and options are drawn by hypothesis, the same in every run. Prints the worst differences of outputs (for an
optimizer, of parameters) and of gradients, relative to the largest number compared where that is above 1. Exits 1 when
one is above 1e-10, or when something built in is not compared. Needs torch and hypothesis; tests/pytorch/ is the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the table is not part of the package

from tests.pytorch.table import NO_COUNTERPART, TABLE, complaints, rows

BAR = 1e-10
ROW = "{:<16}{:>6}{:>14}{:>16}{:>20}{}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in names (default: all)")
    parser.add_argument("--draws", type=int, default=12, help="examples an entry (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.draws < 1:
        parser.error(f"--draws must be at least 1, got {args.draws}")
    if unknown := sorted(set(args.names) - {entry.name for entry in TABLE}):
        reasons = [f"{name}: {NO_COUNTERPART.get(name, 'no such entry')}" for name in unknown]
        print("\n".join(reasons), file=sys.stderr)
        return 1
    start, total, bad = time.perf_counter(), 0, complaints()
    print(ROW.format("entry", "draws", "worst output", "input gradient", "parameter gradient", ""))
    for row in rows(args.draws, args.names):
        right = row.worst <= BAR  # not so for NaN
        shown = ["-" if error is None else f"{error:.1e}" for error in row.errors]
        print(ROW.format(row.name, row.draws, *shown, "" if right else f"   above {BAR}"), flush=True)
        total += row.draws
        if not right:
            bad.append(f"{row.worst_at}: {row.worst:.1e}")
    print("\n".join(["", *bad, f"{total} examples, {time.perf_counter() - start:.1f} s"]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
