"""Two runs: the test is exact, a drifting machine is no regression, and 30 % is."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.gate.regressions import FEWEST, compare, durations, signed_rank
from pbmon.gate.runs import Request
from pbmon.gate.verdicts import Outcome
from tests.patience import patiently

X = ("GET", "/x")


@patiently(max_examples=100)
@given(st.lists(st.integers(-6, 6), max_size=9))
def test_the_chance_is_that_of_all_signs(differences):
    """By trying each of 2ⁿ ways to choose the signs."""
    kept = [d for d in differences if d]
    sizes = sorted(abs(d) for d in kept)
    rank = {s: sizes.index(s) + (sizes.count(s) + 1) / 2 for s in sizes}
    reached = sum(rank[abs(d)] for d in kept if d > 0)
    ways = [
        sum(rank[abs(d)] for d, sign in zip(kept, signs, strict=True) if sign)
        for signs in itertools.product([0, 1], repeat=len(kept))
    ]
    expected = sum(way >= reached for way in ways) / len(ways)
    assert signed_rank(differences) == expected


def taken(chance, requests, factor=1.0, drift=lambda at: 1.0):
    """A noisy machine: some requests wait for others, all of them take turns with its speed."""
    return [
        0.004 * factor * drift(n / requests) * chance.uniform(0.9, 1.1)
        + (chance.expovariate(100) if chance.random() < 0.2 else 0)
        for n in range(requests)
    ]


def outcomes(factor, times=200, requests=300, **how):
    found = []
    for seed in range(times):
        chance = random.Random(seed)
        before = taken(chance, requests, **how)
        (change,) = compare({X: before}, {X: taken(chance, requests, factor, **how)})
        found.append(change.outcome is Outcome.FAILED)
    return sum(found)


def test_the_same_passes_and_thirty_percent_more_fails():
    assert outcomes(1.0) == 0
    assert outcomes(1.3) == 200
    assert outcomes(1.05) == 0


def test_a_machine_that_gets_slower_is_no_regression_where_runs_took_turns():
    def slower(at):
        return 1 + 2 * at

    assert outcomes(1.0, drift=slower) == 0
    assert outcomes(1.3, drift=slower) == 200


def test_who_comes_second_in_a_pair_may_be_faster():
    """By much more than there is to be seen, and each of the two in turns."""
    found = []
    for factor in (1.0, 1.3):
        chance = random.Random(5)
        before, after = taken(chance, 300), taken(chance, 300, factor)
        before[::2] = [each * 2 for each in before[::2]]
        after[1::2] = [each * 2 for each in after[1::2]]
        found += compare({X: before}, {X: after})
    assert [each.outcome for each in found] == [Outcome.PASSED, Outcome.FAILED]
    assert [each.ratio for each in found] == [pytest.approx(r, rel=0.05) for r in (1.0, 1.3)]


def test_a_few_very_slow_requests_are_no_regression():
    chance = random.Random(1)
    before, after = taken(chance, 200), taken(chance, 200)
    after[::10] = [1.0] * 20
    (change,) = compare({X: before}, {X: after})
    assert change.outcome is Outcome.PASSED


def test_what_is_as_much_slower_as_it_may_be_passes():
    before = {X: [0.004 + n % 7 * 0.0001 for n in range(200)]}
    after = {X: [each * 1.2 for each in before[X]]}
    (failed,) = compare(before, after)
    (passed,) = compare(before, after, tolerance=0.21)
    (faster,) = compare(after, before)
    assert (failed.outcome, passed.outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert (faster.outcome, round(faster.ratio, 3)) == (Outcome.PASSED, 0.833)
    assert failed.ratio == pytest.approx(1.2)
    assert failed.chance == 1 / 2**20
    assert str(failed) == "GET /x: 4.3 ms before, 5.16 ms now: +20.0% (by chance: 9.5e-07)"


def test_a_change_that_may_be_chance_passes():
    chance = random.Random(7)
    noisy = [chance.choice([0.001, 0.1]) for _ in range(FEWEST)]
    other = [chance.choice([0.001, 0.1, 0.1]) for _ in range(FEWEST)]
    (change,) = compare({X: noisy}, {X: other})
    assert change.ratio >= 1
    assert change.outcome is Outcome.PASSED


def test_with_many_routes_each_must_be_less_likely():
    """Eighteen of twenty pairs slower is enough for one route and not for a hundred."""
    before = [0.004] * 200
    after = [0.004 * (0.7 if n // 10 % 10 == 0 else 1.3) for n in range(200)]
    (alone,) = compare({X: before}, {X: after})
    assert 0.0001 < alone.chance < 0.01
    assert alone.outcome is Outcome.FAILED
    others = {("GET", f"/{n}"): before for n in range(100)}
    found = compare({X: before, **others}, {X: after, **others})
    assert {each.outcome for each in found} == {Outcome.PASSED}


def test_with_many_routes_more_requests_are_needed():
    slower = {("GET", f"/{n}"): [0.2] * 130 for n in range(100)}
    found = compare({route: [0.1] * 130 for route in slower}, slower)
    assert {each.outcome for each in found} == {Outcome.UNDECIDED}
    assert found[0].finding == "130 requests; 140 of each run would tell"
    more = {route: each * 2 for route, each in slower.items()}
    found = compare({route: [0.1] * 260 for route in slower}, more)
    assert {each.outcome for each in found} == {Outcome.FAILED}


def test_no_number_is_too_large():
    (change,) = compare({X: [5e-324] * 200}, {X: [1e308] * 200})
    assert change.outcome is Outcome.FAILED


def test_too_few_requests_say_nothing():
    (change,) = compare({X: [0.1] * 1000}, {X: [9.0] * (FEWEST - 1)})
    assert change.outcome is Outcome.UNDECIDED
    assert str(change) == "GET /x: 99 requests; 100 of each run would tell"


def test_runs_of_different_lengths_and_times_of_nothing():
    (change,) = compare({X: [0.1] * 130}, {X: [0.2] * 3001})
    assert (change.outcome, change.requests, round(change.ratio, 9)) == (Outcome.FAILED, 130, 2)
    (nothing,) = compare({X: [0.0] * 100}, {X: [0.0] * 100})
    assert (nothing.outcome, nothing.ratio, nothing.chance) == (Outcome.PASSED, 1.0, 1.0)


def test_only_routes_of_both_and_without_failures():
    requests = [Request("GET", "/x", 0.5), Request("GET", "/x", 0.1, failed=True)]
    assert durations([*requests, Request("POST", "/x", 0.2)]) == {X: [0.5], ("POST", "/x"): [0.2]}
    assert compare({("POST", "/x"): [0.1] * 200}, {X: [0.1] * 200}) == []
