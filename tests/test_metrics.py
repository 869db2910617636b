"""Accuracy against sorting, on ties, NaN, ignored and soft labels; and how metrics merge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layernet.backend.device import get_device
from layernet.core.context import Tape
from layernet.core.net import Net
from layernet.errors import CheckpointError, DataError, ShapeError, UsageError
from layernet.layers.shape import Flatten
from layernet.losses import MSE, CrossEntropy, Objective, named
from layernet.metrics import Measure, Metric, accuracy
from layernet.objectives import Meter, ObjectivesPass, total_of


def measure(metric: Metric, outputs, target) -> float:
    metric.update(outputs, target)
    (value,) = metric.result().values()
    return value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.integers(2, 6), st.integers(1, 6), st.booleans(), st.integers(0, 10_000))
def test_accuracy_is_membership_in_a_stable_sort(rows, classes, top_k, ties, seed):
    top_k = min(top_k, classes)
    g = np.random.default_rng(seed)
    outputs = g.integers(0, 3, (rows, classes)).astype(float) if ties else g.normal(size=(rows, classes))
    labels = g.integers(0, classes, rows)
    best = [sorted(range(classes), key=lambda c: (-row[c], c))[:top_k] for row in outputs]
    expected = sum(label in first for label, first in zip(labels, best, strict=True)) / rows
    assert measure(accuracy(top_k), outputs, labels) == pytest.approx(expected)


def test_names():
    assert list(accuracy().result()) == ["accuracy"]
    assert list(accuracy(5).result()) == ["top5_accuracy"]


def test_among_equals_the_first_class_wins():
    outputs = np.ones((3, 3))
    assert measure(accuracy(), outputs, np.array([0, 1, 2])) == pytest.approx(1 / 3)
    assert measure(accuracy(2), outputs, np.array([0, 1, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_row_with_a_nan_is_wrong(top_k):
    outputs = np.array([[math.nan, 1.0, 0.0], [math.inf, 1.0, 0.0], [math.nan] * 3])
    assert measure(accuracy(top_k), outputs, np.array([1, 0, 0])) == pytest.approx(1 / 3)


def test_ignored_labels_do_not_count():
    outputs = np.eye(4)
    assert measure(accuracy(), outputs, np.array([0, -100, 1, -100])) == 0.5
    assert measure(accuracy(ignore_index=0), outputs, np.array([0, 1, 2, 0])) == 1.0
    with pytest.raises(DataError, match=r"label -100 at \[1\] is none of the 4 classes"):
        accuracy(ignore_index=None).update(outputs, np.array([0, -100, 1, 1]))
    assert math.isnan(measure(accuracy(), outputs, np.full(4, -100)))
    assert math.isnan(accuracy().result()["accuracy"])


def test_soft_labels_stand_for_their_largest_class():
    outputs = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    soft = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert measure(accuracy(), outputs, soft) == 0.5


def test_any_number_of_axes_and_lists():
    outputs = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    labels = outputs.argmax(-1)
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 5
    assert measure(accuracy(), outputs, labels) == pytest.approx(23 / 24)
    assert measure(accuracy(), [[0.0, 1.0]], [1]) == 1.0


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"classes >= 5\), got shape \(2, 3\)"):
        accuracy(5).update(np.zeros((2, 3)), np.zeros(2, int))
    with pytest.raises(ShapeError, match=r"labels have shape \(3,\)"):
        accuracy().update(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        accuracy(0)


def test_parts_merge_to_the_whole():
    g = np.random.default_rng(1)
    outputs, labels = g.normal(size=(20, 4)), g.integers(0, 4, 20)
    whole, first, second = accuracy(2), accuracy(2), accuracy(2)
    whole.update(outputs, labels)
    first.update(outputs[:3], labels[:3])
    first.update(outputs[3:7], labels[3:7])
    second.update(outputs[7:], labels[7:])
    first.merge(second)
    assert first.state() == whole.state()
    assert first.result() == whole.result()
    again = accuracy(2)
    again.load_state(whole.state())
    assert again.result() == whole.result()
    assert all(type(value) is float for value in whole.state().values())
    first.reset()
    assert first.state() == {"correct": 0, "counted": 0}


def test_what_does_not_merge():
    with pytest.raises(UsageError, match="cannot take in"):
        accuracy(1).merge(accuracy(2))
    with pytest.raises(CheckpointError, match="counted"):
        accuracy().load_state({"correct": 1.0})


class mean_output(Metric):
    """A user's own: no super().__init__(), no registration."""

    sums = ("total", "count")

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def update(self, outputs, target):
        self.add(total=outputs.sum() * self.scale, count=outputs.size)

    def result(self):
        return {"mean_output": self.total("total") / self.total("count")}


def test_a_metric_of_ones_own():
    metric = mean_output(2.0)
    metric.update(np.ones((2, 2)), None)
    other = metric.clone()
    other.update(np.zeros((2, 2)), None)
    metric.merge(other)
    assert metric.result() == {"mean_output": 1.0}


def pass_of(**outputs: list[list[float]]) -> Tape:
    tape = Tape(get_device("cpu"), "float64")
    tape.outputs.update({name: np.array(values) for name, values in outputs.items()})
    return tape


def test_metrics_look_at_the_output_that_they_are_on():
    metric = accuracy()
    meter = Meter([], [Measure(metric), Measure(metric, on="aux")])
    tape, target = pass_of(output=[[1.0, 0.0]] * 4, aux=[[1.0, 0.0]] + [[0.0, 1.0]] * 3), np.array([0, 1, 1, 1])
    nothing = ObjectivesPass([], Net([Flatten()], (2,)), tape, target)
    meter.update(nothing, tape, target)
    assert meter.result() == {"loss": 0, "accuracy": 0.25, "aux_accuracy": 1.0}
    again = Meter([], [Measure(metric), Measure(metric, on="aux")])
    again.load_state(meter.state())
    assert again.result() == meter.result()
    assert math.isnan(metric.result()["accuracy"])  # a meter counts in metrics of its own
    with pytest.raises(UsageError, match="the net gave no output called 'aus'; did you mean 'aux'"):
        Meter([], [Measure(metric, on="aus")]).update(nothing, tape, target)


def test_a_loss_for_which_nothing_counts_adds_nothing_and_has_no_mean():
    objectives = named([Objective(CrossEntropy(), weight=2.0), Objective(MSE())])
    meter = Meter(objectives, [])
    assert all(math.isnan(value) for value in meter.result().values())
    sums = {"cross_entropy": (0.0, 0.0), "mse": (6.0, 4.0)}
    meter.add(sums)
    found = meter.result()
    assert found["loss"] == total_of(objectives, sums) == found["mse"] == 1.5
    assert math.isnan(found["cross_entropy"])
