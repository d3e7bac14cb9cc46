"""Pocketbook Business Metrics: revenue, transactions, users and features on one page."""

from __future__ import annotations

from grafana import queries
from grafana.panels import EXACT_NUMBER, Frame, Query, bars, board, stat, timeseries
from pbmon.catalog import (
    CURRENCY,
    FEATURE_ACTION,
    FEATURE_NAME,
    FEATURE_USAGE,
    REFUNDS,
    REVENUE,
    REVENUE_BOOKED,
    REVENUE_PART,
    REVENUE_UNCONVERTED,
    TRANSACTION_KIND,
    TRANSACTION_STATUS,
    TRANSACTIONS,
    USERS_ACTIVE,
    WINDOW,
    Metric,
)

UID = "pbmon-business"  # addresses and bookmarks hang on it: never change it

DAY = WINDOW.values[0]
WEEK = "1w"
BASE = (
    "In the base currency: other currencies are converted by the rate of their day, and what waits "
    "for a rate is not in it."
)
EXACT = "Exact to one export interval, also across restarts."
COLOURS = {"completed": "green", "pending": "yellow", "failed": "red", "cancelled": "text"}

REVENUE_24H = stat(
    Frame(
        "Revenue (24h)",
        "Completed charges and positive adjustments booked in the 24 hours before the end of the "
        f"time range. {BASE} {EXACT}",
        unit=EXACT_NUMBER,
        width=6,
        height=6,
    ),
    Query(queries.exact(REVENUE, [CURRENCY], DAY), CURRENCY),
)

REFUNDS_24H = stat(
    Frame(
        "Refunds (24h)",
        "Refunds, chargebacks and negative adjustments booked in the 24 hours before the end of "
        f"the time range. {BASE} {EXACT}",
        unit=EXACT_NUMBER,
        width=6,
        height=6,
    ),
    Query(queries.exact(REFUNDS, [CURRENCY], DAY), CURRENCY),
)

NET_24H = stat(
    Frame(
        "Net Revenue (24h)",
        f"Revenue less refunds of the 24 hours before the end of the time range. {BASE}",
        unit=EXACT_NUMBER,
        width=6,
        height=6,
    ),
    Query(
        f"{queries.exact(REVENUE, [CURRENCY], DAY)} - {queries.exact(REFUNDS, [CURRENCY], DAY)}",
        CURRENCY,
    ),
)


def _average_charge() -> str:
    """Charges have no currency of their own here: they are counted to the one in which their store
    earned."""
    currency, store = queries.label(CURRENCY), queries.INSTANCE_LABEL
    charges = queries.gained(
        TRANSACTIONS,
        DAY,
        queries.matcher(TRANSACTION_KIND, "charge"),
        queries.matcher(TRANSACTION_STATUS, "completed"),
    )
    earning = f"group by ({store}, {currency}) (({queries.gained(REVENUE, DAY)}) > 0)"
    return (
        f"{queries.exact(REVENUE, [CURRENCY], DAY)} / (sum by ({currency})"
        f" (({charges}) * on ({store}) group_left ({currency}) {earning}) > 0)"
    )


AVERAGE_CHARGE = stat(
    Frame(
        "Average Charge (24h)",
        "Revenue of the 24 hours before the end of the time range for each completed charge. "
        "Positive adjustments are in the amount, and charges that wait for a rate in the number.",
        unit=EXACT_NUMBER,
        width=6,
        height=6,
        no_value="No charge completed",
        decimals=2,
    ),
    Query(_average_charge(), CURRENCY),
)

REVENUE_BY_HOUR = timeseries(
    Frame(
        "Revenue per Hour",
        f"Revenue of the hour before each point, and dashed of the same hour a week before. {BASE}",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
    ),
    Query(queries.exact(REVENUE, [CURRENCY], "1h"), CURRENCY),
    Query(
        queries.exact(REVENUE, [CURRENCY], "1h", ago=WEEK),
        f"{queries.legend(CURRENCY)} a week before",
    ),
    dashed="/ a week before$/",
)


