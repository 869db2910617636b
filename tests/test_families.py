"""Every built-in name, in a net that trains two steps from YAML: the loss is finite, and every parameter moves."""

from __future__ import annotations

import gzip
import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from layernet.config.experiment import load_config_text
from layernet.config.names import BUILT_IN, Kind
from layernet.data.cifar import CIFAR10, CIFAR100
from layernet.train.experiment import Experiment

KINDS: list[Kind] = ["layer", "loss", "optimizer", "schedule", "average", "dataset", "transform", "init"]
NOT_IN_CONFIGS = {"Arrays"}  # arrays are not written in YAML

BASE = """
data: {train: {type: FakeData, shape: [6], classes: 3, length: 16}, batch_size: 8}
net: {input: [6], layers: [{type: Linear, out_features: 5}, Tanh, {type: Linear, out_features: 3}]}
loss: CrossEntropy
optimizer: {type: SGD, lr: 0.05}
train: {steps: 2}
"""
IMAGES = "{train: {type: FakeData, shape: [8, 8, 3], classes: 3, length: 16}, batch_size: 8}"
VECTORS = "[{type: Linear, out_features: 8}, %s, {type: Linear, out_features: 3}]"
PLANES = "[{type: Conv2d, out_channels: 4, kernel_size: 3, padding: 1}, %s, Flatten, {type: Linear, out_features: 3}]"


def on_vectors(*layers: str) -> dict[str, str]:
    return {"net": f"{{input: [6], layers: {VECTORS % ', '.join(layers)}}}"}


def on_images(*layers: str) -> dict[str, str]:
    return {"data": IMAGES, "net": f"{{input: [8, 8, 3], layers: {PLANES % ', '.join(layers)}}}"}


def activations(*names: str) -> dict[str, str]:
    """One beside the other: behind one another they would fade out."""
    return on_vectors(f"{{type: Concat, branches: [{', '.join(f'[{name}]' for name in names)}]}}")


