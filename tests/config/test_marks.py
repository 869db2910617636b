"""The YAML dialect: what scalars mean, where things stand, what is refused."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.config.marks import MAX_DEPTH, Document, dump, parse, parse_value, scalar
from layernet.errors import ConfigError, Mark


def read(text: str) -> Document:
    return parse(text, "f.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("5e-4", 0.0005),
        ("1.5e+2", 150.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0.0", 0.0),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_and_words(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "off",
        "yes",
        "no",
        "y",
        "n",
        "True",
        "TRUE",
        "False",
        "Null",
        "NULL",
        "None",
        "0777",
        "0o17",
        "0x1f",
        "0b1",
        "1_000",
        "1:30",
        "1:30:00",
        "2001-01-01",
        "2001-13-45",
        ".",
        "-",
        "+",
        "e5",
        "1e",
        ".e5",
        "1.2.3",
        "=",
        "<<",
        "1e5.0",
        "nan",
        "inf",
    ],
)
def test_everything_else_is_text(text: str) -> None:
    assert scalar(text) == text


def test_integers_stay_in_64_bits() -> None:
    assert scalar(str(2**63 - 1)) == 2**63 - 1
    assert type(scalar(str(2**63))) is float
    assert type(scalar("1" * 5000)) is float


def test_keys_are_text() -> None:
    assert read("on: 1\nno: 2\n3: x\nnull: y\n1e-3: z").data == {"on": 1, "no": 2, "3": "x", "null": "y", "1e-3": "z"}


def test_marks_of_keys_and_values() -> None:
    document = read("a:\n  - {b: 1, cc:   x}\n  - y\nd: {}\n")
    assert document.data == {"a": [{"b": 1, "cc": "x"}, "y"], "d": {}}
    assert document.key_mark(("a", 0, "cc")) == Mark("f.yaml", 2, 12)
    assert document.mark(("a", 0, "cc")) == Mark("f.yaml", 2, 18)
    assert document.mark(("a", 1)) == Mark("f.yaml", 3, 5)
    assert document.mark(("a", 1, "not", "there")) == Mark("f.yaml", 3, 5)
    assert document.mark(()) == Mark("f.yaml", 1, 1)


def test_anchors_copy() -> None:
    document = read("a: &x [1, {b: 2}]\nc: *x\nd: *x\n")
    assert document.data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": [1, {"b": 2}]}
    document.data["c"][1]["b"] = 3
    assert document.data["a"] == document.data["d"] == [1, {"b": 2}]
    assert document.mark(("c",)) == Mark("f.yaml", 2, 4)  # the alias
    assert document.mark(("c", 1, "b")) == Mark("f.yaml", 1, 15)  # what is to be mended


def test_merge_keys() -> None:
    text = "x: &x {p: 1, q: 1}\ny: &y {q: 2, r: 2}\nz: {<<: [*x, *y], r: 3}\nw:\n  <<: *y\n  s: 4\n"
    document = read(text)
    assert document.data["z"] == {"r": 3, "p": 1, "q": 1}
    assert document.data["w"] == {"s": 4, "q": 2, "r": 2}
    assert document.mark(("w", "r")) == Mark("f.yaml", 2, 17)
    assert read('a: {"<<": 1}').data == {"a": {"<<": 1}}


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: 1\na: 2\nb: {c: 1, c: 2}", "2:1", "the key 'a' is given twice, first in line 1"),
        ("a: {<<: 3}", "1:9", "<< takes a mapping"),
        ("a: &x [*x]", "1:8", "*x stands inside what it names"),
        ("a: *x", "1:4", "*x names no anchor"),
        ("{[a]: 1}", "1:2", "a key must be plain text"),
        ("? [a]\n: 1", "1:3", "a key must be plain text"),
        ("a: !x 1", "1:4", "the tag !x"),
        ("a: ! 1", "1:4", "the tag !"),
        ("!!map {a: 1}", "1:1", "the tag !!map"),
        ("a: 1\n---\nb: 1", "2:1", "a second document"),
        ("a: 'x", "1:4", "this quote is never closed"),
        ("a: b: c", "1:5", "a second ': '"),
        ("a: 1\n b: 2", "2:3", "a second ': '"),
        ("a:\n\tb: 1", "2:1", "a tab"),
        ("a: [1,\n\t2]", "2:1", "a tab"),
        ("a: [1, 2\nb: 3", "2:2", "expected ',' or ']'"),
        ("a: @b", "1:4", "cannot start any token"),
        ('a: "\\q"', "1:6", "unknown escape character"),
        ('a: "\\UFFFFFFFF"', "1:7", "this is not YAML"),
        ('a: "\\ud800"', "1:4", "surrogate"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "1:9", "this is not YAML"),
        ("a: \x07", "1:4", "U+0007"),
        ("a: b\ufeff", "1:5", "byte order mark"),
        ("[" * 200_000, f"1:{MAX_DEPTH + 1}", "nested more than"),
        ("- " * 100_000, f"1:{2 * MAX_DEPTH + 1}", "nested more than"),
        ("#" * 300_000, "1:1", "characters"),
    ],
)
def test_refused(text: str, place: str, message: str) -> None:
    start = time.perf_counter()
    try:
        problem = read(text).problems[0]
    except ConfigError as error:
        problem = error.problems[0]
    assert message in problem.message
    assert str(problem.mark) == f"f.yaml:{place}"
    assert time.perf_counter() - start < 5  # hostile texts end; the bound is generous for a loaded machine


def test_bombs_are_bounded() -> None:
    letters = "abcdefghi"
    aliases = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise(letters)
    )
    with pytest.raises(ConfigError, match=r"more than \d+ values"):
        read(aliases)
    deep = "a: &a " + "[" * 40 + "]" * 40 + "\n" + "b: " + "[" * 20 + "*a" + "]" * 20
    with pytest.raises(ConfigError, match="nested more than"):
        read(deep)
    merges = "a: &a {k: 1}\n" + "".join(
        f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}\n" for old, new in pairwise(letters)
    )
    assert read(merges).data["i"] == {"k": 1}


def test_duplicates_do_not_hide_each_other() -> None:
    document = read("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [str(problem.mark) for problem in document.problems] == ["f.yaml:2:1", "f.yaml:3:11"]


@pytest.mark.parametrize(
    ("text", "value"), [("2", 2), ("1e-3", 0.001), ("[1, x]", [1, "x"]), ("", None), ("no", "no"), ("{a: 1}", {"a": 1})]
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text, "--set a") == value


def test_bad_values_of_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"^--set a: cannot read the value '\[1': "):
        parse_value("[1", "--set a")


PLAIN: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["on", "no", "1e-3", "0777", "<<", "~", "*.weight", "- a", "a: b", "#", "2001-01-01", "'", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text() | st.sampled_from(["<<", "on", "1"]), PLAIN))
def test_what_is_dumped_is_read_back(data: dict[str, Any]) -> None:
    if not data:
        return
    document = read(dump(data))
    assert document.data == data
    assert not document.problems


PUNCTUATION = [
    *"ab:-[]{},&*!|>'\"%@`#?\n\t1~\x85",
    "<<",
    "*a",
    "&a",
    "!!str",
    "---",
    "...",
    "\\",
    "1e-3",
    "null",
    "\r\n",
]
WORDS = [*PUNCTUATION, "\\", "1e-3", "null", "\r\n", " ", "  ", "\n  ", ": ", "- "]
YAMLISH = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@given(st.text() | YAMLISH)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(read(text).data, dict)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message and problem.mark for problem in problems)
