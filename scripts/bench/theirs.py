"""PyTorch's side of a comparison: the same nets and steps, written as its users write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

PADDING = 4
"""Pixels around an image that is cropped at random: as in the configs."""


class BasicBlock(nn.Module):
    """torchvision's."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv(ins, outs, stride), nn.ReLU(inplace=True), *conv(outs, outs))
        self.shortcut = nn.Sequential(
            *([nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs)] if stride > 1 or ins != outs else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(body(x) + shortcut(x))."""
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


def conv(ins: int, outs: int, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution and its norm."""
    return [nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs)]


def residual(widths: list[int], blocks: int, stem: int) -> nn.Module:
    """Stages of `blocks` blocks each; all but the first halve the image."""
    layers, ins = [*conv(3, stem), nn.ReLU(inplace=True)], stem
    for stage, outs in enumerate(widths):
        for block in range(blocks):
            layers.append(BasicBlock(ins, outs, 2 if stage and not block else 1))
            ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, 10))


def vgg() -> nn.Module:
    """64-64, 128-128, 256-256 with norms."""
    layers, ins = [], 3
    for outs in (64, 128, 256):
        for _ in range(2):
            layers += [*conv(ins, outs), nn.ReLU(inplace=True)]
            ins = outs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * ins, 10))


def cuda_convnet() -> nn.Module:
    """The net of 80 seconds."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(inplace=True), nn.Linear(64, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """Caffe's."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(inplace=True), nn.Linear(500, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    """784-1024-1024-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 1024), nn.ReLU(inplace=True), nn.Linear(1024, 1024), nn.ReLU(inplace=True),
        nn.Linear(1024, 10),
    )  # fmt: skip


def tiny() -> nn.Module:
    """For the tests."""
    return nn.Sequential(
        *conv(3, 4), nn.ReLU(inplace=True), BasicBlock(4, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cuda_convnet": cuda_convnet,
    "vgg": vgg,
    "resnet20": lambda: residual([16, 32, 64], 3, 16),
    "resnet18": lambda: residual([64, 128, 256, 512], 2, 64),
    "tiny": tiny,
}


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images in memory as bytes, cropped and flipped at random where asked, and normalised: example by example."""

    def __init__(self, shape: tuple[int, int, int], augmented: bool, length: int = 1024) -> None:
        self.images = torch.randint(0, 256, (length, *shape), dtype=torch.uint8)
        self.labels = torch.arange(length) % 10
        self.augmented = augmented

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augmented:
            _, height, width = image.shape
            top, left, flip = torch.randint(0, 2 * PADDING + 1, (3,)).tolist()
            image = functional.pad(image, (PADDING,) * 4)[:, top : top + height, left : left + width]
            if flip % 2:
                image = image.flip(-1)
        return (image.float() / 255 - 0.5) / 0.25, self.labels[index]


class Job:
    """Steps of one kind: `step()` does one, `facts` says on what."""

    def __init__(self, spec: dict[str, Any]) -> None:
        torch.set_num_threads(spec["threads"])
        self.net = NETS[spec["net"]]()
        height, width, channels = spec["input"]
        self.format = torch.channels_last if spec["layout"] == "channels_last" else torch.contiguous_format
        self.net = self.net.to(memory_format=self.format)
        examples = spec["examples"]
        self.x = torch.rand(examples, channels, height, width).contiguous(memory_format=self.format)
        self.target = torch.randint(0, 10, (examples,))
        self.facts = {
            "parameters": sum(param.numel() for param in self.net.parameters()),
            "examples": examples,
            "torch": torch.__version__,
        }
        if spec["kind"].startswith("inference"):
            self.net.eval()
            self.step = self.predict
            return
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-4, momentum=0.9, fused=True)
        if spec["kind"] == "data":
            images = Images((channels, height, width), spec["augmented"])
            workers = spec["workers"]
            self.loader = DataLoader(
                images, examples, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
            )
            self.batches = self.stream()
        self.step = self.train_on_data if spec["kind"] == "data" else lambda: self.train(self.x, self.target)

    @torch.inference_mode()
    def predict(self) -> None:
        """One answer."""
        self.net(self.x)

    def train(self, x: Tensor, target: Tensor) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.net(x), target)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def train_on_data(self) -> None:
        """One update on the next batch from the loader."""
        x, target = next(self.batches)
        self.train(x.contiguous(memory_format=self.format), target)

    def stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end."""
        while True:
            yield from self.loader
