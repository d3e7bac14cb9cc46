"""The weekly review: what the store knows of one ISO week, beside the week before."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pbmon.reports import experiments, features, feedback, revenue, users
from pbmon.reports.page import Page, Section
from pbmon.reports.week import Builder, Part, Question, Week
from pbmon.runtime import StoreError
from pbmon.settings import Settings

if TYPE_CHECKING:
    from pbmon.store.reader import Reader

SECTIONS: Sequence[tuple[str, Builder]] = (
    ("Revenue", revenue.build),
    ("Growth", users.build),
    ("Features", features.build),
    ("Experiments", experiments.build),
    ("Feedback", feedback.build),
)
"""Title and builder, in the order of the page."""


def build(reader: Reader, settings: Settings, service: str, week: Week, now: dt.datetime) -> Page:
    """The page of a week that is over. now: aware, for the reader to know what was in the store.

    A section whose question the store can't answer says so, and the others stand.
    """
    question = Question(week, reader, settings)
    parts = [_part(title, builder, question) for title, builder in SECTIONS]
    return Page(
        f"Weekly review of {service}",
        f"{week.name}: {week.begin} to {week.days[-1]}, {week.zone}. "
        f"Made {now.astimezone(dt.timezone.utc):%Y-%m-%d %H:%M} UTC.",
        [headline for part in parts for headline in part.headlines],
        [part.section for part in parts],
    )


def _part(title: str, builder: Builder, question: Question) -> Part:
    try:
        return builder(question)
    except StoreError as error:
        return Part(Section(title, (f"This is missing: the store {error}.",)))
