"""Budgets: how fast each endpoint uses up what it may break, for any number of endpoints.

Everything is counted first and divided last: a mean of ratios would give an idle night the weight
of a busy day. What an endpoint may break comes from the application (`pbmon.budget.allowed`), so a
changed budget changes no rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from grafana import queries
from grafana.rules.expressions import SERVICE, labels, latest, tiles
from grafana.rules.model import Alert, Group, Recording, Severity
from pbmon.catalog import (
    BUDGET_ALLOWED,
    BUDGET_BREACHES,
    BUDGET_LIMIT,
    BUDGET_REQUESTS,
    METHOD,
    OPERATION,
    ROUTE,
)

PROMISE = (METHOD, ROUTE, OPERATION, BUDGET_LIMIT)
BY = labels(SERVICE, *PROMISE)

ENOUGH_TO_PAGE = 10
ENOUGH_FOR_A_TICKET = 20
"""Requests that broke the promise in the long window: fewer say nothing about a share."""

GREATEST_BURN = 0.5
"""More than half of the requests pages whatever the budget allows: 14.4 times 5 % is 72 %, which a
very bad endpoint may never reach."""

ENDPOINT = (
    "{{ with $labels.http_request_method }}{{ . }} {{ end }}"
    "{{ or $labels.http_route $labels.pbmon_operation }} of {{ $labels.service_name }}"
)
LIMIT = "{{ $labels.pbmon_budget_limit }}"
SHARE = "{{ $value | humanizePercentage }}"


def _tiles(
    every: int, unit: str, reach: str, requests: str, breaches: str
) -> tuple[Recording, ...]:
    """seen and gain of the requests, seen and gain of the breaches."""
    return (
        *tiles("budget_requests", requests, BY, every, unit, reach),
        *tiles("budget_breaches", breaches, BY, every, unit, reach),
    )


@dataclass(frozen=True)
class Sums:
    """What was requested, and what of it broke the promise, in a window: names or expressions."""

    window: str
    requests: Recording | str
    breaches: Recording | str

    @property
    def share(self) -> str:
        """NaN where nothing was requested, which is above no threshold."""
        return f"{self.breaches} / {self.requests}"

    def above(self, threshold: str, least: int = 0) -> str:
        found = f"{self.share} > {threshold}"
        return f"{found}\nand {self.breaches} >= {least}" if least else found


def _recorded(window: str, requests: Recording, breaches: Recording) -> Sums:
    return Sums(
        window,
        Recording(f"pbmon:budget_requests:sum{window}", requests.added(window)),
        Recording(f"pbmon:budget_breaches:sum{window}", breaches.added(window)),
    )


def _recordings(*sums: Sums) -> tuple[Recording, ...]:
    both = (each for window in sums for each in (window.requests, window.breaches))
    return tuple(each for each in both if isinstance(each, Recording))


FIVE_MINUTES = _tiles(
    5,
    "m",
    "1h",
    queries.selector(BUDGET_REQUESTS, scope=()),
    queries.selector(BUDGET_BREACHES, scope=()),
)
SEEN_REQUESTS, REQUESTS, SEEN_BREACHES, BREACHES = FIVE_MINUTES
# From what those of five minutes saw: thirty days are 720 of these.
HOUR = _tiles(1, "h", "3h", SEEN_REQUESTS.name, SEEN_BREACHES.name)
_, HOURLY_REQUESTS, _, HOURLY_BREACHES = HOUR

ALLOWED = Recording("pbmon:budget_allowed:ratio", latest(BUDGET_ALLOWED, "10m", PROMISE))

IN_5M = Sums("5m", REQUESTS, BREACHES)
IN_30M = Sums("30m", REQUESTS.added("30m"), BREACHES.added("30m"))
IN_1H = _recorded("1h", REQUESTS, BREACHES)
IN_2H = Sums("2h", REQUESTS.added("2h"), BREACHES.added("2h"))
IN_6H = _recorded("6h", REQUESTS, BREACHES)
IN_1D = _recorded("1d", HOURLY_REQUESTS, HOURLY_BREACHES)
IN_3D = _recorded("3d", HOURLY_REQUESTS, HOURLY_BREACHES)
IN_30D = _recorded("30d", HOURLY_REQUESTS, HOURLY_BREACHES)
# Of another group, whose samples lie between this one's.
LAST_6H = Sums("6h", *(each.last() for each in _recordings(IN_6H)))

SHARE_30D = Recording("pbmon:budget_share:30d", f"{IN_30D.breaches} / ({IN_30D.requests} > 0)")


def _burn(  # one line of the table below
    factor: float, long: Sums, short: Sums, severity: Severity, pending: str, keep: str
) -> Alert:
    """Both windows burn `factor` times as fast as the budget allows; the short one, so that it
    ends soon after the trouble does."""
    # A limit that nothing may pass is no share, and one that more than half may pass never burns.
    threshold = (
        f"clamp_max({factor:g} * ({ALLOWED.last()} > 0 <= {GREATEST_BURN}), {GREATEST_BURN})"
    )
    enough = ENOUGH_TO_PAGE if severity == "page" else ENOUGH_FOR_A_TICKET
    fast = "more than the budget allows"
    if factor > 1:
        fast = f"more than {factor:g} times what the budget allows, or than half"
    return Alert(
        "BudgetBurn",
        f"{long.above(threshold, enough)}\nand {short.above(threshold)}",
        severity,
        f"{ENDPOINT} breaks its {LIMIT} budget",
        f"{SHARE} of the requests of the last {long.window} broke the {LIMIT} promise, and "
        f"those of the last {short.window} do as well: {fast}.",
        pending,
        keep,
        {"pbmon_window": long.window},
    )


PAGE_FAST = _burn(14.4, IN_1H, IN_5M, "page", "", "10m")
PAGE_SLOW = _burn(6, IN_6H, IN_30M, "page", "5m", "15m")
TICKET_FAST = _burn(3, IN_1D, IN_2H, "ticket", "1h", "2h")
TICKET_SLOW = _burn(1, IN_3D, LAST_6H, "ticket", "1h", "2h")

# `max` and an availability of 1 allow nothing: there is no share to burn.
BREACHED = Alert(
    "BudgetBreached",
    f"{IN_1H.breaches} >= {ENOUGH_FOR_A_TICKET}\nand {ALLOWED} == 0\nand {IN_30M.breaches} > 0",
    "ticket",
    f"{ENDPOINT} passes its {LIMIT} again and again",
    f"{{{{ $value }}}} requests of the last hour passed {LIMIT}, which none may.",
    keep_firing="30m",
)

EXHAUSTED = Alert(
    "BudgetExhausted",
    IN_30D.above(f"({ALLOWED.last()} > 0)", ENOUGH_FOR_A_TICKET),
    "ticket",
    f"{ENDPOINT} has used up its {LIMIT} budget",
    f"{SHARE} of the requests of the last 30 days broke the {LIMIT} promise, which is more than "
    "the budget allows.",
    keep_firing="2h",
)

GROUPS = (
    Group(
        "pbmon budgets",
        "5m",
        (
            *FIVE_MINUTES,
            *_recordings(IN_1H, IN_6H),
            ALLOWED,
            PAGE_FAST,
            PAGE_SLOW,
            BREACHED,
        ),
    ),
    Group(
        "pbmon budgets by hour",
        "1h",
        (
            *HOUR,
            *_recordings(IN_1D, IN_3D, IN_30D),
            SHARE_30D,
            TICKET_FAST,
            TICKET_SLOW,
            EXHAUSTED,
        ),
    ),
)
