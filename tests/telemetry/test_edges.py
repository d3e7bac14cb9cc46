"""Edges of budgets in a histogram: few, apart, and where the thresholds are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.budgets import Budget
from pbmon.telemetry.edges import MAX_EDGES, edges
from tests.patience import patiently
from tests.test_budgets import budgets, durations

FIXED = (0.05, 0.5, 1.0)


@pytest.mark.parametrize(
    ("thresholds", "added"),
    [
        ([], []),
        ([0.3], [0.3]),
        ([0.5, 0.3, 0.3], [0.3]),  # there, new, twice
        ([0.51, 0.48], []),  # within 5 % of a fixed edge, from either side
        ([0.53, 0.47], [0.47, 0.53]),
        ([0.2, 0.205, 0.211], [0.2, 0.211]),  # 0.205 within 5 % of a kept one, 0.211 is not
        ([0.001, 7200.0], [0.001, 7200.0]),  # below and above all others
    ],
)
def test_edges(thresholds, added):
    assert edges([Budget(f"/{n}", max_s=t) for n, t in enumerate(thresholds)], FIXED) == added


def test_an_operation_has_no_part_in_the_histogram_of_requests():
    assert edges([Budget("import", max_s=0.3)], FIXED) == []


@patiently()
@given(st.lists(budgets(), max_size=60), st.lists(durations, min_size=1, max_size=15))
def test_edges_are_few_and_apart_and_thresholds(many, fixed):
    added = edges(many, fixed)
    thresholds = {t for b in many if b.is_route for t in b.thresholds.values()}
    assert added == sorted(set(added))
    assert set(added) <= thresholds - set(fixed)
    assert len(added) <= MAX_EDGES
    every = sorted({*fixed, *added})
    for low, high in zip(every, every[1:]):
        assert high / low >= 1.05 or (low in fixed and high in fixed)
    if len(added) < MAX_EDGES:  # nothing was left out that has a place
        for threshold in thresholds:
            near = min(max(threshold / e, e / threshold) for e in every)
            assert near < 1.05


def test_the_closest_go_first_where_there_are_too_many():
    crowded = [Budget(f"/{n}", max_s=10 * 1.06**n) for n in range(10)]
    spread = [Budget(f"/s{n}", max_s=100 * 2.0**n) for n in range(MAX_EDGES - 4)]
    added = edges(crowded + spread, FIXED)
    assert len(added) == MAX_EDGES
    assert set(added) >= {b.max_s for b in spread}
