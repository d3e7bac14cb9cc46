"""What the experiments say so far, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

from pbmon.experiments import Comparison, ExperimentReport, judge
from pbmon.privacy import K
from pbmon.reports.page import NONE, Amount, Section, Table, of_people
from pbmon.reports.week import Part, Question


def build(question: Question) -> Part:
    declared = question.settings.experiments
    if not declared:
        return Part(Section("Experiments", ("No experiment is declared.",)))
    reports = [
        judge(each, question.reader.exposed(each.key, each.goal, each.window_s))
        for each in declared.values()
    ]
    notes = [
        "Of all time, not of the week alone; intervals are always valid, however often one looks.",
        *(f"{report.key}: {text}" for report in reports for text in warnings(report)),
    ]
    return Part(Section("Experiments", notes, (), [_table(report) for report in reports]))


def _table(report: ExperimentReport) -> Table:
    rows = [
        (
            row.variant,
            of_people(row.people),
            of_people(row.converted),
            Amount(row.rate, "%", hidden=row.rate is None),
            *(difference(row.comparison) or (NONE, NONE)),
        )
        for row in report.variants
    ]
    columns = ("variant", "people", "converted", "rate", "difference, points", "interval")
    return Table(columns, rows, f"{goal(report)} → {report.decision}")


def goal(report: ExperimentReport) -> str:
    """`checkout: people who did paid within 7 days`."""
    window = f" within {_length(report.window_s)}" if report.window_s is not None else ""
    return f"{report.key}: people who did {report.goal}{window}"


def warnings(report: ExperimentReport) -> Sequence[str]:
    """What one must know before one believes it."""
    found = []
    if not report.is_sound:
        found.append(
            "DO NOT TRUST THIS: there are not as many people in the variants as their weights "
            f"say (p {probability(report.sample_ratio_p)}). Something decides who is counted: "
            "look for variants that fail, redirect or are recorded elsewhere, and for weights "
            "that were changed."
        )
    if report.crossed is None or report.crossed:
        found.append(f"{count(report.crossed)} met a second variant; they count for their first")
    return found


def difference(comparison: Comparison | None) -> tuple[str, str] | None:
    """To the control, in points: `+7.94`, and its interval, `+3.28 to +12.60`; None where it can't
    be told."""
    if comparison is None or comparison.difference is None:
        return None
    assert comparison.low is not None
    assert comparison.high is not None
    return (
        _points(comparison.difference),
        f"{_points(comparison.low)} to {_points(comparison.high)}",
    )


def _points(share: float) -> str:
    return f"{share * 100:+.2f}"


def count(people: int | None, word: str = "people") -> str:
    return f"fewer than {K} {word}" if people is None else f"{people:,} {word}"


def probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _length(length_s: float) -> str:
    days = length_s / 86_400
    return f"{days:g} days" if days >= 1 else f"{length_s:g} s"
