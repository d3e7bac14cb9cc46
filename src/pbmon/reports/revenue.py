"""What was earned: each local day beside the same day of the week before, and each currency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from pbmon.business.revenue_metrics import CurrencyRevenue, RevenueMetrics, metrics_of
from pbmon.moments import instant
from pbmon.reports.page import Amount, Cell, Chart, Headline, Section, Table
from pbmon.reports.week import Part, Question, Week
from pbmon.runtime import Revenue

_NOTHING = CurrencyRevenue(Decimal(0), Decimal(0), Decimal(0), 0)


def build(question: Question) -> Part:
    week = question.week
    days, days_before = (_by_day(question, each) for each in (week, week.before))
    now, before = _whole(week, days), _whole(week.before, days_before)
    net, net_before = _net(week, days), _net(week.before, days_before)
    conflicts = question.reader.revenue_conflicts(week.start, week.end)
    chart = Chart(
        f"Net revenue by day, {now.currency}",
        "bars",
        week.labels,
        {"this week": net, "week before": net_before},
        now.currency,
    )
    tables = [_days_table(week, now.currency, net, net_before), _currencies_table(now, before)]
    section = Section("Revenue", list(_notes(now, conflicts)), [chart], tables)
    return Part(section, _headlines(now, before))


def _by_day(question: Question, week: Week) -> Sequence[Revenue]:
    base = question.settings.base_currency
    return [question.reader.revenue(*week.bounds(day), base) for day in week.days]


def _net(week: Week, days: Sequence[Revenue]) -> Sequence[Decimal]:
    return [
        _metrics(*week.bounds(day), found).net for day, found in zip(week.days, days, strict=True)
    ]


def _whole(week: Week, days: Sequence[Revenue]) -> RevenueMetrics:
    """The sum of its days, so that they always add up to it."""
    sums = tuple(each for day in days for each in day.sums)
    return _metrics(
        week.start, week.end, days[-1]._replace(sums=sums, held=sum(day.held for day in days))
    )


def _metrics(start: int, end: int, found: Revenue) -> RevenueMetrics:
    since, until = map(instant, (start, end))
    return metrics_of(since, until, found)


def _headlines(now: RevenueMetrics, before: RevenueMetrics) -> Sequence[Headline]:
    return [
        *(
            Headline(
                name, *(Amount(getattr(each, figure), each.currency) for each in (now, before))
            )
            for name, figure in (
                ("Net revenue", "net"), ("Gross revenue", "gross"), ("Refunds", "refunds"),
            )
        ),
        Headline("Completed charges", Amount(now.count), Amount(before.count)),
        Headline("Average charge", _average(now), _average(before)),
    ]  # fmt: skip


def _average(metrics: RevenueMetrics) -> Amount:
    return Amount(metrics.average or None, metrics.currency)  # 0 also where none is converted


def _notes(now: RevenueMetrics, conflicts: dict[str, int]) -> Iterator[str]:
    if not now.by_currency:
        yield "Nothing was booked."
    if now.unconverted:
        waiting = "transaction waits" if now.unconverted == 1 else "transactions wait"
        yield (
            f"{now.unconverted:,} {waiting} for an exchange rate: in the amounts by currency, "
            f"not in those in {now.currency}."
        )
    if now.held:
        yield (
            f"{now.held:,} held: refunds and chargebacks whose charge has not completed are in no "
            "figure."
        )
    if conflicts:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in conflicts.items())
        yield (
            f"{sum(conflicts.values()):,} not booked, as they contradict what is ({reasons}): see "
            "the table transaction_conflicts."
        )


def _days_table(
    week: Week, currency: str, net: Sequence[Decimal], before: Sequence[Decimal]
) -> Table:
    rows = [
        (f"{day:%A}, {day}", Amount(this), Amount(last))
        for day, this, last in zip(week.days, net, before, strict=True)
    ]
    return Table(("day", f"net, {currency}", "week before"), rows, "By day")


def _currencies_table(now: RevenueMetrics, before: RevenueMetrics) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            currency,
            *(Amount(amount) for amount in (this.gross, this.refunds, this.net)),
            Amount(this.count),
            Amount(before.by_currency.get(currency, _NOTHING).net),
        )
        for currency in sorted({*now.by_currency, *before.by_currency})
        for this in [now.by_currency.get(currency, _NOTHING)]
    ]
    columns = ("currency", "gross", "refunds", "net", "charges", "net, week before")
    return Table(columns, rows, "By currency, each in its own")
