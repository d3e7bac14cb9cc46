"""PromQL for pbmon's metrics: every query of every dashboard is made here.

Queries take entries of the catalogue, so a name can't be misspelt, and every selector carries
the dashboard's `service` and `environment` variables (not those of rules, which have no page and
so an empty scope). Who exports a metric, each process or the
store, says the catalogue too (`of_store`): the two need different queries.

Three ways to read a metric:

- `exact`: what a counter gained in a window, to the unit. For amounts and counts.
- `rate`: its speed at each point of a graph. For shapes, not for sums.
- `current`: what a gauge says now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pbmon import catalog
from pbmon.catalog import Attribute, Metric

SERVICE_LABEL = "service_name"
ENVIRONMENT_LABEL = "deployment_environment_name"
RELEASE_LABEL = "service_version"
INSTANCE_LABEL = "instance"
"""service.instance.id: of a life of a process, or of a store."""

# `=~` also where one value is chosen: All is `.*`, which matches a series without the label too.
SCOPE = (f'{SERVICE_LABEL}=~"$service"', f'{ENVIRONMENT_LABEL}=~"$environment"')

PROCESS_LOOKBACK = "3m"
"""How old the last value of a process's gauge may be. Metrics leave every 60 s by default: one lost
export leaves a hole of two minutes, and a queue in the collector adds seconds to it. Longer would
show a process that is gone, and its figure, for as long."""

STORE_LOOKBACK = "10m"
"""The same of the store's: a reading goes out once, with the next export. The store is the same
whoever reads it, so an older value is nobody's ghost: this outlasts a deploy and a change of the
leader."""

DAILY_LOOKBACK = "1d"
"""The same of a figure that stands until the next day is over, also while nothing runs."""


def label(attribute: Attribute) -> str:
    """The attribute as a Prometheus label."""
    return attribute.name.replace(".", "_")


def legend(*attributes: Attribute) -> str:
    """Their values as the name of a series."""
    return " ".join(f"{{{{{label(attribute)}}}}}" for attribute in attributes)


def matcher(attribute: Attribute, value: str, operator: str = "=") -> str:
    return f'{label(attribute)}{operator}"{value}"'


def selector(metric: Metric, *matchers: str, scope: Sequence[str] = SCOPE) -> str:
    """The metric's series within the chosen services and environments."""
    chosen = ", ".join((*matchers, *scope))
    return f"{metric.prometheus_name}{{{chosen}}}" if chosen else metric.prometheus_name


def count_of(histogram: Metric) -> Metric:
    """The counter of how often a histogram was given a value."""
    return _part(histogram, "count")


def buckets_of(histogram: Metric) -> Metric:
    return _part(histogram, "bucket")


def _part(histogram: Metric, part: str) -> Metric:
    """As the metric that Prometheus makes of it."""
    assert histogram.kind == "histogram"
    name = f"{histogram.prometheus_name}_{part}"
    return replace(histogram, name=name, kind="updowncounter", unit="1", buckets=())


def exact(
    metric: Metric, by: Iterable[Attribute], window: str, *matchers: str, ago: str = ""
) -> str:
    """What a counter gained in the `window` that ended `ago`, exact to one export interval."""
    of = _labels(by)
    grouping = f" by ({of})" if of else ""
    return f"sum{grouping} ({gained(metric, window, *matchers, ago=ago)})"


def gained(
    metric: Metric, window: str, *matchers: str, ago: str = "", scope: Sequence[str] = SCOPE
) -> str:
    """The same of each series of the counter.

    `increase()` is not exact: it extrapolates, and it loses what a process counted before its first
    sample. These forms take the last value in the window and subtract the one before it.
    """
    return (_OF_STORE if metric.of_store else _OF_PROCESS).format(
        series=selector(metric, *matchers, scope=scope),
        window=window,
        store=f"by ({INSTANCE_LABEL}, {_labels(metric.attributes)})",
        end=f" offset {ago}" if ago else "",
        start=f"{ago}{window}",
    )


# A process's counter starts at 0 under an instance id of its own, so a series without an earlier
# value gained all that it shows. An older value is looked for a day back, to survive a gap.
_OF_PROCESS = (
    "clamp_min(max_over_time({series}[{window}]{end})"
    " - (last_over_time({series}[1d] offset {start})"
    " or max_over_time({series}[{window}]{end}) * 0), 0)"
)

# The store's counter is older than any Prometheus that reads it: where there is no earlier value,
# its first one in the window is not a gain. Services of different names may share a store and lead
# in turn: all their series are its one counter.
_OF_STORE = (
    "max {store} (max_over_time({series}[{window}]{end}))"
    " - (max {store} (last_over_time({series}[7d] offset {start}))"
    " or min {store} (min_over_time({series}[{window}]{end})))"
)


def rate(metric: Metric, by: Iterable[Attribute], *matchers: str) -> str:
    """A counter's speed per second. `$__rate_interval` always spans enough samples."""
    of = _labels(by)
    grouping = f" by ({of})" if of else ""
    return f"sum{grouping} (rate({selector(metric, *matchers)}[$__rate_interval]))"


def current(metric: Metric, by: Iterable[Attribute], *matchers: str) -> str:
    """The value of a gauge that every process reports alike, or that the store has.

    Of processes the greatest: four workers that say the same are not four times as much. Of stores
    the sum, as each has customers of its own, and of shares the mean. The look-back is explicit
    because Prometheus' own goes on for five minutes.
    """
    of = _labels(by)
    grouping = f" by ({of})" if of else ""
    if not metric.of_store:
        last = f"last_over_time({selector(metric, *matchers)}[{PROCESS_LOOKBACK}])"
        return f"max{grouping} ({last})"
    lookback = DAILY_LOOKBACK if metric.daily else STORE_LOOKBACK
    last = f"last_over_time({selector(metric, *matchers)}[{lookback}])"
    how = "avg" if metric.unit == "1" else "sum"
    store = ", ".join(filter(None, (INSTANCE_LABEL, of)))
    return f"{how}{grouping} (max by ({store}) ({last}))"


def mark_times(kind: str) -> str:
    """When each mark of a kind was, in ms since 1970: the same at every step, so that there is one
    annotation for a mark, whichever process tells of it and however often."""
    marks = selector(catalog.MARK_TIME, matcher(catalog.MARK_KIND, kind))
    by = ", ".join((INSTANCE_LABEL, ENVIRONMENT_LABEL, label(catalog.MARK_NAME)))
    return f"max by ({by}) (last_over_time({marks}[{STORE_LOOKBACK}])) * 1000"


def exact_by_release(metric: Metric, window: str, *matchers: str) -> str:
    """exact() by the release of the process that counted; without those that name none."""
    named = f'{RELEASE_LABEL}!=""'
    return f"sum by ({RELEASE_LABEL}) ({gained(metric, window, *matchers, named)})"


def top(metric: Metric, what: Attribute, part: Attribute) -> str:
    """The ten values of `what` with the highest counts in the time range, each by `part`.

    `topk` chooses values, not pairs of both, or one value could take several of the ten places.
    `> 0` leaves out what running processes know but did not count.
    """
    by_part = exact(metric, [what, part], "$__range")
    of_all = exact(metric, [what], "$__range")
    return f"{by_part} > 0 and on ({label(what)}) topk(10, {of_all} > 0)"


def top_features() -> str:
    return top(catalog.FEATURE_USAGE, catalog.FEATURE_NAME, catalog.FEATURE_ACTION)


def _labels(by: Iterable[Attribute]) -> str:
    return ", ".join(label(attribute) for attribute in by)
