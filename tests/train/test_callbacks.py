"""Callbacks: what one knows comes back with the checkpoint; the built-in ones do what they say."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from layernet.errors import ConfigError, ContractError, Interrupted, UsageError
from layernet.train import checkpoint
from layernet.train.callbacks import Callback
from layernet.train.events import EventFile, _masked_crc
from layernet.train.experiment import Experiment
from layernet.train.logs import _line
from layernet.train.stopping import EarlyStopping
from layernet.train.trainer import Trainer

CONFIG = """
seed: 3
device: cpu
data:
  train: {type: FakeData, shape: [4, 4, 1], classes: 3, length: 40}
  val: {type: FakeData, shape: [4, 4, 1], classes: 3, length: 12, seed: 1}
  batch_size: 8
net:
  input: [4, 4, 1]
  layers:
    - {type: Conv2d, name: stem, out_channels: 2, kernel_size: 3}
    - BatchNorm
    - ReLU
    - Flatten
    - {type: Linear, name: head, out_features: 3}
loss: CrossEntropy
metrics: [accuracy]
optimizer: {type: Adam, lr: 0.01}
train: {epochs: 4, checkpoint: {every: 3 steps}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def quiet() -> Console:
    return Console(file=io.StringIO())


def with_callbacks(config: Path, *callbacks: Callback, **overrides: Any) -> Experiment:
    experiment = Experiment.load(config, {key.replace("__", "."): value for key, value in overrides.items()})
    experiment.config.callbacks.extend(callbacks)
    return experiment


COUNTING = """
import layernet as ln


class Counting(ln.Callback):
    def __init__(self, word: str = "one"):
        self.word, self.seen = word, []

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]

    def on_step(self, trainer):
        self.seen.append(f"{self.word} step {trainer.step}")

    def on_evaluate(self, trainer, row):
        self.seen.append(f"{self.word} row {row['step']}")

    def on_epoch(self, trainer):
        self.seen.append(f"{self.word} epoch {trainer.epoch:g}")


class Other(Counting):
    pass
"""


class InterruptAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Crash(Callback):
    """Ends a run as a killed process does: nothing is saved at the end."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize("ending", [InterruptAt(4), InterruptAt(5), InterruptAt(15), Crash(7), Crash(16)])
def test_a_callback_goes_on_with_its_state(config: Path, tmp_path: Path, ending: Callback) -> None:
    (tmp_path / "counting.py").write_text(COUNTING)
    given = ["./counting.py:Counting", "./counting.py:Other", {"type": "./counting.py:Counting", "word": "two"}]

    def states(run: Path) -> Any:
        return checkpoint.load(run / "checkpoints" / "last.npz").meta["callbacks"]

    whole = with_callbacks(config, callbacks=given).train(tmp_path / "whole", console=quiet())
    assert [entry["type"] for entry in states(whole)] == ["Counting", "Other", "Counting"]
    seen = states(whole)[2]["state"]["seen"]
    assert seen[:7] == [*(f"two step {n}" for n in range(1, 5)), "two row 5", "two step 5", "two epoch 1"]
    assert len(seen) == 20 + 4 + 4
    with pytest.raises((Interrupted, RuntimeError)):
        with_callbacks(config, ending, callbacks=given).train(tmp_path / "cut", console=quiet())
    cut = tmp_path / "cut" / "small-001"
    Experiment.resume(cut, console=quiet())
    assert states(cut) == states(whole)


def test_state_that_is_not_plain_data_is_refused_by_name(config: Path, tmp_path: Path) -> None:
    class Odd(Callback):
        def state(self) -> dict[str, Any]:
            return {"when": {1, 2}}

    with pytest.raises(ContractError, match=r"Odd\.state\(\) is not plain data: Object of type set"):
        with_callbacks(config, Odd()).train(tmp_path, console=quiet())


def test_a_callback_that_fails_at_the_end_keeps_no_other_from_being_told(config: Path, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_stop(self, trainer: Trainer, error: BaseException | None) -> None:
            raise RuntimeError("at the end")

    with pytest.raises(RuntimeError, match="at the end"):
        with_callbacks(config, Fails(), train__checkpoint__every="9 epochs").train(tmp_path, console=quiet())
    assert checkpoint.load(tmp_path / "small-001" / "checkpoints" / "last.npz").meta["step"] == 20


# what is built in


def keras_stops_at(values: list[float], patience: int, min_delta: float, mode: str) -> int | None:
    """The evaluation after which Keras' EarlyStopping (3.x, on_epoch_end) stops, counted from 0."""
    best, wait = (math.inf if mode == "min" else -math.inf), 0
    for number, value in enumerate(values):
        wait += 1
        better = value + min_delta < best if mode == "min" else value - min_delta > best
        if better:
            best, wait = value, 0
        elif wait >= patience and number > 0:
            return number
    return None


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]), min_size=1, max_size=12),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from(["min", "max"]),
    st.integers(0, 12),
)
@settings(deadline=None)
def test_early_stopping_is_keras_s(values: list[float], patience: int, min_delta: float, mode: Any, cut: int) -> None:
    stopping = EarlyStopping(patience, min_delta, "val.loss", mode)
    rows = [{"step": number, "val.loss": value} for number, value in enumerate(values)]
    stopped: list[int] = []
    trainer = cast(Trainer, SimpleNamespace(history=[], say=lambda line: None, stop=lambda: stopped.append(1)))
    stopping.on_start(trainer)
    found = None
    for number, row in enumerate(rows):
        if number == cut:  # as a resumed run begins
            stopping = stopping.clone()
            trainer.history[:] = rows[:number]
            stopping.on_start(trainer)
            assert not stopped
        stopping.on_evaluate(trainer, row)
        if stopped:
            found = number
            break
    assert found == keras_stops_at(values, patience, min_delta, mode)


