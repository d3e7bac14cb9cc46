"""Errors, statements and WebSockets: what fires, what doesn't, and over restarts."""

from __future__ import annotations

from tests.grafana.rules.cases import SHOP, Case, check, of_shop

HOUR, DAY = 60, 1440

ERRORS = "pbmon_errors_total"
PAGING = "pbmon_alerts_paging"
BURST = {"severity": "page", "error_type": "ValueError", **SHOP}


def errors(values: str, instance: str = "a", kind: str = "ValueError") -> dict[str, str]:
    return of_shop(ERRORS, values, instance, error_type=kind, http_route="/pay")


def paging(worker: int, values: str = "x30") -> list[dict[str, str]]:
    return [
        of_shop(PAGING, f"{value}{values}", pbmon_alerts_source=source)
        for source, value in (("worker", worker), ("prometheus", 1 - worker))
    ]


def test_error_burst() -> None:
    check(
        "application",
        Case("no data", []).silent("ErrorBurst", 0, 30),
        Case("11 within 5 minutes", [errors("0x9 3 6 11 11x20")])
        .silent("ErrorBurst", 11)
        .fires(
            "ErrorBurst",
            12,
            summary="ValueError in pocketbook",
            description="11 errors of type ValueError within 5 minutes.",
            **BURST,
        )
        .firing("ErrorBurst", 14, **BURST)
        .silent("ErrorBurst", 21),  # 5 minutes of window, 5 of keeping on
        Case("10 within 5 minutes", [errors("0x9 10 10x20")]).silent("ErrorBurst", *range(9, 20)),
        Case("11 in 50 minutes", [errors("0 0 0 0 0 1+1x10")]).silent("ErrorBurst", 5, 10, 15),
        Case("two kinds of 6", [errors("0 6x20"), errors("0 6x20", kind="KeyError")]).silent(
            "ErrorBurst", 1, 5
        ),
        Case("four workers of 3", [errors("0 3x20", name) for name in "abcd"]).firing(
            "ErrorBurst", 2, **BURST
        ),
        Case("the first sample", [errors("_x9 11 11x20")]).firing("ErrorBurst", 10, **BURST),
        Case(
            "a restart forgets none and repeats none",
            [errors("9x20"), errors("_x20 2x20", "b")],
        ).silent("ErrorBurst", 20, 22, 26),
        Case(
            "6 before and 6 after a restart",
            [errors("0x17 6 6"), errors("_x20 6x20", "b")],
        ).firing("ErrorBurst", 21, **BURST),
        Case("an idle hour", [errors("0 8 8x60 10x20")]).silent("ErrorBurst", 60, 62, 64),
    )


def test_one_pager() -> None:
    burst = errors("0x9 11 11x20")
    dead = [errors("0x9 11"), *paging(1, "x10")]
    check(
        "application",
        Case("the worker pages", [burst, *paging(1)]).silent("ErrorBurst", 10, 14),
        Case("Prometheus pages", [burst, *paging(0)]).firing("ErrorBurst", 10, **BURST),
        Case("nobody said", [burst]).firing("ErrorBurst", 10, **BURST),
        Case("the worker pages, and all died of it", dead).silent("ErrorBurst", 10, 12, 15),
        Case("another service's worker", [burst, *_elsewhere(paging(1))]).firing(
            "ErrorBurst", 10, **BURST
        ),
    )


def _elsewhere(series: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**each, "series": each["series"].replace("pocketbook", "other")} for each in series]


def failed(values: str, code: str, instance: str = "a") -> dict[str, str]:
    return of_shop(
        "pbmon_db_errors_total",
        values,
        instance,
        db_system_name="postgresql",
        error_type="OperationalError",
        db_response_status_code=code,
    )


