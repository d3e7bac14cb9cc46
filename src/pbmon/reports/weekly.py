"""The weekly review: what the store and Prometheus know of one ISO week, beside the week before."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from pbmon.reports import (
    budgets,
    errors,
    experiments,
    features,
    feedback,
    revenue,
    slow_queries,
    users,
)
from pbmon.reports.metrics import Metrics
from pbmon.reports.page import Page
from pbmon.reports.week import Builder, Question, Week, part
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.reader import Reader

SECTIONS: Sequence[tuple[str, Builder]] = (
    ("Revenue", revenue.build),
    ("Growth", users.build),
    ("Features", features.build),
    ("Experiments", experiments.build),
    ("Feedback", feedback.build),
    (errors.TITLE, errors.build),
    (budgets.TITLE, budgets.build),
    (slow_queries.TITLE, slow_queries.build),
)
"""Title and builder, in the order of the page."""


def build(
    reader: Reader,
    settings: Settings,
    service: str,
    week: Week,
    now: dt.datetime,
    environment: str | None = None,
) -> Page:
    """The page of a week that is over. now: aware, for the reader to know what was in the store.
    environment: deployment.environment.name of the metrics; None: of all.

    A section whose question can't be answered says so, and the others stand.
    """
    with closing(Metrics(settings, service, environment)) as metrics:
        question = Question(week, reader, settings, metrics)
        parts = [
            part(title, lambda builder=builder: builder(question))  # type: ignore[misc]
            for title, builder in SECTIONS
        ]
    return Page(
        f"Weekly review of {service}",
        f"{week.name}: {week.begin} to {week.days[-1]}, {week.zone}. "
        f"Made {now.astimezone(dt.timezone.utc):%Y-%m-%d %H:%M} UTC.",
        [headline for each in parts for headline in each.headlines],
        [each.section for each in parts],
    )
