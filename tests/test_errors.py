"""How problems are written: one line for logs, a block with the lines that they are about for people."""

from __future__ import annotations

import io
import re

import pytest

from layernet.cli.common import paint_for
from layernet.config.experiment import load_config_text
from layernet.config.marks import parse
from layernet.errors import ConfigError, Mark, Note, Problem, UsageError
from tests.config.test_bad_configs import GOOD


def block_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "bad.yaml")
    return caught.value.block()


def test_a_problem_as_a_block() -> None:
    text = GOOD.replace("kernel_size: 2}", "kernel_sise: 2}").replace("seed: 3", "seed: 3\nseed: 4")
    assert block_of(text) == (
        "error: bad.yaml:3:1: the key 'seed' is given twice, first in line 2\n"
        "  |\n"
        "3 | seed: 4\n"
        "  | ^^^^\n"
        "  = note: bad.yaml:2:1: first given here\n"
        "  |\n"
        "2 | seed: 3\n"
        "  | ----\n"
        "  = help: remove one\n"
        "\n"
        "error: bad.yaml:14:25: net.layers.1.kernel_sise: unknown key 'kernel_sise'\n"
        "   |\n"
        "14 |     - {type: MaxPool2d, kernel_sise: 2}\n"
        "   |                         ^^^^^^^^^^^\n"
        "   = help: did you mean 'kernel_size'?\n"
        "\n"
        "2 errors"
    )


def test_the_layers_of_a_shape_error_are_both_shown() -> None:
    block = block_of(GOOD.replace("kernel_size: 2}", "kernel_size: 9}"))
    assert "13 |     - {type: MaxPool2d, kernel_size: 9}\n   |       ^^^^^^^^^" in block
    assert "= note: bad.yaml:12:7: layer conv1 (Conv2d) gives (6, 6, 4)\n" in block
    assert "12 |     - {type: Conv2d, name: conv1, out_channels: 4, kernel_size: 3}\n   |       ------" in block


def test_an_override_has_no_line_to_show() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_text(GOOD, "c.yaml", overrides=["train.epoch=3"])
    assert caught.value.block() == "error: --set train.epoch: unknown key 'epoch'\n  = help: did you mean 'epochs'?"


@pytest.mark.parametrize(
    ("text", "under"),
    [
        ("a: §xyz", "^^^"),
        ("a: §xyz # why", "^^^"),
        ("§ab: xyz", "^^"),
        ("a: §'x, y' # z", "^^^^^^"),
        ("a: §{b: [1], c: {d: 2}} # z", "^" * 19),
        ("a: [§1:30, 2]", "^^^^"),
        ("a: §[1,", "^"),
        ("a: 世界 §世界", "^^^^"),
        ("a:\t§b", "^"),
        ("a: §", "^"),
        ("a: §5 epochs", "^^^^^^^^"),
        ("a: e\u0301§x", "^"),
    ],
)
def test_what_is_underlined(text: str, under: str) -> None:
    column = text.index("§")
    line = text.replace("§", "")
    _, _, shown, below = Problem("m", mark=Mark("f", 7, column + 1, line)).block().split("\n")
    assert below.lstrip("| ") == under
    before = line[:column]
    columns = len(before) + len(re.findall("[世界]", before)) - before.count("\u0301")
    assert below.index(under) == len("7 | ") + columns
    assert shown == f"7 | {line}".replace("\t", " ").rstrip()


def test_long_lines_are_cut_around_the_place_and_control_characters_not_obeyed() -> None:
    line = "x" * 500 + " \x1b[31m" + "y" * 20_000
    lines = Problem("m", mark=Mark("f", 1, 503, line)).block().split("\n")
    assert max(map(len, lines)) < 120
    assert "\x1b" not in "".join(lines)
    assert lines[2][lines[3].index("^") :].startswith("[31my")


def test_marks_carry_their_line_through_every_line_break() -> None:
    document = parse("a: 1\r\nb: 2\x85c: 3\u2028d: 4", "f")
    assert [mark.text for mark in document.keys.values()] == ["a: 1", "b: 2", "c: 3", "d: 4"]


def test_one_line_stays_one_line() -> None:
    problem = Problem("wrong", "a.b", Mark("f", 2, 3, "a: {b: 1}"), "mend it", (Note(Mark("f", 1, 1, "x"), "n"),))
    assert str(problem) == "f:2:3: a.b: wrong; mend it"
    assert str(ConfigError([problem, problem])) == f"{problem}\n{problem}"
    assert UsageError("no", "yes").block() == "error: no; yes"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    problem = Problem("wrong", "a", Mark("f", 2, 1, "a: 1"), "mend it")
    paint = paint_for(Terminal())
    assert paint is not None
    coloured = problem.block(paint)
    assert "\x1b[1;31merror:\x1b[0m" in coloured
    for code in ("\x1b[0m", "\x1b[1;31m", "\x1b[1m", "\x1b[34m", "\x1b[32m"):
        coloured = coloured.replace(code, "")
    assert coloured == problem.block()
    assert paint_for(io.StringIO()) is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint_for(Terminal()) is None
