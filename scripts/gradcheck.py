"""Check the gradients of every layer, loss and config, and print a table. Exits 1 when one is wrong.

    python scripts/gradcheck.py                       everything built in, then every config in configs/
    python scripts/gradcheck.py Conv2d CrossEntropy   these cases
    python scripts/gradcheck.py configs/my.yaml       this config

float64, central differences at two steps: see layernet/testing/differences.py. `worst` is the largest relative error of
any compared number; kinks and ill-conditioned points needed smaller steps, and unproven ones prove nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from layernet.config.experiment import load_config
from layernet.errors import LayernetError
from layernet.testing import Report, check_config
from layernet.testing.cases import LAYERS, LOSSES

CONFIGS = Path(__file__).parents[1] / "configs"
TOO_LARGE = {"alexnet.yaml"}  # hours in float64; checked when it is named
HEADINGS = ("case", "tensors", "elements", "directions", "kinks", "ill", "unproven", "worst", "seconds", "")
ROW = "{:44} {:>7} {:>8} {:>10} {:>6} {:>4} {:>8} {:>8} {:>7}  {}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="built-in names and config files (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rtol", type=float, default=1e-6)
    args = parser.parse_args(argv)
    start, reports = time.perf_counter(), []
    print(ROW.format(*HEADINGS))
    try:
        for label, check in jobs(args.names, args.seed, args.rtol):
            report = check()
            print(row(label, report), flush=True)
            reports.append(report)
    except LayernetError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    wrong = [report for report in reports if not report.ok]
    for report in wrong:
        print(f"\n{report}")
    print(
        f"\n{len(reports)} cases, {len(wrong)} wrong, worst relative error "
        f"{max((report.worst for report in reports), default=0.0):.1e}, {time.perf_counter() - start:.1f} s"
    )
    return 1 if wrong or not reports else 0


def jobs(names: Sequence[str], seed: int, rtol: float) -> Iterator[tuple[str, Callable[[], Report]]]:
    """(label, check) of everything that is asked for."""
    unknown = {name for name in names if not name.endswith((".yaml", ".yml"))} - {c.name for c in (*LAYERS, *LOSSES)}
    if unknown:
        raise SystemExit(f"error: no case is called {', '.join(sorted(unknown))}")
    for case in (*LAYERS, *LOSSES):
        if not names or case.name in names:
            yield case.label, lambda case=case: case.check(seed=seed, rtol=rtol)  # type: ignore[misc]
    paths = (
        [Path(name) for name in names if name.endswith((".yaml", ".yml"))]
        if names
        else [path for path in sorted(CONFIGS.glob("*.yaml")) if path.name not in TOO_LARGE]
    )
    for path in paths:
        yield path.name, lambda path=path: check_config(load_config(path), seed=seed, rtol=rtol)  # type: ignore[misc]


def row(label: str, report: Report) -> str:
    """One line of the table."""
    counts = [report.count(what) for what in ("elements", "directions", "kinks", "ill_conditioned", "unproven")]
    verdict = "ok" if report.ok else "WRONG"
    return ROW.format(label, len(report.tensors), *counts, f"{report.worst:.1e}", f"{report.seconds:.2f}", verdict)


if __name__ == "__main__":
    sys.exit(main())
