"""The sweeps of scripts/typos.py and scripts/hostile.py in short, and configs made up by hypothesis.

The whole of them: `pytest -m slow tests/config/test_sweeps.py`, and the scripts themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.config.elsewhere import _MEANT, _NAMES, suggest
from layernet.config.experiment import load_config, load_config_text
from layernet.config.marks import dump, parse
from layernet.config.names import BUILT_IN
from layernet.config.schema import schema_of
from layernet.errors import ConfigError, LayernetError
from layernet.train.memory import check_memory
from scripts.hostile import ROWS
from scripts.typos import CONFIGS, sweep, total, typos, words
from tests.config.test_bad_configs import GOOD
from tests.config.test_marks import YAMLISH

# typos


def test_typos_are_caught_and_answered_rightly() -> None:
    quick = [file for file in CONFIGS if file.stem not in ("alexnet", "resnet18", "vgg")]
    whole = total(list(sweep(quick, 150, seed=1).values()))
    assert whole.made > 150
    assert not whole.missed
    assert whole.right >= 0.95 * whole.made, whole.wrong


def test_the_sweep_sees_every_word() -> None:
    found = [(word.text, word.kind) for word in words(CONFIGS[-1].with_name("lenet.yaml"))]
    assert {("batch_size", "key"), ("Conv2d", "type"), ("CrossEntropy", "type"), ("cpu", "choice")} <= set(found)


def test_a_sweep_can_find_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layernet.config.schema.suggest", lambda word, known, taken=(): "did you mean 'that'?")
    whole = total(list(sweep([CONFIGS[-1].with_name("lenet.yaml")], 20, seed=1).values()))
    assert whole.right < 0.9 * whole.made


def test_typos_differ_from_the_word_by_one_slip() -> None:
    import random

    found = list(typos("lr", random.Random(0)))
    assert {"delete", "swap", "replace", "insert"} == {slip for slip, _ in found}
    assert ("swap", "rl") in found
    assert all(wrong != "lr" for _, wrong in found)


# other frameworks' names


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("learning_rate", ["lr", "momentum"], "did you mean 'lr'?"),
        ("filters", ["out_channels", "kernel_size"], "did you mean 'out_channels'?"),
        ("units", ["out_features", "bias"], "did you mean 'out_features'?"),
        ("num_output", ["out_features", "bias"], "did you mean 'out_features'?"),
        ("num_output", ["out_channels", "kernel_size"], "did you mean 'out_channels'?"),
        ("activation", ["out_features", "bias"], "an activation is a layer of its own"),
        ("in_features", ["out_features", "bias"], "leave it out"),
        ("Dense", BUILT_IN["layer"], "did you mean 'Linear'?"),
        ("InnerProduct", BUILT_IN["layer"], "did you mean 'Linear'?"),
        ("BatchNorm2d", BUILT_IN["layer"], "did you mean 'BatchNorm'?"),
        ("CrossEntropyLoss", BUILT_IN["loss"], "did you mean 'CrossEntropy'?"),
        ("CosineAnnealingLR", BUILT_IN["schedule"], "did you mean 'Cosine'?"),
        ("Conv2D", BUILT_IN["layer"], "did you mean 'Conv2d'?"),
    ],
)
def test_names_of_other_frameworks(word: str, known: Any, hint: str) -> None:
    assert hint in suggest(word, known)


def test_every_name_meant_exists() -> None:
    from layernet.config.entries import Extras
    from layernet.config.lookup import load
    from layernet.config.sections import CheckpointConfig, DataSection, NetSection, RootSection, TrainConfig

    targets = [load(place) for table in BUILT_IN.values() for place in table.values()]
    targets += [CheckpointConfig, DataSection, NetSection, RootSection, TrainConfig]
    targets += [Extras.layer, Extras.objective, Extras.source]
    known = {name for table in BUILT_IN.values() for name in table} | {"type"}
    for target in targets:
        known |= set(schema_of(target, 2 if not isinstance(target, type) and "init" in target.__module__ else 0).names)
    assert set(_NAMES) <= known
    assert all(ours in known for meant in _MEANT.values() for ours in meant)


def test_of_two_that_are_as_near_the_one_not_written_yet_is_meant() -> None:
    assert suggest("tst", ["test", "tsa"], ["tsa"]) == "did you mean 'test'?"
    assert suggest("op", ["p", "name", "repeat"]) == "did you mean 'p'?"
    assert suggest("q", ["p", "name", "repeat"]) == "known: name, p, repeat"


# hostile texts

HOSTILE = {f"{row}: {name}": (content, expected) for row, cases in ROWS.items() for name, content, expected in cases}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_answered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, expected = HOSTILE[name]
    monkeypatch.setattr("layernet.train.memory.available_memory", lambda device: 10**10)
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    error = None
    try:
        check_memory(load_config(file))
    except ConfigError as raised:
        error = raised
    if error is None:
        assert not expected
        return
    assert expected in error.block()
    assert f"{file}:" in str(error)
    assert len(error.block()) < 100_000


def test_an_answer_of_very_many_problems_shows_the_first() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config_text(GOOD + "".join(f"k{n}: 1\n" for n in range(300)), "c")
    assert len(caught.value.problems) == 300
    assert caught.value.block().endswith("\n\n300 errors, the first 50 are shown")


# made-up configs

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.sampled_from([0, 1, 2, 10**9, 2**63 - 1, 0.0, -1.0, 1e300, 1e-300]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(sorted({name for table in BUILT_IN.values() for name in table})),
    st.sampled_from(["val.accuracy", "5 epochs", "same", "*.weight", "aux", "conv1", "cpu", "a:B", "./x.py", ":"]),
    st.lists(st.integers(-2, 9) | st.text(max_size=3), max_size=4),
    st.dictionaries(st.sampled_from(["type", "name", "ref", "repeat", "p", "fraction", "x"]), st.text(max_size=4)),
)


def places(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in plain data below its root."""
    if path:
        yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from places(value, (*path, key))


