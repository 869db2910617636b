"""The contract suite: what is right passes, and every broken promise is caught by the rule that is named after it."""

from __future__ import annotations

import pytest

from layernet.config.names import BUILT_IN
from layernet.core.context import Context
from layernet.testing import CheckFailed, check_layer
from layernet.testing.alarms import alarms, seeds_for
from layernet.testing.cases import LAYERS, LOSSES, STEPS, Case
from layernet.testing.check_layer import broken_rules, inspect_layer
from layernet.testing.contract import RULES
from layernet.testing.engine import Settings
from tests.testing import broken_contract


@pytest.mark.parametrize("case", [*LAYERS, *STEPS], ids=lambda case: case.label)
def test_every_layer_keeps_the_contract(case):
    report = check_layer(case.make(), case.shape, **case.options)
    assert "never run" not in str(report)


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
    assert needed - caught == {"one backward"}  # the core refuses it whatever the layer does: see the next test
    assert caught - needed == {"gradient"}


def test_a_core_that_allows_two_backwards_is_caught(monkeypatch):
    backward = Context.backward

    def forgets(self, call, dy):
        saved, state = call._saved, call._state
        dx = backward(self, call, dy)
        call._saved, call._state = saved, state
        return dx

    monkeypatch.setattr(Context, "backward", forgets)
    failures = broken_rules(broken_contract.Square(), (3, 4), Settings())
    assert ("one backward", "a second backward of the same pass was not refused") in {
        (failure.rule, failure.message) for failure in failures
    }


@pytest.mark.parametrize("layer", [broken_contract.WrongTails, broken_contract.WrongHeads])
def test_both_branches_of_a_random_layer_are_checked(layer):
    for seed in range(6):
        assert not inspect_layer(layer(), (3, 4), seed=seed).ok
        assert inspect_layer(broken_contract.Coin(), (3, 4), seed=seed).ok


def test_a_branch_that_raises_is_a_failure():
    class Raises(broken_contract.Coin):
        def tails(self, x, dy):
            raise IndexError("no such thing")

    report = inspect_layer(Raises(), (3, 4))
    assert any("no such thing" in str(failure) for failure in report.failures)


def test_a_branch_that_was_never_seen_is_told():
    assert "never run" not in str(check_layer(broken_contract.Coin(), (3, 4)))
    report = check_layer(broken_contract.OneSidedCoin(), (3, 4))
    assert "never run with 41 seeds, so not checked: forward, line 3, 4; backward, line 4" in str(report)


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
