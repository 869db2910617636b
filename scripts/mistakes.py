"""Show that the checks catch every deliberate mistake: what is broken, the rule that caught it, and its message.

    python scripts/mistakes.py               the table
    python scripts/mistakes.py --stand-in    and the number of tests that run on the stand-in for CuPy

The mistakes are in tests/testing/broken*.py. Exits 1 when one is not caught by the rule it was made for.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from layernet.testing import Failure, Report, gradcheck  # noqa: E402
from layernet.testing.check_layer import inspect_layer  # noqa: E402
from layernet.testing.check_loss import inspect_loss  # noqa: E402
from layernet.text import aligned  # noqa: E402
from tests.testing import broken_contract, broken_losses, test_broken  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stand-in", action="store_true", help="count the tests on the stand-in for CuPy")
    args = parser.parse_args(argv)
    rows, missed = [["", "broken", "rule", "message"]], []
    for kind, name, rule, report in found():
        failure = next((failure for failure in report.failures if failure.rule == rule), None)
        if failure is None:
            missed.append(name)
        rows.append([kind, name, rule, first_line(failure)])
    print(aligned(rows))
    print(f"\n{len(rows) - 1} mistakes, {len(missed)} not caught{': ' * bool(missed)}{', '.join(missed)}")
    if args.stand_in:
        counts = tests_on_the_stand_in()
        for name, count in counts.items():
            print(f"{count:5} tests of {name}")
        print(f"{sum(counts.values()):5} tests run on the stand-in for CuPy")
    return 1 if missed else 0


def found() -> Iterator[tuple[str, str, str, Report]]:
    """(kind, name, the rule it was made for, what the checks say) of every mistake."""
    for layer, shape, rule, *_ in test_broken.MISTAKES:
        yield "gradient", type(layer).__name__, rule, gradcheck(layer, shape)
    for make, (shape, rule) in broken_contract.MISTAKES.items():
        yield "layer", make.__name__, rule, inspect_layer(make(), shape)
    for make, (shape, rule) in broken_losses.MISTAKES.items():
        yield "loss", make.__name__, rule, inspect_loss(make(), shape)
    for make, (_, rule) in broken_losses.WRONG_PENALTIES.items():
        yield "penalty", make.__name__, rule, inspect_loss(make())


def first_line(failure: Failure | None) -> str:
    """What fits into a table."""
    if failure is None:
        return "NOT CAUGHT"
    return failure.message.strip().splitlines()[0] + (f"; likely cause: {failure.cause}" if failure.cause else "")


def tests_on_the_stand_in() -> Counter[str]:
    """How many tests there are in tests/fakecupy, and elsewhere with its device, by file and function."""
    import pytest

    counts: Counter[str] = Counter()

    class Count:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            for item in items:
                path = Path(item.path).relative_to(ROOT)
                if ("fakecupy" in path.parts or "stand-in" in item.name) and not item.get_closest_marker("gpu"):
                    counts[f"{path}::{item.originalname}"] += 1

    with redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", str(ROOT / "tests"), f"--rootdir={ROOT}"], plugins=[Count()])
    return counts


if __name__ == "__main__":
    sys.exit(main())
