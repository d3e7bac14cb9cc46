"""PromQL for pbmon's metrics: every query of every dashboard is made here.

Queries take entries of the catalogue, so a name can't be misspelt, and every selector carries
the dashboard's `service` and `environment` variables.

Three ways to read a metric:

- `exact`: what a counter gained in a window, to the unit. For amounts and counts.
- `rate`: its speed at each point of a graph. For shapes, not for sums.
- `current`: what a gauge says now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pbmon import catalog
from pbmon.catalog import Attribute, Metric

Source = Literal["process", "store"]

SOURCES: Mapping[str, Source] = {
    catalog.REVENUE.name: "process",
    catalog.TRANSACTIONS.name: "process",
}
"""Who exports a counter; one that isn't named is a process's. Change the word when it changes:
the two kinds need different queries, and each figure has one source only."""

SERVICE_LABEL = "service_name"
ENVIRONMENT_LABEL = "deployment_environment_name"

# `=~` also where one value is chosen: All is `.*`, which matches a series without the label too.
SCOPE = (f'{SERVICE_LABEL}=~"$service"', f'{ENVIRONMENT_LABEL}=~"$environment"')

GAUGE_LOOKBACK = "3m"
"""How old a gauge's last value may be. Metrics leave every 60 s by default: one lost export
leaves a hole of two minutes, and a queue in the collector adds seconds to it. Longer would show
a process that is gone, and its figure, for as long."""


def label(attribute: Attribute) -> str:
    """The attribute as a Prometheus label."""
    return attribute.name.replace(".", "_")


def selector(metric: Metric, *matchers: str) -> str:
    """The metric's series within the chosen services and environments."""
    return f"{metric.prometheus_name}{{{', '.join((*matchers, *SCOPE))}}}"


def exact(metric: Metric, by: Iterable[Attribute], window: str) -> str:
    """What a counter gained in `window`, exact to one export interval.

    `increase()` is not: it extrapolates, and it loses what a process counted before its first
    sample. These forms take the last value in the window and subtract the one before it.
    """
    form = _FORMS[SOURCES.get(metric.name, "process")]
    gained = form.format(series=selector(metric), window=window)
    return f"sum by ({_labels(by)}) ({gained})"


_FORMS: Mapping[Source, str] = {
    # A process's counter starts at 0 under an instance id of its own, so a series without an
    # earlier value gained all that it shows. An older value is looked for a day back, to
    # survive a gap.
    "process": (
        "clamp_min(max_over_time({series}[{window}])"
        " - (last_over_time({series}[1d] offset {window})"
        " or max_over_time({series}[{window}]) * 0), 0)"
    ),
    # The store's counter is older than any Prometheus that reads it: where there is no earlier
    # value, its first one in the window is not a gain.
    "store": (
        "max_over_time({series}[{window}])"
        " - (last_over_time({series}[7d] offset {window})"
        " or min_over_time({series}[{window}]))"
    ),
}


def rate(metric: Metric, by: Iterable[Attribute]) -> str:
    """A counter's speed per second. `$__rate_interval` always spans enough samples."""
    return f"sum by ({_labels(by)}) (rate({selector(metric)}[$__rate_interval]))"


def current(metric: Metric, by: Iterable[Attribute], *matchers: str) -> str:
    """The value of a gauge that every process reports alike.

    The greatest, not the sum: four workers that count the same 120 users are 120 users. The
    look-back is explicit because Prometheus' own goes on for five minutes.
    """
    series = selector(metric, *matchers)
    return f"max by ({_labels(by)}) (last_over_time({series}[{GAUGE_LOOKBACK}]))"


def _labels(by: Iterable[Attribute]) -> str:
    return ", ".join(label(attribute) for attribute in by)
