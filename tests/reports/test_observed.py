"""What Prometheus is asked about budgets; with a real one in tests/cli/test_budget.py."""

from __future__ import annotations

import pytest

from pbmon.gate.verdicts import Count
from pbmon.reports import observed
from pbmon.reports.prometheus import Prometheus, PrometheusError, scope_of
from tests.reports.test_prometheus import answering

LABELS = {"http_route": "/x", "pbmon_budget_limit": "p95"}


def series(*values):
    """(labels, value)"""
    result = [{"metric": labels, "value": [1, value]} for labels, value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def counts(answers):
    """answers: part of a query → what is answered; what was asked as well."""

    def answer(path, parameters):
        for part, value in answers.items():
            if part in parameters["query"]:
                return 200, value
        return 200, series()

    with answering(answer) as (url, asked):
        prometheus = Prometheus(url)
        try:
            found = list(observed.counts(prometheus, 'service_name="shop"', 1800, 1000.5))
        finally:
            prometheus.close()
    return found, asked


def test_what_is_asked():
    found, asked = counts({})
    assert found == []
    assert {parameters["time"] for _, parameters, _ in asked} == {"1000.999"}
    by = "by (http_request_method, http_route, pbmon_operation, pbmon_budget_limit)"
    requests = 'pbmon_budget_requests_total{service_name="shop"}'
    assert [parameters["query"] for _, parameters, _ in asked] == [
        (
            f"sum {by} (clamp_min(max_over_time({requests}[1800s])"
            f" - (last_over_time({requests}[1d] offset 1800s)"
            f" or max_over_time({requests}[1800s]) * 0), 0))"
        ),
        asked[0][1]["query"].replace("requests_total", "breaches_total"),
        f'max {by} (last_over_time(pbmon_budget_allowed_ratio{{service_name="shop"}}[1800s]))',
        f'max {by} (last_over_time(pbmon_budget_threshold_seconds{{service_name="shop"}}[1800s]))',
    ]


def test_counts_and_their_limits():
    of_job = {"pbmon_operation": "import", "pbmon_budget_limit": "max"}
    newer = {"http_route": "/x", "pbmon_budget_limit": "p999"}
    of_put = LABELS | {"http_request_method": "PUT"}
    found, _ = counts({
        "requests_total": series((LABELS, "100.0"), (of_job, "3"), (newer, "5"), (of_put, "7")),
        "breaches_total": series((LABELS, "4"), (of_put, "9")),
        "allowed": series((LABELS, "0.05"), (of_job, "0"), (of_put, "0.05000000000000004")),
        "threshold": series((LABELS, "0.3")),
    })  # fmt: skip
    assert found == [
        Count("import", None, "max", 3, 0, 0.0),
        Count("/x", None, "p95", 100, 4, 0.05, 0.3),
        Count("/x", "PUT", "p95", 7, 7, 0.05),  # more than there were, in a race of reading
    ]


def test_a_limit_without_a_share_is_said():
    with pytest.raises(PrometheusError, match="no pbmon_budget_allowed_ratio for p95 of /x"):
        counts({"requests_total": series((LABELS, "100"))})


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"result": 7}}, {"data": {}}, {"data": {"result": [{"value": [1, "1"]}]}},
        series((LABELS, "x")), series((LABELS, "NaN")),
    ],
    ids=range(5),
)  # fmt: skip
def test_an_answer_that_is_none(answer):
    with pytest.raises(PrometheusError, match="does not answer as Prometheus|has no number for"):
        counts({"requests_total": answer})


def test_labels_of_the_resource():
    assert scope_of('sh"op\\\n', None, "1.2") == (
        'service_name="sh\\"op\\\\\\n", service_version="1.2"'
    )
    assert scope_of("shop", "prod") == 'service_name="shop", deployment_environment_name="prod"'
