"""What people answered to the surveys, and what they wrote."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from pbmon import growth
from pbmon.privacy import K
from pbmon.reports.page import NONE, Amount, Cell, Chart, Headline, Section, Table, of_people
from pbmon.reports.week import Part, Question
from pbmon.surveys import FeedbackSummary, Survey

COMMENTS = 10
"""Of each survey."""


def build(question: Question) -> Part:
    surveys = question.settings.surveys
    now, before = (
        {
            name: question.reader.feedback(week.start, week.end, name, survey, None)
            for name, survey in surveys.items()
        }
        for week in (question.week, question.week.before)
    )
    answered = [name for name in surveys if now[name].responses is not None]
    figures = [
        name
        for name, survey in surveys.items()
        if survey.scale and (now[name].responses, before[name].responses) != (None, None)
    ]
    where = growth.zone(question.week.zone)
    section = Section(
        "Feedback",
        list(_notes([name for name in surveys if name not in answered])),
        [_chart(now[name]) for name in answered if surveys[name].scale],
        [
            table
            for name in answered
            for table in _tables(surveys[name], now[name], before[name], where)
        ],
    )
    headlines = [
        Headline(
            f"{name.upper() if name == surveys[name].kind else name}",
            *(_figure(surveys[name], each[name]) for each in (now, before)),
        )
        for name in figures
    ]
    return Part(section, headlines)


def _figure(survey: Survey, summary: FeedbackSummary) -> Amount:
    """NPS in points, CSAT as a share."""
    unit = "points" if survey.kind == "nps" else "%"
    figure = summary.figure
    if figure is not None and unit == "%":
        figure /= 100
    return Amount(figure, unit, hidden=figure is None)


def _notes(silent: Sequence[str]) -> Iterator[str]:
    if silent:
        yield f"Fewer than {K} people answered: {', '.join(silent)}."


def _chart(summary: FeedbackSummary) -> Chart:
    few = "; those of few people have no bar" if None in summary.distribution.values() else ""
    return Chart(
        f"Answers to {summary.survey} by score{few}",
        "bars",
        list(map(str, summary.distribution)),
        {"answers": list(summary.distribution.values())},
    )


def _tables(
    survey: Survey, now: FeedbackSummary, before: FeedbackSummary, where: dt.tzinfo
) -> Iterator[Table]:
    weeks = (("this week", now), ("week before", before))
    if survey.scale:
        rows: Sequence[Sequence[Cell]] = [
            (
                name,
                of_people(each.responses),
                _figure(survey, each),
                Amount(each.mean, hidden=each.mean is None),
            )
            for name, each in weeks
        ]
        yield Table(("", "answers", "figure", "mean"), rows, now.survey)
        yield Table(
            ("score", *map(str, now.distribution)),
            [("answers", *map(of_people, now.distribution.values()))],
        )
    else:
        rows = [(name, of_people(each.responses)) for name, each in weeks]
        yield Table(("", "answers"), rows, now.survey)
    comments = now.comments[:COMMENTS]
    if comments:
        rows = [
            (
                str(growth.day_of(comment.occurred_at, where)),
                NONE if comment.score is None else str(comment.score),
                comment.text,
            )
            for comment in comments
        ]
        yield Table(("day", "score", "comment"), rows, f"Newest comments, {now.survey}")
