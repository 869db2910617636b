# ruff: noqa: E501 (tables of messages)
"""`${name}`: values that stand in many places; what they become, and what is told where they cannot."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layernet.config.experiment import load_config_text
from layernet.config.marks import dump, parse
from layernet.config.overrides import apply
from layernet.config.variables import escaped, expand
from layernet.errors import ConfigError


def expanded(text: str, overrides: list[str] | None = None) -> dict[str, Any]:
    document = parse(text, "c.yaml")
    apply(document, overrides or [])
    expand(document)
    if document.problems:
        raise ConfigError(document.problems)
    return {key: value for key, value in document.data.items() if key != "vars"}


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        expanded(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${n}", 3),
        ("'${n}'", 3),
        ("${ n }", 3),
        ("${vars.n}", 3),
        ("${lr}", 0.001),
        ("${yes}", True),
        ("${nothing}", None),
        ("${list}", [1, {"k": 3}]),
        ("${list.1.k}", 3),
        ("${map.inner}", {"k": 3}),
        ("${alias.inner.k}", 3),
        ("{deep: [a, ${n}], m: {k: ${n}}}", {"deep": ["a", 3], "m": {"k": 3}}),
        ("${n} epochs", "3 epochs"),
        ("${n}${n}", "33"),
        ("a-${lr}-${yes}-${nothing}", "a-0.001-true-null"),
        ("$${n}", "${n}"),
        ("$$${n} ${n}", "$${n} 3"),
        ("cost: $5", None),
        ("$n {n}", "$n {n}"),
        ("${other.0.name}", "first"),
        ("${other.first.size}", 7),
        ('${dots."a.b".c}', 1),
        ("${dots.a.b.c}", 1),
        ("${seed}", 5),
    ],
)
def test_what_a_reference_becomes(text: str, value: Any) -> None:
    if value is None and "cost" in text:
        text, value = "'cost: $5'", "cost: $5"
    variables = """
vars:
  {n: 3, lr: 1e-3, "yes": true, nothing: null, list: [1, {k: "${n}"}], map: {inner: {k: 3}}, alias: "${map}", seed: 5}