LAYERS = {
    "linear": on_vectors(
        "Scale", "Bias", "{type: WeightNorm, layer: {type: Linear, out_features: 7, weight_init: xavier_normal}}"
    ),
    "embedding": {
        "data": "{train: {type: Npz, path: indices.npz}, batch_size: 8}",
        "net": "{input: [4], layers: [{type: Embedding, num_embeddings: 3, embedding_dim: 5}, Flatten, "
        "{type: Linear, out_features: 3}]}",
    },
    "convolution": on_images(
        "{type: Conv2d, out_channels: 4, kernel_size: 3, groups: 2}",
        "{type: Conv2d, out_channels: 8, kernel_size: 3, groups: 4, padding: same}",
        "{type: ConvTranspose2d, out_channels: 4, kernel_size: 2, stride: 2}",
        "{type: SeparableConv2d, out_channels: 4, kernel_size: 3, stride: 2}",
        "{type: Local2d, out_channels: 3, kernel_size: 2}",
    ),
    "sequences": {
        "data": "{train: {type: FakeData, shape: [9, 2], classes: 3, length: 16}, batch_size: 8}",
        "net": "{input: [9, 2], layers: [{type: Conv1d, out_channels: 4, kernel_size: 3}, {type: MaxPool1d, "
        "kernel_size: 2}, {type: AvgPool1d, kernel_size: 2, ceil_mode: true}, Flatten, {type: Linear, "
        "out_features: 3}]}",
    },
    "pooling": on_images(
        "{type: MaxPool2d, kernel_size: 3, stride: 2, ceil_mode: true, ties: all}",
        "{type: AvgPool2d, kernel_size: 2, stride: 1, padding: 1, count_include_pad: false}",
        "{type: MaxAbsPool2d, kernel_size: 2, stride: 1}",
        "{type: Maxout, size: 2}",
        "{type: AdaptiveMaxPool2d, output_size: 3}",
        "{type: AdaptiveAvgPool2d, output_size: 2}",
    ),
    "pooling of whole images": on_images("{type: Concat, branches: [[GlobalAvgPool2d], [GlobalMaxPool2d]]}"),
    "normalisation": on_images(
        "BatchNorm",
        "{type: GroupNorm, num_groups: 2}",
        "{type: InstanceNorm2d, affine: true, track_running_stats: true}",
        "{type: LocalResponseNorm, size: 3}",
        "{type: LocalResponseNorm, size: 3, region: within_channel}",
        "{type: LocalContrastNorm, size: 3}",
        "LayerNorm",
        "RMSNorm",
    ),
    "rectifiers": activations(
        "ReLU",
        "{type: LeakyReLU, negative_slope: 0.1}",
        "PReLU",
        "{type: Hardtanh, min_val: 0.0, max_val: 4.0}",
        "ReLU6",
        "ELU",
        "SELU",
        "GELU",
        "{type: GELU, approximate: tanh}",
        "SiLU",
        "Hardswish",
        "Mish",
        "Softplus",
    ),
    "squashing": activations(
        "Sigmoid", "Tanh", "ScaledTanh", "Tanhshrink", "Softsign", "LogSigmoid", "Softmax", "LogSoftmax", "GLU"
    ),
    "arithmetic": activations(
        "{type: Affine, scale: 2.0, shift: 1.0}",
        "Abs",
        "Square",
        "Square, {type: Sqrt, shift: 1.0}",
        "Square, {type: Log, shift: 1.0}",
        "Exp",
        "{type: Power, power: 3.0}",
    ),
    "regularising": on_images(
        "{type: Dropout, p: 0.2}",
        "{type: Dropout2d, p: 0.2}",
        "{type: Residual, body: [{type: Conv2d, out_channels: 4, kernel_size: 1}, {type: DropPath, p: 0.3}]}",
        "GaussianNoise",
    ),
    "shape": on_images(
        "{type: Permute, dims: [1, 0, 2]}",
        "{type: Unsqueeze, dim: 0}",
        "Squeeze",
        "{type: Slice, start: 0, stop: 4}",
        "{type: PixelUnshuffle, downscale_factor: 2}",
        "{type: PixelShuffle, upscale_factor: 2}",
        "{type: Reshape, shape: [4, 16, 4]}",
    ),
    "image": {
        "data": IMAGES,
        "net": "{input: [8, 8, 3], layers: [{type: Concat, branches: [[RGBToYUV], [RGBToLab]]}, "
        "{type: GaussianBlur, kernel_size: 3, sigma: 1.0}, "
        + (
            PLANES % "{type: ZeroPad2d, padding: 1}, {type: ReflectionPad2d, padding: 2}, {type: ReplicationPad2d, "
            "padding: 1}, {type: Crop, size: 9}, {type: Nailbed, stride: 2}, {type: Upsample, scale_factor: 2}, "
            "{type: Upsample, size: 7, mode: bilinear}, {type: Resize, scale: 1.5}"
        )[1:]
        + "}",
    },
    "composites": on_vectors(
        "{type: Sequential, layers: [{type: Linear, out_features: 6}, Tanh]}",
        "{type: Residual, body: [{type: Linear, out_features: 6}]}",
        "{type: Concat, branches: [[{type: Linear, out_features: 2}], []]}",
        "{type: Add, branches: [[{type: Linear, out_features: 4}], [{type: Linear, out_features: 4}]]}",
        "{type: Multiply, branches: [[{type: Linear, out_features: 4}], [Sigmoid]]}",
        "{type: Maximum, branches: [[], [{type: Linear, out_features: 4}]]}",
        "{type: Recompute, body: [{type: Linear, out_features: 4}, BatchNorm]}",
    ),
    "auxiliary head": {
        **on_vectors("{type: AuxiliaryHead, name: aux, layers: [{type: Linear, out_features: 3}]}"),
        "loss": "[CrossEntropy, {type: CrossEntropy, 'on': aux, weight: 0.3}]",
    },
    "blocks": on_images(
        "{type: BasicBlock, channels: 4, stride: 2}",
        "{type: Bottleneck, channels: 2}",
        "{type: InceptionBlock, conv1x1: 2, reduce3x3: 2, conv3x3: 2, reduce5x5: 2, conv5x5: 2, pool: 2}",
        "{type: DenseBlock, num_layers: 2, growth: 2}",
    ),
    **{
        f"init {name}": on_vectors(f"{{type: Linear, out_features: 6, weight_init: {arguments}}}")
        for name, arguments in {
            **{name: name for name in BUILT_IN["init"]},
            "constant": "{type: constant, value: 0.1}",
        }.items()
    },
}

