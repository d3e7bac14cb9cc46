"""The metrics of one service as Prometheus has them, which is asked at the first question."""

from __future__ import annotations

from pbmon import catalog
from pbmon.catalog import Metric
from pbmon.reports.prometheus import Prometheus, Values, connect, scope_of
from pbmon.settings import Settings


class Metrics:
    """environment: deployment.environment.name, where the service has one; None: of all. Times are
    µs since the epoch. Each method but close() raises PrometheusError, also where the settings name
    no Prometheus."""

    def __init__(self, settings: Settings, service: str, environment: str | None) -> None:
        self._settings = settings
        self._scope = scope_of(service, environment)
        self._prometheus: Prometheus | None = None

    def gains(self, metric: Metric, start: int, end: int) -> Values:
        """As Prometheus.gains()."""
        return self._asked().gains(metric, self._scope, *_seconds(start, end))

    def newest(self, metric: Metric, start: int, end: int) -> Values:
        """As Prometheus.newest()."""
        return self._asked().newest(metric, self._scope, *_seconds(start, end))

    def _asked(self) -> Prometheus:
        if self._prometheus is None:
            self._prometheus = connect(self._settings)
        return self._prometheus

    def close(self) -> None:
        if self._prometheus is not None:
            self._prometheus.close()


def _seconds(start: int, end: int) -> tuple[int, int]:
    """Whole ones, and one at least."""
    first, last = start // 1_000_000, end // 1_000_000
    return first * 1_000_000, max(first + 1, last) * 1_000_000


def endpoint(values: tuple[str, ...], metric: Metric) -> str:
    """What the attributes of a metric of requests name: `POST /api/pay`, or an operation."""
    named = dict(zip((attribute.name for attribute in metric.attributes), values, strict=True))
    parts = (named.get(each.name) for each in (catalog.METHOD, catalog.ROUTE, catalog.OPERATION))
    return " ".join(part for part in parts if part)
