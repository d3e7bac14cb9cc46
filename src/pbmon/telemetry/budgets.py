"""What budgets promise and what became of it: counters, thresholds, and the log of a breach.

Implements runtime.BudgetSink for operations; the sink of requests counts by the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.metrics import Meter, Observation

from pbmon import catalog, signals
from pbmon.budgets import Budget, Limit, Verdict
from pbmon.settings import Settings
from pbmon.telemetry.notices import Notices


class Promise(NamedTuple):
    """One promise of a budget and its two counters."""

    limit: Limit
    requests: signals.Cell
    breaches: signals.Cell


class BudgetFigures:
    """Counted by this process. apply() changes the budgets while it runs."""

    def __init__(self, settings: Settings, meter: Meter, notices: Notices) -> None:
        self._notices = notices
        self._requests = signals.Counts(catalog.BUDGET_REQUESTS, meter)
        self._breaches = signals.Counts(catalog.BUDGET_BREACHES, meter)
        signals.observe(catalog.BUDGET_THRESHOLD, self._thresholds, meter=meter, instant=True)
        signals.observe(catalog.BUDGET_ALLOWED, self._allowed, meter=meter, instant=True)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """The counters of a budget that is gone stand still: one that fell would be a restart."""
        budgets = settings.budgets
        # Made here, at 0: the first breach is a rise.
        made = [(budget, self.promises(budget)) for budget in budgets.all]
        self._operations = {b.endpoint: (b, of_it) for b, of_it in made if not b.is_route}
        self._budgets = budgets

    def promises(self, budget: Budget) -> list[Promise]:
        keys = [(limit, budget_key(budget, limit)) for limit in budget.limits]
        return [
            Promise(limit, self._requests.cell(key), self._breaches.cell(key))
            for limit, key in keys
        ]

    def check(
        self, endpoint: str, duration_s: float, method: str | None, *, failed: bool
    ) -> Verdict | None:
        found = self._operations.get(endpoint)
        if found is None:
            budget = self._budgets.find(method, endpoint)
            return budget.judge(duration_s) if budget is not None else None
        budget, promises = found
        verdict = budget.judge(duration_s)
        count(promises, verdict, failed=failed)
        if verdict.exceeded:
            self.tell(verdict, endpoint, None)
        return verdict

    def tell(
        self, verdict: Verdict, endpoint: str | None, method: str | None, span: Any = None
    ) -> None:
        """Log a breach of `max`, ten times a minute for each endpoint at most."""
        if verdict.budget is None:
            return
        self._notices.write(
            catalog.BUDGET_EXCEEDED_LOG,
            key=f"{method} {endpoint}",
            span=span,
            endpoint=endpoint,
            method=method,
            duration=verdict.duration_s,
            budget=verdict.budget.max_s,
            exceeded=verdict.excess_s,
        )

    def _thresholds(self) -> Iterable[Observation]:
        for budget in self._budgets.all:
            for limit, threshold_s in budget.thresholds.items():
                yield Observation(threshold_s, dict(budget_key(budget, limit)))

    def _allowed(self) -> Iterable[Observation]:
        for budget in self._budgets.all:
            for limit in budget.limits:
                yield Observation(budget.allowed(limit), dict(budget_key(budget, limit)))


def count(promises: list[Promise], verdict: Verdict, *, failed: bool) -> None:
    """What failed leaves the latency limits, or a fast failure would look like a good answer; it
    spends availability."""
    for limit, requests, breaches in promises:
        if limit == "availability":
            requests.up()
            if failed:
                breaches.up()
        elif not failed:
            requests.up()
            if limit in verdict.limits:
                breaches.up()


def budget_key(budget: Budget, limit: Limit) -> signals.Key:
    """Attributes of a budget's series; the method only where the budget names one, so that
    counters and thresholds of one budget always carry the same labels."""
    name = (catalog.ROUTE if budget.is_route else catalog.OPERATION).name
    attributes = {name: budget.endpoint, catalog.BUDGET_LIMIT.name: limit}
    if budget.method is not None:
        attributes[catalog.METHOD.name] = budget.method
    return signals.key(attributes)