MANY = "{train: {type: Npz, path: many_labels.npz, classes: [red, round, ripe]}, batch_size: 8}"
LOSSES = {
    "CrossEntropy": {"loss": "{type: CrossEntropy, label_smoothing: 0.1, class_weight: [1.0, 2.0, 1.0]}"},
    "CrossEntropy on mixed labels": {
        "data": IMAGES.replace("16}", "16, transforms: [{type: MixUp, num_classes: 3}]}"),
        "net": on_images("ReLU")["net"],
    },
    "NLL": {**on_vectors("{type: Linear, out_features: 3}", "LogSoftmax"), "loss": "NLL"},
    "Focal": {"loss": "Focal"},
    "MultiMargin": {"loss": "MultiMargin"},
    "BCEWithLogits of several labels": {"data": MANY, "loss": "{type: BCEWithLogits, pos_weight: [1.0, 2.0, 3.0]}"},
    "BCEWithLogits of several columns": {
        "data": "{train: {type: Csv, path: it.csv, label: [red, round, ripe], target: number}, batch_size: 8}",
        "loss": "BCEWithLogits",
    },
    "BCEWithLogits on mixed labels": {
        "data": IMAGES.replace("16}", "16, transforms: [{type: CutMix, num_classes: 3}]}"),
        "net": on_images("ReLU")["net"],
        "loss": "BCEWithLogits",
    },
    "SigmoidFocal of several labels": {"data": MANY, "loss": "SigmoidFocal"},
    "Dice": {
        "data": "{train: {type: Npz, path: maps.npz}, batch_size: 8}",
        "net": "{input: [4, 4, 2], layers: [{type: Conv2d, out_channels: 3, kernel_size: 1}]}",
        "loss": "[Dice, {type: CrossEntropy, weight: 0.5}]",
    },
    "Hinge": {"data": "{train: {type: Npz, path: sides.npz}, batch_size: 8}", "loss": "Hinge"},
    "KLDiv": {
        **on_vectors("{type: Linear, out_features: 3}", "LogSoftmax"),
        "data": "{train: {type: Npz, path: shares.npz}, batch_size: 8}",
        "loss": "KLDiv",
    },
    **{
        name: {"data": "{train: {type: Npz, path: shares.npz}, batch_size: 8}", "loss": name}
        for name in ("MSE", "L1", "SmoothL1", "Huber", "SumOfSquares")
    },
    "penalties": {"loss": "[CrossEntropy, {type: L2Penalty, weight: 1e-3}, {type: L1Penalty, weight: 1e-3}]"},
}
LOSSES["NLL"]["net"] = LOSSES["KLDiv"]["net"] = "{input: [6], layers: [{type: Linear, out_features: 3}, LogSoftmax]}"

OPTIMIZERS = {
    **{name: {"optimizer": f"{{type: {name}, lr: 0.01}}"} for name in BUILT_IN["optimizer"]},
    "Lion": {"optimizer": "{type: Lion, lr: 0.01, betas: [0.9, 0.5]}"},  # by default two steps may cancel
    "Muon with a rest": {"optimizer": "{type: Muon, lr: 0.01, rest: {type: SGD, lr: 0.05, momentum: 0.9}}"},
    "max_norm and norm": {
        "optimizer": "{type: SGD, lr: 0.05, groups: {linear_1.weight: {max_norm: 0.5}, linear_2.weight: {norm: 1.0}, "
        "'*.bias': {lr_mult: 2}}}"
    },
}
SCHEDULES = {
    name: {"schedule": text}
    for name, text in {
        "Constant": "{type: Constant, warmup: 1 steps}",
        "Step": "{type: Step, every: 1 steps}",
        "MultiStep": "{type: MultiStep, at: [1 steps]}",
        "Exponential": "{type: Exponential, gamma: 0.9}",
        "Cosine": "Cosine",
        "CosineRestarts": "{type: CosineRestarts, period: 5 steps}",
        "OneCycle": "OneCycle",
        "Polynomial": "Polynomial",
        "Inv": "{type: Inv, gamma: 0.1}",
        "SigmoidDecay": "{type: SigmoidDecay, gamma: 0.1, at: 3 steps}",
        "Decay": "{type: Decay, form: dexp, by: 10.0, steps: 2}",
    }.items()
}
SCHEDULES["Plateau"] = {
    "schedule": "{type: Plateau, patience: 0}",
    "data": "{train: {type: FakeData, shape: [6], classes: 3, length: 16}, val: {fraction: 0.25}, batch_size: 8}",
}
AVERAGES = {"EMA": {"average": "EMA"}, "SWA": {"average": "{type: SWA, start: 1 steps, every: 1 steps}"}}


def of_files(dataset: str, shape: str, classes: int) -> dict[str, str]:
    layers = f"[{{type: AvgPool2d, kernel_size: 4}}, Flatten, {{type: Linear, out_features: {classes}}}]"
    return {
        "data": f"{{train: {dataset}, batch_size: 8}}",
        "net": f"{{input: {shape}, layers: {layers}}}",
    }


