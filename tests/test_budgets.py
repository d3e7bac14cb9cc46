"""Budgets: what they accept, how they judge, which one applies."""

from __future__ import annotations

import copy
import math
import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon import parsing
from pbmon.budgets import ALLOWED, Budget, Budgets, parse_budget, seconds
from tests.patience import patiently

durations = st.floats(min_value=1e-6, max_value=1e6)
routes = st.sampled_from(["/", "/api/users", "/api/users/{user_id}", "/a/{b:path}"])
operations = st.sampled_from(["nightly-import", "x", "n" * 100, "größe"])


@st.composite
def budgets(draw):
    """Any budget that keeps the order p95 ≤ p99 ≤ max and promises something."""
    values = sorted(draw(st.lists(durations, min_size=3, max_size=3)))
    kept = draw(st.lists(st.booleans(), min_size=3, max_size=3))
    p95, p99, maximum = (v if k else None for v, k in zip(values, kept, strict=True))
    share = st.floats(min_value=1e-6, max_value=1)
    availability = draw(share if not any(kept) else st.none() | share)
    endpoint = draw(routes | operations)
    methods = [None, "GET", "POST"] if endpoint.startswith("/") else [None]
    method = draw(st.sampled_from(methods))
    return Budget(endpoint, maximum, p95, p99, availability, method)


# --- seconds() ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("1.5 s", 1.5),
        ("250us", 0.00025),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("0.2", 0.2),
        (" 7 ", 7.0),
    ],
)
def test_seconds(text, expected):
    assert seconds(text) == pytest.approx(expected, rel=1e-15)
    assert type(seconds(text)) is float


@pytest.mark.parametrize(
    "value",
    [None, True, False, "", "ms", "1 day", "-1s", -0.1, math.inf, -math.inf, math.nan, "nan",
     "inf", "1e999", "1" * 400 + "s", 10**400, -(10**400), [1], {}, b"x", object()],
)  # fmt: skip
def test_seconds_refuses(value):
    with pytest.raises(ValueError, match="is no duration"):
        seconds(value)


# --- construction ---


def test_text_durations_become_seconds():
    budget = Budget("/x", max_s="500ms", p95_s="300ms", p99_s="0.4")
    assert budget.thresholds == {"max": 0.5, "p95": 0.3, "p99": 0.4}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": None, "max_s": 1}, "must be a route template starting with '/', or the name"),
        ({"endpoint": "api/users", "max_s": 1}, "'api/users' must be a route template starting"),
        ({"endpoint": "", "max_s": 1}, "1 to 100 printable characters without '/'"),
        ({"endpoint": "n" * 101, "max_s": 1}, "1 to 100 printable characters"),
        ({"endpoint": "a\nb", "max_s": 1}, "1 to 100 printable characters"),
        ({"endpoint": " import", "max_s": 1}, "1 to 100 printable characters"),
        (
            {"endpoint": "import", "max_s": 1, "method": "GET"},
            "an operation has no method; leave GET out, or write /import if it is a route",
        ),
        ({"endpoint": "/x"}, "budget for /x promises nothing; give max_s, p95_s"),
        ({"endpoint": "/x", "max_s": 0}, "budget for /x: max_s must be above 0"),
        ({"endpoint": "/x", "p95_s": -1}, "budget for /x: p95_s: -1 is no duration"),
        ({"endpoint": "/x", "p99_s": "soon"}, "budget for /x: p99_s: 'soon' is no duration"),
        ({"endpoint": "/x", "max_s": True}, "budget for /x: max_s: True is no duration"),
        ({"endpoint": "/x", "max_s": 1, "method": "get"}, "method 'get' must be upper case"),
        ({"endpoint": "/x", "max_s": 1, "method": 3}, "method 3 must be upper case"),
        ({"endpoint": "/x", "availability": 0}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "availability": 1.01}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "availability": 99.9}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "availability": True}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "availability": "0.9"}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "availability": math.nan}, "must be above 0 and at most 1"),
        ({"endpoint": "/x", "max_s": 1, "p95_s": 2}, r"p95 \(2 s\) is above max \(1 s\)"),
        ({"endpoint": "/x", "p99_s": 1, "p95_s": 2}, r"p95 \(2 s\) is above p99 \(1 s\)"),
        ({"endpoint": "/x", "max_s": 1, "p99_s": 2}, r"p99 \(2 s\) is above max \(1 s\)"),
    ],
)
def test_refused_with_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(**arguments)


@patiently()
@given(durations, durations, durations)
def test_the_order_rule_is_p95_p99_max(p95, p99, maximum):
    def make():
        return Budget("/x", max_s=maximum, p95_s=p95, p99_s=p99)

    if p95 <= p99 <= maximum:
        assert make().limits == ("max", "p95", "p99")
    else:
        with pytest.raises(ValueError, match="the order is p95 ≤ p99 ≤ max"):
            make()


# --- the verdict ---


@patiently()
@given(budgets(), durations)
def test_judge_lists_exactly_the_thresholds_passed(budget, duration):
    verdict = budget.judge(duration)
    assert set(verdict.limits) == {n for n, t in budget.thresholds.items() if duration > t}
    assert verdict.exceeded == (budget.max_s is not None and duration > budget.max_s)
    assert bool(verdict) is not verdict.exceeded
    if verdict.exceeded:
        assert verdict.excess_s == duration - budget.max_s > 0
    else:
        assert verdict.excess_s == 0.0


