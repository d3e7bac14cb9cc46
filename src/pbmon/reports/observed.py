"""What Prometheus counted of the budgets of a service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pbmon import catalog
from pbmon.catalog import Metric
from pbmon.gate.runs import LIMITS
from pbmon.gate.verdicts import Count
from pbmon.reports.prometheus import Prometheus, PrometheusError

# The form for counters of a process, each of which begins at 0 under an instance of its own. See
# docs/dashboards.md.
GAINED = (
    "clamp_min(max_over_time({series}[{window}])"
    " - (last_over_time({series}[1d] offset {window})"
    " or max_over_time({series}[{window}]) * 0), 0)"
)

_BY = catalog.BUDGET_REQUESTS.prometheus_labels()
_METHOD, _ROUTE, _OPERATION, _LIMIT = _BY
_NO_SHARE = "Prometheus has no pbmon_budget_allowed_ratio for {} of {}"

Labels = tuple[str, ...]
"""As _BY has them; empty where there is none."""


def matchers(service: str, environment: str | None, release: str | None) -> list[str]:
    """Of the labels that Prometheus makes of the resource."""
    labels = {
        "service_name": service, "deployment_environment_name": environment,
        "service_version": release,
    }  # fmt: skip
    return [f'{name}="{_quoted(value)}"' for name, value in labels.items() if value is not None]


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def counts(
    prometheus: Prometheus, selected: Sequence[str], window_s: int, at: float
) -> Iterator[Count]:
    """Of every budget that was in force in the window_s seconds before `at`, seconds since the
    epoch. Raises PrometheusError."""

    def ask(form: str, metric: Metric) -> dict[Labels, float]:
        series = f"{metric.prometheus_name}{{{', '.join(selected)}}}"
        query = f"{form} by ({', '.join(_BY)}) ({{}})".format(
            GAINED.format(series=series, window=f"{window_s}s")
            if metric.kind == "counter"
            else f"last_over_time({series}[{window_s}s])"
        )
        return _by_labels(prometheus.vector(query, at))

    requests = ask("sum", catalog.BUDGET_REQUESTS)
    breaches = ask("sum", catalog.BUDGET_BREACHES)
    allowed = ask("max", catalog.BUDGET_ALLOWED)
    thresholds = ask("max", catalog.BUDGET_THRESHOLD)
    for labels, number in sorted(requests.items()):
        method, route, operation, limit = labels
        if limit not in LIMITS:  # of a newer version
            continue
        if labels not in allowed:
            raise PrometheusError(_NO_SHARE.format(limit, route or operation))
        over = round(breaches.get(labels, 0.0))
        yield Count(
            route or operation, method or None, LIMITS[limit], round(number),
            min(over, round(number)),  # a request may end between the reading of the two
            round(allowed[labels], 12), thresholds.get(labels),
        )  # fmt: skip


def _by_labels(vector: list[tuple[dict[str, Any], float]]) -> dict[Labels, float]:
    return {tuple(str(labels.get(name, "")) for name in _BY): value for labels, value in vector}