DATASETS = {
    "Digits": of_files("Digits", "[8, 8, 1]", 10),
    "MNIST": of_files("{type: MNIST, root: mnist}", "[28, 28, 1]", 10),
    "FashionMNIST": of_files("{type: FashionMNIST, root: mnist}", "[28, 28, 1]", 10),
    "CIFAR10": of_files("{type: CIFAR10, root: cifar}", "[32, 32, 3]", 10),
    "CIFAR100": of_files("{type: CIFAR100, root: cifar, labels: coarse}", "[32, 32, 3]", 20),
    "ImageFolder": of_files("{type: ImageFolder, root: folder, size: 8}", "[8, 8, 3]", 2),
    "Csv": {"data": "{train: {type: Csv, path: labels.csv, classes: [a, b, c]}, batch_size: 8}"},
}

TRANSFORMS = {
    name: {
        "data": IMAGES.replace("16}", f"16, transforms: [{transform}]}}"),
        "net": f"{{input: [{size}, {size}, 3], layers: [Flatten, {{type: Linear, out_features: 3}}]}}",
    }
    for name, transform, size in [
        ("Normalize", "Normalize", 8),
        ("the mean image", "{type: Normalize, per: pixel, std: 1.0}", 8),
        ("RandomCrop", "{type: RandomCrop, size: 7, padding: 1}", 7),
        ("CenterCrop", "{type: CenterCrop, size: 6}", 6),
        ("RandomHorizontalFlip", "RandomHorizontalFlip", 8),
        ("Pad", "{type: Pad, padding: 1}", 10),
        ("Cutout", "{type: Cutout, size: 3}", 8),
        ("RandomResizedCrop", "{type: RandomResizedCrop, size: 6}", 6),
        ("ColorJitter", "{type: ColorJitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}", 8),
        ("ColorNoise", "ColorNoise", 8),
    ]
}

NETS = {**LAYERS, **LOSSES, **OPTIMIZERS, **SCHEDULES, **AVERAGES, **DATASETS, **TRANSFORMS}


def text_of(sections: dict[str, str]) -> str:
    given = yaml.safe_load(BASE) | {key: yaml.safe_load(value) for key, value in sections.items()}
    return yaml.safe_dump(given)


def names_in(value: Any) -> Iterator[str]:
    """Every text in a config, where a bare name may stand too."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from names_in(inner)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small files of every kind that a data set reads."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6)).astype("float32")
    shares = rng.dirichlet(np.ones(3), 16).astype("float32")
    for name, examples, targets in [
        ("indices", rng.integers(0, 3, (16, 4)), np.arange(16) % 3),
        ("many_labels", x, rng.random((16, 3)) < 0.5),
        ("sides", x, rng.choice([-1.0, 1.0], (16, 3))),
        ("shares", x, shares),
        ("maps", rng.normal(size=(16, 4, 4, 2)), rng.integers(0, 3, (16, 4, 4))),
    ]:
        np.savez(folder / f"{name}.npz", x=examples, y=targets)
    rows = [",".join(map(str, [*row, *(shares[i] > 0.3).astype(int)])) for i, row in enumerate(x)]
    (folder / "it.csv").write_text("\n".join(["a,b,c,d,e,f,red,round,ripe", *rows]))
    (folder / "labels.csv").write_text("\n".join(",".join(map(str, [*row, "abc"[i % 3]])) for i, row in enumerate(x)))
    (folder / "mnist").mkdir()
    for name, values in [("images-idx3", rng.integers(0, 256, (16, 28, 28))), ("labels-idx1", np.arange(16) % 10)]:
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        content = header + values.astype(np.uint8).tobytes()
        (folder / "mnist" / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    (folder / "cifar").mkdir()
    for name, label_bytes in [("train", 2), *((f"data_batch_{i}", 1) for i in range(1, 6))]:
        records = rng.integers(0, 256, (16, label_bytes + 3072))
        records[:, :label_bytes] = rng.integers(0, 10, (16, label_bytes))
        (folder / "cifar" / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    for label in ("cat", "dog"):
        (folder / "folder" / label).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "folder" / label / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", NETS)
def test_it_trains_two_steps(name: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    for cls in (CIFAR10, CIFAR100):
        monkeypatch.setattr(cls, "records_per_file", 16)
    experiment = Experiment(load_config_text(text_of(NETS[name]), folder=files))
    before = experiment.net.state_dict()
    run = experiment.train(tmp_path, console=Console(file=io.StringIO()))
    header, row = ((run / "metrics.csv").read_text().splitlines())[:2]
    loss = float(row.split(",")[header.split(",").index("train.loss")])
    assert math.isfinite(loss)
    for path, param in experiment.net.params().items():
        assert np.isfinite(param.data).all(), path
        assert (param.data != before[path]).any(), f"{path} did not move"


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_name_has_a_net(kind: Kind) -> None:
    used = {name for sections in NETS.values() for name in names_in(yaml.safe_load(text_of(sections)))}
    assert [name for name in BUILT_IN[kind] if name not in used | NOT_IN_CONFIGS] == []
