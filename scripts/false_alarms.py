"""Run every check on everything built in with many seeds, and count what they hold against it: it should be nothing.

    python scripts/false_alarms.py                          200 seeds of every layer, loss and penalty
    python scripts/false_alarms.py --seeds 20 Conv2d        20 seeds of the cases called Conv2d

One line a case; exits 1 at an alarm. Blocks of many parameters take every fourth seed. 200 seeds of everything take
about 13 minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from layernet.testing.alarms import alarms, seeds_for
from layernet.testing.cases import LAYERS, LOSSES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in names (default: all)")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args(argv)
    cases = [case for case in (*LAYERS, *LOSSES) if not args.names or case.name in args.names]
    unknown = set(args.names) - {case.name for case in cases}
    if unknown:
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    start, runs, count = time.perf_counter(), 0, 0
    for number, case in enumerate(cases, 1):
        begun, seeds = time.perf_counter(), seeds_for(case, range(args.first, args.first + args.seeds))
        found = [(seed, failure) for seed in seeds for failure in alarms(case, seed)]
        seconds = time.perf_counter() - begun
        print(f"{number:4}/{len(cases)} {case.label:44} {len(seeds):4} seeds {len(found):3} alarms {seconds:6.1f} s")
        for seed, failure in found:
            print(f"     seed {seed}: {failure}")
        sys.stdout.flush()
        runs, count = runs + len(seeds), count + len(found)
    seconds, processor = time.perf_counter() - start, time.process_time()
    print(f"{len(cases)} cases, {runs} runs: {count} alarms in {seconds:.0f} s, {processor:.0f} s of them computing")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
