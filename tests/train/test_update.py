"""One update of many micro-batches is that of the batch which they make up; clipping is torch's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import layernet as ln
from layernet.config.experiment import load_config_text
from layernet.core.memory import kept
from layernet.data.loader import Batch
from layernet.errors import ConfigError, UsageError
from layernet.train.experiment import Experiment
from layernet.train.trainer import Trainer
from layernet.train.update import Update, clip, norm_of

CONFIG = """
seed: 5
dtype: float64
device: cpu
data:
  train: {type: FakeData, shape: [4, 4, 2], classes: 3, length: 50}
  batch_size: 8
net:
  input: [4, 4, 2]
  layers:
    - {type: Conv2d, out_channels: 3, kernel_size: 3}
    - Tanh
    - {type: AuxiliaryHead, name: aux, layers: [Flatten, {type: Linear, out_features: 3}]}
    - Flatten
    - {type: Linear, out_features: 3}
loss: CrossEntropy
optimizer: {type: Adam, lr: 0.01}
train: {epochs: 2}
"""
PLAIN: dict[str, Any] = {"type": "CrossEntropy"}
WEIGHTED = {"type": "CrossEntropy", "class_weight": [1.0, 0.25, 3.0]}
LOSSES = {
    "one": [PLAIN],
    "class weights": [WEIGHTED],
    "a penalty": [WEIGHTED, {"type": "L2Penalty", "weight": 0.1}],
    "heads that count alike": [PLAIN, {**PLAIN, "on": "aux", "weight": 0.3, "name": "side"}],
    "heads that count differently": [WEIGHTED, {**PLAIN, "on": "aux", "weight": 0.3, "name": "side"}],
    "one head counts nothing": [PLAIN, {**PLAIN, "ignore_index": 1, "on": "aux", "name": "side"}],
}


def trained(loss: Any, batch_size: int, accumulate: int, **more: Any) -> Trainer:
    overrides = {"loss": loss, "data.batch_size": batch_size, "train.accumulate": accumulate, **more}
    experiment = Experiment(load_config_text(CONFIG, overrides=overrides))
    trainer = Trainer(experiment.config, experiment.net, {"train": experiment.loaders["train"]})
    trainer.fit()
    return trainer


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 4), (1, 32), (5, 7), (50, 3)])
def test_micro_batches_make_the_update_of_one_batch(loss: Any, batch_size: int, accumulate: int) -> None:
    one = trained(loss, batch_size * accumulate, 1)  # the last group of 50 examples is short, and so is its last batch
    many = trained(loss, batch_size, accumulate)
    assert one.step == many.step == 2 * -(-50 // (batch_size * accumulate))
    for path, value in one.net.state_dict().items():
        np.testing.assert_allclose(many.net.state_dict()[path], value, rtol=0, atol=1e-10, err_msg=path)
    for a, b in zip(one.history, many.history, strict=True):
        assert {k: v for k, v in a.items() if "." in k} == pytest.approx({k: v for k, v in b.items() if "." in k})


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_groups_of_any_sizes_and_labels_that_do_not_count(sizes: list[int], seed: int, ignoring: bool) -> None:
    rng = np.random.default_rng(seed)
    net = ln.Net([ln.Flatten(), ln.Linear(4), ln.Tanh(), ln.Linear(3)], (2, 2, 1)).bind("cpu", "float64")
    x, target = rng.normal(size=(sum(sizes), 2, 2, 1)), rng.integers(0, 3, sum(sizes))
    loss = ln.CrossEntropy(class_weight=[0.5, 2.0, 1.0], ignore_index=1 if ignoring else None)
    objectives = [ln.Objective(loss, name="loss"), ln.Objective(ln.L2Penalty(), weight=0.01, name="l2")]

    def gradient(ends: list[int]) -> Any:
        update = Update(objectives, net, 0)
        for start, end in zip([0, *ends], ends, strict=False):
            update.forward(Batch(x[start:end], target[start:end], np.arange(start, end)))
            update.backward()
        update.finish()
        net.arena.settle()
        return net.arena.grad.copy(), update.total

    whole, total = gradient([sum(sizes)])
    parts, total_of_parts = gradient([int(n) for n in np.cumsum(sizes)])
    np.testing.assert_allclose(parts, whole, atol=1e-12)
    assert total_of_parts == pytest.approx(total)


def test_each_micro_batch_draws_its_own_mask_and_moves_the_statistics() -> None:
    seen: list[Any] = []

    class Watch(ln.Layer):
        def forward(self, x: Any, ctx: Any) -> Any:
            seen.append(ctx.rng.uniform((2,)).tolist())
            return x

        def backward(self, dy: Any, ctx: Any) -> Any:
            return dy

    norm = ln.BatchNorm(momentum=0.5)
    net = ln.Net([Watch(), norm, ln.Linear(2)], (1,)).bind("cpu", "float64")
    update = Update([ln.Objective(ln.MSE(), name="mse")], net, 7)
    for value in (2.0, 6.0):
        x = np.array([[value - 1], [value + 1]])
        update.forward(Batch(x, np.zeros((2, 2)), np.arange(2)))
        update.backward()
    update.finish()
    assert norm.running_mean.data.tolist() == [0.0]
    update.update_buffers()
    assert norm.running_mean.data.tolist() == [(0 * 0.5 + 2 * 0.5) * 0.5 + 6 * 0.5]
    assert seen[0] != seen[1]
    net.forward(x, training=True, step=7, micro_batch=1)
    assert seen[2] == seen[1]


def net_with_gradients(dtype: str, scale: float, seed: int = 0) -> ln.Net:
    net = ln.Net([ln.Linear(7), ln.ReLU(), ln.Linear(3), ln.Linear(2)], (5,)).bind("cpu", dtype)
    net.freeze("linear_2.bias")
    rng = np.random.default_rng(seed)
    for param in list(net.params().values())[:-1]:  # the last one gets no gradient
        if not param.frozen:
            param.grad_buffer()[...] = rng.normal(size=param.shape) * scale
            param.has_grad = True
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e10, 0.0])
@pytest.mark.parametrize("what", ["norm", "value"])
def test_clipping_is_torch_s(dtype: str, scale: float, what: str) -> None:
    torch = pytest.importorskip("torch")
    net = net_with_gradients(dtype, scale)
    theirs = []
    for param in net.params().values():
        tensor = torch.nn.Parameter(torch.from_numpy(param.data.copy()))
        tensor.grad = torch.from_numpy(param.grad.copy()) if param.has_grad else None
        theirs.append(tensor)
    limit = 0.5
    if what == "norm":
        total = torch.nn.utils.clip_grad_norm_(theirs, limit)
        assert norm_of(net.arena) == pytest.approx(float(total), rel=1e-5)
        clip(net.arena, limit, None)
    else:
        torch.nn.utils.clip_grad_value_(theirs, limit)
        clip(net.arena, None, limit)
    for param, tensor in zip(net.params().values(), theirs, strict=True):
        expected = np.zeros(param.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(param.grad, expected, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_a_long_gradient_does_not_overflow() -> None:
    net = net_with_gradients("float32", 1e30)
    clip(net.arena, 1.0, None)
    assert norm_of(net.arena) == pytest.approx(1.0, rel=1e-5)
    (first, *_) = net.params().values()
    first.grad[...] = np.nan
    clip(net.arena, 1.0, None)
    assert np.isnan(net.arena.grad).any()


def test_a_clipped_update_is_as_long_as_asked_and_comes_after_the_penalties() -> None:
    sgd = {"optimizer": {"type": "SGD", "lr": 1.0}, "train.clip_norm": 1e-3, "train.epochs": None, "train.steps": 1}
    before = Experiment(load_config_text(CONFIG)).net.state_dict()
    after = trained([PLAIN, {"type": "L2Penalty", "weight": 100.0}], 8, 2, **sgd).net.state_dict()
    moved = np.sqrt(sum(((after[path] - value) ** 2).sum() for path, value in before.items()))
    assert moved == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.accumulate=0", "accumulate"),
        ("train.clip_norm=0", "clip_norm"),
        ("train.clip_value=-1", "clip_value"),
        ("train={epochs: 1, clip_norm: 1, clip_value: 1}", "clip_value is given beside clip_norm"),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config_text(CONFIG, overrides=[override])


def test_a_micro_batch_that_has_gone_back_keeps_its_outputs_alone() -> None:
    net = ln.Net([ln.Linear(64), ln.ReLU(), ln.Linear(64), ln.ReLU(), ln.Linear(2)], (16,)).bind("cpu", "float64")
    update = Update([ln.Objective(ln.MSE(), name="mse")], net, 0)
    for _ in range(3):
        update.forward(Batch(np.ones((10, 16)), np.zeros((10, 2)), np.arange(10)))
        assert sum(kept(net, update.passes[-1].tape).values()) > 10 * 64 * 8
        update.backward()
        assert [sum(kept(net, done.tape).values()) for done in update.passes] == [10 * 2 * 8] * len(update.passes)


def test_a_run_keeps_its_micro_batches(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    console = Console(file=io.StringIO())
    run = Experiment.load(tmp_path / "c.yaml", {"train.accumulate": 2}).train(tmp_path / "runs", console=console)
    with pytest.raises(UsageError, match=r"train\.accumulate cannot change when a run goes on"):
        Experiment.resume(run, console, ["train.accumulate=3"])
