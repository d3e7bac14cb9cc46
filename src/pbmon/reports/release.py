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
    at = growth.time_of(deployed.mark.at, growth.zone(timezone))
    after = f" after {deployed.before.name}" if deployed.before is not None else ""
    note = f": {deployed.mark.note}" if deployed.mark.note else ""
    return (
        f"Deployed {at:%Y-%m-%d %H:%M:%S} ({timezone}){after}{note}. "
        f"The {_length(span)} since, beside as much time before. "
        f"Made {now.astimezone(dt.timezone.utc):%Y-%m-%d %H:%M} UTC."
    )


def _length(span: Span) -> str:
    """By its two largest units: `3 d 2 h`, `5 min 10 s`."""
    left = (span.end - span.start) // _SECOND
    parts: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)
