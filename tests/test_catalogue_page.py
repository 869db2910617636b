"""docs/catalogue.md is what the code says now, and has all of it."""

from __future__ import annotations

import re
from pathlib import Path

from layernet.config.names import BUILT_IN
from layernet.report.page import page

TEXT = (Path(__file__).parents[1] / "docs" / "catalogue.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert page() == TEXT, "run: python scripts/make_docs.py"


def test_everything_built_in_has_its_place_once() -> None:
    names = [name for table in BUILT_IN.values() for name in table]
    assert sorted(re.findall(r"^### (.*)$", TEXT, re.M)) == sorted(names)
    sections = re.findall(r"^## (.*)$", TEXT, re.M)
    assert len(sections) == len(set(sections))
