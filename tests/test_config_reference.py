"""docs/config.md: its tables are those of the code, and its YAML is right. (`test_docs` runs its other blocks.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layernet.config.entries import Extras
from layernet.config.experiment import load_config_text
from layernet.config.marks import dump, parse
from layernet.config.names import BUILT_IN
from layernet.config.schema import schema_of
from layernet.errors import ConfigError
from layernet.report.reference import SECTIONS, fill

PAGE = Path(__file__).parents[1] / "docs" / "config.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.S | re.M)
BLOCKS = BLOCK.findall(TEXT)
YAML = [content for comment, language, content in BLOCKS if language == "yaml" and not comment.startswith("refused")]


def test_the_page_is_up_to_date() -> None:
    assert fill(TEXT) == TEXT, "run: python scripts/make_docs.py"


def test_every_key_and_name_is_explained_in_a_row_of_its_own() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if line[:1] == "|"]
    explained = {cell.strip("`") for row in rows for cell in row[:2] if row[-1]}
    keys = {f"{path}{name}" for path, section in SECTIONS.items() for name in schema_of(section).names}
    ours = {
        name for extra in vars(Extras).values() if isinstance(extra, staticmethod) for name in schema_of(extra).names
    }
    names = {name for table in BUILT_IN.values() for name in table}
    assert keys - explained == {"data", "net", "train", "train.checkpoint", "warm_start"}
    assert ours <= explained
    assert names - explained == {"Arrays"}


@pytest.mark.parametrize("part", YAML)
def test_a_yaml_example_stands_in_a_config_that_holds(part: str, tmp_path: Path) -> None:
    for comment, _, content in BLOCKS:
        if comment.startswith("file: "):
            with open(tmp_path / comment.removeprefix("file: "), "a") as file:
                file.write(content)
    load_config_text(dump({**parse(YAML[0], "base").data, **parse(part, "part").data}), folder=tmp_path)


def test_a_refused_config_is_refused_with_the_words_that_follow_it() -> None:
    ((comment, content, told),) = [
        (comment, content, BLOCKS[index + 1][2])
        for index, (comment, _, content) in enumerate(BLOCKS)
        if comment.startswith("refused: ")
    ]
    with pytest.raises(ConfigError) as caught:
        load_config_text(content, comment.removeprefix("refused: "))
    assert f"{caught.value}\n" == told