def _compared(metric: Metric, part: str) -> list[Query]:
    """What the counter says, what the ledger says, and how far they are apart."""
    counted = queries.exact(metric, [CURRENCY], DAY)
    booked = queries.current(
        REVENUE_BOOKED,
        [CURRENCY],
        queries.matcher(REVENUE_PART, part),
        queries.matcher(WINDOW, DAY),
    )
    name = f"{queries.legend(CURRENCY)} {part}"
    return [
        Query(counted, f"{name}: metric"),
        Query(booked, f"{name}: store"),
        # Both are whole minor units, which a binary fraction only comes near.
        Query(f"round({counted} - {booked}, 0.001)", f"{name}: difference"),
    ]


METRIC_AND_STORE = stat(
    Frame(
        "Metric and Store (24h)",
        "Revenue (gross) and refunds by the counters, by the ledger in the store, and the "
        "difference. It is 0, or the sales of one export interval a day ago. More means that "
        "telemetry is late or lost, that Prometheus is younger than a day, or that older sales "
        "were converted meanwhile: believe the store.",
        unit=EXACT_NUMBER,
        width=7,
        height=9,
    ),
    *_compared(REVENUE, "gross"),
    *_compared(REFUNDS, "refunds"),
)

UNCONVERTED = stat(
    Frame(
        "Waiting for a Rate",
        "Transactions that count but have no exchange rate yet, by their own currency. They are in "
        "no amount on this page. More than 0 for more than a day: load rates.",
        unit=EXACT_NUMBER,
        width=5,
        height=9,
    ),
    Query(queries.current(REVENUE_UNCONVERTED, [CURRENCY]), CURRENCY),
    red_from=1,
)

TRANSACTION_RATE = timeseries(
    Frame(
        "Transaction Rate",
        "Transactions per second, by the status that they came to. For the shape: "
        "the rate is smoothed over at least four export intervals, and sums of it are not exact.",
        unit="count:tx/s",
        width=14,
        height=9,
    ),
    Query(queries.rate(TRANSACTIONS, [TRANSACTION_STATUS]), TRANSACTION_STATUS),
    colours=COLOURS,
)

TRANSACTIONS_24H = bars(
    Frame(
        "Transactions (24h)",
        "Transactions of the 24 hours before the end of the time range by kind and status. One "
        f"that was pending and then completed is in both. {EXACT}",
        unit=EXACT_NUMBER,
        width=10,
        height=9,
        no_value="No transaction",
    ),
    f"{queries.exact(TRANSACTIONS, [TRANSACTION_KIND, TRANSACTION_STATUS], DAY)} > 0",
    row=TRANSACTION_KIND,
    column=TRANSACTION_STATUS,
    colours=COLOURS,
)

ACTIVE_USERS = stat(
    Frame(
        "Active Users",
        "Users active in the 24 hours, 7 days and 30 days up to the end of the newest day that is "
        "over, by the store.",
        unit=EXACT_NUMBER,
        width=8,
        height=10,
        no_value="No day is over yet",
    ),
    # One query each: a single one would put them in the order 24h, 30d, 7d.
    *(
        Query(queries.current(USERS_ACTIVE, [WINDOW], queries.matcher(WINDOW, window)), window)
        for window in WINDOW.values
    ),
)

# A bar chart, not a bar gauge: that draws a bar per series, so a feature's actions would be
# three bars, not one bar of three parts.
FEATURE_USE = bars(
    Frame(
        "Feature Usage",
        "The ten most used features in the time range, by action. Exact to one export interval. "
        "_other is every name that isn't registered.",
        unit=EXACT_NUMBER,
        width=16,
        height=10,
        no_value="No use counted",
    ),
    queries.top_features(),
    row=FEATURE_NAME,
    column=FEATURE_ACTION,
)

DASHBOARD = board(
    UID,
    "Pocketbook Business Metrics",
    "What the business did: revenue, transactions, active users and the features they used.",
    panels=[
        REVENUE_24H, REFUNDS_24H, NET_24H, AVERAGE_CHARGE,
        REVENUE_BY_HOUR, METRIC_AND_STORE, UNCONVERTED,
        TRANSACTION_RATE, TRANSACTIONS_24H,
        ACTIVE_USERS, FEATURE_USE,
    ],
    metrics=[
        REVENUE, REFUNDS, REVENUE_BOOKED, REVENUE_UNCONVERTED, TRANSACTIONS, USERS_ACTIVE,
        FEATURE_USAGE,
    ],
)  # fmt: skip
