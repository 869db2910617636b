# ruff: noqa: E501 (tables of messages)
"""What a config becomes: layers, objectives, data, defaults; and the resolved config, which is the same again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layernet.config.experiment import load_config, load_config_text
from layernet.core.duration import Interval
from layernet.core.init import normal
from layernet.errors import ConfigError, Mark
from tests.config.small import HEAD, again, net_of


def test_defaults_are_filled_in() -> None:
    config = again(net_of("- {type: Linear, out_features: 3}"))
    assert config.resolved == {
        "layernet": 1,
        "seed": 0,
        "device": "auto",
        "dtype": "float32",
        "kernels": "auto",
        "precise": False,
        "threads": None,
        "plan": "on",
        "data": {
            "train": {"type": "FakeData", "shape": [6], "classes": 3, "length": 512, "seed": 0, "transforms": None},
            "val": None,
            "test": None,
            "batch_size": 10,
            "eval_batch_size": 10,
            "shuffle": True,
            "drop_last": False,
            "prefetch": True,
        },
        "net": {
            "input": [6],
            "layers": [
                {
                    "type": "Linear",
                    "out_features": 3,
                    "bias": True,
                    "weight_init": {
                        "type": "kaiming_normal",
                        "mode": "fan_in",
                        "nonlinearity": "relu",
                        "slope": 0.01,
                    },
                    "bias_init": {"type": "constant", "value": 0.0},
                }
            ],
        },
        "loss": [
            {
                "type": "CrossEntropy",
                "label_smoothing": 0.0,
                "class_weight": None,
                "ignore_index": -100,
                "on": "output",
                "weight": 1.0,
                "name": "cross_entropy",
            }
        ],
        "metrics": [],
        "optimizer": {
            "type": "SGD",
            "lr": 0.1,
            "momentum": 0.0,
            "dampening": 0.0,
            "nesterov": False,
            "weight_decay": 0.0,
            "groups": None,
        },
        "schedule": {"type": "Constant", "warmup": None},
        "average": None,
        "warm_start": None,
        "train": {
            "epochs": 2,
            "steps": None,
            "accumulate": 1,
            "clip_norm": None,
            "clip_value": None,
            "on_nonfinite": "stop",
            "eval_every": "1 epochs",
            "log_every": "50 steps",
            "checkpoint": {"every": "1 epochs", "keep": 2, "best": None},
        },
        "callbacks": [],
    }
    assert config.train.checkpoint.every == Interval(1, "epochs")


def test_repeat_makes_separate_named_copies() -> None:
    config = net_of(
        "- {type: Linear, name: body, out_features: 6, repeat: 3}\n- {type: ReLU, repeat: 2}\n- {type: Linear, out_features: 3}"
    )
    assert list(config.net.params()) == [
        "body.0.weight",
        "body.0.bias",
        "body.1.weight",
        "body.1.bias",
        "body.2.weight",
        "body.2.bias",
        "linear_4.weight",
        "linear_4.bias",
    ]
    assert len({id(layer) for layer in config.net.layers}) == 6
    assert {str(config.layer_marks[layer]) for layer in config.net.layers[:3]} == {"config:9:7"}
    again(config)


def test_repeat_inside_a_composite() -> None:
    block = (
        "- {type: Residual, name: block, body: [{type: Linear, name: inner, out_features: 6, repeat: 2}], repeat: 2}"
    )
    config = again(net_of(block + "\n- {type: Linear, out_features: 3}"))
    assert [path for path in config.net.params() if path.endswith("weight")] == [
        "block.0.inner.0.weight",
        "block.0.inner.1.weight",
        "block.1.inner.0.weight",
        "block.1.inner.1.weight",
        "linear_1.weight",
    ]


def test_ref_ties_parameters() -> None:
    config = net_of(
        "- {type: Linear, name: body, out_features: 6}\n- ReLU\n- {ref: body, name: once_more}\n- {type: Linear, out_features: 3}"
    )
    assert list(config.net.params()) == ["body.weight", "body.bias", "linear_3.weight", "linear_3.bias"]
    first, again_ = config.net.layers[0], config.net.layers[2]
    assert first.weight is again_.weight  # type: ignore[attr-defined]
    assert again_.path == "once_more"
    assert config.layer_marks[again_] == Mark("config", 11, 7)
    again(config)


def test_a_ref_that_does_not_fit_names_both() -> None:
    with pytest.raises(
        ConfigError, match=r"config:10:13: net.layers.1.ref: it shares weight with layer body \(Linear\)"
    ):
        net_of("- {type: Linear, name: body, out_features: 5}\n- {ref: body}\n- {type: Linear, out_features: 3}")


def test_anchors_copy_layers() -> None:
    config = net_of(
        "- &hidden {type: Linear, out_features: 6}\n- *hidden\n- {<<: *hidden, bias: false, out_features: 3}"
    )
    assert list(config.net.params()) == [
        "linear_1.weight",
        "linear_1.bias",
        "linear_2.weight",
        "linear_2.bias",
        "linear_3.weight",
    ]
    assert config.layer_marks[config.net.layers[1]] == Mark("config", 10, 7)
    again(config)


def test_initialisers_by_name_and_mapping() -> None:
    config = again(
        net_of(
            "- {type: Linear, out_features: 3, weight_init: {type: normal, std: 0.5}, bias_init: {type: constant, value: 1}}"
        )
    )
    weight = config.net.params()["linear_1.weight"]
    assert isinstance(weight.init, normal)
    assert weight.init.std == 0.5
    again(net_of("- {type: Linear, out_features: 3, weight_init: orthogonal}"))


def test_objectives_on_outputs() -> None:
    text = (HEAD + "  layers:\n    - {type: AuxiliaryHead, name: aux, layers: [{type: Linear, out_features: 3}]}\n"
            "    - {type: Linear, out_features: 3}\n").replace(
        "loss: CrossEntropy",
        'loss: [CrossEntropy, {type: CrossEntropy, on: aux, weight: 3e-1}, {type: L2Penalty, name: decay, params: "lin*"}]\n'
        "metrics: [{type: accuracy, on: aux}, accuracy, {type: accuracy, top_k: 2}]",
    ).replace("batch_size: 10", "batch_size: 10, val: {fraction: 0.1}")  # fmt: skip
    config = again(load_config_text(text))
    assert [(o.name, o.on, o.weight) for o in config.objectives] == [
        ("cross_entropy", "output", 1.0),
        ("cross_entropy_2", "aux", 0.3),
        ("decay", "output", 1.0),
    ]
    assert [type(o.loss).__name__ for o in config.objectives] == ["CrossEntropy", "CrossEntropy", "L2Penalty"]
    assert [list(measure.result()) for measure in config.metrics] == [["aux_accuracy"], ["accuracy"], ["top2_accuracy"]]
    assert config.train.checkpoint.best == "val.aux_accuracy"
    assert "aux.linear_1.weight" in config.net.params()


@pytest.mark.parametrize(
    ("val", "metrics", "best", "chosen"),
    [
        ("", "", "", None),
        ("val: {fraction: 0.1}, ", "", "", "val.loss"),
        ("val: {fraction: 0.1}, ", "metrics: {type: accuracy, top_k: 2}", "", "val.top2_accuracy"),
        ("val: {fraction: 0.1}, ", "metrics: accuracy", ", checkpoint: {best: null}", None),
        ("val: {fraction: 0.1}, ", "metrics: accuracy", ", checkpoint: {best: val.loss}", "val.loss"),
    ],
)
def test_best_follows_from_what_is_there(val: str, metrics: str, best: str, chosen: str | None) -> None:
    text = (
        HEAD.replace("batch_size", f"{val}batch_size").replace("epochs: 2", f"epochs: 2{best}")
        + "  layers: [{type: Linear, out_features: 3}]\n"
    )
    assert again(load_config_text(text + metrics)).train.checkpoint.best == chosen


@pytest.mark.parametrize(
    ("schedule", "metrics", "watch", "mode"),
    [
        ("Plateau", "[]", "val.loss", "min"),
        ("Plateau", "accuracy", "val.accuracy", "max"),
        ("{type: Plateau, watch: val.loss}", "accuracy", "val.loss", "min"),
        ("{type: Plateau, watch: val.accuracy, mode: min}", "accuracy", "val.accuracy", "min"),
    ],
)
def test_what_a_plateau_follows(schedule: str, metrics: str, watch: str, mode: str) -> None:
    text = (
        HEAD.replace("batch_size", "val: {fraction: 0.1}, batch_size") + "  layers: [{type: Linear, out_features: 3}]\n"
    )
    config = again(load_config_text(f"{text}metrics: {metrics}\nschedule: {schedule}\n"))
    assert {key: config.schedule.arguments[key] for key in ("watch", "mode")} == {"watch": watch, "mode": mode}
    assert config.schedule.bind(10, 5)(0) == 1.0


def test_splits_inherit_the_transforms_of_train() -> None:
    text = HEAD.replace("classes: 3}", "classes: 3, transforms: [{type: Normalize}]}").replace(
        "batch_size", "val: {fraction: 0.5}, test: {type: FakeData, shape: [6], classes: 3, transforms: []}, batch_size"
    )
    data = again(load_config_text(text + "  layers: [{type: Linear, out_features: 3}]")).data
    assert data.val == 0.5
    assert data.transforms["val"] is data.transforms["train"]
    assert data.transforms["test"] == []
    assert data.all_transforms() == data.transforms["train"]


def test_path_and_name(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(HEAD + "  layers: [{type: Linear, out_features: 3}]\n")
    config = load_config(path)
    assert (config.path, config.name, config.text) == (path, "small", path.read_text())
    assert load_config(str(path)).resolved == config.resolved


SMALL = (
    HEAD + "  layers: [{type: Linear, name: head, out_features: 3}]\nmetrics: [accuracy]\nschedule: {type: Cosine}\n"
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, len(SMALL)),
    st.integers(0, 6),
    st.text(max_size=6)
    | st.sampled_from(["[", "{", ": ", "- ", "&a ", "*a", "null", "1e9", "-1", "\n", "true", "<<: ", "type: "]),
)
def test_a_damaged_config_is_loaded_or_refused(start: int, length: int, put: str) -> None:
    text = SMALL[:start] + put + SMALL[start + length :]
    try:
        again(load_config_text(text, "f.yaml"))
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message and problem.mark for problem in problems)
