"""Pocketbook Business Metrics: revenue, transactions, users and features on one page."""

from __future__ import annotations

from grafana import queries
from grafana.panels import EXACT_NUMBER, Frame, Query, board, stacked_bars, stat, timeseries
from pbmon.catalog import (
    CURRENCY,
    FEATURE_ACTION,
    FEATURE_NAME,
    FEATURE_USAGE,
    REVENUE,
    TRANSACTION_STATUS,
    TRANSACTIONS,
    USERS_ACTIVE,
    WINDOW,
)

UID = "pbmon-business"  # addresses and bookmarks hang on it: never change it

REVENUE_24H = stat(
    Frame(
        "Revenue (24h)",
        "Completed charges of the 24 hours before the end of the time range, in the currency "
        "they were made in: one figure per currency, never added together. Exact to one export "
        "interval, also across restarts.",
        unit=EXACT_NUMBER,
        width=8,
        height=8,
    ),
    Query(queries.exact(REVENUE, by=[CURRENCY], window="24h"), CURRENCY),
)

TRANSACTION_RATE = timeseries(
    Frame(
        "Transaction Rate",
        "Transactions per second, by the status that the application reported. For the shape: "
        "the rate is smoothed over at least four export intervals, and sums of it are not exact.",
        unit="count:tx/s",
        width=16,
        height=8,
    ),
    Query(queries.rate(TRANSACTIONS, by=[TRANSACTION_STATUS]), TRANSACTION_STATUS),
    colours={"completed": "green", "pending": "yellow", "failed": "red", "cancelled": "text"},
)

ACTIVE_USERS = stat(
    Frame(
        "Active Users",
        "Users active in the last 24 hours, 7 days and 30 days, by the query that the "
        "application configured. Every process reports the same figure: the greatest is shown, "
        "not the sum.",
        unit=EXACT_NUMBER,
        width=8,
        height=10,
    ),
    # One query each: a single one would put them in the order 24h, 30d, 7d.
    *(
        Query(
            queries.current(USERS_ACTIVE, [WINDOW], f'{queries.label(WINDOW)}="{window}"'), window
        )
        for window in WINDOW.values
    ),
)


def _top_features() -> str:
    """The ten features with the most uses in the time range, each by action.

    `topk` chooses features, not pairs of feature and action, or one feature would take three
    of the ten places. `> 0` leaves out what running processes know but nobody used.
    """
    by_action = queries.exact(FEATURE_USAGE, by=[FEATURE_NAME, FEATURE_ACTION], window="$__range")
    by_feature = queries.exact(FEATURE_USAGE, by=[FEATURE_NAME], window="$__range")
    return f"{by_action} > 0 and on ({queries.label(FEATURE_NAME)}) topk(10, {by_feature} > 0)"


# A bar chart, not a bar gauge: that draws a bar per series, so a feature's actions would be
# three bars, not one bar of three parts.
FEATURE_USE = stacked_bars(
    Frame(
        "Feature Usage",
        "The ten most used features in the time range, by action. Exact to one export interval. "
        "_other is every name that isn't registered.",
        unit=EXACT_NUMBER,
        width=16,
        height=10,
        no_value="No use counted",
    ),
    _top_features(),
    row=FEATURE_NAME,
    column=FEATURE_ACTION,
)

DASHBOARD = board(
    UID,
    "Pocketbook Business Metrics",
    "What the business did: revenue, transactions, active users and the features they used.",
    panels=[REVENUE_24H, TRANSACTION_RATE, ACTIVE_USERS, FEATURE_USE],
    metrics=[REVENUE, TRANSACTIONS, USERS_ACTIVE, FEATURE_USAGE],
)
