"""From counted requests to the verdict on each limit of a budget.

A share of a few requests says little of the share of all. A limit is broken only where that much is
unlikely to be chance: where the lower bound of the share (Wilson's, one-sided, 95 %) is above what
is allowed. Below about fifty expected breaches that bound errs on the strict side, so there the
chance itself, which is binomial, must be at most 5 % as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

from pbmon.budgets import ALLOWED, Budget, Budgets, Limit
from pbmon.gate.runs import Request, Tally

CHANCE = 0.05
"""Of breaking a limit by chance alone, where the true share is just what is allowed."""

_Z = NormalDist().inv_cdf(1 - CHANCE)
_FEW_EXPECTED = 50


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that a limit applies to, and those of them that were over it.

    allowed: share that may be; 0 is a limit for each single request. threshold_s: None of
    availability, and where nobody knows it.
    """

    endpoint: str
    method: str | None
    limit: Limit
    requests: int
    over: int
    allowed: float
    threshold_s: float | None = None

    @property
    def name(self) -> str:
        """`GET /api/users/{user_id}`."""
        return f"{self.method} {self.endpoint}" if self.method else self.endpoint

    @property
    def share(self) -> float | None:
        return self.over / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Judgement:
    """bound: the share is at least this much, with 95 % confidence; None of a limit for each."""

    count: Count
    outcome: Outcome
    bound: float | None

    @property
    def name(self) -> str:
        return self.count.name

    def __str__(self) -> str:
        return f"{self.name}: {_promise(self.count)}: {self.finding}"

    @property
    def finding(self) -> str:
        """What was seen, in words."""
        count = self.count
        if not count.requests:
            return "no request was seen"
        broke = "failed" if count.limit == "availability" else "took longer"
        seen = f"{count.over:,} of {_requests(count.requests)} {broke}"
        if self.bound is None:
            return seen
        seen += f" ({count.over / count.requests:.2%}, at least {self.bound:.2%})"
        if self.outcome is Outcome.UNDECIDED:
            return f"{seen}; {enough(count.allowed):,} requests would tell"
        return f"{seen}; {percent(count.allowed)} may"


def percent(share: float) -> str:
    """`5 %`, `0.1 %`."""
    return f"{share * 100:.4g} %"


def shown_s(seconds: float) -> str:
    """`300 ms`, `1.5 s`, `80 µs`."""
    if seconds >= 1:
        return f"{seconds:.4g} s"
    return f"{seconds * 1e3:.4g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g} µs"


def _promise(count: Count) -> str:
    if count.limit == "availability":
        return f"availability {1 - count.allowed:.6g}"
    return count.limit + (f" {shown_s(count.threshold_s)}" if count.threshold_s else "")


def _requests(number: int) -> str:
    return f"{number:,} request{'s' * (number != 1)}"


# --- counting ---


def count(requests: Iterable[Request], budgets: Budgets) -> list[Count]:
    """A Count for every limit of the budgets of routes, as the metrics count: a failed request
    leaves the limits of time and spends availability; of two budgets the narrower has it."""
    routes = [budget for budget in budgets.all if budget.is_route]
    seen: dict[Budget, list[float]] = {budget: [] for budget in routes}
    failed: dict[Budget, int] = dict.fromkeys(routes, 0)
    for request in requests:
        budget = budgets.find(request.method, request.route)
        if budget is None:
            continue
        if request.failed:
            failed[budget] += 1
        else:
            seen[budget].append(request.duration_s)
    return [each for b in routes for each in _counts(b, seen[b], failed[b])]


def _counts(budget: Budget, durations: list[float], failed: int) -> Iterable[Count]:
    for limit, threshold_s in budget.thresholds.items():
        over = sum(each > threshold_s for each in durations)
        yield Count(
            budget.endpoint, budget.method, limit, len(durations), over, budget.allowed(limit),
            threshold_s,
        )  # fmt: skip
    if budget.availability is not None:
        yield Count(
            budget.endpoint, budget.method, "availability", len(durations) + failed, failed,
            budget.allowed("availability"),
        )  # fmt: skip


def add_up(tallies: Iterable[Tally], budgets: Budgets) -> list[Count]:
    """The same of what was counted elsewhere; of one limit the sum.

    Raises ValueError for availability without a share, of an endpoint without a budget.
    """
    sums: dict[tuple[str | None, str, Limit], tuple[int, int, float | None]] = {}
    for each in tallies:
        key = (each.method, each.route, each.limit)
        requests, over, allowed = sums.get(key, (0, 0, None))
        sums[key] = (
            requests + each.requests,
            over + each.over,
            allowed if each.allowed is None else each.allowed,
        )
    return [
        Count(
            route, method, limit, requests, over,
            allowed if allowed is not None else _allowed(limit, budgets.find(method, route), route),
            _threshold_s(limit, budgets.find(method, route)),
        )
        for (method, route, limit), (requests, over, allowed) in sums.items()
    ]  # fmt: skip


def _allowed(limit: Limit, budget: Budget | None, route: str) -> float:
    if limit in ALLOWED:
        return ALLOWED[limit]
    if budget is None or budget.availability is None:
        raise ValueError(f"availability of {route}: allowed is missing, such as 0.001")
    return budget.allowed(limit)


def _threshold_s(limit: Limit, budget: Budget | None) -> float | None:
    return budget.thresholds.get(limit) if budget is not None else None


# --- judging ---


def judge(count: Count, max_allow: int = 0) -> Judgement:
    """max_allow: requests over a limit for each single one that are let pass."""
    if not count.requests:
        return Judgement(count, Outcome.UNDECIDED, None)
    if count.allowed <= 0:
        broken = count.over > max_allow
        return Judgement(count, Outcome.FAILED if broken else Outcome.PASSED, None)
    bound = lower_bound(count.over, count.requests)
    if is_broken(count.over, count.requests, count.allowed):
        return Judgement(count, Outcome.FAILED, bound)
    told = count.requests >= enough(count.allowed)
    return Judgement(count, Outcome.PASSED if told else Outcome.UNDECIDED, bound)


def enough(allowed: float) -> int:
    """Requests from which on a limit that was not broken counts as kept: so many that at the
    allowed share one of them would be over it. 20 for p95, 100 for p99."""
    return math.ceil(round(1 / allowed, 6))


def is_broken(over: int, requests: int, allowed: float) -> bool:
    """Whether more than the allowed share was over the limit, and not by chance; never by a single
    request."""
    return (
        over > 1
        and lower_bound(over, requests) > allowed
        and (requests * allowed >= _FEW_EXPECTED or chance(over, requests, allowed) <= CHANCE)
    )


def lower_bound(over: int, requests: int) -> float:
    """Wilson's lower bound of the share, one-sided."""
    share, z2 = over / requests, _Z**2
    spread = _Z * math.sqrt(share * (1 - share) / requests + z2 / (4 * requests**2))
    return max(0.0, (share + z2 / (2 * requests) - spread) / (1 + z2 / requests))


def chance(over: int, requests: int, allowed: float) -> float:
    """That so many or more are over the limit where the true share is what is allowed. Takes time
    in proportion to `over`."""
    if allowed >= 1:
        return 1.0
    odds = allowed / (1 - allowed)
    logarithm, below = requests * math.log1p(-allowed), 0.0
    for number in range(over):
        below += math.exp(logarithm)
        logarithm += math.log(odds * (requests - number) / (number + 1))
    return max(0.0, 1 - below)
