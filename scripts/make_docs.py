"""Write the generated parts of docs/config.md anew, from the code.

python scripts/make_docs.py
"""

from __future__ import annotations

from pathlib import Path

from layernet.report.reference import fill

PAGE = Path(__file__).parents[1] / "docs" / "config.md"


def main() -> None:
    """Fill the page in place."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
