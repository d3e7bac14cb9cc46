"""Budgets that change while requests run: what is judged, what the figures say."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from pbmon import catalog, runtime
from pbmon.budgets import Budget, Budgets
from pbmon.testing import capture
from tests.telemetry.drive import http, points, request

PAY = Budget("/pay", max_s=0.5, p95_s=0.3)


def change(*budgets, **values):
    """As a changed file does."""
    settings = dataclasses.replace(runtime.active.settings, budgets=Budgets(budgets), **values)
    runtime.active.settings = settings
    for part in (runtime.active.budgets, runtime.active.requests, runtime.active.queries):
        part.apply(settings)


@pytest.fixture
def seen():
    with capture(budgets=[PAY], request_log="off") as seen:
        yield seen


def gauge(seen, name=catalog.BUDGET_THRESHOLD.name):
    return {
        (dict(k).get("http.route") or dict(k)["pbmon.operation"], dict(k)["pbmon.budget.limit"]): v
        for k, v in seen.metrics.get(name, {}).items()
    }


def counted(seen, limit="max", route="/pay"):
    return tuple(
        seen.metric(f"pbmon.budget.{name}", http__route=route, pbmon__budget__limit=limit)
        for name in ("requests", "breaches")
    )


def test_the_next_request_is_judged_by_the_new_number(seen):
    request(seen, route="/pay", first_s=0.4)
    change(Budget("/pay", max_s=0.35, p95_s=0.3))
    request(seen, route="/pay", first_s=0.4)
    assert [s.attributes["pbmon.budget.exceeded"] for s in seen.spans] == [False, True]
    assert counted(seen) == (2, 1)
    assert gauge(seen) == {("/pay", "max"): 0.35, ("/pay", "p95"): 0.3}


def test_a_request_under_way_is_judged_by_what_holds_at_its_end(seen):
    record = runtime.active.requests.request(http())
    record.route = "/pay"
    change(Budget("/pay", max_s=0.1))
    seen.clock.advance(0.2)
    record.response_started(200, ())
    record.response_completed()
    record.closed()
    assert counted(seen) == (1, 1)


def test_a_budget_that_is_gone_stands_still_and_has_no_threshold(seen):
    request(seen, route="/pay", first_s=0.6)
    change(Budget("/other", max_s=1))
    request(seen, route="/pay", first_s=0.6)
    assert counted(seen) == (1, 1)
    assert "pbmon.budget.exceeded" not in seen.spans[-1].attributes
    assert gauge(seen) == {("/other", "max"): 1.0}
    assert gauge(seen, catalog.BUDGET_ALLOWED.name) == {("/other", "max"): 0.0}
    assert counted(seen, route="/other") == (0, 0)


def test_a_budget_that_comes_back_goes_on_where_it_was(seen):
    request(seen, route="/pay", first_s=0.6)
    change()
    change(PAY)
    request(seen, route="/pay", first_s=0.6)
    assert counted(seen) == (2, 2)


def test_an_operation_may_come_and_go(seen):
    change(Budget("import", max_s=1))
    assert not runtime.active.budgets.check("import", 2.0, None, failed=False)
    change()
    assert runtime.active.budgets.check("import", 2.0, None, failed=False) is None
    assert seen.metric("pbmon.budget.breaches", pbmon__operation="import") == 1
    assert gauge(seen) == {}


def test_the_slow_threshold_and_the_log_change_too(seen):
    request(seen, route="/x", first_s=0.7)
    change(slow_request_s=0.6, request_log="notable")
    request(seen, route="/x", first_s=0.7)
    assert ["pbmon.slow" in s.attributes for s in seen.spans] == [False, True]
    assert len(seen.logs) == 1


def test_a_series_of_before_does_not_outlive_the_change(seen, monkeypatch):
    """A request ends in one thread while another changes the budgets."""
    requests = runtime.active.requests
    made, go_on = threading.Event(), threading.Event()
    promises = runtime.active.budgets.promises

    def slowly(budget):
        if threading.current_thread() is worker:
            made.set()
            assert go_on.wait(30)
        return promises(budget)

    monkeypatch.setattr(runtime.active.budgets, "promises", slowly)
    key = ("GET", "http", "1.1", "/pay", 200, None)
    worker = threading.Thread(target=requests.series, args=(key,))
    worker.start()
    assert made.wait(30)
    later = Budget("/pay", max_s=0.1)
    change(later)
    go_on.set()
    worker.join(30)
    assert requests.series(key).budget == later


def test_fifty_budgets_add_few_edges():
    steps = [0.001 * 1.06**n for n in range(150)]  # none within 5 % of another
    many = [
        Budget(f"/r{n}", p95_s=steps[3 * n], p99_s=steps[3 * n + 1], max_s=steps[3 * n + 2])
        for n in range(50)
    ]
    with capture(budgets=many, slow_request_s=0.801, request_log="off") as seen:
        request(seen, route="/r1", first_s=0.2)
        (point,) = points(seen, "http.server.request.duration")
        added = set(point.explicit_bounds) - set(catalog.REQUEST_DURATION.buckets)
        assert 0.801 in added  # the slow threshold always has its edge
        assert len(added) == 33
        assert gauge(seen)[("/r49", "max")] == steps[-1]
        assert len(gauge(seen)) == 150
