"""Budgets / SLO: what each budget promises, and what the requests kept of it.

No number of a budget is in here: thresholds and shares are the metrics that pbmon makes of them.
"""

from __future__ import annotations

from grafana import queries
from grafana.panels import (
    EXACT_NUMBER,
    SECONDS,
    SHARE,
    Choice,
    Column,
    Frame,
    Query,
    board,
    stat,
    table,
    timeseries,
)
from pbmon.catalog import (
    BUDGET_ALLOWED,
    BUDGET_BREACHES,
    BUDGET_LIMIT,
    BUDGET_REQUESTS,
    BUDGET_THRESHOLD,
    ERROR_TYPE,
    METHOD,
    OPERATION,
    REQUEST_DURATION,
    ROUTE,
    Attribute,
)

UID = "pbmon-budgets"  # addresses and bookmarks hang on it: never change it

ENDPOINT = Choice("endpoint", "Endpoint", "Routes that have a budget.", ROUTE)
PROMISE = (METHOD, ROUTE, OPERATION, BUDGET_LIMIT)
NAME = queries.legend(METHOD, ROUTE, OPERATION)
NO_BUDGET = "No budget, or no request"
EXACT = "Counted for each request by its own threshold, not read from a histogram."


def _requests(window: str) -> str:
    return queries.exact(BUDGET_REQUESTS, PROMISE, window, ENDPOINT.matcher)


def _breaches(window: str, *matchers: str) -> str:
    return queries.exact(BUDGET_BREACHES, PROMISE, window, *matchers, ENDPOINT.matcher)


def _allowed(*matchers: str) -> str:
    return queries.current(BUDGET_ALLOWED, PROMISE, *matchers, ENDPOINT.matcher)


def _share(window: str) -> str:
    """Of the requests that a promise applies to, those that broke it; none without requests."""
    return f"{_breaches(window)} / ({_requests(window)} > 0)"


BROKEN = stat(
    Frame(
        "Promises Broken",
        "Budgets of which more requests than allowed broke the promise in the time range, by "
        f"limit. Of max that is a single one. {EXACT}",
        unit=EXACT_NUMBER,
        width=6,
        height=10,
        no_value=NO_BUDGET,
    ),
    Query(
        # 1 - 0.9995 is a little less than the share 0.0005.
        f"sum by ({queries.label(BUDGET_LIMIT)})"
        f" (({_share('$__range')}) > bool round({_allowed()}, 1e-9))",
        BUDGET_LIMIT,
    ),
    red_from=1,
)

TABLE = table(
    Frame(
        "Budgets",
        "Each promise of each budget in the time range. Left is the part of the allowed breaches "
        "that was not used: 0 % and less is beyond it. What fails leaves the limits of time and "
        f"counts against availability. {EXACT}",
        unit=EXACT_NUMBER,
        width=18,
        height=10,
        no_value=NO_BUDGET,
    ),
    {"Method": METHOD, "Endpoint": ROUTE, "Operation": OPERATION, "Limit": BUDGET_LIMIT},
    Column(
        "Threshold", queries.current(BUDGET_THRESHOLD, PROMISE, ENDPOINT.matcher), SECONDS
    ),
    Column("Requests", _requests("$__range"), EXACT_NUMBER),
    Column("Breaches", _breaches("$__range"), EXACT_NUMBER),
    Column("Share", _share("$__range"), SHARE, decimals=2),
    Column("Allowed", _allowed(), SHARE, decimals=2),
    Column(
        "Left", f"1 - {_share('$__range')} / ({_allowed()} > 0)", SHARE, decimals=1,
        red_below=0.0,
    ),
    sorted_by="Share",
)  # fmt: skip


def _quantile(limit: str, by: tuple[Attribute, ...], method: str) -> str:
    """Of the requests that the limit is about, for the routes that have it. method: matcher of the
    budgets with a method of their own, or without."""
    buckets = queries.selector(
        queries.buckets_of(REQUEST_DURATION), queries.matcher(ERROR_TYPE, ""), ENDPOINT.matcher
    )
    names = ", ".join(map(queries.label, by))
    quantile = int(limit.removeprefix("p")) / 100
    return (
        f"histogram_quantile({quantile}, sum by ({names}, le) (rate({buckets}[$__rate_interval])))"
        f" and on ({names}) {_threshold(limit, by, method)}"
    )