@patiently()
@given(budgets())
def test_a_threshold_itself_is_kept_and_the_next_float_is_not(budget):
    for limit, threshold in budget.thresholds.items():
        assert limit not in budget.judge(threshold).limits
        assert limit in budget.judge(math.nextafter(threshold, math.inf)).limits


def test_a_verdict_in_numbers():
    verdict = Budget("/x", max_s=0.5, p95_s=0.3, p99_s=0.4, availability=0.999).judge(0.75)
    assert (verdict.limits, verdict.excess_s) == (("max", "p95", "p99"), 0.25)
    assert Budget("/x", max_s=0.5, p95_s=0.3).judge(0.4).limits == ("p95",)


def test_an_operation_is_no_route():
    assert Budget("/x", max_s=1).is_route
    assert not Budget("nightly-import", max_s="1h").is_route
    assert parse_budget("nightly-import max=1h availability=0.99") == Budget(
        "nightly-import", max_s=3600, availability=0.99
    )
    assert parse_budget({"endpoint": "Nightly import", "max": "1h"}).endpoint == "Nightly import"
    assert parse_budget("IMPORT max=1s") == Budget("IMPORT", max_s=1)


@pytest.mark.parametrize(
    ("availability", "share"), [(1, 0.0), (1.0, 0.0), (0.999, 0.001), (0.95, 0.05), (0.9, 0.1)]
)
def test_the_allowed_share_of_failures_is_the_number_a_person_would_write(availability, share):
    budget = Budget("/x", max_s=1, p95_s=0.5, p99_s=0.7, availability=availability)
    assert {limit: budget.allowed(limit) for limit in budget.limits} == {
        "max": 0.0, "p95": 0.05, "p99": 0.01, "availability": share,
    }  # fmt: skip


def test_limits_and_allowed_shares():
    assert Budget("/x", availability=0.999).limits == ("availability",)
    assert Budget("/x", max_s=1, availability=1).limits == ("max", "availability")
    assert ALLOWED == {"max": 0.0, "p95": 0.05, "p99": 0.01}


# --- parsing ---


@patiently()
@given(budgets())
def test_text_and_table_round_trip(budget):
    values = {n: repr(t) if t <= 60 else f"{Decimal(t):f}s" for n, t in budget.thresholds.items()}
    if budget.availability is not None:
        values["availability"] = repr(budget.availability)
    words = [budget.method or "", budget.endpoint, *(f"{n}={v}" for n, v in values.items())]
    assert parse_budget(" ".join(words)) == budget
    table = {f"{n}_s": t for n, t in budget.thresholds.items()} | {"endpoint": budget.endpoint}
    if budget.availability is not None:
        table["availability"] = budget.availability
    if budget.method is not None:
        table["method"] = budget.method
    assert parse_budget(table) == budget
    assert parse_budget(budget) is budget


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "3 is no budget; write a table or '/route max=500ms'"),
        (["/x"], "is no budget"),
        ("", "names no endpoint"),
        ("GET", "names no endpoint"),
        ({"max": 1}, "names no endpoint"),
        ("GET max=1", "names no endpoint"),
        ("max=1", "names no endpoint"),
        ("a b max=1", "'b' is not name=value"),
        ("/x max", "'max' is not name=value, for example max=500ms"),
        ("/x max=", "'max=' is not name=value"),
        ("/x max=1 max=2", "max is given twice"),
        ({"endpoint": "/x", "max": 1, "max_s": 2}, "max_s is given twice"),
        ("/x p50=1", "budget has no field 'p50'; the fields are endpoint, method, max, p95"),
        ({"endpoint": "/x", 3: 1}, "budget has no field 3"),
        ("/x max=500", "budget max 500 would be seconds; write '500ms', or '500s'"),
        ({"endpoint": "/x", "p95": 300}, "budget p95 300 would be seconds; write '300ms'"),
        ("/x availability=high", "availability 'high' must be a number, for example 0.999"),
        ("/x max=1 /y", "'/y' is not name=value"),
    ],
)
def test_parse_refuses_with_the_remedy(value, message):
    with pytest.raises(ValueError, match=message):
        parse_budget(value)


@patiently()
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=5,
    )
)
def test_parse_raises_nothing_but_value_error(value):
    try:
        assert isinstance(parse_budget(value), Budget)
    except ValueError as error:
        assert str(error)


# --- looking up ---


def test_the_budget_of_the_method_wins_over_that_of_every_method():
    post = Budget("/x", max_s=1, method="POST")
    every = Budget("/x", max_s=2)
    for order in ([post, every], [every, post]):
        found = Budgets(order)
        assert found.find("POST", "/x") is post
        assert found.find("GET", "/x") is every
        assert found.find(None, "/x") is every
        assert found.find("GET", "/y") is None
        assert found.find("POST", None) is None


def test_a_later_budget_for_the_same_endpoint_replaces_the_earlier():
    later = Budget("/x", max_s=2)
    found = Budgets([Budget("/x", max_s=1), later])
    assert found.all == (later,)
    assert found.find("GET", "/x") is later


def test_a_budget_can_be_copied_and_sent_to_another_process():
    budget = Budget("/a", max_s="500ms", availability=0.9, method="GET")
    for copied in (copy.deepcopy(budget), pickle.loads(pickle.dumps(budget))):
        assert copied == budget
        assert copied.thresholds == {"max": 0.5}


def test_many_budgets_are_not_compared_each_with_each():
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    many = [Budget(Name(f"/{number}"), max_s=1) for number in range(500)]
    assert len(parsing.budgets(many).all) == 500
    assert compared < 5000
