"""What Prometheus shows of metrics: those that are read from a store, and those of processes."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pbmon import catalog, outbound, privacy
from pbmon.catalog import Metric
from pbmon.outbound import Client
from pbmon.settings import Settings

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


# The form for counters of processes: one without an earlier value began in the window at 0.
GAINED_BY_PROCESSES = (
    "clamp_min(max_over_time({series}[{window}])"
    " - (last_over_time({series}[1d] offset {window})"
    " or max_over_time({series}[{window}]) * 0), 0)"
)


class PrometheusError(Exception):
    """It can't be asked; the text says why and the remedy, never a secret."""


Values = dict[tuple[str, ...], Decimal]
"""Values of a metric's attributes, in its order and empty where one is absent → its value."""


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
        window, at = _window(start, end)

        def gain(metric: Metric, *matchers: str) -> Decimal | None:
            series = _series(metric, ", ".join((of_store, *matchers)))
            store = f"by ({', '.join(('instance', *metric.prometheus_labels()))})"
            form = GAINED.format(store=store, series=series, window=window)
            return self._number(f"sum({form})", at)

        def minor(amount: Decimal | None) -> int | None:
            return None if amount is None else round(amount.scaleb(exponent))

        series = _series(catalog.REVENUE, f"{of_store}, {in_base}")
        samples = self._number(f"sum(count_over_time({series}[{window}]))", at)
        transactions = gain(catalog.TRANSACTIONS, is_done)
        return Gained(
            minor(gain(catalog.REVENUE, in_base)),
            minor(gain(catalog.REFUNDS, in_base)),
            None if transactions is None else round(transactions),
            int(samples or 0),
        )

    def gains(self, metric: Metric, scope: str, start: int, end: int) -> Values:
        """What a counter of processes gained, by its attributes. scope: matchers of the service.
        start (within), end (not): µs since the epoch, whole seconds."""
        window, at = _window(start, end)
        form = GAINED_BY_PROCESSES.format(series=_series(metric, scope), window=window)
        return self._values(metric, f"sum by ({_labels(metric)}) ({form})", at)

    def newest(self, metric: Metric, scope: str, start: int, end: int) -> Values:
        """What a gauge said last in that time, the greatest of all processes."""
        window, at = _window(start, end)
        last = f"last_over_time({_series(metric, scope)}[{window}])"
        return self._values(metric, f"max by ({_labels(metric)}) ({last})", at)

    def _values(self, metric: Metric, query: str, at: str) -> Values:
        names = metric.prometheus_labels()
        data = self._ask("query", query=query, time=at)
        try:
            values = {
                tuple(each["metric"].get(name, "") for name in names): Decimal(each["value"][1])
                for each in data["result"]
            }
        except (KeyError, TypeError, IndexError, AttributeError, InvalidOperation):
            raise PrometheusError(_NOT_PROMETHEUS.format(self.shown)) from None
        if not all(value.is_finite() for value in values.values()):
            raise PrometheusError(f"{self.shown} has no number for {query}")
        return values

    def keeps_s(self) -> float | None:
        """For how long it keeps samples; None where that can't be known."""
        try:
            told = self._ask("status/runtimeinfo").get("storageRetention")
        except PrometheusError:  # what only speaks its query language need not know
            return None
        return _duration_s(told) if isinstance(told, str) else None

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


def connect(settings: Settings, url: str | None = None) -> Prometheus:
    """The one of the settings, or at another URL. Raises PrometheusError, also where there is
    none."""
    if url is None and settings.prometheus_url is None:
        raise PrometheusError("set prometheus_url to have it from Prometheus")
    url = url or outbound.url_of("prometheus_url", settings.prometheus_url)
    if url is None:
        raise PrometheusError(f"prometheus_url is {settings.prometheus_url}, which is not set")
    try:
        where = settings.prometheus_token
        token = None if where is None else outbound.secret_of("prometheus_token", where)
        return Prometheus(url, token)
    except ValueError as error:
        raise PrometheusError(str(error)) from None


def scope_of(service: str, environment: str | None = None, release: str | None = None) -> str:
    """Matchers of the labels that Prometheus makes of the resource; None: of all."""
    labels = {
        "service_name": service, "deployment_environment_name": environment,
        "service_version": release,
    }  # fmt: skip
    return ", ".join(
        f'{name}="{_quoted(value)}"' for name, value in labels.items() if value is not None
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _window(start: int, end: int) -> tuple[str, str]:
    """The length of a time, and when to ask for it: a range is without its first moment and with
    its last, so a millisecond earlier is right."""
    window = f"{(end - start) // 1_000_000}s"
    return window, f"{Decimal(end) / 1_000_000 - Decimal('0.001'):f}"


def _series(metric: Metric, matchers: str) -> str:
    return f"{metric.prometheus_name}{{{matchers}}}"


def _labels(metric: Metric) -> str:
    return ", ".join(metric.prometheus_labels())


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
