"""The business: revenue, features, growth, and whether telemetry and ledger agree."""

from __future__ import annotations

from grafana import queries
from grafana.rules.expressions import (
    DAY,
    SERVICE,
    STORE,
    gained,
    labels,
    latest,
    mean_of_weeks,
    tiles,
)
from grafana.rules.model import Alert, Group, Recording
from pbmon.catalog import (
    CURRENCY,
    FEATURE_ACTION,
    FEATURE_NAME,
    FEATURE_USAGE,
    JOB,
    JOB_LAST_SUCCESS,
    REFUNDS,
    REVENUE,
    REVENUE_BOOKED,
    REVENUE_PART,
    ROLE,
    TRANSACTION_KIND,
    TRANSACTION_STATUS,
    TRANSACTIONS,
    WINDOW,
    WORKER_ACTIVE,
    Metric,
)

WEEKS = ("1w", "2w", "3w")
ENOUGH_CHARGES = 10
ENOUGH_USES = 100

MONEY = labels(STORE, CURRENCY)
REVENUE_1H = Recording("pbmon:revenue:sum1h", gained(REVENUE, "1h", [CURRENCY]))
CHARGES_1H = Recording(
    "pbmon:charges:sum1h",
    gained(
        TRANSACTIONS,
        "1h",
        (),
        queries.matcher(TRANSACTION_KIND, "charge"),
        queries.matcher(TRANSACTION_STATUS, "completed"),
    ),
)


def _revenue_drop() -> str:
    """Money by currency, where a store usually has enough charges in such an hour."""
    usual = mean_of_weeks((REVENUE_1H.last(ago=week) for week in WEEKS), MONEY)
    charges = mean_of_weeks((CHARGES_1H.last(ago=week) for week in WEEKS), labels(STORE))
    return (
        f"({REVENUE_1H} or {usual} * 0)\n"
        f"< 0.5 * {usual}\n"
        f"and on ({labels(STORE)}) {charges} >= {ENOUGH_CHARGES}"
    )


REVENUE_DROP = Alert(
    "RevenueDrop",
    _revenue_drop(),
    "page",
    "Revenue in {{ $labels.pbmon_currency }} is less than half of the usual",
    "{{ $value }} {{ $labels.pbmon_currency }} within the last hour: less than half of the mean of "
    "the same hour of the week in the three weeks before.",
    pending="15m",
    keep_firing="15m",
)

USE = labels(SERVICE, FEATURE_NAME)
USES = tiles(
    "feature_usage",
    queries.selector(FEATURE_USAGE, queries.matcher(FEATURE_NAME, "_other", "!="), scope=()),
    labels(SERVICE, FEATURE_NAME, FEATURE_ACTION),
    1,
    "h",
    "3h",
)


def _feature_drop() -> str:
    def day(ago: str = "") -> str:
        return f"sum by ({USE}) ({USES[1].added(DAY, ago)})"

    usual = mean_of_weeks(map(day, WEEKS), USE)
    return f"({day()} or {usual} * 0)\n< 0.3 * ({usual} >= {ENOUGH_USES})"


FEATURE_DROP = Alert(
    "FeatureDrop",
    _feature_drop(),
    "ticket",
    "{{ $labels.pbmon_feature_name }} of {{ $labels.service_name }} is hardly used any more",
    "{{ $value }} uses within the last day: less than 30 % of the mean of the same day of the week "
    "in the three weeks before.",
    pending="1h",
    keep_firing="2h",
)


def _apart(metric: Metric, part: str) -> str:
    """Counter and ledger of a day differ by more than 1 %, in a Prometheus that knows the day."""
    booked = latest(
        REVENUE_BOOKED,
        "10m",
        [CURRENCY, REVENUE_PART],
        queries.matcher(REVENUE_PART, part),
        queries.matcher(WINDOW, "24h"),
    )
    known = f"present_over_time({queries.selector(metric, scope=())}[2h] offset {DAY})"
    on = f"on ({MONEY}) group_right ()"
    return (
        f"(\n  abs({gained(metric, '24h', [CURRENCY])} - {on} {booked})\n"
        f"  > 0.01 * {booked}\n"
        f"  and on ({MONEY}) {known}\n)"
    )


LEDGER_DIFFERENCE = Alert(
    "LedgerDifference",
    f"{_apart(REVENUE, 'gross')}\nor {_apart(REFUNDS, 'refunds')}",
    "ticket",
    "Telemetry and ledger differ in {{ $labels.pbmon_revenue_part }} {{ $labels.pbmon_currency }}",
    "The counters of the last 24 hours are {{ $value }} {{ $labels.pbmon_currency }} apart from "
    "what the ledger has booked, more than 1 %.",
    pending="1h",
    keep_firing="1h",
)

GROWTH_JOBS = queries.matcher(JOB, "growth|users", "=~")
# Where workers of the service stand by, another one leads and knows when the job was done.
LED_ELSEWHERE = f"{latest(WORKER_ACTIVE, '10m', (), queries.matcher(ROLE, 'leader'))} == 0"

JOB_MISSED = Alert(
    "GrowthJobMissed",
    f"time() - {latest(JOB_LAST_SUCCESS, '7d', [JOB], GROWTH_JOBS)} > 26 * 3600\n"
    f"unless on ({labels(SERVICE)}) ({LED_ELSEWHERE})",
    "ticket",
    "No growth figures of {{ $labels.service_name }} for the last day",
    "The job {{ $labels.pbmon_job }} last succeeded {{ $value | humanizeDuration }} ago. It runs "
    "once a day.",
    pending="15m",
    keep_firing="15m",
)

GROUPS = (
    Group(
        "pbmon business",
        "5m",
        (REVENUE_1H, CHARGES_1H, REVENUE_DROP, LEDGER_DIFFERENCE, JOB_MISSED),
    ),
    Group("pbmon business by hour", "1h", (*USES, FEATURE_DROP)),
)