def test_a_run_that_stops_early_says_so_and_stays_stopped(config: Path, tmp_path: Path) -> None:
    stopping = {"type": "EarlyStopping", "patience": 2, "min_delta": 1e3}
    experiment = Experiment.load(config, {"callbacks": [stopping], "train.checkpoint.best": "val.loss"})
    assert experiment.config.resolved["callbacks"][0] == {**stopping, "watch": "val.loss", "mode": "min"}
    run = experiment.train(tmp_path, console=quiet())
    log = (run / "log.txt").read_text()
    assert "stopped: val.loss has not got better for 2 evaluations (best " in log
    assert " at step 5)" in log
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 15
    Experiment.resume(run, console=quiet())
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 15
    Experiment.resume(run, quiet(), [f"callbacks={[{**stopping, 'patience': 9}]}"])
    assert checkpoint.load(run / "checkpoints" / "last.npz").meta["step"] == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("EarlyStoping", r"callbacks.0: there is no callback called 'EarlyStoping'; did you mean 'EarlyStopping'"),
        ({"type": "EarlyStopping", "patience": 0}, r"callbacks\.0\.patience: patience must be at least 1, got 0"),
        ({"type": "EarlyStopping", "watch": "val.los"}, r"callbacks\.0\.watch: .*did you mean 'val.loss'"),
        (
            {"type": "Freeze", "params": "stme.*", "until": "1 epochs"},
            r"callbacks\.0\.params: .*did you mean 'stem.\*'",
        ),
        ({"type": "Freeze", "params": "stem.*"}, r"start or until must be given"),
    ],
)
def test_mistakes_are_answered_in_the_config(config: Path, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment.load(config, {"callbacks": [given]})


def weights_by_step(config: Path, tmp_path: Path, callbacks: list[Any]) -> list[dict[str, Any]]:
    seen = []

    class Watch(Callback):
        def on_step(self, trainer: Trainer) -> None:
            seen.append(trainer.net.state_dict())

    with_callbacks(config, Watch(), callbacks=callbacks).train(tmp_path, console=quiet())
    return seen


def test_what_is_frozen_for_a_while_learns_at_all_other_times(config: Path, tmp_path: Path) -> None:
    given = [
        {"type": "Freeze", "params": "stem.*", "until": "6 steps"},
        {"type": "Freeze", "params": "batchnorm_1.*", "start": "1 epochs", "until": "9 steps"},
        {"type": "Freeze", "params": "head.*", "start": "2 epochs"},
    ]
    weights = weights_by_step(config, tmp_path, given)
    frozen = {
        path: [
            step
            for step in range(1, 20)  # update number `step` takes weights[step - 1] to weights[step]
            if np.array_equal(weights[step - 1][path], weights[step][path])
        ]
        for path in ("stem.weight", "batchnorm_1.weight", "batchnorm_1.running_mean", "head.weight")
    }
    assert frozen == {
        "stem.weight": [1, 2, 3, 4, 5],
        "batchnorm_1.weight": [5, 6, 7, 8],
        "batchnorm_1.running_mean": [5, 6, 7, 8],
        "head.weight": list(range(10, 20)),
    }


def test_a_parameter_is_frozen_by_one_schedule(config: Path, tmp_path: Path) -> None:
    freeze = {"type": "Freeze", "params": "stem.*", "until": "6 steps"}
    both = [freeze, {**freeze, "params": "*.weight"}]
    with pytest.raises(UsageError, match=r"both freeze stem.weight; let each parameter match one of them"):
        Experiment.load(config, {"callbacks": both}).train(tmp_path, console=quiet())
    groups = {"callbacks": [freeze], "optimizer.groups": {"stem.bias": {"frozen": True}}}
    with pytest.raises(UsageError, match=r"optimizer.groups 'stem.bias' both freeze stem.bias"):
        Experiment.load(config, groups).train(tmp_path, console=quiet())


def rows_of(run: Path) -> list[dict[str, Any]]:
    with open(run / "metrics.csv", newline="") as stream:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(stream)]


