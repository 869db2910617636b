"""What the pages in docs/ show works as it stands there.

The blocks of a page run in order in a folder of the page's own, its Python blocks in one namespace, with the tests that
they define. A comment above a block says more: `<!-- file: NAME -->` also adds it to a file, `<!-- config -->` is a
whole config to be validated (`<!-- config: NAME -->`: as that file), `<!-- command -->` or
`<!-- command: exit 1 -->` are command lines to run, `<!-- output -->` is what the block before it printed, but for the
numbers, and `<!-- alone -->` is Python that brings all that it needs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from layernet.cli.main import COMMANDS, main
from layernet.config.experiment import load_config, load_config_text
from layernet.config.marks import dump, parse
from layernet.testing.contract import RULES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.S | re.M)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(comment, language, content) of each."""
    return [(comment or "", language, content) for comment, language, content in BLOCK.findall(page.read_text())]


def without_numbers(text: str) -> str:
    numbers = re.sub(r"-?\d+(\.\d+)?(e[+-]?\d+)?", "#", text)
    return "\n".join(" ".join(line.split()) for line in numbers.strip().splitlines())


def forget_modules(folder: Path) -> None:
    """Let the modules of a folder be imported anew: the page goes on writing them."""
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


def run(line: str) -> int:
    """The exit code of a command line."""
    program, *argv = shlex.split(line)
    if program == "pytest":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "pytest", *argv], env=environment, stdout=subprocess.PIPE
        ).returncode
    assert program == "layernet"
    return main(argv)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT / "docs"))
)
def test_the_blocks_of_a_page_work(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if page.name == "commands.md":
        (tmp_path / "configs").symlink_to(ROOT / "configs")
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = ""
    try:
        for comment, language, content in blocks(page):
            what, _, argument = comment.partition(": ")
            if what == "file":
                with open(argument, "a") as file:
                    file.write(content)
            if what == "output":
                assert without_numbers(printed) == without_numbers(content)
            elif what == "command":
                for line in content.splitlines():
                    assert run(line) == (int(argument.split()[1]) if argument else 0), line
            elif what == "config":
                Path(argument or "page.yaml").write_text(content)
                load_config(argument or "page.yaml")
            elif what == "alone":
                forget_modules(tmp_path)
                exec(compile(content, page.name, "exec"), {"__name__": "page"})
            elif language == "python" and not argument.startswith("test_"):  # those are for pytest
                known = set(namespace)
                exec(compile(content, page.name, "exec"), namespace)
                for name in sorted(set(namespace) - known):
                    if name.startswith("test_"):
                        namespace[name]()
            printed = capsys.readouterr().out or printed
    finally:
        forget_modules(tmp_path)


TRAINING = [content for _, language, content in blocks(ROOT / "docs" / "training.md") if language == "yaml"]


@pytest.mark.parametrize("part", TRAINING)
def test_a_part_of_a_config_stands_in_the_page_s_config(part: str) -> None:
    load_config_text(dump({**parse(TRAINING[0], "page").data, **parse(part, "part").data}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_the_architecture_names_every_room_and_every_file_of_compiled_kernels() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for folder, heading in (("layernet", "## The rooms"), ("layernet/backend/compiled", "## Compiled kernels")):
        rows = re.findall(r"^\|(.*)\|$", page.partition(f"{heading}\n")[2].partition("\n## ")[0], re.M)
        patterns = re.findall(r"`([\w*.]+/?)`", "".join(rows))
        found = [path.name + "/" * path.is_dir() for path in (ROOT / folder).glob("[!_]*") if path.name != "py.typed"]
        assert [name for name in found if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_the_guide_names_every_rule_of_the_contract() -> None:
    table = (ROOT / "docs" / "custom-layers.md").read_text().partition("## 6.")[2].partition("## 7.")[0]
    rules = {row.rpartition("|")[0].rpartition("|")[2].strip() for row in table.splitlines() if row.startswith("|")}
    rules -= {"rule that catches it", "---"}
    assert rules == {rule.__name__.replace("_", " ") for rule in RULES} | {"gradient", "missing"}


def test_the_page_of_commands_shows_every_command() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    headings = " ".join(re.findall(r"^## (.*)$", page, re.M)).replace(",", "").split()
    assert sorted(headings) == sorted(COMMANDS)
    assert set(COMMANDS) <= set(re.findall(r"layernet ([\w-]+)", page))
