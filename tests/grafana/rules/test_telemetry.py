"""Silence, loss, the collector's own metrics, the watchdog."""

from __future__ import annotations

from tests.grafana.rules.cases import SHOP, Case, check, line, of_shop

SPOOL = "pbmon_spool_records_total"


def alive(values: str, instance: str = "a", **resource: str) -> dict[str, str]:
    names = {**SHOP, **resource, "pbmon_signal": "metrics", "pbmon_outcome": "accepted"}
    return line(SPOOL, values, instance=instance, **names)


def test_service_silent() -> None:
    found = {"severity": "page", **SHOP}
    other = alive("0+9x200", service_name="other")
    check(
        "telemetry",
        Case("no data", []).silent("ServiceSilent", 10),
        Case("silent after two hours", [alive("0+9x120"), other])
        .silent("ServiceSilent", 60, 120, 131)
        .fires(
            "ServiceSilent",
            132,
            190,
            summary="Nothing is heard of pocketbook",
            description="pocketbook sent its metrics for an hour without a break, and none for "
            "more than 10 minutes.",
            **found,
        ),
        Case("a restart", [alive("0+9x120"), alive("_x125 0+9x60", "b")]).silent(
            "ServiceSilent", *range(120, 180, 5)
        ),
        Case("back after half an hour", [alive("0+9x120"), alive("_x150 0+9x60", "b")])
        .firing("ServiceSilent", 140, **found)
        .silent("ServiceSilent", 152),
        Case("a job of some minutes", [alive("0+9x5 _x55 " * 5)]).silent(
            "ServiceSilent", *range(0, 300, 10)
        ),
        Case("its first sample", [alive("_x60 1")]).silent("ServiceSilent", 60, 80),
        Case("an hour without a request", [alive("0+9x60 540+0x60 540+9x60")]).silent(
            "ServiceSilent", 100, 125, 180
        ),
    )


def lost(values: str, instance: str = "a", outcome: str = "dropped") -> dict[str, str]:
    names = {"pbmon_signal": "traces", "pbmon_outcome": outcome, "pbmon_reason": "expired"}
    return of_shop(SPOOL, values, instance, **names)


def test_telemetry_dropped() -> None:
    found = {
        "severity": "ticket",
        "pbmon_signal": "traces",
        "pbmon_outcome": "dropped",
        "pbmon_reason": "expired",
        **SHOP,
    }
    check(
        "telemetry",
        Case("no data", []).silent("TelemetryDropped", 10),
        Case("some dropped", [lost("0x9 7 7x60")])
        .silent("TelemetryDropped", 9)
        .fires(
            "TelemetryDropped",
            10,
            summary="pocketbook loses traces",
            description="7 records of traces were dropped within 15 minutes, for the reason "
            "expired.",
            **found,
        )
        .silent("TelemetryDropped", 41),
        Case("some refused", [lost("0x9 7", outcome="refused")]).firing(
            "TelemetryDropped", 10, **{**found, "pbmon_outcome": "refused"}
        ),
        Case("none", [lost("0x30"), lost("0+9x30", outcome="accepted")]).silent(
            "TelemetryDropped", 10, 20
        ),
        Case("the first sample", [lost("_x9 7")]).firing("TelemetryDropped", 10, **found),
        Case("a restart", [lost("7x30"), lost("_x31 0x60", "b")]).silent(
            "TelemetryDropped", 35, 60
        ),
    )  # fmt: skip


HOST = {"job": "collector", "instance": "collector:8888"}


def test_collector_down() -> None:
    found = {"severity": "page", **HOST}
    check(
        "telemetry",
        Case("no collector", []).silent("CollectorDown", 10),
        Case("down", [line("up", "1x9 0x30", **HOST)])
        .silent("CollectorDown", 14)
        .fires(
            "CollectorDown",
            15,
            summary="The collector collector:8888 doesn't answer",
            description="Applications keep their telemetry on their disks for an hour; then it is "
            "lost.",
            **found,
        ),
        Case("a restart", [line("up", "1x9 0x3 1x30", **HOST)]).silent("CollectorDown", 11, 15, 20),
        Case("another job", [line("up", "0x30", job="tempo")]).silent("CollectorDown", 20),
    )


