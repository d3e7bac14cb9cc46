"""What requests with the same metric attributes share: attributes, counters, budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pbmon import catalog, signals
from pbmon.budgets import Verdict
from pbmon.telemetry.budgets import Promise, count

if TYPE_CHECKING:
    from pbmon.telemetry.requests import Requests

SeriesKey = tuple[str, str, str, str | None, int | None, str | None]
"""Method, scheme, protocol version, route, status, error type."""


class Series:
    """Looked up once per finished request; holds the counters' cells, so that counting is cheap."""

    __slots__ = ("_by_route", "_promises", "_sink", "attributes", "budget")

    def __init__(self, sink: Requests, key: SeriesKey, *, overflow: bool = False) -> None:
        method, scheme, version, route, status, error_type = key
        self._sink = sink
        self.attributes: dict[str, Any] = (
            dict(signals.OVERFLOW)
            if overflow
            else present(
                {
                    catalog.METHOD.name: method,
                    catalog.SCHEME.name: scheme,
                    catalog.PROTOCOL_VERSION.name: version or None,
                    catalog.ROUTE.name: route,
                    catalog.STATUS.name: status,
                    catalog.ERROR_TYPE.name: error_type,
                }
            )
        )
        self._by_route = signals.key(
            present({catalog.METHOD.name: method, catalog.ROUTE.name: route})
        )
        self.budget = sink.settings.budgets.find(method, route)
        self._promises: list[Promise] = (
            sink.budgets.promises(self.budget) if self.budget is not None else []
        )

    def count_slow(self) -> None:
        self._sink.slow.cell(self._by_route).up()

    def count_aborted(self) -> None:
        self._sink.aborted.cell(self._by_route).up()

    def count_budget(self, verdict: Verdict, *, failed: bool) -> None:
        count(self._promises, verdict, failed=failed)


def present(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}
