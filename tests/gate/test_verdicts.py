"""The verdict on a limit: against brute force, and against what the metrics count."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.budgets import Budget, Budgets
from pbmon.gate.runs import Request, Tally
from pbmon.gate.verdicts import (
    Count,
    Outcome,
    add_up,
    chance,
    count,
    enough,
    is_broken,
    judge,
    lower_bound,
    percent,
    shown_s,
)
from pbmon.testing import capture
from tests.patience import patiently
from tests.telemetry.drive import http, request


def first_broken(requests, allowed):
    return next((k for k in range(requests + 1) if is_broken(k, requests, allowed)), None)


def tail(over, requests, allowed):
    """P(X >= over), exactly."""
    share = Fraction(allowed).limit_denominator(10**6)
    below = (comb(requests, k) * share**k * (1 - share) ** (requests - k) for k in range(over))
    return 1 - sum(below)


# --- the bound ---


@pytest.mark.parametrize(("requests", "first"), [(50, 6), (200, 16), (2000, 117)])
def test_the_first_that_fails_at_p95(requests, first):
    assert first_broken(requests, 0.05) == first


@pytest.mark.parametrize(
    ("requests", "allowed", "first"),
    [(1, 0.05, None), (2, 0.05, 2), (10, 0.05, 3), (22, 0.01, 2), (100, 0.01, 4), (1000, 0.001, 4),
     (10_000, 0.001, 16), (1_000_000, 0.05, 50_359)],
)  # fmt: skip
def test_the_first_that_fails_elsewhere(requests, allowed, first):
    assert first_broken(requests, allowed) == first


@patiently(max_examples=300)
@given(st.integers(1, 5000), st.data())
def test_the_bound_is_the_root_of_wilsons_equation(requests, data):
    """(p̂ - p)² = z² p (1 - p) / n at its lower root."""
    over = data.draw(st.integers(0, requests))
    bound, share = lower_bound(over, requests), over / requests
    assert 0 <= bound <= share or over == 0 == round(bound, 12)
    assert 1.6448536269514722**2 * bound * (1 - bound) / requests == pytest.approx(
        (share - bound) ** 2, abs=1e-12
    )


@patiently(max_examples=200)
@given(st.integers(1, 300), st.sampled_from([0.001, 0.01, 0.05, 0.2]), st.data())
def test_the_chance_is_the_binomial_one(requests, allowed, data):
    over = data.draw(st.integers(0, requests))
    assert chance(over, requests, allowed) == pytest.approx(
        float(tail(over, requests, allowed)), abs=1e-9
    )


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.05])
def test_what_keeps_its_limit_exactly_fails_at_most_once_in_twenty(allowed):
    """Also with the few requests where Wilson's bound alone would fail one in five."""
    for requests in range(1, 301):
        first = first_broken(requests, allowed)
        assert first is None or tail(first, requests, allowed) <= Fraction(1, 20)


@pytest.mark.parametrize("requests", [1000, 2000, 10_000])
def test_with_many_requests_it_is_nearly_so(requests):
    first = first_broken(requests, 0.05)
    assert chance(first, requests, 0.05) < 0.055
    assert chance(first - 1, requests, 0.05) > 0.045


@patiently(max_examples=200)
@given(st.integers(1, 2000), st.sampled_from([0.001, 0.01, 0.05, 0.5]), st.data())
def test_more_over_the_limit_is_never_better(requests, allowed, data):
    over = data.draw(st.integers(0, requests - 1))
    assert is_broken(over, requests, allowed) <= is_broken(over + 1, requests, allowed)


def test_all_may_be_over():
    assert not is_broken(10, 10, 1.0)


# --- the verdict ---


def counted(over, requests, allowed=0.05, limit="p95"):
    return Count("/x", "GET", limit, requests, over, allowed, 0.3)


@pytest.mark.parametrize(
    ("over", "requests", "allowed", "outcome"),
    [
        (5, 50, 0.05, Outcome.PASSED), (6, 50, 0.05, Outcome.FAILED),
        (0, 19, 0.05, Outcome.UNDECIDED), (0, 20, 0.05, Outcome.PASSED),
        (0, 99, 0.01, Outcome.UNDECIDED), (0, 100, 0.01, Outcome.PASSED),
        (1, 1, 0.05, Outcome.UNDECIDED), (2, 2, 0.05, Outcome.FAILED),
        (0, 0, 0.05, Outcome.UNDECIDED), (0, 0, 0.0, Outcome.UNDECIDED),
        (0, 1, 0.0, Outcome.PASSED), (1, 100_000, 0.0, Outcome.FAILED),
    ],
)  # fmt: skip
def test_verdicts(over, requests, allowed, outcome):
    assert judge(counted(over, requests, allowed)).outcome is outcome


