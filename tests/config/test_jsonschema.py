# ruff: noqa: E501 (tables of configs)
"""The JSON schema for editors: takes every config that is right, and refuses what the checks refuse."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from layernet.config.experiment import load_config_text
from layernet.config.lookup import Lookup
from layernet.config.marks import Document, parse
from layernet.config.names import BUILT_IN
from layernet.errors import ConfigError
from layernet.report.catalogue import built_in, example, spell
from layernet.report.reference import schema_text
from layernet.testing.cases import LAYERS
from tests.test_config_reference import YAML

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
FENCED = re.compile(r"^<!-- config[^\n]* -->\n```yaml\n(.*?)^```$", re.S | re.M)
WHOLE = [text for page in sorted((ROOT / "docs").rglob("*.md")) for text in FENCED.findall(page.read_text())]
WHOLE += re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@cache
def validator() -> jsonschema.Draft7Validator:
    schema = json.loads(schema_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def errors(data: Any) -> list[str]:
    found = validator().iter_errors(data)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_configs_fit(path: Path) -> None:
    document = parse(path.read_text(), path.name)
    assert errors(document.data) == []
    resolved = load_config_text(path.read_text(), folder=path.parent).resolved
    assert errors(resolved) == []


@pytest.mark.parametrize("text", [YAML[0], *WHOLE])
def test_the_examples_of_the_pages_fit(text: str) -> None:
    assert errors(parse(text, "page").data) == []


@pytest.mark.parametrize("part", YAML)
def test_parts_of_configs_fit(part: str) -> None:
    assert errors({**parse(YAML[0], "base").data, **parse(part, "part").data}) == []


def test_everything_built_in_is_there_and_explained() -> None:
    definitions = json.loads(schema_text())["definitions"]
    for kind, table in BUILT_IN.items():
        for name in set(table) - {"Arrays"}:
            assert definitions[f"{kind}.{name}"]["description"], name
    assert definitions["layer.Conv2d"]["properties"]["bias"]["default"] is True
    assert definitions["TrainConfig"]["properties"]["epochs"]["description"] == "Passes over train."


GOOD = """
layernet: 1
data: {train: {type: FakeData, shape: [6], classes: 3}, val: {fraction: 0.1}, batch_size: 10}
net:
  input: [6]
  layers:
    - {type: Linear, name: hidden, out_features: 8, repeat: 2, weight_init: {type: normal, std: 0.1}}
    - {ref: hidden.0}
    - {type: Sequential, layers: [ReLU, {type: "./my.py:Own", anything: 3}]}
    - my.module:Own