other: [{name: first, size: 7}]
dots: {"a.b": {c: 1}}
seed: 1
"""
    document = parse(f"{variables}it: {text}", "c.yaml")
    document.inherited = set(document.data["vars"])  # nothing has to be used
    expand(document)
    assert document.problems == []
    assert document.data["it"] == value
    assert type(document.data["it"]) is type(value)


def test_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LN_N", "8")
    monkeypatch.setenv("LN_TEXT", "[a, b]: c")
    monkeypatch.setenv("LN_EMPTY", "")
    monkeypatch.delenv("LN_NONE", raising=False)
    found = expanded(
        "a: ${env:LN_N}\nb: x${env:LN_N}\nc: ${env:LN_TEXT}\nd: ${env:LN_NONE:/a:b/c}\ne: ${env:LN_EMPTY:2}\nf: ${env:LN_NONE:}"
    )
    assert found == {"a": 8, "b": "x8", "c": "[a, b]: c", "d": "/a:b/c", "e": 2, "f": None}
    assert told("a: ${env:LN_NONE}") == [
        "c.yaml:1:4: a: the environment variable LN_NONE is not set; did you mean 'LN_N'?"
    ]
    assert "set, but empty" in told("a: ${env:LN_EMPTY}")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vars: {width: 1}\na: ${width}\nb: ${widht}", "c.yaml:3:4: b: there is no variable and no value called 'widht'; did you mean 'width'?"),
        ("train: {epochs: 1}\nb: [x, '${train.epoch} a']", "c.yaml:2:8: b.1: there is no variable and no value called 'train.epoch'; did you mean 'train.epochs'?"),
        ("a: 1\nb: ${a * 2}", "c.yaml:2:4: b: there is no variable and no value called 'a * 2'; there is no arithmetic: give each value its own name"),
        ("a: {b: 1}\nc: x ${a}", "c.yaml:2:4: c: ${a} is a mapping, which cannot stand inside text"),
        ("a: ${a}", "c.yaml:1:4: a: ${a} leads back to itself: a -> a"),
        ("a: ${b}\nb: [1, ${c}]\nc: x${a}", "c.yaml:3:4: c: ${a} leads back to itself: a -> b.1 -> c -> a"),
        ("a: {b: {c: ${a}}}", "c.yaml:1:12: a.b.c: ${a} leads back to itself: a -> a.b.c -> a"),
        ("a: 1${b", "c.yaml:1:4: a: '${b' is not closed; write ${name}, without braces in it; ${ itself is $${"),
        ("a: '${}'", "c.yaml:1:4: a: ${} names nothing; write ${name}; ${ itself is $${"),
        ("a: '${b..c}'", "c.yaml:1:4: a: ${b..c} names nothing; write ${name}; ${ itself is $${"),
        ("a: '${env:}'", "c.yaml:1:4: a: ${env:} names no variable of the environment; for example ${env:HOME} or ${env:HOME:default}"),
        ("a: [1]\nb: ${a.7}", "c.yaml:2:4: b: ${a.7}: a has no entry '7'; it has 1 entries, 0 to 0"),
        ("a: 1\nb: ${a.c}", "c.yaml:2:4: b: ${a.c}: a is 1: there is nothing in it to set"),
        ("vars: {width: 1, widht: 2}\nb: ${width}", "c.yaml:1:18: vars.widht: nothing uses the variable 'widht'; did you mean 'width'?"),
        ("vars: {'a b': 1}\nb: '${a b}'", "c.yaml:1:8: vars.a b: a variable is called by letters, digits, _ and -, got 'a b'"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_told_once_at_its_place(text: str, message: str) -> None:
    assert told(text) == [message]


def test_variables_are_set_from_the_command_line() -> None:
    text = "vars: {number: 1}\na: ${number}"
    assert expanded(text, ["vars.number=32"]) == {"a": 32}
    assert expanded("a: ${n}", ["vars.n=32"]) == {"a": 32}
    assert expanded(text, ["a=x${number}"]) == {"a": "x1"}
    with pytest.raises(
        ConfigError, match=r"^--set vars\.numbr: nothing uses the variable 'numbr'; did you mean 'number'\?$"
    ):
        expanded(text, ["vars.numbr=2"])
    with pytest.raises(ConfigError, match=r"a is \$\{number\}: what is in it is not known yet; set the variable"):
        expanded(text, ["a.b=1"])


CONFIG = """
vars: {width: 'wide', deep: [{type: Linear, out_features: x}]}
data: {train: {type: FakeData, shape: [6], classes: 3, length: 20}, batch_size: 10}
net: {input: [6], layers: [{type: Linear, out_features: ${width}}, {type: Sequential, layers: ${deep}}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
"""


def test_a_wrong_value_is_told_where_it_stands_and_where_it_is_from() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_text(CONFIG, "c.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "c.yaml:4:57: net.layers.0.out_features: expected an integer, got 'wide' (${width} is from c.yaml:2:15)",
        "c.yaml:4:95: net.layers.1.layers.0.out_features: expected an integer, got 'x' (${deep} is from c.yaml:2:59)",
    ]


def test_an_unknown_variable_is_one_problem_beside_all_others() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_text(
            CONFIG.replace("${width}", "${w}").replace("lr: 0.1", "lr: a").replace("${deep}", "[]"), "c.yaml"
        )
    assert [problem.path for problem in caught.value.problems] == [
        "vars.width",
        "vars.deep",
        "net.layers.0.out_features",
        "optimizer.lr",
    ]


def test_large_results_are_refused() -> None:
    def laughs(each: str) -> str:
        return "\n".join(
            ["vars:", "  v0: lol", *(f"  v{i + 1}: {each.replace('X', f'${{v{i}}}')}" for i in range(40)), "a: ${v40}"]
        )

    assert "more than 50000 values" in told(laughs("[X, X]"))[0]
    assert "more than 256000 characters" in told(laughs("X X"))[0]
    deep = "\n".join(["vars:", "  v0: lol", *(f"  v{i + 1}: [${{v{i}}}]" for i in range(60)), "a: ${v60}"])
    assert "wait for each other" in told(deep)[0] or "deep" in told(deep)[0]
    chain = "\n".join(["vars:", "  v0: 1", *(f"  v{i + 1}: ${{v{i}}}" for i in range(3000)), "a: ${v3000}"])
    assert expanded(chain) == {"a": 1}
    back = "\n".join(["vars:", *(f"  v{i}: ${{v{i + 1}}}" for i in range(3000)), "  v3000: 1", "a: ${v0}"])
    assert "wait for each other" in told(back)[0]


words = ["$", "{", "}", "a", "b", ".", ":", "env:", "${", "${a}", "${b.c}", "${vars.a}", "$${", " "]
texts = st.lists(st.sampled_from(words), max_size=6).map("".join)
values = st.recursive(
    texts | st.integers(-9, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_escaped_text_means_itself(value: Any) -> None:
    assert expanded(dump({"k": escaped(value)})) == {"k": value}


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "vars"]), values, min_size=1))
def test_whatever_is_written_is_expanded_or_refused_by_name(data: dict[str, Any]) -> None:
    document = parse(dump(data), "c.yaml")
    try:
        expand(document)
    except ConfigError:
        return
    for problem in document.problems:
        assert problem.mark is not None
        assert problem.mark.file == "c.yaml"
    if not document.problems:  # every value is plain, and comes of what stands there
        once = dump(escaped(document.data))
        assert parse(once, "again").data is not None


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.integers(1 - 2**63, 2**63 - 1) | st.booleans() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_variables_keep_value_and_type(variables: dict[str, Any]) -> None:
    text = dump({"vars": variables, **{f"x{name}": f"${{{name}}}" for name in variables}})
    found = expanded(text)
    assert found == {f"x{name}": value for name, value in variables.items()}
    assert [type(value) for value in found.values()] == [type(value) for value in variables.values()]


pieces = (
    st.sampled_from(
        [
            "${width}",
            "${deep}",
            "${net.layers}",
            "x${width}",
            "${data.train}",
            "${vars}",
            "${net.input.0}",
            "${a}",
            "${",
        ]
    )
    | values
)
places = st.sampled_from(
    [
        "net.layers",
        "net.input",
        "net.layers.0",
        "net.layers.1",
        "optimizer",
        "optimizer.lr",
        "loss",
        "data.train",
        "data.val",
        "vars.width",
        "vars.deep",
        "vars",
        "train.epochs",
        "metrics",
        "seed",
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(places, pieces, max_size=3), st.dictionaries(places, pieces, max_size=3))
def test_whatever_stands_anywhere_is_a_config_or_a_config_error(
    tmp_path: Path, below: dict[str, Any], above: dict[str, Any]
) -> None:
    def nested(flat: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for place, value in flat.items():
            *holders, last = place.split(".")
            holder = made
            for each in holders:
                inner = holder.get(each)
                holder[each] = inner if isinstance(inner, dict) else {}
                holder = holder[each]
            holder[last] = value
        return made

    (tmp_path / "right.yaml").write_text(CONFIG.replace("'wide'", "4").replace("out_features: x", "out_features: 3"))
    (tmp_path / "below.yaml").write_text(dump({"extends": "right.yaml", **nested(below)}))
    with contextlib.suppress(ConfigError):
        load_config_text(dump({"extends": "below.yaml"}), folder=tmp_path, overrides=above)


def test_a_reference_needs_no_quotes_in_braces() -> None:
    text = "vars: {n: 3}\na: {b: ${n}, c: [${n}, x${n}y]}\n"
    assert expanded(text) == {"a": {"b": 3, "c": [3, "x3y"]}}
    assert expanded("a: {b: '${c', d: '}'}".replace("${", "$${")) == {"a": {"b": "${c", "d": "}"}}
    odd = "a: '\ue000 ${b}'\nb: \ue001"  # characters that the reader might have used itself
    assert expanded(odd) == {"a": "\ue000 \ue001", "b": "\ue001"}
    assert parse("a: {b: ${n}, c: 1}", "f").values["a", "c"].column == 17


def test_the_folder_of_a_config_is_not_needed(tmp_path: Path) -> None:
    text = CONFIG.replace("'wide'", "4").replace("out_features: x", "out_features: 3")
    config = load_config_text(text, folder=tmp_path)
    assert "vars" not in config.resolved
    assert load_config_text(config.dump()).resolved == config.resolved
