# ruff: noqa: E501 (tables of messages)
"""What a config makes of the user's own classes and functions."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from layernet.config.experiment import load_config_text
from layernet.errors import ConfigError
from tests.config.small import HEAD, again, net_of

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
