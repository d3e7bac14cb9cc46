"""check_budget(): what it judges, what it counts, what it refuses."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal

import pytest

import pbmon
from pbmon import runtime
from pbmon.budgets import Verdict
from pbmon.business import refusals
from pbmon.runtime import Runtime
from pbmon.testing import capture

ROUTE = pbmon.Budget("/users/{id}", max_s=0.5, p95_s=0.3, p99_s=0.4, availability=0.999)
POST = pbmon.Budget("/users/{id}", max_s=2, method="POST")
IMPORT = pbmon.Budget("nightly-import", max_s=3600, p95_s=1800, availability=0.99)


@pytest.fixture
def seen():
    with capture(budgets=[ROUTE, POST, IMPORT], strict=False) as seen:
        yield seen


def counts(seen):
    """Limit → (requests, breaches) of the import."""
    return {
        limit: tuple(
            seen.metric(
                f"pbmon.budget.{name}",
                pbmon__operation="nightly-import",
                pbmon__budget__limit=limit,
            )
            for name in ("requests", "breaches")
        )
        for limit in IMPORT.limits
    }


def refused(seen):
    return {dict(k)["pbmon.reason"]: n for k, n in seen.metrics["pbmon.refused_calls"].items()}


def test_before_configure_it_is_a_true_verdict_without_a_budget(monkeypatch):
    monkeypatch.setattr(runtime.active, "budgets", Runtime().budgets)
    verdict = pbmon.check_budget("nightly-import", 7200.0)
    assert verdict == Verdict(None, 7200.0)
    assert verdict


@pytest.mark.parametrize(
    ("duration_s", "limits", "excess_s"),
    [
        (0, (), 0.0),
        (0.3, (), 0.0),
        (0.35, ("p95",), 0.0),
        (0.75, ("max", "p95", "p99"), 0.25),
    ],
)
def test_a_route_is_judged_and_not_counted(seen, duration_s, limits, excess_s):
    before = seen.metrics
    verdict = pbmon.check_budget("/users/{id}", duration_s, method="GET")
    assert (verdict.budget, verdict.duration_s) == (ROUTE, duration_s)
    assert (verdict.limits, verdict.excess_s) == (limits, excess_s)
    assert bool(verdict) is ("max" not in limits) is not verdict.exceeded
    assert seen.metrics == before
    assert seen.logs == []


def test_the_budget_of_the_method_applies(seen):
    assert pbmon.check_budget("/users/{id}", 1.0).budget is ROUTE
    assert not pbmon.check_budget("/users/{id}", 1.0, method="GET")
    assert pbmon.check_budget("/users/{id}", 1.0, method="POST").budget is POST
    assert pbmon.check_budget("/users/{id}", 1.0, method="POST")


def test_a_route_without_a_budget_is_no_mistake(seen):
    assert pbmon.check_budget("/other", 99.0) == Verdict(None, 99.0)
    assert seen.logs == []
    assert "pbmon.refused_calls" not in seen.metrics


def test_an_operation_is_counted_exactly(seen):
    assert counts(seen) == {"max": (0, 0), "p95": (0, 0), "availability": (0, 0)}
    for duration_s in (1.0, 1800.0, 1801.0, 3601.0, 9999.0):
        pbmon.check_budget("nightly-import", duration_s)
    assert counts(seen) == {"max": (5, 2), "p95": (5, 3), "availability": (5, 0)}


def test_a_failure_spends_availability_alone(seen):
    assert not pbmon.check_budget("nightly-import", 9999.0, failed=True)
    assert counts(seen) == {"max": (0, 0), "p95": (0, 0), "availability": (1, 1)}


def test_its_gauges_carry_its_name(seen):
    def gauge(name):
        series = {dict(k).get("pbmon.operation"): {} for k in seen.metrics[name]}
        for k, v in seen.metrics[name].items():
            series[dict(k).get("pbmon.operation")][dict(k)["pbmon.budget.limit"]] = v
        return series["nightly-import"]

    assert gauge("pbmon.budget.threshold") == {"max": 3600.0, "p95": 1800.0}
    assert gauge("pbmon.budget.allowed") == {"max": 0.0, "p95": 0.05, "availability": 0.01}


def test_a_breach_of_max_is_logged_and_one_of_p95_is_not(seen):
    pbmon.check_budget("nightly-import", 2000.0)
    assert seen.logs == []
    pbmon.check_budget("nightly-import", 3601.5)
    (log,) = seen.logs
    assert (log.logger, log.level) == ("pbmon.budget", "WARNING")
    assert log.message == (
        "Performance budget exceeded endpoint=nightly-import method=- duration=3601.5 budget=3600 "
        "exceeded=1.5"
    )


def test_its_log_is_no_flood(seen):
    for _ in range(500):
        pbmon.check_budget("nightly-import", 3601.0)
    assert len(seen.logs) == 10
    seen.clock.advance(60)
    pbmon.check_budget("nightly-import", 3601.0)
    assert seen.logs[-1].fields["held_back"] == 490
    assert counts(seen)["max"] == (501, 501)


@pytest.mark.parametrize("strict", [False, True])
def test_an_operation_without_a_budget_is_told_once_and_true(strict, monkeypatch):
    monkeypatch.setattr(refusals, "_told", set())
    with capture(budgets=[IMPORT], strict=strict) as seen:
        for _ in range(3):
            assert pbmon.check_budget("nightly-imprt", 5.0) == Verdict(None, 5.0)
        assert refused(seen) == {"unknown_budget": 3}
        (log,) = seen.logs
        assert "pbmon.check_budget refused at " in log.message
        assert "test_budgets.py" in log.message
        assert "no budget is named 'nightly-imprt'; add it" in log.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 1.0), "endpoint must be str, not NoneType"),
        ((b"x", 1.0), "endpoint must be str, not bytes"),
        (("x", "1"), "duration_s must be int or float, not str"),
        (("x", None), "duration_s must be int or float, not NoneType"),
        (("x", True), "duration_s must be int or float, not bool"),
        (("x", Decimal(1)), "duration_s must be int or float, not Decimal"),
        (("x", timedelta(seconds=1)), "duration_s must be int or float, not timedelta"),
    ],
)
def test_a_wrong_type_is_a_type_error(seen, arguments, message):
    with pytest.raises(TypeError, match=message):
        pbmon.check_budget(*arguments)


def test_whether_it_failed_is_a_bool(seen):
    with pytest.raises(TypeError, match="failed must be bool, not str"):
        pbmon.check_budget("nightly-import", 1.0, failed="no")
    assert counts(seen)["max"] == (0, 0)


def test_a_method_is_text(seen):
    with pytest.raises(TypeError, match="method must be str or None, not int"):
        pbmon.check_budget("/x", 1.0, method=3)


@pytest.mark.parametrize("duration_s", [math.nan, math.inf, -math.inf, -0.001, -1, 10**400])
def test_a_duration_that_is_none_is_refused_and_not_counted(seen, duration_s):
    verdict = pbmon.check_budget("nightly-import", duration_s)
    assert verdict
    assert verdict.budget is None
    assert refused(seen) == {"bad_duration": 1}
    assert counts(seen)["availability"] == (0, 0)


def test_under_strict_it_raises():
    with capture(budgets=[IMPORT], strict=True) as seen:
        with pytest.raises(ValueError, match="duration_s must be finite seconds, not below 0"):
            pbmon.check_budget("nightly-import", math.nan)
        assert refused(seen) == {"bad_duration": 1}
