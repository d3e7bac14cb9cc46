"""The telemetry itself: who is silent, what was lost, how the collector does."""

from __future__ import annotations

from grafana import queries
from grafana.rules.expressions import SERVICE, gained, labels
from grafana.rules.model import Alert, Group, Recording
from pbmon.catalog import OUTCOME, REASON, SIGNAL, SPOOL_RECORDS

OF = "{{ $labels.service_name }}"

# Every process exports this one, whatever it does.
ACCEPTED = queries.selector(
    SPOOL_RECORDS,
    queries.matcher(SIGNAL, "metrics"),
    queries.matcher(OUTCOME, "accepted"),
    scope=(),
)
ALIVE = Recording(
    "pbmon:service:alive", f"group by ({labels(SERVICE)}) (present_over_time({ACCEPTED}[10m]))"
)
# Not a job of a few minutes, which ends.
STEADY = Recording("pbmon:service:steady", f"count_over_time({ALIVE}[1h]) >= 50")

SILENT = Alert(
    "ServiceSilent",
    f"max_over_time({STEADY}[1d]) unless {ALIVE}",
    "page",
    f"Nothing is heard of {OF}",
    f"{OF} sent its metrics for an hour without a break, and none for more than 10 minutes.",
    pending="2m",
)

DROPPED = Alert(
    "TelemetryDropped",
    gained(
        SPOOL_RECORDS,
        "15m",
        [SIGNAL, OUTCOME, REASON],
        queries.matcher(OUTCOME, "dropped|refused", "=~"),
    )
    + " > 0",
    "ticket",
    f"{OF} loses {{{{ $labels.pbmon_signal }}}}",
    "{{ $value }} records of {{ $labels.pbmon_signal }} were {{ $labels.pbmon_outcome }} within 15 "
    "minutes, for the reason {{ $labels.pbmon_reason }}.",
    keep_firing="15m",
)

KINDS = ("metric_points", "spans", "log_records")
EXPORTER = "{{ $labels.exporter }}"


def _any_gain(by: str, *names: str) -> str:
    """One series for each `by` of which any of the counters rose."""
    return "\nor ".join(f"sum by ({by}) (increase({name}[10m])) > 0" for name in names)


COLLECTOR_DOWN = Alert(
    "CollectorDown",
    'up{job="collector"} == 0',
    "page",
    "The collector {{ $labels.instance }} doesn't answer",
    "Applications keep their telemetry on their disks for an hour; then it is lost.",
    pending="5m",
)

QUEUE_FULL = Alert(
    "CollectorQueueFull",
    "max by (instance, exporter, data_type) "
    "(otelcol_exporter_queue_size / otelcol_exporter_queue_capacity) > 0.8",
    "ticket",
    f"The collector's queue before {EXPORTER} is filling up",
    "{{ $value | humanizePercentage }} of it is in use. A full queue of metrics makes applications "
    "wait, a full one of traces drops them.",
    pending="5m",
    keep_firing="10m",
)

REFUSED = Alert(
    "CollectorRefused",
    _any_gain("instance, receiver", *(f"otelcol_receiver_refused_{kind}_total" for kind in KINDS)),
    "ticket",
    "The collector {{ $labels.instance }} refuses data",
    "It sent data back within the last 10 minutes, since its memory or a queue was full. "
    "Applications keep it and try again.",
    pending="5m",
    keep_firing="10m",
)

FAILED = Alert(
    "CollectorFailed",
    _any_gain(
        "instance, exporter",
        *(f"otelcol_exporter_send_failed_{kind}_total" for kind in KINDS),
        *(f"otelcol_exporter_enqueue_failed_{kind}_total" for kind in KINDS),
    ),
    "ticket",
    f"The collector loses data before {EXPORTER}",
    f"{EXPORTER} refused data for good within the last 10 minutes, or its queue had no room. That "
    "data is lost.",
    keep_firing="10m",
)

WATCHDOG = Alert(
    "Watchdog",
    "vector(1)",
    "none",
    "The way from Prometheus to you works",
    "This always fires. Whoever receives it must raise the alarm when it stops.",
)

GROUPS = (
    Group("pbmon telemetry", "1m", (ALIVE, STEADY, SILENT, DROPPED)),
    Group("pbmon collector", "1m", (COLLECTOR_DOWN, QUEUE_FULL, REFUSED, FAILED, WATCHDOG)),
)