loss: [{type: CrossEntropy, weight: 2}, {type: L2Penalty, weight: 1e-4}]
metrics: accuracy
optimizer: {type: SGD, lr: 0.1, groups: {"*": {lr_mult: 2}}}
schedule: {type: Cosine, warmup: 1 epochs}
train: {epochs: 2, checkpoint: {every: 10 steps}}
"""

WRONG = [
    ("batch_size: 10", "batch_size: 0"),
    ("batch_size: 10", "batch_size: '10'"),
    ("batch_size: 10", "batch_size: true"),
    ("fraction: 0.1", "fraction: 1.5"),
    ("out_features: 8", "out_features: 1.5"),
    ("name: hidden, ", "name: 3, "),
    ("ReLU, ", "ReLUU, "),
    ("ReLU, ", "Conv2d, "),
    ("ReLU, ", "3, "),
    ("std: 0.1", "st: 0.1"),
    ("type: Cosine", "type: Cosin"),
    ("type: Cosine", "type: SGD"),
    ("1 epochs", "1 epoch s"),
    ("10 steps", "10.5 steps"),
    ("schedule: {type: Cosine, warmup: 1 epochs}", "schedule: {warmup: 1 epochs}"),
    ("optimizer:", "optimiser:"),
    ("metrics: accuracy", "metrics: [accuracy, acuracy]"),
    ("layernet: 1", "layernet: 2"),
    ("layernet: 1", "device: gpu"),
    ("{ref: hidden.0}", "{ref: hidden.0, bias: false}"),
    ("lr: 0.1, ", ""),
    ("train: {epochs: 2,", "plan: of\ntrain: {epochs: 2,"),
]


def test_what_is_right_fits() -> None:
    assert errors(parse(GOOD, "good").data) == []


@pytest.mark.parametrize(("old", "new"), WRONG)
def test_what_is_wrong_is_refused_here_and_by_the_checks(old: str, new: str) -> None:
    assert old in GOOD
    wrong = GOOD.replace(old, new, 1)
    assert len(errors(parse(wrong, "wrong").data)) >= 1
    with pytest.raises(ConfigError) as caught:
        load_config_text(wrong)
    right = {str(problem) for problem in problems_of(GOOD)}  # of files that are not there
    assert {str(problem) for problem in caught.value.problems} - right


def problems_of(text: str) -> list[Any]:
    try:
        load_config_text(text)
    except ConfigError as error:
        return error.problems
    return []


def test_a_message_is_about_the_one_value_that_is_wrong() -> None:
    (told,) = errors(parse(GOOD.replace("out_features: 8", "out_feature: 8"), "f").data)[:1]
    found = errors(parse(GOOD.replace("out_features: 8", "out_features: 8, bia: true"), "f").data)
    assert found == ["net.layers.0: Additional properties are not allowed ('bia' was unexpected)"]
    assert told.startswith("net.layers.0: ")
    assert errors(parse(GOOD.replace("epochs: 2", "epochs: two"), "f").data)[0].startswith("train.epochs: ")


@pytest.mark.parametrize(
    "text",
    [
        "extends: base.yaml\ntrain: {checkpoint: {every: 30 minutes}}",
        "extends: [a.yaml, b.yaml]\nseed: 1",
        "extends: a.yaml\noptimizer: {lr: 0.1}\ndata: {batch_size: 3}\ntrain: {checkpoint: {keep: 3}}",
        "extends: a.yaml\nloss: {label_smoothing: 0.1}\ndata: {train: {transforms: [Normalize]}, val: {fraction: 0.2}}",
        "extends: a.yaml\nvars: {a: [1, {b: 2}], c-d: x}\nseed: ${a}\ntrain: ${b}\nnet: {layers: ['${a}', {type: Linear, out_features: '${n}'}]}",
        "extends: a.yaml\nschedule: {type: Cosine}\ndtype: ${d}\nprecise: ${p}\nplan: ${q}\noptimizer: ${o}\nmetrics: ${m}",
    ],
)  # fmt: skip
def test_what_is_laid_over_another_config_need_not_be_whole(text: str) -> None:
    assert errors(parse(text, "f").data) == []


@pytest.mark.parametrize(
    "text",
    [
        "extends: 3",
        "extends: a.yaml\noptimizer: {lrr: 0.1}",
        "extends: a.yaml\noptimizer: {type: SGD, lr: fast}",
        "extends: a.yaml\ndata: {batch_siz: 3}",
        "extends: a.yaml\nnet: {layers: [{type: Linear}]}",
        "extends: a.yaml\nvars: {a b: 1}",
        "extends: a.yaml\nsede: 1",
        "extends: a.yaml\ntrain: {epochs: 0}",
    ],
)
def test_what_is_laid_over_another_config_is_checked(text: str) -> None:
    assert len(errors(parse(text, "f").data)) >= 1


def test_typos_in_keys_and_types_are_refused() -> None:
    """Every key and type of a shipped config with a letter less."""
    path = ROOT / "configs" / "digits_mlp.yaml"
    document: Document = parse(path.read_text(), path.name)
    made = 0
    for place in document.keys:
        holder: Any = document.data
        for step in place[:-1]:
            holder = holder[step]
        key, value = str(place[-1]), holder[place[-1]]
        for index in range(0, len(key), 4):
            typo = key[:index] + key[index + 1 :]
            del holder[key]
            holder[typo] = value
            assert not validator().is_valid(document.data), (place, typo)
            del holder[typo]
            holder[key] = value
            made += 1
        if key == "type":
            holder[key] = value[:-1]
            assert not validator().is_valid(document.data), (place, value)
            holder[key] = value
    assert made > 50
    assert errors(document.data) == []


def test_every_example_of_the_catalogue_and_every_case_fits() -> None:
    lookup = Lookup(Path())
    examples = [text for entry in built_in() if entry.kind != "layer" and (text := example(entry, lookup))]
    assert len(examples) > 50
    for text in examples:
        assert errors({"extends": "rest.yaml", **parse(text, "example").data}) == [], text
    layers = [spell(case.make(), lookup) for case in LAYERS]
    named = [layer for layer in layers if "None" not in str(layer)]  # the rest is made of classes of the tests
    assert len(named) > 100
    assert errors({"extends": "rest.yaml", "net": {"layers": named}}) == []
