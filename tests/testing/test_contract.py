"""The contract suite: what is right passes, and every broken promise is caught by the rule that is named after it."""

from __future__ import annotations

import pytest

from layernet.config.names import BUILT_IN
from layernet.testing import CheckFailed, check_layer
from layernet.testing.alarms import alarms, seeds_for
from layernet.testing.cases import LAYERS, LOSSES, Case
from layernet.testing.check_layer import inspect_layer
from layernet.testing.contract import RULES
from tests.testing import broken_contract


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.label)
def test_every_layer_keeps_the_contract(case):
    check_layer(case.make(), case.shape, **case.options)


@pytest.mark.parametrize("layer", broken_contract.MISTAKES, ids=lambda layer: layer.__name__)
def test_a_broken_promise_is_caught_by_its_rule(layer):
    shape, rule = broken_contract.MISTAKES[layer]
    with pytest.raises(CheckFailed) as caught:
        check_layer(layer(), shape)
    assert rule in {failure.rule for failure in caught.value.report.failures}, caught.value.report
    assert f"{layer.__name__}:" in str(caught.value)
    assert rule in str(caught.value)


def test_every_rule_catches_something():
    caught = {rule for _, rule in broken_contract.MISTAKES.values()}
    needed = {rule.__name__.replace("_", " ") for rule in RULES}
    indirectly = {"inside a residual", "tied", "one backward"}
    assert needed - caught <= indirectly


@pytest.mark.parametrize("layer", [broken_contract.ScalarGain, broken_contract.RootGain])
def test_an_unusual_layer_that_is_right_passes(layer):
    for seed in range(3):
        check_layer(layer(), (3, 4), seed=seed)


def test_build_may_not_change_an_argument():
    class Grows(broken_contract.Square):
        def __init__(self, sizes):
            self.sizes = sizes

        def build(self, in_shape):
            self.sizes.append(len(in_shape))
            return in_shape

    with pytest.raises(CheckFailed, match="build changed a constructor argument"):
        check_layer(Grows([1]), (3, 4))


def test_what_is_right_passes_with_its_report():
    report = check_layer(broken_contract.Square(), (3, 4))
    assert report.ok
    assert f"{len(RULES)} contract rules asked" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*LAYERS, *LOSSES], ids=lambda case: case.label)
def test_no_false_alarm_in_200_seeds(case):
    for seed in seeds_for(case, range(200)):
        assert not alarms(case, seed), seed


def test_alarms_are_heard():
    case = Case("CacheOnSelf", broken_contract.CacheOnSelf, (3, 4))
    assert "self untouched" in {failure.rule for failure in alarms(case, 0)}
    assert list(seeds_for(case, range(3))) == [0, 1, 2]


def test_every_built_in_layer_has_a_case():
    assert {case.name for case in LAYERS} == set(BUILT_IN["layer"]) - {"Ref"}


def test_the_check_leaves_the_layer_alone():
    layer = broken_contract.Square()
    before = dict(vars(layer))
    inspect_layer(layer, (3, 4))
    assert vars(layer) == before


def test_a_mistake_behind_dead_units_is_looked_for_elsewhere():
    """At some points every hidden unit of the gate is dead, and forgetting it in backward changes nothing there."""
    for seed in range(12):
        with pytest.raises(CheckFailed):
            check_layer(broken_contract.ForgetsTheGate(), (3, 4, 6), seed=seed)