QUEUE = {"exporter": "otlp_grpc/tempo", "data_type": "traces", **HOST}


def test_collector_queue_full() -> None:
    names = {key: value for key, value in QUEUE.items() if key != "job"}
    capacity = line("otelcol_exporter_queue_capacity", "100x60", **QUEUE)

    def used(values: str) -> list[dict[str, str]]:
        return [line("otelcol_exporter_queue_size", values, **QUEUE), capacity]

    check(
        "telemetry",
        Case("no data", []).silent("CollectorQueueFull", 10),
        Case("filling up", used("0+10x9 90x40"))
        .silent("CollectorQueueFull", 13)
        .fires(
            "CollectorQueueFull",
            14,
            summary="The collector's queue before otlp_grpc/tempo is filling up",
            description="90% of it is in use. A full queue of metrics makes applications wait, a "
            "full one of traces drops them.",
            severity="ticket",
            **names,
        ),
        Case("a peak", used("0x9 90x3 0x30")).silent("CollectorQueueFull", 10, 15),
        Case("80 %", used("80x60")).silent("CollectorQueueFull", 30),
    )


def test_collector_refused() -> None:
    names = {"receiver": "otlp", "transport": "http", **HOST}

    def refused(values: str, kind: str) -> dict[str, str]:
        return line(f"otelcol_receiver_refused_{kind}_total", values, **names)

    wanted = {"severity": "ticket", "instance": HOST["instance"], "receiver": "otlp"}
    kinds = ("metric_points", "spans", "log_records")
    check(
        "telemetry",
        Case("no data", []).silent("CollectorRefused", 20),
        *(
            Case(f"refuses {kind}", [refused("0x9 0+5x30", kind)])
            .silent("CollectorRefused", 10)
            .fires(
                "CollectorRefused",
                20,
                summary="The collector collector:8888 refuses data",
                description="It sent data back within the last 10 minutes, since its memory or a "
                "queue was full. Applications keep it and try again.",
                **wanted,
            )
            for kind in kinds
        ),
        Case("both, told once", [refused("0+5x30", kind) for kind in kinds]).firing(
            "CollectorRefused", 20, **wanted
        ),
        Case("none", [refused("0x30", "spans")]).silent("CollectorRefused", 20),
        Case("a restart", [refused("5x9 0x30", "spans")]).silent("CollectorRefused", 12, 20),
    )


def test_collector_failed() -> None:
    names = {"exporter": "otlp_http/prometheus", **HOST}
    wanted = {"severity": "ticket", **{k: v for k, v in names.items() if k != "job"}}
    ways = [
        f"otelcol_exporter_{way}_failed_{kind}_total"
        for way in ("send", "enqueue")
        for kind in ("metric_points", "spans", "log_records")
    ]
    check(
        "telemetry",
        Case("no data", []).silent("CollectorFailed", 20),
        *(
            Case(way, [line(way, "0x9 5x30", **names)])
            .silent("CollectorFailed", 9)
            .fires(
                "CollectorFailed",
                10,
                summary="The collector loses data before otlp_http/prometheus",
                description="otlp_http/prometheus refused data for good within the last 10 "
                "minutes, or its queue had no room. That data is lost.",
                **wanted,
            )
            .silent("CollectorFailed", 30)
            for way in ways
        ),
        Case("none", [line(ways[0], "0x30", **names)]).silent("CollectorFailed", 20),
        Case("a restart", [line(ways[0], "5x9 0x30", **names)]).silent("CollectorFailed", 12, 20),
    )


def test_watchdog() -> None:
    check(
        "telemetry",
        Case("always", []).fires(
            "Watchdog",
            0,
            60,
            summary="The way from Prometheus to you works",
            description="This always fires. Whoever receives it must raise the alarm when "
            "it stops.",
            severity="none",
        ),
    )
