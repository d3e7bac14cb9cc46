"""PromQL of rules: as `grafana.queries`, for every service and environment at once."""

from __future__ import annotations

from collections.abc import Iterable

from grafana import queries
from grafana.rules.model import Recording
from pbmon.catalog import Attribute, Metric

SERVICE = (queries.SERVICE_LABEL, queries.ENVIRONMENT_LABEL)
"""What a figure of the processes is kept apart by, always."""

STORE = (queries.INSTANCE_LABEL,)
"""The same of the store's. Services may share a store and lead in turn, so its figures change
their service, never their store."""

DAY, WEEK = "1d", "1w"


def labels(kept: Iterable[str], *by: Attribute) -> str:
    return ", ".join((*kept, *map(queries.label, by)))


def gained(metric: Metric, window: str, by: Iterable[Attribute] = (), *matchers: str) -> str:
    """What a counter gained in the window, by its service or store and by attributes."""
    kept = STORE if metric.of_store else SERVICE
    gain = queries.gained(metric, window, *matchers, scope=())
    return f"sum by ({labels(kept, *by)}) ({gain})"


def latest(metric: Metric, lookback: str, by: Iterable[Attribute] = (), *matchers: str) -> str:
    """The greatest of the last values of a gauge, by its service or store and by attributes."""
    kept = STORE if metric.of_store else SERVICE
    last = f"last_over_time({queries.selector(metric, *matchers, scope=())}[{lookback}])"
    return f"max by ({labels(kept, *by)}) ({last})"


def mean_of_weeks(values: Iterable[str], by: str) -> str:
    """The mean of as many of the values as there are: a young Prometheus knows fewer weeks."""
    marked = (
        f'label_replace({value}, "week", "{number}", "", "")'
        for number, value in enumerate(values, start=1)
    )
    return f"avg by ({by}) (" + " or ".join(marked) + ")"


def tiles(
    what: str, source: str, by: str, every: int, unit: str, reach: str
) -> tuple[Recording, Recording]:
    """Two series by which the gain of a counter in any longer time is a sum, to the unit.

    `seen` is how far each process' counter was last seen, `gain` what all of them gained since the
    rules were evaluated before. So a gain is in one tile and in no other, whenever its samples
    arrive and however long Prometheus was away: a window of the clock would miss what came late.

    every, unit: the interval of the group. reach: how long after a process' last sample its counter
    may still be found; longer than samples are late. source: the counter, or the `seen` of shorter
    tiles.
    """
    interval, process = f"{every}{unit}", f"{queries.INSTANCE_LABEL}, {by}"
    seen = Recording(
        f"pbmon:{what}:seen{interval}", f"max by ({process}) (max_over_time({source}[{reach}]))"
    )
    name = f"pbmon:{what}:gain{interval}"
    # Who was never seen counts from 0, as a process does. But where the rules are new, Prometheus
    # may be too, and the processes are not: then from the first value there is.
    gain = Recording(
        name,
        f"""\
sum by ({by}) (
  clamp_min(
    {seen}
    - (
      last_over_time({seen}[{DAY}] offset 1m)
      or (
        min by ({process}) (min_over_time({source}[{interval}]))
        unless on () last_over_time({name}[{DAY}] offset {2 * every}{unit})
      )
      or {seen} * 0
    ),
    0
  )
)""",
    )
    return seen, gain
