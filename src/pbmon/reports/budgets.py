"""What the requests kept of the budgets: each promise beside the time before, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from pbmon import catalog
from pbmon.reports.metrics import Metrics, endpoint
from pbmon.reports.page import Amount, Cell, Headline, Section, Table
from pbmon.reports.prometheus import Values
from pbmon.reports.week import Part, Question, Span

TITLE = "Budgets"


class _Promise(NamedTuple):
    """requests, breaches: of the time; share: of them, None without requests. allowed: share."""

    endpoint: str
    limit: str
    threshold: Decimal | None
    requests: Decimal
    breaches: Decimal
    before: Decimal | None
    allowed: Decimal

    @property
    def share(self) -> Decimal | None:
        return _share(self.requests, self.breaches)

    @property
    def left(self) -> Decimal | None:
        """Of the breaches that are allowed; none where none are."""
        return 1 - self.share / self.allowed if self.share is not None and self.allowed else None

    @property
    def is_broken(self) -> bool:
        return _is_broken(self.share, self.allowed)

    @property
    def rank(self) -> tuple[bool, Decimal, Decimal]:
        """The lower, the worse."""
        left = self.left
        if left is None:
            left = 1 - (self.share or Decimal(0))
        return not self.is_broken, left, -self.breaches


def _share(requests: Decimal, breaches: Decimal) -> Decimal | None:
    return breaches / requests if requests else None


def _is_broken(share: Decimal | None, allowed: Decimal) -> bool:
    return share is not None and share > allowed


def build(question: Question) -> Part:
    return of(question.week.span, question.metrics)


def of(span: Span, metrics: Metrics) -> Part:
    """Raises PrometheusError."""
    requests, breaches = (
        metrics.gains(metric, span.start, span.end)
        for metric in (catalog.BUDGET_REQUESTS, catalog.BUDGET_BREACHES)
    )
    allowed, thresholds = (
        metrics.newest(metric, span.start, span.end)
        for metric in (catalog.BUDGET_ALLOWED, catalog.BUDGET_THRESHOLD)
    )
    if not allowed:
        return Part(Section(TITLE, ("Prometheus knows of no budget in this time.",)))
    before = _shares_before(span, metrics)
    promises = sorted(
        (
            _promise(key, share, thresholds, requests, breaches, before)
            for key, share in allowed.items()
        ),
        key=lambda promise: (promise.rank, promise.endpoint, promise.limit),
    )
    return Part(
        Section(TITLE, [_note(promises)], (), (_table(span, promises),)),
        [_headline(promises, before, allowed)],
    )


def _shares_before(span: Span, metrics: Metrics) -> dict[tuple[str, ...], Decimal | None]:
    requests, breaches = (
        metrics.gains(metric, span.before, span.start)
        for metric in (catalog.BUDGET_REQUESTS, catalog.BUDGET_BREACHES)
    )
    return {key: _share(count, breaches.get(key, Decimal(0))) for key, count in requests.items()}


def _promise(
    key: tuple[str, ...],
    allowed: Decimal,
    thresholds: Values,
    requests: Values,
    breaches: Values,
    before: dict[tuple[str, ...], Decimal | None],
) -> _Promise:
    *_, limit = key
    return _Promise(
        endpoint(key, catalog.BUDGET_ALLOWED),
        limit,
        thresholds.get(key),
        requests.get(key, Decimal(0)),
        breaches.get(key, Decimal(0)),
        before.get(key),
        # A share such as 1 - 0.999 is no exact number where it was made.
        round(allowed, 9),
    )


def _note(promises: Sequence[_Promise]) -> str:
    broken = sum(promise.is_broken for promise in promises)
    unasked = sum(not promise.requests for promise in promises)
    text = f"{broken} of {len(promises)} promises broken: more breaches than are allowed."
    return f"{text} {unasked} had no request." if unasked else text


def _headline(
    promises: Sequence[_Promise],
    before: dict[tuple[str, ...], Decimal | None],
    allowed: Values,
) -> Headline:
    earlier = [
        _is_broken(share, round(allowed[key], 9))
        for key, share in before.items()
        if share is not None and key in allowed
    ]
    return Headline(
        "Promises of budgets broken",
        Amount(sum(promise.is_broken for promise in promises)),
        Amount(sum(earlier) if earlier else None),
    )


def _table(span: Span, promises: Sequence[_Promise]) -> Table:
    rows: list[Sequence[Cell]] = [
        (
            each.endpoint,
            each.limit,
            Amount(each.threshold, "s"),
            Amount(int(each.requests)),
            Amount(int(each.breaches)),
            Amount(each.share, "%"),
            Amount(each.before, "%"),
            Amount(each.allowed, "%"),
            Amount(each.left, "%"),
        )
        for each in promises
    ]
    columns = (
        "endpoint", "limit", "threshold", "requests", "breaches", "share", span.name_before,
        "allowed", "left",
    )  # fmt: skip
    return Table(columns, rows, "Share of the requests that took longer, or failed; worst first")
