"""Where a training step's time goes, by layer and pass: `profile_step.py CONFIG` is `layernet bench CONFIG --layers`.

scripts/bench/ has configs that need no data files.
"""

from __future__ import annotations

import sys

from layernet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:], "--layers"]))
