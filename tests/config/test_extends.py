# ruff: noqa: E501 (tables of messages)
"""`extends`: configs laid over others; every value keeps its place, every problem names its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.config.experiment import load_config, load_config_text
from layernet.config.inherit import MAX_DEEP, compose
from layernet.config.marks import Document, dump, parse
from layernet.errors import ConfigError
from layernet.train.experiment import Experiment

BASE = """
data: {train: {type: FakeData, shape: [6], classes: 3, length: 20}, val: {fraction: 0.2}, batch_size: 10}
net:
  input: [6]
  layers: [{type: Linear, name: head, out_features: 3}]
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1, momentum: 0.9}
train: {epochs: 2}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def resolved(text: str, **arguments: Any) -> dict[str, Any]:
    return load_config_text(text, "top.yaml", **arguments).resolved


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "top.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_mappings_merge_and_all_else_replaces() -> None:
    found = resolved(
        "extends: base.yaml\nseed: 3\noptimizer: {lr: 0.2}\nnet: {layers: [Flatten, {type: Linear, out_features: 3}]}"
    )
    assert found["seed"] == 3
    assert (found["optimizer"]["lr"], found["optimizer"]["momentum"]) == (0.2, 0.9)
    assert [layer if isinstance(layer, str) else layer["type"] for layer in found["net"]["layers"]] == [
        "Flatten",
        "Linear",
    ]
    assert found["net"]["input"] == [6]
    assert "extends" not in found


def test_an_entry_of_another_kind_replaces_the_whole_entry() -> None:
    assert resolved("extends: base.yaml\noptimizer: {type: Adam, lr: 1e-3}")["optimizer"]["type"] == "Adam"
    val = "data: {val: {type: FakeData, shape: [6], classes: 3, seed: 1}}"
    assert resolved(f"extends: base.yaml\n{val}")["data"]["val"]["seed"] == 1
    Path("mid.yaml").write_text(f"extends: base.yaml\n{val}")
    assert resolved("extends: mid.yaml\ndata: {val: {fraction: 0.5}}")["data"]["val"] == {"fraction": 0.5}


def test_a_bare_name_is_given_arguments() -> None:
    found = resolved("extends: base.yaml\nloss: {label_smoothing: 0.1}")
    assert found["loss"][0]["type"] == "CrossEntropy"
    assert found["loss"][0]["label_smoothing"] == 0.1


def test_of_several_the_later_wins_and_overrides_win_over_all() -> None:
    Path("fast.yaml").write_text("train: {epochs: 9}\nseed: 9")
    assert resolved("extends: [base.yaml, fast.yaml]")["train"]["epochs"] == 9
    assert resolved("extends: [fast.yaml, base.yaml]")["train"]["epochs"] == 2
    assert resolved("extends: [base.yaml, fast.yaml]\nseed: 1", overrides=["seed=4"])["seed"] == 4


