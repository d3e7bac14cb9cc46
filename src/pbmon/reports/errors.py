"""Which errors there were, as the store has them: how often, where, and whether they are new."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pbmon import growth
from pbmon.reports.page import Amount, Cell, Headline, Section, Table
from pbmon.reports.week import Part, Question, Span

if TYPE_CHECKING:
    from pbmon.store.error_figures import ErrorFigure, ErrorFigures
    from pbmon.store.reader import Reader

TITLE = "Errors"
MOST = 15


def build(question: Question) -> Part:
    return of(question.week.span, question.reader, question.week.zone)


def of(span: Span, reader: Reader, zone: str, *, new_first: bool = False) -> Part:
    """new_first: those that were not there before come before all others. Raises StoreError."""
    found = reader.error_figures(span.before, span.start, span.end, limit=MOST, new_first=new_first)
    headline = Headline("Errors", Amount(found.errors), Amount(found.before))
    if not found.errors:
        return Part(Section(TITLE, ("None was recorded.",)), [headline])
    where = growth.zone(zone)
    section = Section(TITLE, list(_notes(found)), (), (_table(span, found, where),))
    return Part(section, [headline])


def _notes(found: ErrorFigures) -> Iterator[str]:
    kinds = "1 kind" if found.kinds == 1 else f"{found.kinds:,} kinds"
    yield (
        f"{found.errors:,} errors of {kinds}, {found.new:,} of them seen for the first time. "
        "Users are those who met it from then until now, as far as they may be known."
    )


def _table(span: Span, found: ErrorFigures, where: dt.tzinfo) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            f"{each.error_type} in {each.place}" if each.place else each.error_type,
            each.route or "",
            Amount(each.errors),
            Amount(each.before),
            Amount(each.people or None, hidden=each.people is None),
            _first_seen(each, where),
        )
        for each in found.top
    ]
    columns = ("error", "route", span.name, span.name_before, "users", "first seen")
    return Table(columns, rows)


def _first_seen(each: ErrorFigure, where: dt.tzinfo) -> str:
    text = f"{growth.time_of(each.first_at, where):%Y-%m-%d %H:%M}"
    if each.first_release is not None:
        text += f" in {each.first_release}"
    return f"NEW: {text}" if each.is_new else text
