"""The application: errors, statements, WebSockets."""

from __future__ import annotations

from grafana import queries
from grafana.rules.expressions import DAY, SERVICE, gained, labels, latest
from grafana.rules.model import Alert, Group, Recording
from pbmon.catalog import (
    ALERT_SOURCE,
    ALERTS_PAGING,
    DB_STATUS,
    DB_SUMMARY,
    DB_SYSTEM,
    ERROR_TYPE,
    ERRORS,
    QUERY_ERRORS,
    ROUTE,
    SLOW_QUERIES,
    WEBSOCKET_CONNECTIONS,
)

OF = "{{ $labels.service_name }}"

# Longer than the window of the errors: a service that dies of them doesn't change its pager.
PAGED_BY_WORKER = (
    latest(ALERTS_PAGING, "10m", (), queries.matcher(ALERT_SOURCE, "worker")) + " == 1"
)

ERROR_BURST = Alert(
    "ErrorBurst",
    f"{gained(ERRORS, '5m', [ERROR_TYPE])} > 10\nunless on ({labels(SERVICE)}) ({PAGED_BY_WORKER})",
    "page",
    f"{{{{ $labels.error_type }}}} in {OF}",
    "{{ $value }} errors of type {{ $labels.error_type }} within 5 minutes.",
    keep_firing="5m",
)

# A broken constraint and a lost race are the application's to expect (SQLSTATE classes 23 and 40).
EXPECTED = queries.matcher(DB_STATUS, "(23|40)...|SQLITE_CONSTRAINT.*", "!~")

DATABASE_ERRORS = Alert(
    "DatabaseErrors",
    f"{gained(QUERY_ERRORS, '5m', [DB_SYSTEM, ERROR_TYPE, DB_STATUS], EXPECTED)} > 10",
    "page",
    f"Statements of {OF} fail in {{{{ $labels.db_system_name }}}}",
    "{{ $value }} statements failed within 5 minutes with {{ $labels.error_type }} "
    "{{ $labels.db_response_status_code }}.",
    keep_firing="5m",
)

SLOW = Alert(
    "SlowQueries",
    f"{gained(SLOW_QUERIES, '15m', [DB_SYSTEM, DB_SUMMARY])} >= 20",
    "ticket",
    f"Slow in {OF}: {{{{ $labels.db_query_summary }}}}",
    "{{ $value }} of these statements took longer than slow_query_s within 15 minutes.",
    pending="10m",
    keep_firing="15m",
)

# The look-back is short, as a sum counts a process that ended for as long.
CONNECTIONS = Recording(
    "pbmon:websocket_connections:sum",
    f"sum by ({labels(SERVICE, ROUTE)}) "
    f"(last_over_time({queries.selector(WEBSOCKET_CONNECTIONS, scope=())}[90s]))",
)

# The quietest moment of a day knows no rush hour.
LEAK = Alert(
    "WebsocketLeak",
    f"{CONNECTIONS.least(DAY)} > 1.5 * ({CONNECTIONS.least(DAY, ago=DAY)} > 0)\n"
    f"and {CONNECTIONS.least(DAY)} >= 50",
    "ticket",
    f"WebSockets of {OF} on {{{{ $labels.http_route }}}} don't end",
    "At no moment of the last day were fewer than {{ $value }} open, half as many again as at the "
    "quietest moment of the day before.",
    pending="1h",
    keep_firing="1h",
)

GROUPS = (
    Group("pbmon errors", "1m", (ERROR_BURST, DATABASE_ERRORS)),
    Group("pbmon application", "5m", (SLOW, CONNECTIONS, LEAK)),
)