PLAIN = parse(GOOD, "good").data
PLACES = list(places(PLAIN))
KEYS = sorted({str(path[-1]) for path in PLACES} | {"weight_init", "bias", "padding", "groups", "warmup", "transforms"})


@st.composite
def mutated(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """The good config with up to four of its values replaced, removed, or given a key more."""
    data = copy.deepcopy(PLAIN)
    for _ in range(draw(st.integers(1, 4))):
        *holders, last = draw(st.sampled_from(PLACES))
        holder = data
        try:
            for part in holders:
                holder = holder[part]
            action = draw(st.sampled_from(["replace", "remove", "add"]))
            if action == "remove":
                del holder[last]
            elif action == "add" and isinstance(holder[last], dict):
                holder[last][draw(st.sampled_from(KEYS))] = draw(VALUES)
            else:
                holder[last] = draw(VALUES)
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
    return dump(data) or "{}"


HOLES = st.tuples(YAMLISH, st.integers(0, len(GOOD)))
TEXTS = st.text() | YAMLISH | HOLES.map(lambda hole: GOOD[: hole[1]] + hole[0] + GOOD[hole[1] :])


def answered(text: str) -> None:
    """A config loads, or is refused at places that are known."""
    try:
        config = load_config_text(text, "c.yaml")
        config.dump()
        check_memory(config)
    except ConfigError as error:
        problems = error.problems
        error.block()
    else:
        return
    assert problems
    assert all(problem.message and (problem.mark or not problem.path) for problem in problems)
    assert all("\n" not in str(problem) for problem in problems)


@given(mutated())
@settings(max_examples=150, deadline=None)
def test_made_up_configs_are_answered(text: str) -> None:
    answered(text)


@given(
    st.text()
    | YAMLISH
    | st.tuples(YAMLISH, st.integers(0, len(GOOD))).map(lambda t: GOOD[: t[1]] + t[0] + GOOD[t[1] :])
)
@settings(max_examples=150, deadline=None)
def test_made_up_texts_are_answered(text: str) -> None:
    answered(text)


@pytest.mark.slow
@given(mutated())
@settings(max_examples=5000, deadline=None)
def test_5000_made_up_configs_are_answered(text: str) -> None:
    answered(text)


@pytest.mark.slow
@given(
    st.text()
    | YAMLISH
    | st.tuples(YAMLISH, st.integers(0, len(GOOD))).map(lambda t: GOOD[: t[1]] + t[0] + GOOD[t[1] :])
)
@settings(max_examples=5000, deadline=None)
def test_5000_made_up_texts_are_answered(text: str) -> None:
    answered(text)


def test_only_our_errors_come_out_of_overrides() -> None:
    for override in ("", "=", "a", "a=[", "seed=!!int 3", "net.layers.9.x=1", "seed.x=1", ".=1", "..a=1", 'a."b=1'):
        with pytest.raises(LayernetError):
            load_config_text(GOOD, "c", overrides=[override])
