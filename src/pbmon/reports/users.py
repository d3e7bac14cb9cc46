"""Who came and stayed: the snapshots of the days, and the cohorts of the last weeks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

from pbmon.growth import Cohort, UserGrowth, share
from pbmon.privacy import K, hidden
from pbmon.reports.page import Amount, Cell, Chart, Headline, Number, Section, Table, of_people
from pbmon.reports.week import Part, Question, Week

COHORTS = 8
"""Weeks, that of the report among them."""

_Days = Mapping[dt.date, UserGrowth]


def build(question: Question) -> Part:
    week, reader = question.week, question.reader
    snapshots = reader.growth_of_days(week.before.begin, week.days[-1])
    found = {growth.day: growth for growth in snapshots}
    first = week.begin - dt.timedelta(weeks=COHORTS - 1)
    cohorts = reader.cohorts(first, week.begin, "week")
    new, _ = _new(week, found)
    active = [_count(_of(found, day, "active_24h")) for day in week.days]
    chart = Chart(
        "Active and new users by day",
        "lines",
        week.labels,
        {"active": list(map(_drawn, active)), "new": list(map(_drawn, new))},
    )
    tables = [_days_table(week, active, new), _cohorts_table(cohorts)]
    section = Section("Growth", list(_notes(week, found)), [chart], tables)
    return Part(section, _headlines(week, found))


def _days_table(week: Week, active: Sequence[Amount], new: Sequence[Amount]) -> Table:
    rows = [
        (f"{day:%A}, {day}", *cells)
        for day, cells in zip(week.days, zip(active, new, strict=True), strict=True)
    ]
    return Table(("day", "active", "new"), rows, "By day")


def _of(found: _Days, day: dt.date, figure: str) -> int | None:
    return getattr(found[day], figure) if day in found else None


def _count(people: int | None) -> Amount:
    """As it may be told; None: it is not known."""
    return Amount(people, hidden=people is not None and 0 < people < K)


def _drawn(amount: Amount) -> Number | None:
    return None if amount.hidden else amount.value


def _new(week: Week, found: _Days) -> tuple[Sequence[Amount], Amount]:
    """New people of each day and of the week, of which nobody can compute what is hidden."""
    days = [_of(found, day, "new") for day in week.days]
    known = [people for people in days if people is not None]
    unseen = hidden([people or 0 for people in days], [[1] * len(days)])
    every = unseen is None
    cells = [
        Amount(people, hidden=people is not None and (every or at in (unseen or ())))
        for at, people in enumerate(days)
    ]
    whole = sum(known) if len(known) == len(days) else None
    return cells, Amount(whole, hidden=every and whole is not None)


def _retention(growth: UserGrowth | None) -> Amount:
    if growth is None or growth.before is None or growth.churned is None:
        return Amount(None)
    few = 0 < growth.before - growth.churned < K or 0 < growth.before < K
    return Amount(growth.retention, "%", hidden=few)


def _headlines(week: Week, found: _Days) -> Sequence[Headline]:
    weeks = (week, week.before)
    lasts = [each.days[-1] for each in weeks]
    news = [_new(each, found)[1] for each in weeks]
    totals = [_of(found, day, "total") for day in lasts]
    # Beside each other they tell how many are new.
    are_close = None not in totals and 0 < (totals[0] or 0) - (totals[1] or 0) < K
    total, before = map(_count, totals)
    if are_close:
        before = Amount(before.value, hidden=True)
    return [
        Headline("Active users, 7 days", *(_count(_of(found, day, "active_7d")) for day in lasts)),
        Headline("New users", *news),
        Headline("Churned, 30 days", *(_count(_of(found, day, "churned")) for day in lasts)),
        Headline("Users in total", total, before),
        Headline("Retention, 30 days", *(_retention(found.get(day)) for day in lasts)),
    ]


def _notes(week: Week, found: _Days) -> Iterator[str]:
    missing = [day for day in (*week.before.days, *week.days) if day not in found]
    if missing:
        yield (
            f"No figures were taken of {', '.join(map(str, missing))}. What takes them: "
            f"pbmon run growth --from {missing[0]} --to {missing[-1]}"
        )
    zones = {growth.timezone for growth in found.values()} - {week.zone}
    if zones:
        yield f"Days of growth are those of {', '.join(sorted(zones))}, in which the store counts."
    yield (
        "As of the end of the week. Of those who were active in the 30 days before the last 30, "
        "churned are those who were not since, and retention is the share of those who were."
    )


def _cohorts_table(cohorts: Sequence[Cohort]) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            f"week of {cohort.begin}",
            of_people(cohort.size),
            *(
                Amount(share(people, cohort.size), "%", hidden=people is None)
                for people in cohort.retained
            ),
            *[Amount(None)] * (len(cohorts) - 1 - len(cohort.retained)),
        )
        for cohort in cohorts
    ]
    columns = ("first active in the", "people", *(f"+{n}" for n in range(1, len(cohorts))))
    return Table(columns, rows, "Of those who came first in a week, active so many weeks later")
