"""Large layers and nets are compared at fewer points, by their size alone, and the report says so."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from layernet.core.net import Net
from layernet.layers.activation import ReLU, Tanh
from layernet.layers.conv import Conv2d
from layernet.losses import MSE, Objective
from layernet.testing import Settings, check_net, gradcheck
from layernet.testing.effort import Effort, shares
from layernet.testing.sampling import stratified, stream


def net() -> Net:
    return Net([Conv2d(6, 3).named("conv"), Tanh().named("tanh")], (9, 8, 5)).bind("cpu", "float64")


def test_what_fits_is_checked_in_full() -> None:
    cost = Effort.of(net().root, 2)
    settings = Settings()
    assert cost.within(cost.full(settings), settings) == (settings, "")
    # two passes a point: 64 elements and 4 directions of input and weight, 6 of the bias
    assert cost.full(settings) >= 2 * (2 * 68 + 6) * 2 * (7 * 6 * 6 * 3 * 3 * 5)


def test_less_work_means_fewer_points_and_a_note() -> None:
    cost, settings = Effort.of(net().root, 2), Settings()
    counts = []
    for share in (0.9, 0.5, 0.1, 0.01):
        within, note = cost.within(share * cost.full(settings), settings)
        counts.append(within.elements + within.directions)
        assert f"at most {within.elements} elements and {within.directions} directions" in note
        assert "not 64 and 4" in note
        if share >= 0.1:
            assert cost.full(within) <= share * cost.full(settings)
    assert counts == sorted(counts, reverse=True)
    assert (within.elements, within.directions, within.modes) == (1, 1, ("train",))
    assert "in train mode alone" in note


@pytest.mark.parametrize(
    ("wanted", "given"),
    [([1, 2, 3], [1, 2, 3]), ([100, 1, 100], [4.5, 1, 4.5]), ([100, 3, 100], [3.5, 3, 3.5]), ([], [])],
)
def test_what_small_checks_leave_goes_to_large_ones(wanted: list[float], given: list[float]) -> None:
    assert shares(wanted, 10.0) == pytest.approx(given)


def test_the_report_of_a_thinned_net_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["layernet.testing.gradcheck"]  # the package calls its function so
    monkeypatch.setattr(module, "WHOLE", 1e6)
    monkeypatch.setattr(module, "shares", lambda wanted: shares(wanted, 2e6))
    made = net()
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 5))
    report = check_net(made, [Objective(MSE())], x, np.zeros((2, 7, 6, 6)))
    assert report.ok, report
    text = str(report)
    assert "note: layer conv (Conv2d): large (996 elements, " in text
    assert "note: the whole net: large (996 elements, " in text
    whole = [t for t in report.tensors if t.subject == "net" and t.tensor == "weight"]
    assert all(t.elements < 64 for t in whole)


def test_elements_of_a_huge_tensor_are_taken_without_listing_them_all() -> None:
    chosen = stratified((2**14, 2**14), 40, stream("huge"))
    assert len(set(chosen)) == 40
    assert {0, 2**28 - 1} <= set(chosen)
    assert list(stratified((50, 3), 140, stream("most"))) != list(range(140))
    assert len(stratified((50, 3), 149, stream("nearly all"))) == 149


def test_few_points_at_kinks_are_noted_not_failed() -> None:
    report = gradcheck(ReLU(), x=np.zeros((3, 4)), elements=1, directions=1)
    assert not [f for f in report.failures if f.rule == "kinks"]
    assert any("prove nothing" in note for note in report.notes)
