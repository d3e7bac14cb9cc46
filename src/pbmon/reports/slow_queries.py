"""Which statements of a database were slow most often."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pbmon import catalog
from pbmon.reports.metrics import Metrics
from pbmon.reports.page import Amount, Cell, Headline, Section, Table
from pbmon.reports.week import Part, Question, Span

TITLE = "Slow queries"
MOST = 10


def build(question: Question) -> Part:
    return of(question.week.span, question.metrics, question.settings.slow_query_s)


def of(span: Span, metrics: Metrics, slow_query_s: float) -> Part:
    """slow_query_s: of the settings. Raises PrometheusError."""
    now = metrics.gains(catalog.SLOW_QUERIES, span.start, span.end)
    before = metrics.gains(catalog.SLOW_QUERIES, span.before, span.start)
    slow = sorted(((count, key) for key, count in now.items() if count), key=_most_first)
    headline = Headline(
        "Slow queries", Amount(int(sum(now.values()))), Amount(int(sum(before.values())))
    )
    if not slow:
        return Part(Section(TITLE, ("Prometheus knows of none in this time.",)), [headline])
    rows: list[Sequence[Cell]] = [
        (summary or "others", system, Amount(int(count)), Amount(int(before.get(key, 0))))
        for count, key in slow[:MOST]
        for system, summary in [key]
    ]
    note = f"Statements that took longer than {slow_query_s:g} s, without their values."
    columns = ("statement", "database", span.name, span.name_before)
    return Part(Section(TITLE, (note,), (), (Table(columns, rows),)), [headline])


def _most_first(item: tuple[Decimal, tuple[str, ...]]) -> tuple[Decimal, tuple[str, ...]]:
    return -item[0], item[1]
