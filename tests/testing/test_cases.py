"""Everything built in passes the gradient check, and nothing built in is without a case."""

from __future__ import annotations

import pytest

from layernet.config.names import BUILT_IN
from layernet.testing.cases import LAYERS, LOSSES

CASES = [*LAYERS, *LOSSES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_gradients_are_right(case):
    report = case.check()
    assert report.ok, report


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_few_seeds_raise_no_false_alarm(case):
    for seed in range(100, 102):
        report = case.check(seed=seed, elements=16, directions=2)
        assert report.ok, report


@pytest.mark.parametrize(("kind", "cases"), [("layer", LAYERS), ("loss", LOSSES)])
def test_everything_built_in_has_a_case(kind, cases):
    assert {case.name for case in cases} == set(BUILT_IN[kind])
    assert len({case.label for case in cases}) == len(cases)


def test_a_case_makes_what_it_says():
    for case in CASES:
        assert type(case.make()).__name__ == case.name
        assert case.make() is not case.make()
