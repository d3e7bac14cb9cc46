"""What came of a release: the time since it was deployed beside as much time before."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from typing import TYPE_CHECKING

from pbmon import growth
from pbmon.reports import budgets, errors, slow_queries
from pbmon.reports.metrics import Metrics
from pbmon.reports.page import Page
from pbmon.reports.week import Span, part
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.marks import Deployment
    from pbmon.store.reader import Reader

_SECOND = 1_000_000
_LONGEST = 7 * 86_400 * _SECOND
"""Of the time that is looked at: what came later came of other things too."""


def build(
    reader: Reader,
    settings: Settings,
    service: str,
    environment: str | None,
    deployed: Deployment,
    now: dt.datetime,
) -> Page:
    """now: aware. A section that can't be told says so, and the others stand."""
    span = since(deployed, int(now.timestamp() * _SECOND))
    with closing(Metrics(settings, service, environment)) as metrics:
        parts = [
            part(errors.TITLE, lambda: errors.of(span, reader, settings.timezone, new_first=True)),
            part(budgets.TITLE, lambda: budgets.of(span, metrics)),
            part(
                slow_queries.TITLE,
                lambda: slow_queries.of(span, metrics, settings.slow_query_s),
            ),
        ]
    return Page(
        f"Release {deployed.mark.name} of {service}",
        _subtitle(span, deployed, settings.timezone, now),
        [headline for each in parts for headline in each.headlines],
        [each.section for each in parts],
        (span.name, span.name_before),
    )


def since(deployed: Deployment, now: int) -> Span:
    """From the deploy until now, the next deploy, or for a week; beside as much time before."""
    start = deployed.mark.at // _SECOND * _SECOND
    until = now if deployed.after is None else min(now, deployed.after.at)
    length = min(max(until - start, _SECOND), _LONGEST) // _SECOND * _SECOND
    return Span(start - length, start, start + length, "since", "before")


def _subtitle(span: Span, deployed: Deployment, timezone: str, now: dt.datetime) -> str:
    zone = growth.zone(timezone)
    length = dt.timedelta(microseconds=span.end - span.start)
    after = f" after {deployed.before.name}" if deployed.before is not None else ""
    note = f" {deployed.mark.note}." if deployed.mark.note else ""
    return (
        f"Deployed {growth.time_of(deployed.mark.at, zone):%Y-%m-%d %H:%M:%S}{after}, {timezone}."
        f"{note} The {length} since, beside as much time before. "
        f"Made {now.astimezone(dt.timezone.utc):%Y-%m-%d %H:%M} UTC."
    )
