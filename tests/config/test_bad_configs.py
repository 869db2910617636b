# ruff: noqa: E501 (tables of messages)
"""Bad configs: each mistake gets one problem, at its place, with its cure.

In a case, `§` stands before the text that a problem must point at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from layernet.config.experiment import check_data, load_config, load_config_text
from layernet.errors import ConfigError, Mark, Problem

GOOD = """\
layernet: 1
seed: 3
device: cpu
data:
  train: {type: FakeData, shape: [8, 8, 2], classes: 4, length: 200, transforms: [{type: RandomCrop, size: 8}]}
  val: {fraction: 0.2}
  test: {type: FakeData, shape: [8, 8, 2], classes: 4}
  batch_size: 16
net:
  input: [8, 8, 2]
  layers:
    - {type: Conv2d, name: conv1, out_channels: 4, kernel_size: 3}
    - {type: MaxPool2d, kernel_size: 2}
    - type: AuxiliaryHead
      name: aux
      layers: [Flatten, {type: Linear, out_features: 4}]
    - Flatten
    - {type: Linear, name: head, out_features: 4}
loss:
  - CrossEntropy
  - {type: CrossEntropy, on: aux, weight: 0.3}
  - {type: L2Penalty, params: "*.weight", weight: 1e-4}
metrics: [accuracy]
optimizer: {type: SGD, lr: 0.1, momentum: 0.9, groups: {"head.*": {lr_mult: 2}}}
schedule: {type: Cosine, warmup: 1 epochs}
train: {epochs: 2, checkpoint: {every: 7 steps, best: val.accuracy}}
"""


def marked(text: str) -> tuple[str, list[Mark]]:
    """The text without its `§`, and where they stood."""
    marks = []
    while "§" in text:
        before, _, after = text.partition("§")
        marks.append(Mark("bad.yaml", before.count("\n") + 1, len(before) - before.rfind("\n")))
        text = before + after
    return text, marks


def problems_of(text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config_text(text, "bad.yaml")
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_the_good_config_is_good() -> None:
    assert load_config_text(GOOD, "good.yaml").net.output_shape == (4,)


# (what is replaced, by what, the path of the problem, a part of its message, a part of its hint)
CASES = {
    # keys
    "typo in a top-level key": ("metrics:", "§metrcis:", "metrcis", "unknown key 'metrcis'", "did you mean 'metrics'?"),
    "typo in a section": ("batch_size", "§batchsize", "data.batchsize", "unknown key", "did you mean 'batch_size'?"),
    "typo in an argument": ("momentum", "§momentun", "optimizer.momentun", "unknown key", "did you mean 'momentum'?"),
    "typo in a layer's argument": ("kernel_size: 2", "§kernel_sise: 2", "net.layers.1.kernel_sise", "unknown key", "'kernel_size'"),
    "typo in a nested section": ("every: 7", "§evry: 7", "train.checkpoint.evry", "unknown key", "did you mean 'every'?"),
    "typo in `type`": ("type: Cosine", "§tpye: Cosine", "schedule.tpye", "unknown key 'tpye'", "did you mean 'type'?"),
    "typo in a nested layer": ("{type: Linear, out_features: 4}]", "{type: Linear, §out_feature: 4}]", "net.layers.2.layers.1.out_feature", "unknown key", "'out_features'"),
    "far from every key": ("seed: 3", "seed: 3\n§zzz: 1", "zzz", "unknown key", "known: optimizer, "),
    "missing section": ("optimizer: {type: SGD, lr: 0.1, momentum: 0.9, groups: {\"head.*\": {lr_mult: 2}}}\n", "", "", "the config needs 'optimizer'", ""),
    "missing argument": ("§{type: MaxPool2d, kernel_size: 2}", "§{type: MaxPool2d}", "net.layers.1", "MaxPool2d needs 'kernel_size'", ""),
    "missing argument of a bare name": ("- Flatten\n", "- §Linear\n", "net.layers.3", "Linear needs 'out_features'", ""),
    "missing type": ("{type: Cosine, warmup: 1 epochs}", "§{warmup: 1 epochs}", "schedule", "a schedule needs a 'type'", ""),
    "no epochs": ("{epochs: 2, ", "§{", "train", "needs one of 'epochs' and 'steps'", ""),
    "epochs and steps": ("{epochs: 2, ", "§{epochs: 2, steps: 3, ", "train", "needs one of 'epochs' and 'steps'", ""),
    "duplicate key": ("seed: 3", "seed: 3\n§seed: 4", "", "the key 'seed' is given twice, first in line 2", "remove one"),
    # types
    "typo in a type": ("type: Conv2d", "type: §Conv2D", "net.layers.0.type", "no layer called 'Conv2D'", "did you mean 'Conv2d'?"),
    "typo in a bare type": ("- Flatten\n", "- §Flaten\n", "net.layers.3", "no layer called 'Flaten'", "did you mean 'Flatten'?"),
    "a type of another kind": ("type: Cosine, warmup: 1 epochs", "type: §SGD, lr: 1", "schedule.type", "SGD is an optimizer, expected a schedule", ""),
    "type is no name": ("type: Conv2d", "type: §3", "net.layers.0.type", "expected the name of a layer, got 3", ""),
    "absent module": ("type: Conv2d", "type: §no_such_module:X", "net.layers.0.type", "there is no module 'no_such_module'", "looked in"),
    "absent file": ("type: Conv2d", "type: §./absent.py:X", "net.layers.0.type", "cannot read ./absent.py", ""),
    "absent class": ("type: Conv2d", "type: §layernet.layers.conv:Conv3d", "net.layers.0.type", "has no 'Conv3d'", "did you mean 'Conv2d'?"),
    "a class of another kind": ("type: Conv2d", "type: §layernet.losses:MSE", "net.layers.0.type", "a class that subclasses Loss, expected a subclass of Layer", ""),
    "the norms of a bias": ('groups: {"head.*": {lr_mult: 2}}', 'groups: {"head.*": {§max_norm: 2}}', "optimizer.groups.head.*.max_norm", "'head.*' sets max_norm of head.bias", "it has one axis"),
    # values
    "text for an integer": ("batch_size: 16", "batch_size: §sixteen", "data.batch_size", "expected an integer, got 'sixteen'", ""),
    "float for an integer": ("epochs: 2", "epochs: §2.0", "train.epochs", "expected an integer, got 2.0", "write 2"),
    "underscore in a number": ("batch_size: 16", "batch_size: §1_6", "data.batch_size", "expected an integer, got '1_6'", "write 16"),
    "octal-looking": ("batch_size: 16", "batch_size: §016", "data.batch_size", "got '016'", "write 16"),
    "true for an integer": ("seed: 3", "seed: §true", "seed", "expected an integer, got true", ""),
    "yes for a boolean": ("batch_size: 16", "batch_size: 16\n  shuffle: §yes", "data.shuffle", "expected true or false, got 'yes'", "write true"),
    "nan": ("lr: 0.1", "lr: §.nan", "optimizer.lr", "expected a finite number, got nan", ""),
    "infinity by overflow": ("lr: 0.1", "lr: §1e999", "optimizer.lr", "expected a finite number", ""),
    "quoted number": ("lr: 0.1", "lr: §'0.1'", "optimizer.lr", "expected a number, got '0.1'", "without quotes"),
    "None": ("lr: 0.1", "lr: §None", "optimizer.lr", "got 'None'", "write null"),
    "choice": ("kernel_size: 3}", "kernel_size: 3, padding: §sane}", "net.layers.0.padding", "expected an integer, a list, 'same' or 'valid', got 'sane'", "did you mean 'same'?"),
    "item of a list": ("input: [8, 8, 2]", "input: [8, §x, 2]", "net.input.1", "expected an integer, got 'x'", ""),
    "size 0": ("input: [8, 8, 2]", "input: [8, §0, 2]", "net.input.1", "expected at least 1, got 0", ""),
    "mapping for a list": ("input: [8, 8, 2]", "input: §{h: 8}", "net.input", "expected a list, got a mapping", ""),
    "list for a mapping": ("{epochs: 2, checkpoint: {every: 7 steps, best: val.accuracy}}", "§[2]", "train", "expected a mapping of keys, got a list", ""),
    "not a duration": ("warmup: 1 epochs", "warmup: §5", "schedule.warmup", "expected a duration like '5 epochs' or '300 steps', got 5", ""),
    "device": ("device: cpu", "device: §gpu", "device", "expected auto, cpu, cuda or cuda:N, got 'gpu'", ""),
    "version": ("layernet: 1", "layernet: §2", "layernet", "expected 1, got 2", ""),
    "fraction": ("fraction: 0.2", "fraction: §1.0", "data.val.fraction", "expected less than 1.0, got 1.0", ""),
    "constructor objects": ("out_channels: 4", "out_channels: §0", "net.layers.0.out_channels", "out_channels must be at least 1, got 0", ""),
    "constructor objects deep inside": ("{lr_mult: 2}", "{§lr_mul: 2}", "optimizer.groups.head.*.lr_mul", "unknown setting 'lr_mul'", "did you mean 'lr_mult'?"),
    "layer name": ("name: head", "name: §'the head'", "net.layers.4.name", "expected a name of letters, digits, _ and -", ""),
    "repeat": ("kernel_size: 2}", "kernel_size: 1, repeat: §0}", "net.layers.1.repeat", "expected at least 1, got 0", ""),
    # what must hold between parts
    "two layers of one name": ("name: head", "name: §conv1", "net.layers.4.name", "another layer in line 12 is called 'conv1'", "own name"),
    "two layers of one name in one level": ("- Flatten\n", "- {type: Residual, body: [{type: ReLU, name: §conv1}]}\n    - Flatten\n", "net.layers.3.body.0.name", "holds two layers called 'conv1'", "own name"),
    "setting of a group": ("{lr_mult: 2}", "{lr_mult: §-2}", "optimizer.groups.head.*.lr_mult", "lr_mult must be a finite number of at least 0", ""),
    "shape mismatch of layers": ("§{type: MaxPool2d, kernel_size: 2}", "§{type: MaxPool2d, kernel_size: 9}", "net.layers.1", "it gets (6, 6, 4) from layer conv1, Conv2d in line 12", ""),
    "shape mismatch in a branch": ("[Flatten, {type: Linear,", "[Flatten, §{type: Conv2d, out_channels: 2, kernel_size: 1}, {type: Linear,", "net.layers.2.layers.1", "layer aux.conv2d_1 (Conv2d)", ""),
    "shape mismatch of data": ("input: [8, 8, 2]", "input: §[8, 8, 1]", "net.input", "takes [8, 8, 1], but data.train (FakeData) gives [8, 8, 2]", "set net.input: [8, 8, 2]"),
    "shape mismatch of test data": ("test: {type: FakeData, shape: [8, 8, 2]", "test: §{type: FakeData, shape: [9, 9, 3]", "data.test", "data.test (FakeData) gives [8, 8, 3] after the transforms", ""),
    "transform that does not fit": ("transforms: [{type: RandomCrop, size: 8}]", "transforms: [§{type: RandomCrop, size: 9}]", "data.train.transforms.0", "does not fit into an image of 8x8", "padding"),
    "unknown output": ("on: aux", "on: §aus", "loss.1.on", "the net has no output called 'aus'", "did you mean 'aux'?"),
    "pattern of a penalty": ('params: "*.weight"', 'params: §"*.wieght"', "loss.2.params", "no parameter matches '*.wieght'", "did you mean '*.weight'?"),
    "pattern of a group": ('{"head.*":', '{§"haed.*":', "optimizer.groups.haed.*", "no parameter matches 'haed.*'", "did you mean 'head.*'?"),
    "one setting twice": ('{"head.*": {lr_mult: 2}}', '{"head.*": {lr_mult: 2}, "*.bias": {§lr_mult: 1}}', "optimizer.groups.*.bias.lr_mult", "'*.bias' and 'head.*' both set lr_mult of head.bias", ""),
    "too few outputs": ("§{type: Linear, name: head, out_features: 4}", "§{type: Linear, name: head, out_features: 3}", "net.layers.4", "output has 3 values, but data.train (FakeData) has 4 classes", ""),
    "numbers from labels": ("  - CrossEntropy\n", "  - §MSE\n", "loss.0", "MSE takes numbers as targets", "use CrossEntropy"),
    "class weights": ("  - CrossEntropy\n", "  - {type: CrossEntropy, class_weight: §[1, 2]}\n", "loss.0.class_weight", "class_weight has 2 numbers", ""),
    "a penalty on an output": ("{type: L2Penalty,", "{§on: aux, type: L2Penalty,", "loss.2.on", "unknown key 'on'", ""),
    "two objectives of one name": ("on: aux,", "on: aux, name: x}\n  - {type: CrossEntropy, name: §x,", "loss.2.name", "another objective is called 'x'", ""),
    "best without val": ("  val: {fraction: 0.2}\n", "", "train.checkpoint.best", "there is no data.val", "add val"),
    "a plateau of what is not measured": ("schedule: {type: Cosine, warmup: 1 epochs}", "schedule: {type: Plateau, watch: §val.acuracy}", "schedule.watch", "Plateau cannot follow 'val.acuracy'", "did you mean 'val.accuracy'?"),
    "a plateau on train": ("schedule: {type: Cosine, warmup: 1 epochs}", "schedule: {type: Plateau, watch: §train.loss}", "schedule.watch", "Plateau cannot follow 'train.loss'", "val.loss"),
    "best by what is not measured": ("best: val.accuracy", "best: §val.acuracy", "train.checkpoint.best", "cannot be chosen by 'val.acuracy'", "did you mean 'val.accuracy'?"),
    "top_k": ("metrics: [accuracy]", "metrics: [{type: accuracy, top_k: §5}]", "metrics.0.top_k", "top_k is 5, but the net has 4 outputs", ""),
    "metric twice": ("metrics: [accuracy]", "metrics: [accuracy, §accuracy]", "metrics.1", "accuracy is given twice", ""),
    "a metric on an unknown output": ("metrics: [accuracy]", "metrics: [accuracy, {type: accuracy, on: §aus}]", "metrics.1.on", "the net has no output called 'aus'", "did you mean 'aux'?"),
    "top_k of a side output": ("metrics: [accuracy]", "metrics: [{type: accuracy, on: aux, top_k: §5}]", "metrics.0.top_k", "top_k is 5, but aux has 4 outputs", ""),
    "unknown ref": ("- Flatten\n", "- {ref: §conv2}\n", "net.layers.3.ref", "there is no layer called 'conv2'", "did you mean 'conv1'?"),
    "arguments beside ref": ("- {type: MaxPool2d, kernel_size: 2}", "- {ref: conv1, §stride: 2}", "net.layers.1.stride", "'stride' cannot stand beside ref", ""),
    # text
    "tab": ("  batch_size: 16", "§\tbatch_size: 16", "", "a tab in the indentation", "spaces"),
    "tag": ("seed: 3", "seed: §!!str 3", "", "the tag !!str is not allowed", ""),
    "python tag": ("seed: 3", "seed: §!!python/object/apply:os.getcwd 3", "", "is not allowed", ""),
    "second document": ("net:\n", "§---\nnet:\n", "", "a second document", ""),
    "unclosed quote": ("best: val.accuracy", "best: §'val.accuracy", "", "never closed", ""),
    "unquoted pattern": ('params: "*.weight"', "params: *§.weight", "", "* begins the name of an anchor", "quotes"),
    "undefined alias": ("input: [8, 8, 2]", "input: §*shape", "", "*shape names no anchor", ""),
    "control character": ("seed: 3", "seed: 3 # §\x07", "", "a control character, U+0007", ""),
    "byte order mark": ("layernet: 1", "§\ufefflayernet: 1", "", "a byte order mark", "UTF-8 without BOM"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_problem_at_its_place(name: str) -> None:
    old, new, path, message, hint = CASES[name]
    old = old.replace("§", "")
    assert GOOD.count(old) >= 1, old
    text, marks = marked(GOOD.replace(old, new, 1))
    problems = problems_of(text)
    first = problems[0]
    assert message in first.message
    assert hint in first.hint
    assert first.path == path
    if marks:
        assert first.mark == marks[0]
    assert first.mark is not None
    assert len(problems) == 1, problems
    assert str(first).startswith(f"bad.yaml:{first.mark.line}:{first.mark.column}: ")


def test_a_plateau_needs_val() -> None:
    text = GOOD.replace("  val: {fraction: 0.2}\n", "").replace(", best: val.accuracy", "")
    for schedule, path in [("Plateau", "schedule"), ("{type: Plateau, watch: val.loss}", "schedule.watch")]:
        (problem,) = problems_of(text.replace("{type: Cosine, warmup: 1 epochs}", schedule))
        followed = "val.loss" if "watch" in schedule else "val.accuracy"
        assert problem.message == f"Plateau follows {followed}, but there is no data.val"
        assert (problem.hint, problem.path) == ("add val: {fraction: 0.1} to data", path)
        assert problem.mark is not None


def test_all_mistakes_come_at_once_in_the_order_of_the_text() -> None:
    text = GOOD
    for old, new in [
        ("seed: 3", "seed: three"),
        ("batch_size: 16", "batch_size: 16\n  batch_size: 17"),
        ("out_channels: 4", "out_chanels: 4"),
        ("- Flatten\n", "- Flaten\n"),
        ("warmup: 1 epochs", "warmup: soon"),
        ("lr: 0.1", "lr: .inf"),
        ("best: val.accuracy", "best: val.accuracy, bets: 1"),
    ]:
        text = text.replace(old, new, 1)
    problems = problems_of(text)
    assert [problem.path for problem in problems] == [
        "seed",
        "",
        "net.layers.0.out_chanels",
        "net.layers.3",
        "optimizer.lr",
        "schedule.warmup",
        "train.checkpoint.bets",
    ]
    lines = [problem.mark.line for problem in problems if problem.mark]
    assert lines == sorted(lines)


def test_checks_between_parts_run_though_others_are_broken() -> None:
    text, marks = marked(
        GOOD.replace("lr: 0.1", "lr: §fast")
        .replace("input: [8, 8, 2]", "input: §[8, 8, 3]")
        .replace("on: aux", "on: §aix")
    )
    problems = problems_of(text)
    assert sorted(str(p.mark) for p in problems) == sorted(str(m) for m in marks)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"", ":1:1: ", "the config is empty"),
        (b"# nothing\n", ":1:1: ", "the config is empty"),
        (b"- a\n- b\n", ":1:1: ", "must be a mapping of keys, got a list"),
        (b"just text\n", ":1:1: ", "must be a mapping of keys, got 'just text'"),
        (b"a: 1\nb: \xff\n", ":2:4: ", "the byte 0xff is not UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1:1: ", "UTF-16"),
        (b"\xef\xbb\xbfa: 1\n", ":1:1: ", "byte order mark"),
        (b"a: 1\nb: \x00\n", ":2:4: ", "U+0000"),
        (b"#" * 2_000_000, ":1:1: ", "larger than"),
    ],
)
def test_files_that_are_no_config(content: bytes, place: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}{place}")
    assert message in str(caught.value)


def test_an_absent_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"No such file or directory; did you mean '.*digits\.yaml'"):
        load_config(tmp_path / "digit.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_absent_data_is_a_located_problem_of_its_own(tmp_path: Path) -> None:
    text = GOOD.replace("shape: [8, 8, 2]", "shape: [28, 28, 1]").replace("input: [8, 8, 2]", "input: [28, 28, 1]")
    text, marks = marked(
        text.replace(
            "train: {type: FakeData, shape: [28, 28, 1], classes: 4, length: 200",
            f"train: §{{type: MNIST, root: {tmp_path}",
        )
        .replace(
            "test: {type: FakeData, shape: [28, 28, 1], classes: 4",
            f"test: §{{type: MNIST, split: test, root: {tmp_path}",
        )
        .replace(", transforms: [{type: RandomCrop, size: 8}]", "")
        .replace("out_features: 4", "out_features: 10")
    )
    config = load_config_text(text, "bad.yaml")  # building the net needs no data
    with pytest.raises(ConfigError) as caught:
        check_data(config)
    assert [p.mark for p in caught.value.problems] == marks
    assert [p.path for p in caught.value.problems] == ["data.train", "data.test"]
    assert "train-images-idx3-ubyte" in caught.value.problems[0].message
