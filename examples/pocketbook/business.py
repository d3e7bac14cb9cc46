"""What Pocketbook's people ask of the store, as JSON: revenue, people, features, experiment, NPS.

    PBMON_CONFIG=examples/pocketbook/pbmon.toml python -m examples.pocketbook.business

Of the last 24 hours, in a process beside the app: the questions go to the store alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pbmon
from examples.pocketbook.books import Amounts

FEW = 10
"""No figure is about fewer people: it is None instead, and so is another one from which it could be
computed."""


@dataclass(frozen=True)
class Feature:
    name: str
    people: int | None
    by_plan: dict[str, int | None]
    """People."""


@dataclass(frozen=True)
class Variant:
    name: str
    people: int | None
    converted: int | None


@dataclass(frozen=True)
class Business:
    """The answers. None: the store does not know it, or does not tell."""

    currency: str
    revenue: Amounts
    """In this currency."""
    by_currency: dict[str, Amounts]
    unconverted: int
    held: int
    active: int | None
    """People who did anything."""
    registered: int | None
    """By the app's own table, at the end of yesterday."""
    new: int | None
    """Likewise, yesterday."""
    features: list[Feature]
    experiment: str
    variants: list[Variant]
    decision: str
    answers: int | None
    nps: float | None


def ask() -> Business:
    """Raises pbmon.StoreError."""
    end = datetime.now(timezone.utc) + timedelta(seconds=1)
    start = end - timedelta(days=1)
    revenue = pbmon.revenue_metrics("day")
    newcomers = pbmon.cohorts(start.date(), end.date(), period="week")
    sizes = [cohort.size for cohort in newcomers if cohort.size is not None]
    growth = pbmon.user_growth()
    report = pbmon.experiment_report("dashboard_layout")
    feedback = pbmon.feedback_summary(start, end)
    return Business(
        currency=revenue.currency,
        revenue=Amounts(revenue.gross, revenue.refunds),
        by_currency={
            currency: Amounts(sums.gross, sums.refunds)
            for currency, sums in revenue.by_currency.items()
        },
        unconverted=revenue.unconverted,
        held=revenue.held,
        active=sum(sizes) if sizes else None,
        registered=growth.total if growth is not None else None,
        new=growth.new if growth is not None else None,
        features=_features(start, end),
        experiment=report.key,
        variants=[Variant(each.variant, each.people, each.converted) for each in report.variants],
        decision=report.decision,
        answers=feedback.responses,
        nps=feedback.figure,
    )


def _features(start: datetime, end: datetime) -> list[Feature]:
    by_plan = pbmon.feature_adoption(start, end, segment="plan")
    return [
        Feature(
            found.feature,
            found.people,
            {p.segment: p.people for p in by_plan if p.feature == found.feature and p.segment},
        )
        for found in pbmon.feature_adoption(start, end)
    ]


def to_json(business: Business) -> str:
    return json.dumps(asdict(business), default=str, indent=2)


def from_json(text: str) -> Business:
    values = json.loads(text)
    return Business(
        **values
        | {
            "revenue": _amounts(values["revenue"]),
            "by_currency": {c: _amounts(sums) for c, sums in values["by_currency"].items()},
            "features": [Feature(**found) for found in values["features"]],
            "variants": [Variant(**found) for found in values["variants"]],
        }
    )


def _amounts(values: dict[str, str]) -> Amounts:
    return Amounts(Decimal(values["gross"]), Decimal(values["returned"]))


if __name__ == "__main__":
    pbmon.configure()
    print(to_json(ask()))
