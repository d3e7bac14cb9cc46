"""Errors: which exceptions, where and since which release, and what else went wrong."""

from __future__ import annotations

from grafana import queries
from grafana.panels import EXACT_NUMBER, SHARE, Frame, Query, bars, board, stat, timeseries
from pbmon.catalog import (
    ABORTED_REQUESTS,
    DB_STATUS,
    ERROR_TYPE,
    ERRORS,
    METHOD,
    QUERY_ERRORS,
    REQUEST_DURATION,
    ROUTE,
    Attribute,
)

UID = "pbmon-errors"  # addresses and bookmarks hang on it: never change it

RANGE = "$__range"
REQUESTS = queries.count_of(REQUEST_DURATION)
FAILED = queries.matcher(ERROR_TYPE, "", "!=")
RELEASE = queries.RELEASE_LABEL
EXACT = "Exact to one export interval, also across restarts."
NONE = "No error"


def _total(title: str, description: str) -> Frame:
    return Frame(
        title,
        f"{description} In the time range. {EXACT}",
        unit=EXACT_NUMBER,
        width=6,
        height=5,
        no_value="No request",
    )


def _or_zero(expr: str) -> str:
    """A counter has no series before it counted: where there were requests, that is none."""
    return f"{expr} or {queries.exact(REQUESTS, [], RANGE)} * 0"


TOTAL = stat(
    _total("Errors", "Exceptions that nobody handled, and those given to track_error()."),
    Query(_or_zero(queries.exact(ERRORS, [], RANGE)), "errors"),
    red_from=1,
)

FAILED_SHARE = stat(
    Frame(
        "Failed Requests",
        "Share of the requests in the time range that were answered with 5xx, or whose answer was "
        f"cut off by an exception. {EXACT}",
        unit=SHARE,
        width=6,
        height=5,
        no_value="No request",
        decimals=3,
    ),
    Query(
        f"({_or_zero(queries.exact(REQUESTS, [], RANGE, FAILED))})"
        f" / ({queries.exact(REQUESTS, [], RANGE)} > 0)",
        "of all",
    ),
)

ABORTED = stat(
    _total(
        "Aborted Requests",
        "Requests that ended before the last byte of an answer, without an exception: as a rule "
        "the client went.",
    ),
    Query(_or_zero(queries.exact(ABORTED_REQUESTS, [], RANGE)), "requests"),
)

FAILED_QUERIES = stat(
    _total("Failed Statements", "Statements that a database refused or lost."),
    Query(_or_zero(queries.exact(QUERY_ERRORS, [], RANGE)), "statements"),
)

BY_TYPE = timeseries(
    Frame(
        "Errors per Hour",
        f"Errors in the hour before each point, by type. {EXACT}",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value=NONE,
    ),
    Query(queries.exact(ERRORS, [ERROR_TYPE], "1h"), ERROR_TYPE),
)

RATE = timeseries(
    Frame(
        "Error Rate",
        "Errors per second, by type. For the shape: the rate is smoothed over at least four "
        "export intervals, and loses what a process counted before its first export.",
        unit="count:errors/s",
        width=12,
        height=9,
        no_value=NONE,
    ),
    Query(queries.rate(ERRORS, [ERROR_TYPE]), ERROR_TYPE),
)

TOP_TYPES = bars(
    Frame(
        "Top Types",
        "The ten types of error with the highest counts in the time range, by route. What has no "
        f"route was in no request, or met no route. {EXACT}",
        unit=EXACT_NUMBER,
        width=16,
        height=10,
        no_value=NONE,
    ),
    queries.top(ERRORS, ERROR_TYPE, ROUTE),
    row=ERROR_TYPE,
    column=ROUTE,
)

BY_RELEASE = stat(
    Frame(
        "Errors by Release",
        "Errors for each request, of each release that ran in the time range: a release that is "
        "worse than the one before it shows here while both still run. When it was deployed says "
        f"the line in the graphs. {EXACT}",
        unit=SHARE,
        width=8,
        height=10,
        no_value="No release is named",
        decimals=3,
    ),
    Query(
        f"({queries.exact_by_release(ERRORS, RANGE)}"
        f" or {queries.exact_by_release(REQUESTS, RANGE)} * 0)"
        f" / ({queries.exact_by_release(REQUESTS, RANGE)} > 0)",
        f"{{{{{RELEASE}}}}}",
    ),
)


def _failing(by: list[Attribute]) -> str:
    return f"{queries.rate(REQUESTS, by, FAILED)} / {queries.rate(REQUESTS, by)}"


FAILED_BY_ROUTE = timeseries(
    Frame(
        "Failed Requests by Route",
        "Share of the requests of each route that failed: 5xx, or an answer that an exception cut "
        "off.",
        unit=SHARE,
        width=12,
        height=9,
        no_value="No request failed",
    ),
    Query(_failing([METHOD, ROUTE]), queries.legend(METHOD, ROUTE)),
)

ABORTED_BY_ROUTE = timeseries(
    Frame(
        "Aborted Requests per Hour",
        "Requests that ended before the last byte of an answer in the hour before each point, by "
        f"route. Many of one route: it is slower than its clients are patient. {EXACT}",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value="None was aborted",
    ),
    Query(queries.exact(ABORTED_REQUESTS, [METHOD, ROUTE], "1h"), queries.legend(METHOD, ROUTE)),
)

DATABASE = bars(
    Frame(
        "Database Errors",
        "Statements that failed in the time range: the driver's class of exception, by SQLSTATE "
        f"or the product's own code. {EXACT}",
        unit=EXACT_NUMBER,
        width=24,
        height=9,
        no_value="No statement failed",
    ),
    f"{queries.exact(QUERY_ERRORS, [ERROR_TYPE, DB_STATUS], RANGE)} > 0",
    row=ERROR_TYPE,
    column=DB_STATUS,
)

DASHBOARD = board(
    UID,
    "Errors",
    "Which errors there are, where and since which release; failed and aborted requests; what "
    "databases refused.",
    panels=[
        TOTAL, FAILED_SHARE, ABORTED, FAILED_QUERIES,
        BY_TYPE, RATE,
        TOP_TYPES, BY_RELEASE,
        FAILED_BY_ROUTE, ABORTED_BY_ROUTE,
        DATABASE,
    ],
    metrics=[ERRORS, REQUESTS, ABORTED_REQUESTS, QUERY_ERRORS],
)  # fmt: skip