def test_a_limit_for_each_may_let_some_pass():
    assert judge(counted(2, 100, 0.0), max_allow=2).outcome is Outcome.PASSED
    assert judge(counted(3, 100, 0.0), max_allow=2).outcome is Outcome.FAILED
    assert judge(counted(6, 50), max_allow=9).outcome is Outcome.FAILED  # no limit for each


def test_enough_is_one_by_the_allowed_share():
    assert [enough(share) for share in (0.05, 0.01, 0.001, 1 - 0.999, 0.3)] == [
        20,
        100,
        1000,
        1000,
        4,
    ]


def test_it_says_what_was_seen_and_what_may_be():
    assert str(judge(counted(6, 50))) == (
        "GET /x: p95 300 ms: 6 of 50 requests took longer (12.00%, at least 6.33%); 5 % may"
    )
    assert judge(counted(1, 10)).finding == (
        "1 of 10 requests took longer (10.00%, at least 2.26%); 20 requests would tell"
    )
    assert judge(counted(1, 1, 0.0, "max")).finding == "1 of 1 request took longer"
    assert judge(counted(0, 0)).finding == "no request was seen"
    assert str(judge(Count("/x", None, "availability", 2000, 9, 0.001))) == (
        "/x: availability 0.999: 9 of 2,000 requests failed (0.45%, at least 0.26%); 0.1 % may"
    )


def test_words_of_numbers():
    assert [shown_s(s) for s in (0.3, 1.5, 0.00008, 0.0123)] == [
        "300 ms",
        "1.5 s",
        "80 µs",
        "12.3 ms",
    ]
    assert [percent(share) for share in (0.05, 0.001)] == ["5 %", "0.1 %"]


# --- counting ---

BUDGETS = Budgets(
    [
        Budget("/a", max_s=0.5, p95_s=0.2, availability=0.99),
        Budget("/a", p95_s=0.1, method="POST"),
        Budget("/b", p99_s=0.3),
    ]
)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "POST"]),
        st.sampled_from(["/a", "/b", "/c"]),
        st.sampled_from([0.0625, 0.125, 0.25, 0.375, 0.75]),
        st.booleans(),
    ).map(lambda values: Request(*values)),
    max_size=12,
)
SHARES = {"max": 0, "p95": 0.05, "p99": 0.01, "availability": 0.01}


@patiently(max_examples=20)
@given(REQUESTS)
def test_it_counts_as_the_metrics_do(requests):
    with capture(budgets=BUDGETS, request_log="off") as seen:
        for each in requests:
            request(
                seen, http(method=each.method), route=each.route, first_s=each.duration_s,
                status=500 if each.failed else 200,
            )  # fmt: skip
        metrics = seen.metrics
        for each in count(requests, BUDGETS):
            labels = {"http.route": each.endpoint, "pbmon.budget.limit": each.limit}
            if each.method:
                labels["http.request.method"] = each.method
            key = tuple(sorted(labels.items()))
            assert metrics["pbmon.budget.requests"][key] == each.requests
            assert metrics["pbmon.budget.breaches"][key] == each.over
            assert each.allowed == SHARES[each.limit]
        assert [each.as_request()._replace(queries=None) for each in seen.requests] == requests


def test_every_limit_of_every_budget_is_there_though_nothing_was_seen():
    assert [(c.name, c.limit, c.requests, c.threshold_s) for c in count([], BUDGETS)] == [
        ("/a", "max", 0, 0.5), ("/a", "p95", 0, 0.2), ("/a", "availability", 0, None),
        ("POST /a", "p95", 0, 0.1), ("/b", "p99", 0, 0.3),
    ]  # fmt: skip


def test_tallies_of_one_limit_are_added_up():
    tallies = [
        Tally(None, "/a", "p95", 100, 3), Tally(None, "/a", "p95", 50, 2),
        Tally(None, "/a", "availability", 10, 1), Tally("GET", "/z", "max", 5, 0),
        Tally(None, "/z", "availability", 5, 0, 0.25),
    ]  # fmt: skip
    assert add_up(tallies, BUDGETS) == [
        Count("/a", None, "p95", 150, 5, 0.05, 0.2), Count("/a", None, "availability", 10, 1, 0.01),
        Count("/z", "GET", "max", 5, 0, 0.0), Count("/z", None, "availability", 5, 0, 0.25),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="availability of /z: allowed is missing, such as 0.001"):
        add_up([Tally(None, "/z", "availability", 5, 0)], BUDGETS)
