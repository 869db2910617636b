"""`layernet gradcheck all`, and every config that is shipped: cases, worst relative error, total time.

    python scripts/gradcheck.py [--seed N] [--json-file FILE] ...

Exits 1 when a gradient is wrong. It takes the options of `layernet gradcheck`, where `worst` and the counts are
explained; to check less, name it there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from layernet.cli.main import main as layernet

CONFIGS = Path(__file__).parents[1] / "configs"


def main(argv: Sequence[str] | None = None, configs: Path = CONFIGS) -> int:
    """Run the checks; the exit code."""
    options = sys.argv[1:] if argv is None else argv
    return layernet(["gradcheck", "all", *map(str, sorted(configs.glob("*.yaml"))), *options])


if __name__ == "__main__":
    sys.exit(main())
