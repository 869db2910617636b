# ruff: noqa: E501 (tables of messages)
"""What a config becomes: layers, objectives, data, defaults; and the resolved config, which is the same again."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layernet.config.experiment import ExperimentConfig, load_config, load_config_text
from layernet.core.duration import Interval
from layernet.core.init import normal
from layernet.errors import ConfigError, Mark

HEAD = """
data: {train: {type: FakeData, shape: [6], classes: 3}, batch_size: 10}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.1}
train: {epochs: 2}
net:
  input: [6]
"""


def net_of(layers: str, **arguments: Any) -> ExperimentConfig:
    return load_config_text(
        HEAD + "  layers:\n" + "\n".join(f"    {line}" for line in layers.splitlines()), **arguments
    )


def again(config: ExperimentConfig, folder: str | Path = ".") -> ExperimentConfig:
    """Loaded from its own resolved text, which must be the same."""
    second = load_config_text(config.dump(), "resolved.yaml", folder)
    assert second.resolved == config.resolved
    assert second.dump() == config.dump()
    assert list(second.net.params()) == list(config.net.params())
    return second


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


USER = """
from __future__ import annotations

import numpy as np

from layernet import Layer, Metric
from layernet.core.init import InitFunction, constant


class Scale(Layer):
    def __init__(self, by: float = 2.0, start: InitFunction = constant(1.0), inner: Layer | None = None):
        if by == 0:
            raise ValueError("by must not be 0")
        self.by = by
        self.inner = inner

    def build(self, in_shape):
        return self.inner.connect(in_shape) if self.inner else in_shape


class Loose(Layer):
    def __init__(self, a, b=3, *, c: "list[tuple[int, float]] | None" = None, **more):
        self.a, self.more = a, more


class Fails(Layer):
    def __init__(self):
        {}["gone"]


class FailsLater(Layer):
    def build(self, in_shape):
        return in_shape[7]


class Odd(Layer):
    def __init__(self, array: np.random.Generator):
        pass


class Unknown(Layer):
    def __init__(self, x: NoSuchType = 1):
        pass


class Speaks(Layer):
    def forward(self, x, ctx):
        ctx.emit("side", x)
        return x


def ramp(shape, rng, top: float = 1.0):
    return np.linspace(0, top, shape[0])


not_a_class = 3
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(USER)
    return tmp_path


def test_layers_of_the_users_file(user: Path) -> None:
    layers = "- {type: './mine.py:Scale', by: 3, name: s, inner: {type: Linear, out_features: 4}}\n- './mine.py:Scale'\n- {type: Linear, out_features: 3}"
    config = net_of(layers, folder=user)
    assert config.files == {"mine.py": (user / "mine.py").read_bytes()}
    assert type(config.net.layers[0]) is type(config.net.layers[1])
    assert config.net.layers[0].arguments["by"] == 3.0
    assert "s.inner.weight" in config.net.params()
    assert config.resolved["net"]["layers"][0]["type"] == "./mine.py:Scale"
    again(config, user)


