"""Write docs/catalogue.md and the generated parts of docs/config.md anew, from the code.

python scripts/make_docs.py
"""

from __future__ import annotations

from pathlib import Path

from layernet.report.page import page
from layernet.report.reference import fill

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write both in place."""
    config = DOCS / "config.md"
    config.write_text(fill(config.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "catalogue.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
