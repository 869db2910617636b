"""docs/catalogue.md is what the code says now, and has all of it."""

from __future__ import annotations

import re
from pathlib import Path

from layernet.config.names import BUILT_IN
from layernet.report.page import page

TEXT = (Path(__file__).parents[1] / "docs" / "catalogue.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    assert page() == TEXT, "run: python scripts/make_docs.py"


def test_what_is_cited_has_its_authors_and_year_on_one_line() -> None:
    linked = [paper for line in re.findall(r"^From .*\.$", TEXT, re.M) for paper in re.findall(r"\[(.*?)\]", line)]
    assert len(linked) == TEXT.count("](https://arxiv.org/") > 40
    for paper in linked:
        assert re.search(r"[A-Z].* (19|20)\d\d\b", paper), paper


def test_everything_built_in_has_its_place_once() -> None:
    names = [name for table in BUILT_IN.values() for name in table]
    assert sorted(re.findall(r"^### (.*)$", TEXT, re.M)) == sorted(names)
    sections = re.findall(r"^## (.*)$", TEXT, re.M)
    assert len(sections) == len(set(sections))