def test_every_problem_names_the_file_that_holds_it() -> None:
    Path("wrong.yaml").write_text(BASE.replace("lr: 0.1", "lr: fast").replace("epochs: 2", "epochs: 2, epoch: 3"))
    assert problems("extends: wrong.yaml\nseed: -1\nnet: {input: 6}") == [
        "top.yaml:2:7: seed: expected at least 0, got -1",
        "top.yaml:3:14: net.input: expected a list, got 6",
        "wrong.yaml:7:28: optimizer.lr: expected a number, got 'fast'",
        "wrong.yaml:8:20: train.epoch: unknown key 'epoch'; did you mean 'epochs'?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("extends: bas.yaml", "top.yaml:1:10: extends: cannot read 'bas.yaml': No such file or directory; did you mean 'base.yaml'?"),
        ("seed: 1\nextends: [base.yaml, 3]", "top.yaml:2:22: extends: expected a file, or a list of files, got 3"),
        ("extends: {a: b}", "top.yaml:1:10: extends: expected a file, or a list of files, got a mapping"),
        ("extends: .", "top.yaml:1:10: extends: cannot read '.': Is a directory"),
        ('extends: "a\\0b"', "top.yaml:1:10: extends: cannot read 'a\\x00b': embedded null byte"),
        ("extends: '${base}'", "top.yaml:1:10: extends: '${base}': extends is read before variables are known; write the file's path"),
        ("extend: base.yaml", "top.yaml:1:1: extend: unknown key 'extend'; did you mean 'extends'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended_is_told_at_its_place(text: str, told: str) -> None:
    assert told in problems(text)


def test_files_that_cannot_be_parsed_are_all_told() -> None:
    Path("a.yaml").write_text("seed: [1\n")
    Path("b.yaml").write_text("seed: 1\nseed: 2\nx: *y\n")
    told = problems("extends: [a.yaml, b.yaml, c.yaml]\nseed: 1\nseed: 2")
    assert [text.partition(": ")[0] for text in told] == [
        "top.yaml:3:1",
        "a.yaml:2:1",
        "b.yaml:2:1",
        "b.yaml:3:4",
        "top.yaml:1:27",
    ]


def test_circles_and_long_chains_are_refused(folder: Path) -> None:
    Path("a.yaml").write_text("extends: sub/b.yaml")
    Path("sub").mkdir()
    Path("sub/b.yaml").write_text("extends: ../a.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config("a.yaml")
    assert (
        str(caught.value) == "sub/b.yaml:1:10: extends: a config cannot extend itself: a.yaml -> sub/b.yaml -> a.yaml"
    )
    for i in range(MAX_DEEP + 1):
        Path(f"c{i}.yaml").write_text(f"extends: c{i + 1}.yaml")
    assert "a chain of more than 10 files" in problems("extends: c0.yaml")[0]
    Path("d0.yaml").write_text("seed: 1")
    for i in range(8):  # each twice the one below
        Path(f"d{i + 1}.yaml").write_text(f"extends: [d{i}.yaml, d{i}.yaml]")
    assert "more than 50 files" in problems("extends: d8.yaml")[0]


def test_extends_cannot_be_set() -> None:
    with pytest.raises(ConfigError, match="--set extends: extends is read before anything is set"):
        load_config("base.yaml", ["extends=other.yaml"])


LAYER = "import layernet as ln\n\n\nclass Own(ln.ReLU):\n    pass\n"


def test_a_file_of_classes_is_looked_for_beside_the_file_that_names_it() -> None:
    Path("lib").mkdir()
    Path("lib/parts.py").write_text(LAYER)
    Path("lib/nets.yaml").write_text(
        'vars: {act: "./parts.py:Own"}\nnet: {layers: ["./parts.py:Own", {type: Linear, out_features: 3}]}'
    )
    config = load_config_text("extends: [base.yaml, lib/nets.yaml]\nloss: CrossEntropy")
    assert type(config.net.layers[0]).__name__ == "Own"
    assert set(config.files) == {"parts.py", "extended/base.yaml", "extended/lib/nets.yaml"}
    config = load_config_text(
        "extends: [base.yaml, lib/nets.yaml]\nnet: {layers: ['${act}', {type: Linear, out_features: 3}]}"
    )
    assert type(config.net.layers[0]).__name__ == "Own"
    assert "cannot read ./parts.py" in problems("extends: base.yaml\nnet: {layers: ['./parts.py:Own']}")[0]


def test_a_run_keeps_every_file_and_goes_on_without_them(folder: Path) -> None:
    Path("common").mkdir()
    Path("base.yaml").rename("common/base.yaml")
    Path("exp").mkdir()
    Path("exp/top.yaml").write_text("extends: ../common/base.yaml\nvars: {n: 1}\ntrain: {epochs: '${n}'}")
    run = Experiment.load("exp/top.yaml").train()
    assert (run / "config.yaml").read_text() == Path("exp/top.yaml").read_text()
    assert (run / "extended/up/common/base.yaml").read_text() == BASE
    assert "extended/up/common/base.yaml" in (run / "run.json").read_text()
    Path("common/base.yaml").unlink()
    Path("exp/top.yaml").unlink()
    Experiment.resume(run, overrides=["train.epochs=2"])
    assert len((run / "metrics.csv").read_text().splitlines()) == 3


names = st.sampled_from(["a", "b", "type", "c"])
plain = st.recursive(
    st.integers(0, 3) | st.sampled_from(["X", "Y", ""]) | st.none() | st.booleans(),
    lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)
configs = st.dictionaries(st.sampled_from(["seed", "net", "vars", "loss"]), plain, min_size=1, max_size=3)


def reference(old: Any, new: Any, top: str | None = None) -> Any:
    """What the documentation says of merging."""
    if isinstance(old, str) and isinstance(new, dict) and "type" not in new and top not in (None, "vars"):
        return {"type": old, **new}
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    if top not in (None, "vars") and "type" in old and "type" in new and old["type"] != new["type"]:
        return new
    both = {key: reference(old[key], new[key], top or key) for key in old if key in new}
    return {**old, **new, **both}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if steps is None:
        return {path: value}
    return {place: leaf for key, item in steps for place, leaf in leaves(item, (*path, key)).items()}


@settings(max_examples=100, deadline=None)
@given(configs, configs)
def test_merging_is_as_it_is_described_and_places_are_right(old: dict[str, Any], new: dict[str, Any]) -> None:
    Path("old.yaml").write_text(dump(old))
    text = dump({"extends": "old.yaml", **new})
    document = compose(text, "new.yaml", Path())
    assert document.data == reference(old, new)
    written = {"old.yaml": parse(dump(old), "old.yaml"), "new.yaml": parse(text, "new.yaml")}
    for path, value in leaves(document.data).items():
        mark = document.values[path]
        source = path if path in written[mark.file].values else path[:-1]  # a bare name that became a type
        assert value_at(written[mark.file], source) == value
        assert mark == written[mark.file].values[source]


def value_at(document: Document, path: tuple[Any, ...]) -> Any:
    value: Any = document.data
    for step in path:
        value = value[step]
    return value