def test_database_errors() -> None:
    found = {
        "severity": "page",
        "db_system_name": "postgresql",
        "error_type": "OperationalError",
        "db_response_status_code": "57P03",
        **SHOP,
    }
    check(
        "application",
        Case("no data", []).silent("DatabaseErrors", 10),
        Case("the database is away", [failed("0 11 22 33 33x10", "57P03")])
        .fires(
            "DatabaseErrors",
            2,
            summary="Statements of pocketbook fail in postgresql",
            description="22 statements failed within 5 minutes with OperationalError 57P03.",
            **found,
        )
        .silent("DatabaseErrors", 13),
        Case("10 of them", [failed("0 10x10", "57P03")]).silent("DatabaseErrors", 1, 5),
        Case("broken constraints", [failed("0 90x10", "23505")]).silent("DatabaseErrors", 1),
        Case("lost races", [failed("0 90x10", "40001")]).silent("DatabaseErrors", 1),
        Case("SQLite's", [failed("0 90x10", "SQLITE_CONSTRAINT_UNIQUE")]).silent(
            "DatabaseErrors", 1
        ),
        Case("SQLite is full", [failed("0 90x10", "SQLITE_FULL")]).firing(
            "DatabaseErrors", 1, **{**found, "db_response_status_code": "SQLITE_FULL"}
        ),
        Case("no code at all", [failed("0 90x10", "")]).firing(
            "DatabaseErrors", 1, **{k: v for k, v in found.items() if "code" not in k}
        ),
        Case(
            "a restart", [failed("90x10", "57P03"), failed("_x10 0x10", "57P03", "b")]
        ).silent("DatabaseErrors", 10, 12),
    )  # fmt: skip


def slow(values: str, instance: str = "a") -> dict[str, str]:
    return of_shop(
        "pbmon_db_slow_queries_total",
        values,
        instance,
        db_system_name="postgresql",
        db_query_summary="SELECT payments",
    )


def test_slow_queries() -> None:
    found = {
        "severity": "ticket",
        "db_system_name": "postgresql",
        "db_query_summary": "SELECT payments",
        **SHOP,
    }
    check(
        "application",
        Case("no data", []).silent("SlowQueries", 30),
        Case("three a minute", [slow("0+3x60")])
        .silent("SlowQueries", 14)
        .fires(
            "SlowQueries",
            30,
            summary="Slow in pocketbook: SELECT payments",
            description="45 of these statements took longer than slow_query_s within 15 minutes.",
            **found,
        ),
        Case("one a minute", [slow("0+1x60")]).silent("SlowQueries", 30, 60),
        Case("a burst", [slow("0 60x60")]).silent("SlowQueries", 5, 10),
        Case("over a restart", [slow("0+3x20"), slow("_x21 3+3x40", "b")]).firing(
            "SlowQueries", 30, **found
        ),
    )


def sockets(values: str, instance: str = "a") -> dict[str, str]:
    return of_shop("pbmon_websocket_connections", values, instance, http_route="/live")


def test_websocket_leak() -> None:
    """Half an hour a sample: three days."""
    day = 48
    tide = "10x23 400x23 "  # nights and days
    found = {"severity": "ticket", "http_route": "/live", **SHOP}
    words = {
        "summary": "WebSockets of pocketbook on /live don't end",
        "description": "At no moment of the last day were fewer than 160 open, half as many again "
        "as at the quietest moment of the day before.",
    }
    leak = [sockets(f"100x{day - 1} 160x{2 * day}")]
    check(
        "application",
        Case("no data", []).silent("WebsocketLeak", 3 * DAY),
        Case("more than half as many again", leak)
        .silent("WebsocketLeak", DAY, DAY + 12 * HOUR, 2 * DAY - 30)
        .fires("WebsocketLeak", 2 * DAY + HOUR, **words, **found),
        Case("tides", [sockets(tide * 4)]).silent("WebsocketLeak", *range(DAY, 4 * DAY, 6 * HOUR)),
        Case("few", [sockets(f"10x{day - 1} 40x{2 * day}")]).silent("WebsocketLeak", 3 * DAY - 30),
        Case("restarts", [sockets("90x66"), sockets(f"_x67 0 90x{day}", "b")]).silent(
            "WebsocketLeak", *range(0, 2 * DAY, 6 * HOUR)
        ),
        Case("few before", [sockets("0x16 60x120")]).silent("WebsocketLeak", 2 * DAY),
        step="30m",
        every="30m",
    )  # fmt: skip
