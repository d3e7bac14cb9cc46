"""What Prometheus counted of the budgets of a service."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from pbmon import catalog
from pbmon.gate.runs import LIMITS
from pbmon.gate.verdicts import Count
from pbmon.reports.prometheus import Prometheus, PrometheusError

_BY = catalog.BUDGET_REQUESTS.prometheus_labels()
_METHOD, _ROUTE, _OPERATION, _LIMIT = _BY
_NO_SHARE = "Prometheus has no pbmon_budget_allowed_ratio for {} of {}"


def counts(prometheus: Prometheus, scope: str, window_s: int, at: float) -> Iterator[Count]:
    """Of every budget that was in force in the window_s seconds before `at`, seconds since the
    epoch. scope: as scope_of(). Raises PrometheusError."""
    end = (int(at) + 1) * 1_000_000  # what was counted in this second too
    start = end - window_s * 1_000_000
    requests = prometheus.gains(catalog.BUDGET_REQUESTS, scope, start, end)
    breaches = prometheus.gains(catalog.BUDGET_BREACHES, scope, start, end)
    allowed = prometheus.newest(catalog.BUDGET_ALLOWED, scope, start, end)
    thresholds = prometheus.newest(catalog.BUDGET_THRESHOLD, scope, start, end)
    for labels, number in sorted(requests.items()):
        method, route, operation, limit = labels
        if limit not in LIMITS:  # of a newer version
            continue
        if labels not in allowed:
            raise PrometheusError(_NO_SHARE.format(limit, route or operation))
        over = round(breaches.get(labels, Decimal()))
        yield Count(
            route or operation, method or None, LIMITS[limit], round(number),
            min(over, round(number)),  # a request may end between the reading of the two
            round(float(allowed[labels]), 12), _seconds(thresholds.get(labels)),
        )  # fmt: skip


def _seconds(threshold: Decimal | None) -> float | None:
    return None if threshold is None else float(threshold)