def test_json_lines_are_the_rows_also_of_a_run_that_was_killed(config: Path, tmp_path: Path) -> None:
    test = {"type": "FakeData", "shape": [4, 4, 1], "classes": 3, "length": 12, "seed": 2}
    overrides = {"callbacks": ["JSONLines"], "train__checkpoint__every": "9 steps", "data__test": test}
    with pytest.raises(RuntimeError, match="killed"):
        with_callbacks(config, Crash(16), **overrides).train(tmp_path, console=quiet())
    run = tmp_path / "small-001"
    assert [row["step"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())] == [5, 10, 15]
    Experiment.resume(run, console=quiet())  # from step 9
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines == rows_of(run)
    assert [row["step"] for row in lines[:-1]] == [5, 10, 15, 20]
    assert "test.loss" in lines[-1]


def test_a_value_that_is_not_finite_is_null() -> None:
    assert json.loads(_line({"step": 1, "a": math.nan, "b": np.float32(0.5), "c": None})) == {
        "step": 1,
        "a": None,
        "b": 0.5,
        "c": None,
    }


def events_of(file: Path) -> list[dict[int, Any]]:
    """The events of a TensorBoard file, field by field; lengths and checksums are held to what they should be."""
    content, found = file.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        event, content = content[12 : 12 + size], content[16 + size :]
        assert len(event) == size
        found.append(dict(fields(event)))
    return found


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer's fields."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = message[at], at + 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    at = 0
    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4, 2: None}[key & 7]
        size = varint() if size is None else size
        yield key >> 3, message[at : at + size]
        at += size


def scalars_of(file: Path) -> list[tuple[int, dict[str, float]]]:
    found = []
    for event in events_of(file):
        values = [dict(fields(value)) for _, value in fields(event.get(5, b""))]
        if values:
            named = {value[1].decode(): struct.unpack("<f", value[2])[0] for value in values}
            found.append((event.get(2, 0), named))
    return found


def test_tensorboard_gets_every_number(config: Path, tmp_path: Path) -> None:
    test = {"type": "FakeData", "shape": [4, 4, 1], "classes": 3, "length": 12, "seed": 2}
    with pytest.raises(RuntimeError, match="killed"):
        with_callbacks(config, Crash(7), callbacks=["TensorBoard"], data__test=test).train(tmp_path, console=quiet())
    run = tmp_path / "small-001"
    Experiment.resume(run, console=quiet())
    first, second = sorted((run / "tensorboard").iterdir(), key=lambda path: path.suffix)
    assert (first.suffix, second.suffix) == (".0", ".6")
    assert all(file.name.startswith("events.out.tfevents.") for file in (first, second))
    assert events_of(first)[0][3] == b"brain.Event:2"
    assert events_of(second)[1][2] == 7  # what the killed run wrote from there on is hidden: a session begins
    assert dict(fields(events_of(second)[1][7])) == {1: 1}
    told = [*scalars_of(first), *scalars_of(second)]
    rows = rows_of(run)
    assert [step for step, _ in told] == [row["step"] for row in rows] == [5, 10, 15, 20, rows[-1]["step"]]
    for (_, values), row in zip(told, rows, strict=True):
        expected = {name.replace(".", "/"): value for name, value in row.items() if name not in ("step", "epoch")}
        assert values.keys() == expected.keys()
        for name, value in values.items():
            if name not in ("seconds", "images_per_second"):
                assert value == np.float32(expected[name])


def test_an_event_file_is_what_tensorboard_reads(tmp_path: Path) -> None:
    values = {"val/loss": 0.25, "nan": math.nan, "inf": -math.inf, "large": 1e300, "ümläut": np.float64(3.0)}
    file = EventFile(tmp_path / "tensorboard", 0)
    file.scalars(values, 300)
    crc = 0xE3069283  # CRC-32C's check value
    assert _masked_crc(b"123456789") == struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)
    content = file.path.read_bytes()
    while content:
        size = int.from_bytes(content[:8], "little")
        assert content[8:12] == _masked_crc(content[:8])
        assert content[12 + size : 16 + size] == _masked_crc(content[12 : 12 + size])
        content = content[16 + size :]
    (told,) = scalars_of(file.path)
    assert told[0] == 300
    assert {name: str(value) for name, value in told[1].items()} == {
        "val/loss": "0.25",
        "nan": "nan",
        "inf": "-inf",
        "large": "inf",
        "ümläut": "3.0",
    }
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    events = file.path.read_bytes()
    size = int.from_bytes(events[:8], "little")
    events = events[16 + size :]
    event = proto.Event.FromString(events[12 : 12 + int.from_bytes(events[:8], "little")])
    assert event.step == 300
    assert abs(event.wall_time - time.time()) < 60
    assert [value.tag for value in event.summary.value] == list(values)
    assert event.summary.value[0].simple_value == 0.25
