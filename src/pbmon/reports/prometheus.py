"""Prometheus, and what it shows of the metrics that are read from a store."""

from __future__ import annotations

import math
import os
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pbmon import catalog, outbound, privacy
from pbmon.catalog import Metric
from pbmon.outbound import Client

(_CURRENCY,) = catalog.REVENUE.prometheus_labels()
_, _STATUS = catalog.TRANSACTIONS.prometheus_labels()
_DURATIONS_S = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}

# The form for counters of a store, which are older than any Prometheus that reads them: where there
# is no earlier value, the first one in the window is not a gain. See docs/dashboards.md.
GAINED = (
    "max {store} (max_over_time({series}[{window}]))"
    " - (max {store} (last_over_time({series}[7d] offset {window}))"
    " or min {store} (min_over_time({series}[{window}])))"
)


class PrometheusError(Exception):
    """It can't be asked; the text says why and the remedy, never a secret."""


def token_of(where: str | None) -> str | None:
    """The token that the setting prometheus_token says the place of. Raises PrometheusError."""
    if where is None:
        return None
    kind, _, name = where.partition(":")
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise PrometheusError(
                f"prometheus_token: {name} can't be read ({type(error).__name__})"
            ) from None
    if not os.environ.get(name):
        raise PrometheusError(f"prometheus_token is {where}, which is not set")
    return os.environ[name]


class Gained(NamedTuple):
    """What the metrics of a store gained in a time; None: there is no sample. samples: how many
    there are of the revenue."""

    revenue_minor: int | None
    refunds_minor: int | None
    transactions: int | None
    samples: int


class Prometheus:
    """url: its base. token: a bearer token. Raises ValueError for a URL that would go unencrypted
    to another machine; each method raises PrometheusError."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._client = Client("prometheus_url", url)
        self._url = url
        self.shown = privacy.mask_url(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def gained(self, store_id: str, currency: str, exponent: int, start: int, end: int) -> Gained:
        """start (within), end (not): µs since the epoch, whole seconds. currency, exponent: the
        base of the store."""
        of_store = f'instance="{store_id}"'  # service.instance.id, as Prometheus takes OTLP
        in_base = f'{_CURRENCY}="{currency}"'
        is_done = f'{_STATUS}="completed"'
        window = f"{(end - start) // 1_000_000}s"
        # A range is without its first moment and with its last: a millisecond earlier is right.
        at = f"{Decimal(end) / 1_000_000 - Decimal('0.001'):f}"

        def gain(metric: Metric, *matchers: str) -> Decimal | None:
            series = f"{metric.prometheus_name}{{{', '.join((of_store, *matchers))}}}"
            store = f"by ({', '.join(('instance', *metric.prometheus_labels()))})"
            form = GAINED.format(store=store, series=series, window=window)
            return self._number(f"sum({form})", at)

        def minor(amount: Decimal | None) -> int | None:
            return None if amount is None else round(amount.scaleb(exponent))

        series = f"{catalog.REVENUE.prometheus_name}{{{of_store}, {in_base}}}"
        samples = self._number(f"sum(count_over_time({series}[{window}]))", at)
        transactions = gain(catalog.TRANSACTIONS, is_done)
        return Gained(
            minor(gain(catalog.REVENUE, in_base)),
            minor(gain(catalog.REFUNDS, in_base)),
            None if transactions is None else round(transactions),
            int(samples or 0),
        )

    def keeps_s(self) -> float | None:
        """For how long it keeps samples; None where that can't be known."""
        try:
            told = self._ask("status/runtimeinfo").get("storageRetention")
        except PrometheusError:  # what only speaks its query language need not know
            return None
        return _duration_s(told) if isinstance(told, str) else None

    def vector(self, query: str, at: float) -> list[tuple[dict[str, Any], float]]:
        """Labels and value of each series at a time, seconds since the epoch."""
        data = self._ask("query", query=query, time=f"{at:.3f}")
        try:
            found = [(dict(e["metric"]), float(e["value"][1])) for e in data["result"]]
        except (KeyError, TypeError, ValueError, IndexError):
            raise PrometheusError(_NOT_PROMETHEUS.format(self.shown)) from None
        if not all(math.isfinite(value) for _, value in found):
            raise PrometheusError(f"{self.shown} has no number for {query}")
        return found

    def close(self) -> None:
        self._client.close()

    def _number(self, query: str, at: str) -> Decimal | None:
        """Of a query that gives one number or none."""
        data = self._ask("query", query=query, time=at)
        try:
            if not data["result"]:
                return None
            ((_, value),) = (each["value"] for each in data["result"])
            number = Decimal(value)
        except (KeyError, TypeError, ValueError, InvalidOperation):
            raise PrometheusError(_NOT_PROMETHEUS.format(self.shown)) from None
        if not number.is_finite():
            raise PrometheusError(f"{self.shown} has no number for {query}")
        return number

    def _ask(self, path: str, **parameters: str) -> dict[str, Any]:
        parts = urlsplit(self._url)
        where = parts._replace(path=f"{parts.path.rstrip('/')}/api/v1/{path}").geturl()
        try:
            answer = self._client.ask("GET", where, headers=self._headers, params=parameters)
        except Exception as error:
            raise PrometheusError(
                f"{self.shown} can't be asked: {outbound.cause(error)}; see that it runs, and the "
                "setting prometheus_url"
            ) from None
        if answer.status != 200:
            remedy = _REMEDIES.get(answer.status, "see its log")
            raise PrometheusError(f"{self.shown} answers {answer.phrase}; {remedy}")
        data = answer.json().get("data")
        if not isinstance(data, dict):
            raise PrometheusError(_NOT_PROMETHEUS.format(self.shown))
        return data


_NOT_PROMETHEUS = "{} does not answer as Prometheus does; check the setting prometheus_url"
_REMEDIES = {
    401: "check the setting prometheus_token",
    403: "check the setting prometheus_token",
    404: "check the path of the setting prometheus_url",
}


def _duration_s(text: str) -> float | None:
    """Of `90d` or `15d or 8GiB`."""
    found = re.match(r"(?:\d+[ywdhms])+", text)
    if found is None:
        return None
    return float(
        sum(int(n) * _DURATIONS_S[unit] for n, unit in re.findall(r"(\d+)([ywdhms])", found[0]))
    )