def test_a_file_elsewhere_is_beside_the_resolved_config(user: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    place = os.path.relpath(user / "mine.py", folder)
    config = net_of(f"- '{place}:Scale'\n- {{type: Linear, out_features: 3}}", folder=folder)
    assert config.resolved["net"]["layers"][0]["type"] == "./mine.py:Scale"
    again(config, user)


def test_initialiser_function_of_the_user(user: Path) -> None:
    config = net_of(
        "- {type: Linear, out_features: 3, bias_init: {type: './mine.py:ramp', top: 2}, weight_init: normal}",
        folder=user,
    )
    bias = config.net.params()["linear_1.bias"]
    np.testing.assert_allclose(bias.init((3,), None), [0.0, 1.0, 2.0])  # type: ignore[arg-type]
    again(config, user)
    with pytest.raises(ConfigError, match="unknown key 'tip'; did you mean 'top'"):
        net_of("- {type: Linear, out_features: 3, bias_init: {type: './mine.py:ramp', tip: 2}}", folder=user)


def test_a_data_set_without_a_shape_is_told_what_it_needs(user: Path) -> None:
    (user / "mine.py").write_text(
        "import layernet as ln\n\n\nclass Data(ln.Dataset):\n    def __init__(self):\n        pass\n\n"
        "    def __len__(self):\n        return 3\n\n    def batch(self, indices):\n        return indices, indices\n"
    )
    text = (
        "data: {train: './mine.py:Data', batch_size: 3}\nnet: {input: [3], layers: [{type: Linear, out_features: 2}]}\n"
        "loss: MSE\noptimizer: {type: SGD, lr: 0.1}\ntrain: {epochs: 1}\n"
    )
    with pytest.raises(ConfigError, match=r"data.train: Data needs shape, that of one example; for example"):
        load_config_text(text, folder=user)


def test_a_build_that_returns_nothing_is_named_at_its_layer(user: Path) -> None:
    (user / "mine.py").write_text(
        "from layernet import Layer\n\n\nclass Mine(Layer):\n    def build(self, in_shape):\n        pass\n"
    )
    with pytest.raises(ConfigError) as caught:
        net_of("- ReLU\n- './mine.py:Mine'\n- {type: Linear, out_features: 3}", folder=user)
    (problem,) = caught.value.problems
    assert problem.path == "net.layers.1"
    assert problem.message.startswith("layer mine_1 (Mine): build returned None")


def test_plain_annotations_of_all_sorts(user: Path) -> None:
    config = net_of(
        "- {type: './mine.py:Loose', a: {x: [1, y]}, c: [[1, 2.5]], z: 3}\n- {type: Linear, out_features: 3}",
        folder=user,
    )
    assert config.net.layers[0].arguments == {"a": {"x": [1, "y"]}, "c": [(1, 2.5)], "z": 3}
    again(config, user)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("'./mine.py:Scael'", "net.layers.0: ./mine.py has no 'Scael'; did you mean 'Scale'?"),
        ("'./mine.py:not_a_class'", "is of type int, expected a subclass of Layer"),
        ("'./mine.py:ramp'", "is a function, expected a subclass of Layer"),
        ("{type: './mine.py:Scale', by: 0}", "net.layers.0.by: by must not be 0"),
        ("{type: './mine.py:Scale', buy: 1}", "net.layers.0.buy: unknown key 'buy'; did you mean 'by'?"),
        ("{type: './mine.py:Scale', by: fast}", "net.layers.0.by: expected a number, got 'fast'"),
        ("{type: './mine.py:Scale', inner: {type: Linear, repeat: 2, out_features: 3}}", "net.layers.0.inner.repeat: repeat needs a list"),
        ("{type: './mine.py:Scale', inner: [ReLU]}", "net.layers.0.inner: expected a layer: a name, or a mapping with a type, got a list"),
        ("{type: './mine.py:Loose', a: 1, c: [[1]]}", "net.layers.0.c.0: expected "),
        ("'./mine.py:Fails'", r"Fails cannot be made: KeyError: 'gone' (mine.py:28)"),
        ("'./mine.py:FailsLater'", r"layer failslater_1 (FailsLater): build failed: IndexError: tuple index out of range (mine.py:33)"),
        ("{type: './mine.py:Odd', array: 1}", "net.layers.0: Odd: a config cannot write array: Generator; use int, float, bool, str, "),
        ("./mine.py", "write ./mine.py:Scale or "),
        ("'./mine.py:Unknown'", "net.layers.0: Unknown: cannot read the annotation of 'x' (name 'NoSuchType' is not defined)"),
    ],
)  # fmt: skip
def test_mistakes_with_the_users_file(entry: str, message: str, user: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        net_of(f"- {entry}\n- {{type: Linear, out_features: 3}}", folder=user)
    assert message in re.sub(r"\(\S*/(\w+\.py:)", r"(\1", str(caught.value))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].mark is not None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ny = undefined\n", r"importing ./broken.py failed: NameError: name 'undefined' is not defined (broken.py:2)"),
        ("x = 1\ndef f(:\n", r"importing ./broken.py failed: SyntaxError: invalid syntax (broken.py:2)"),
        ("import no_such_module_at_all\n", r"ModuleNotFoundError: No module named 'no_such_module_at_all' (broken.py:1)"),
        ("raise SystemExit(3)\n", r"importing ./broken.py failed: SystemExit: 3 (broken.py:1)"),
        ("x = '\xff'", "SyntaxError"),
    ],
)  # fmt: skip
def test_a_users_file_that_cannot_be_imported(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source, encoding="latin-1")
    for _ in range(2):  # the second time too
        with pytest.raises(ConfigError) as caught:
            net_of("- './broken.py:X'", folder=tmp_path)
        assert message in re.sub(r"\(\S*/(\w+\.py:)", r"(\1", str(caught.value))


def test_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layernet_test_module.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    config = net_of("- {type: 'layernet_test_module:Scale'}\n- {type: Linear, out_features: 3}")
    assert config.files == {}
    again(config)


def test_a_layer_of_the_users_may_emit_what_it_likes(user: Path) -> None:
    text = HEAD.replace("loss: CrossEntropy", "loss: [CrossEntropy, {type: CrossEntropy, on: side}]")
    load_config_text(text + "  layers: ['./mine.py:Speaks', {type: Linear, out_features: 3}]", folder=user)


def test_two_files_of_one_name(user: Path) -> None:
    (user / "sub").mkdir()
    (user / "sub" / "mine.py").write_text(USER)
    with pytest.raises(ConfigError, match="have one name; rename one"):
        net_of("- './mine.py:Scale'\n- './sub/mine.py:Scale'", folder=user)


def test_a_changed_file_is_read_anew(user: Path) -> None:
    net_of("- './mine.py:Scale'\n- {type: Linear, out_features: 3}", folder=user)
    (user / "mine.py").write_text(USER.replace("by: float = 2.0", "by: float = 5.0"))
    config = net_of("- './mine.py:Scale'\n- {type: Linear, out_features: 3}", folder=user)
    assert config.net.layers[0].by == 5.0  # type: ignore[attr-defined]


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
