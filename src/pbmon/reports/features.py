"""Which features people use, and how far they come in them."""

from __future__ import annotations

from collections.abc import Sequence

from pbmon.reports.page import Amount, Cell, Section, Table, of_people
from pbmon.reports.week import Part, Question


def build(question: Question) -> Part:
    week = question.week
    found = question.reader.feature_adoption(week.start, week.end, None)
    if not found:
        return Part(Section("Features", ("No feature was used.",)))
    rows: list[Sequence[Cell]] = [
        (
            each.feature,
            Amount(each.uses),
            of_people(each.people),
            Amount(each.adoption, "%", hidden=each.adoption is None),
            *map(of_people, (each.viewed, each.clicked, each.completed)),
        )
        for each in found
    ]
    columns = ("feature", "uses", "people", "adoption", "viewed", "→ clicked", "→ completed")
    note = (
        "Adoption is the share of all who did anything. Viewed, clicked and completed are people "
        "who came so far, in this order."
    )
    return Part(Section("Features", (note,), (), (Table(columns, rows),)))
