"""A first config, commented and ready to run, for data of a shape and a number of classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from layernet.config.marks import inline
from layernet.errors import UsageError
from layernet.report.subject import Subject

Kind = Literal["mlp", "convnet", "resnet"]
KINDS: tuple[Kind, ...] = ("mlp", "convnet", "resnet")

_COLUMN = 52  # where comments begin
_LARGE = 96  # images that are halved twice before a residual net begins

Line = tuple[str, str]
"""(text, comment)."""


def starter(subject: Subject, kind: Kind | None, command: str, modeline: str) -> str:
    """The text of the config. Raises UsageError for a net that does not suit the shape."""
    shape = _image(subject)
    images = len(shape) == 3
    kind = kind or ("convnet" if images and min(shape[:2]) >= 4 else "mlp")
    if kind != "mlp" and not images:
        raise UsageError(f"a {kind} is for images, shape {list(subject.shape)} is none", "take --kind mlp")
    if kind != "mlp" and min(shape[:2]) < 4:
        raise UsageError(f"images of {shape[0]} x {shape[1]} are too small for a {kind}", "take --kind mlp")
    what = f"{subject.classes} classes" if subject.classes else f"{subject.outputs} to predict"
    head = [
        modeline,
        f"# {_CALLED[kind]} for {subject.name}: examples of shape {' x '.join(map(str, subject.shape))}, {what}.",
        f"# Made by `{command}`; every key is explained in docs/config.md, every layer by `layernet layers NAME`.",
        "layernet: 1",
        "seed: 1",
        "",
    ]
    width = [("vars: {width: 256}", "${width} below is this; --set vars.width=512 changes it"), ("", "")]
    net = [*(width if kind == "mlp" else []), *_net(subject, shape, kind)]
    lines = [*_data(subject), ("", ""), *net, ("", ""), *_training(subject, kind)]
    return "\n".join([*head, *(_commented(text, comment) for text, comment in lines)]) + "\n"


_CALLED = {"mlp": "A multilayer perceptron", "convnet": "A convolutional net", "resnet": "A residual net"}


def _commented(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN}}  # {comment}" if comment else text


def _image(subject: Subject) -> tuple[int, ...]:
    """The shape that layers see: images without a channel axis get one."""
    return (*subject.shape, 1) if _lacks_channels(subject) else subject.shape


def _lacks_channels(subject: Subject) -> bool:
    return subject.train["type"] == "Npz" and len(subject.shape) == 2


def _data(subject: Subject) -> list[Line]:
    lines: list[Line] = [("data:", ""), ("  train:", "")]
    items = list(subject.train.items())
    lines += [(f"    {key}: {inline(value)}", subject.note if key == "type" else "") for key, value in items]
    if subject.transforms:
        lines.append(("    transforms:", "of batches; val and test use them too"))
        lines += [(f"      - {inline(each)}", note) for each, note in subject.transforms]
    if subject.val:
        lines.append((f"  val: {inline(subject.val)}", "measured during training"))
    else:
        share = ", the same share of every class" if subject.classes else ""
        lines.append(("  val: {fraction: 0.1}", f"set apart from train{share}"))
    if subject.test:
        lines.append((f"  test: {inline(subject.test)}", "measured once, at the end"))
    lines.append(("  batch_size: 64", ""))
    return lines


def _net(subject: Subject, shape: tuple[int, ...], kind: Kind) -> list[Line]:
    lines: list[Line] = [
        ("net:", ""),
        (f"  input: {list(subject.shape)}", "one example, without the batch; channels last"),
        ("  layers:", ""),
    ]
    layers: list[Line] = []
    if _lacks_channels(subject):
        layers.append(("{type: Unsqueeze, dim: -1}", f"-> {list(shape)}"))
    layers += _NETS[kind](shape)
    outputs = subject.classes or subject.outputs
    layers.append(
        (f"{{type: Linear, name: head, out_features: {outputs}}}", "a score for each class" * bool(subject.classes))
    )
    return lines + [(f"    - {text}", comment) for text, comment in layers]


def _mlp(shape: tuple[int, ...]) -> list[Line]:
    layers: list[Line] = [("Flatten", "")] if len(shape) > 1 else []
    for name in ("hidden1", "hidden2"):
        linear = f'{{type: Linear, name: {name}, out_features: "${{width}}"}}'  # editors need the quotes in braces
        layers += [(linear, ""), ("ReLU", ""), ("{type: Dropout, p: 0.2}", "")]
    return layers


def _convnet(shape: tuple[int, ...]) -> list[Line]:
    """Convolutions of more and more channels, each of which halves an image, down to about 4 pixels."""
    layers: list[Line] = []
    size, channels = list(shape[:2]), 32
    for stage in range(1, 6):
        conv = {"type": "Conv2d", "name": f"conv{stage}", "out_channels": channels, "kernel_size": 3, "padding": "same"}
        norm = "adds its own bias" if stage == 1 else ""
        layers += [(inline({**conv, "bias": False}), ""), ("BatchNorm", norm), ("ReLU", "")]
        if min(size) < 8:
            break
        size = [side // 2 for side in size]
        layers.append(("{type: MaxPool2d, kernel_size: 2}", f"-> {[*size, channels]}"))
        channels = min(2 * channels, 256)
    return [*layers, ("GlobalAvgPool2d", f"-> [{conv['out_channels']}]")]


def _resnet(shape: tuple[int, ...]) -> list[Line]:
    """Basic blocks, as for CIFAR-10 (He et al. 2015); large images are first made smaller, as for ImageNet."""
    large = min(shape[:2]) >= _LARGE
    channels = 64 if large else 16
    stem: dict[str, Any] = {"type": "Conv2d", "name": "stem", "out_channels": channels}
    stem |= {"kernel_size": 7, "stride": 2, "padding": 3} if large else {"kernel_size": 3, "padding": 1}
    layers: list[Line] = [(inline({**stem, "bias": False}), ""), ("BatchNorm", "adds its own bias"), ("ReLU", "")]
    if large:
        layers.append(("{type: MaxPool2d, kernel_size: 3, stride: 2, padding: 1}", ""))
    layers.append((f"{{type: BasicBlock, name: stage1, channels: {channels}, repeat: 2}}", "stage1.0, stage1.1"))
    for stage in range(2, 5 if large else 4):
        channels *= 2
        layers.append(
            (f"{{type: BasicBlock, name: stage{stage}_down, channels: {channels}, stride: 2}}", "half the size")
        )
        layers.append((f"{{type: BasicBlock, name: stage{stage}, channels: {channels}}}", ""))
    return [*layers, ("GlobalAvgPool2d", f"-> [{channels}]")]


_NETS: dict[Kind, Callable[[tuple[int, ...]], list[Line]]] = {"mlp": _mlp, "convnet": _convnet, "resnet": _resnet}


def _training(subject: Subject, kind: Kind) -> list[Line]:
    lines: list[Line] = [("loss: CrossEntropy", ""), ("metrics: [accuracy]", "the first chooses the best checkpoint")]
    if not subject.classes:
        lines = [("loss: MSE", "")]
    if kind == "mlp":
        lines += [("optimizer: {type: AdamW, lr: 1e-3, weight_decay: 0.01}", ""), ("schedule: Cosine", "")]
    else:
        nesterov = ", nesterov: true" if kind == "resnet" else ""
        lines.append((f"optimizer: {{type: SGD, lr: 0.1, momentum: 0.9{nesterov}, weight_decay: 5e-4}}", ""))
        lines.append(("schedule: {type: Cosine, warmup: 1 epochs}", "the learning rate rises for an epoch, then falls"))
    epochs = {"mlp": 20, "convnet": 30, "resnet": 60}[kind]
    return [*lines, (f"train: {{epochs: {epochs}}}", "--set train.epochs=5 for a first look")]