def _threshold(limit: str, by: tuple[Attribute, ...], *matchers: str) -> str:
    of_limit = queries.matcher(BUDGET_LIMIT, limit)
    return queries.current(BUDGET_THRESHOLD, by, of_limit, *matchers, ENDPOINT.matcher)


def _beside_threshold(limit: str) -> list[Query]:
    any_method, one_method = (queries.matcher(METHOD, "", sign) for sign in ("=", "!="))
    named = queries.legend(METHOD, ROUTE)
    return [
        Query(_quantile(limit, (ROUTE,), any_method), queries.legend(ROUTE), has_traces=True),
        Query(_quantile(limit, (METHOD, ROUTE), one_method), named, has_traces=True),
        Query(_threshold(limit, (METHOD, ROUTE), queries.matcher(OPERATION, "")), f"{named} limit"),
    ]


def _latency(limit: str) -> Frame:
    percent = limit.removeprefix("p")
    return Frame(
        f"{limit} beside Its Limit",
        f"The time within which {percent} % of the answers came that did not fail, and dashed what "
        "the budget allows. Buckets have an edge at each threshold: on which side of its limit a "
        "line is, is exact; how far from it is read between two edges. A dot opens a trace.",
        unit=SECONDS,
        width=12,
        height=9,
        no_value=f"No budget has a {limit}",
    )


LATENCY = [
    timeseries(_latency(limit), *_beside_threshold(limit), dashed="/ limit$/")
    for limit in BUDGET_LIMIT.values
    if limit.startswith("p")
]

BURN_RATE = timeseries(
    Frame(
        "Burn Rate (1h)",
        "How many times as many requests as allowed broke each promise in the hour before each "
        "point: 1 uses up exactly what is allowed. A promise without a share, as max, has none.",
        unit="none",
        width=12,
        height=9,
        no_value=NO_BUDGET,
        decimals=2,
    ),
    Query(
        f"{_share('1h')} / ({_allowed()} > 0)",
        f"{NAME} {queries.legend(BUDGET_LIMIT)}",
    ),
)

BREACHES_BY_HOUR = timeseries(
    Frame(
        "Breaches per Hour",
        "Requests, and runs of operations, that broke a promise in the hour before each point.",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value=NO_BUDGET,
    ),
    Query(_breaches("1h"), f"{NAME} {queries.legend(BUDGET_LIMIT)}"),
)


def _available() -> list[Query]:
    only = queries.matcher(BUDGET_LIMIT, "availability")
    by = (METHOD, ROUTE, OPERATION)
    failed = queries.exact(BUDGET_BREACHES, by, "1h", only, ENDPOINT.matcher)
    all_of_them = queries.exact(BUDGET_REQUESTS, by, "1h", only, ENDPOINT.matcher)
    promised = queries.current(BUDGET_ALLOWED, by, only, ENDPOINT.matcher)
    return [
        Query(f"1 - {failed} / ({all_of_them} > 0)", NAME),
        Query(f"1 - {promised}", f"{NAME} promised"),
    ]


AVAILABILITY = timeseries(
    Frame(
        "Availability (1h)",
        "Share of the requests in the hour before each point that did not fail, and dashed what is "
        "promised.",
        unit=SHARE,
        width=24,
        height=9,
        no_value="No budget has an availability",
        decimals=3,
    ),
    *_available(),
    dashed="/ promised$/",
    from_zero=False,
)

DASHBOARD = board(
    UID,
    "Budgets / SLO",
    "What each budget promises and what the requests kept of it, by counts that are exact.",
    panels=[
        BROKEN, TABLE,
        *LATENCY,
        BURN_RATE, BREACHES_BY_HOUR,
        AVAILABILITY,
    ],
    metrics=[BUDGET_REQUESTS, BUDGET_BREACHES, BUDGET_THRESHOLD, BUDGET_ALLOWED],
    choices=[ENDPOINT],
)  # fmt: skip
