"""Launcher → uvicorn → PostgreSQL → collector → Prometheus and Jaeger, every figure exact.

What was done is known here; what arrived is asked of Prometheus and Jaeger. Both hook modes must
give the same figures and the same slow and budget attributes.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import psycopg2
import pytest
from websockets.sync.client import connect

from pbmon import catalog
from pbmon.store import schema, tables
from pbmon.store.access import open_engine, open_reader
from tests import fresh
from tests.e2e.launch import ROOT, launched
from tests.grafana.panel_queries import interpolate, load, panel_queries
from tests.reports.test_weekly import rows_of
from tests.stack.process import wait_until
from tests.stack.servers import Jaeger, Prometheus

CONFIG = ROOT / "collector-config" / "single.yaml"
# What the process sent, before the collector drops or scrubs any of it.
RAW = """\
exporters:
  file/raw: {path: "${env:RAW}", flush_interval: 20ms}
service:
  pipelines:
    traces/raw: {receivers: [otlp], exporters: [file/raw]}
    metrics/raw: {receivers: [otlp], exporters: [file/raw]}
"""

SALES = [
    ("12.50", "USD", "completed"), ("0.10", "USD", "completed"), ("0.20", "USD", "completed"),
    ("99.99", "EUR", "completed"), ("1200", "JPY", "completed"), ("1.234", "KWD", "completed"),
    ("500.00", "USD", "pending"), ("70.00", "EUR", "failed"),
]  # fmt: skip
FEATURES = {("data_export", "clicked"): 7, ("data_export", "completed"): 5, ("search", "viewed"): 3}
PLAIN, OVER, SLOW = 20, 4, 2
VISITORS = 23
"""Users of each day, none of whom ever comes again."""
USERS, BROKEN, BAD_QUERIES, UNKNOWN = 9, 3, 2, 5
REQUESTS = (
    PLAIN
    + OVER
    + SLOW
    + len(SALES)
    + sum(FEATURES.values())
    + USERS
    + BROKEN
    + BAD_QUERIES
    + UNKNOWN
)
RELEASE = "2026.11.1"


@dataclass
class Run:
    """One run of the whole, finished: the app was stopped and its telemetry delivered."""

    mode: str
    service: str
    prometheus: Prometheus
    jaeger: Jaeger
    log: str
    exit_code: int
    raw: str
    """What left the process: OTLP as JSON, before any redaction."""
    environment: dict[str, str]
    """Of every process of the service."""

    def total(self, metric: catalog.Metric, suffix: str = "", **labels: str) -> float:
        """Sum over the series of a metric with these labels, as Prometheus has them."""
        matchers = {"service_name": self.service, **labels}
        selector = ",".join(f'{name}="{value}"' for name, value in matchers.items())
        found = self.prometheus.query(
            f"sum(last_over_time({metric.prometheus_name}{suffix}{{{selector}}}[10m]))"
        )
        return found[0][1] if found else 0.0

    def by(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(series.get(label, "") for label in labels): value
            for series, value in self.prometheus.query(expression)
        }

    def spans(self, **tags: object) -> list[dict]:
        """Spans of this service with all these attributes (`__` for a dot)."""
        wanted = {name.replace("__", "."): value for name, value in tags.items()}
        traces = self.jaeger.find(self.service, wanted, limit=200)
        return [
            span
            for trace in traces
            for span in trace["spans"]
            if all(attributes(span).get(name) == value for name, value in wanted.items())
        ]


def attributes(span: dict) -> dict:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


@pytest.fixture(scope="module", params=["pbmon", "upstream"])
def run(
    request, tmp_path_factory, stack_prometheus, stack_jaeger, stack_postgres, stack_collector
) -> Iterator[Run]:
    mode = request.param
    service = f"e2e-{mode}"
    collector = stack_collector(
        [CONFIG, RAW],
        {
            "RAW": "{home}/raw.json",
            "PBMON_PROMETHEUS_OTLP_ENDPOINT": stack_prometheus.otlp_endpoint,
            "PBMON_TEMPO_OTLP_ENDPOINT": stack_jaeger.otlp_grpc_endpoint,
            "PBMON_TRACE_DECISION_WAIT": "1s",
            "PBMON_TRACE_SAMPLE_PERCENT": "0",
        },
    )
    prepare_database(stack_postgres.url)
    log = tmp_path_factory.mktemp(mode) / "app.log"
    environment = variables(mode, service, collector.otlp_endpoint, stack_postgres.url)
    environment["PBMON_STORE_URL"] = prepare_store(log.with_name("store.sqlite3"))
    environment["PBMON_STATE_DIR"] = str(log.with_name("state"))
    with launched("tests.e2e.app:app", log, environment) as app:
        drive(app.url)
        wait_until(lambda: is_marked(environment["PBMON_STORE_URL"]), "the release's mark", 30)
        exit_code = app.stop()
    # What the app had no time for: the figures of yesterday's users, and the next process of the
    # service, which tells what the store has.
    told = fresh.environment(**environment, OTEL_METRICS_EXPORTER="otlp")
    for command in (("run", "growth"), ("worker", "--once")):
        subprocess.run(
            [sys.executable, "-m", "pbmon.cli", *command], cwd=ROOT, env=told, check=True
        )
    raw = collector.home / "raw.json"
    # A whole line of metrics: they are the last to leave.
    line = re.compile(r'^{"resourceMetrics".*}\n', re.MULTILINE)
    wait_until(lambda: raw.exists() and bool(line.search(raw.read_text())), "what was sent", 30)
    run = Run(
        mode, service, stack_prometheus, stack_jaeger, log.read_text(), exit_code, raw.read_text(),
        environment,
    )  # fmt: skip
    wait_until(lambda: run.total(catalog.REQUEST_DURATION, "_count") > 0, "metrics", 30)
    wait_until(lambda: run.total(catalog.TRANSACTIONS) > 0, "the store's metrics", 30)
    wait_until(lambda: run.spans(pbmon__slow=True), "traces", 30)
    yield run
    collector.close()


def prepare_database(url: str) -> None:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS transactions")
        cursor.execute("CREATE TABLE transactions (id int PRIMARY KEY, amount text, currency text)")


def prepare_store(path: Path) -> str:
    """The URL of a store that knows who was there on each of the last 40 days, and on the next two:
    it may be midnight soon."""
    url = f"sqlite:///{path}"
    engine = open_engine(url)
    schema.upgrade(engine, "UTC")
    today = dt.datetime.now(dt.timezone.utc).date()
    visits = [
        {"day": today + dt.timedelta(days=ahead), "subject": uuid.uuid4().bytes}
        for ahead in range(-40, 2)
        for _ in range(VISITORS)
    ]
    with engine.begin() as connection:
        connection.execute(tables.subject_days.insert(), visits)
        connection.execute(
            tables.subject_activity.insert(),
            [
                {"subject": v["subject"], "first_day": v["day"], "last_day": v["day"]}
                for v in visits
            ],
        )
    engine.dispose()
    return url


def is_marked(url: str) -> bool:
    with closing(open_reader(url)) as reader:
        return reader.deployment(RELEASE) is not None


def variables(mode: str, service: str, endpoint: str, database: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "PBMON_RELEASE": RELEASE,
        "DATABASE_URL": database,
        # A second and more between what is measured and each limit: this machine may be busy.
        "PBMON_SLOW_REQUEST_S": "3",
        "PBMON_SLOW_QUERY_S": "1",
        "PBMON_BUDGETS": "/api/transactions max=2s p95=1.2s p99=1.5s; "
        "GET /api/users/{user_id} max=2s p95=1.2s p99=1.5s availability=0.999",
        "PBMON_FEATURES": "data_export,search",
        "PBMON_RATES": "off",
        "PBMON_HOOKS": f"uvicorn={mode},psycopg2={mode}",
    }


def drive(base: str) -> None:
    with httpx.Client(base_url=base, timeout=30) as client:
        for _ in range(PLAIN):
            assert client.get("/api/transactions").status_code == 200
        with ThreadPoolExecutor(OVER + SLOW) as together:
            for answer in together.map(
                lambda pause_s: client.get("/api/transactions", params={"pause_s": pause_s}),
                [2.2] * OVER + [3.2] * SLOW,
            ):
                assert answer.status_code == 200
        for number, (amount, currency, status) in enumerate(SALES):
            query = {"amount": amount, "currency": currency, "status": status}
            answer = client.post(f"/api/transactions/{number}", params=query)
            assert answer.json() == {"accepted": True}
        for (feature, action), uses in FEATURES.items():
            for _ in range(uses):
                client.post(f"/api/export/{feature}/{action}")
        for user_id in range(USERS):
            assert client.get(f"/api/users/{user_id}?card=4111111111111111").json()["id"] == user_id
        for _ in range(BROKEN):
            # After an exception uvicorn closes the connection; the next request wants a new one.
            answer = client.get("/api/broken", headers={"connection": "close"})
            assert answer.status_code == 500
        for _ in range(BAD_QUERIES):
            assert client.get("/api/bad-query").json() == {"sqlstate": "42P01"}
        for number in range(UNKNOWN):
            assert client.get(f"/no/such/path/{number}").status_code == 404
    with connect(f"{base.replace('http', 'ws')}/ws/lobby") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


def test_the_app_ends_as_without_pbmon(run):
    assert run.exit_code in (0, -signal.SIGTERM)  # uvicorn raises the signal again
    assert "Traceback" not in run.log.replace(exception_log(run.log), "")


def exception_log(log: str) -> str:
    """uvicorn's own traceback of /api/broken is the only one there may be."""
    found = re.findall(r"ERROR: +Exception in ASGI application.*?LookupError[^\n]*", log, re.DOTALL)
    assert len(found) == BROKEN
    return found[0] if len(set(found)) == 1 else max(found, key=len)


def test_requests_are_counted_exactly_by_route(run):
    counts = run.by(
        f'sum by (http_route, http_request_method, http_response_status_code) (last_over_time('
        f'{catalog.REQUEST_DURATION.prometheus_name}_count{{service_name="{run.service}"}}[10m]))',
        "http_request_method", "http_route", "http_response_status_code",
    )  # fmt: skip
    assert counts == {
        ("GET", "/api/transactions", "200"): PLAIN + OVER + SLOW,
        ("POST", "/api/transactions/{number}", "200"): len(SALES),
        ("POST", "/api/export/{feature}/{action}", "200"): sum(FEATURES.values()),
        ("GET", "/api/users/{user_id}", "200"): USERS,
        ("GET", "/api/broken", "500"): BROKEN,
        ("GET", "/api/bad-query", "200"): BAD_QUERIES,
        ("GET", "", "404"): UNKNOWN,
    }


def test_slow_requests_and_budget_breaches_are_exact(run):
    assert run.total(catalog.SLOW_REQUESTS) == SLOW
    route = {"http_route": "/api/transactions"}
    for limit in ("max", "p95", "p99"):
        labels = {**route, "pbmon_budget_limit": limit}
        assert run.total(catalog.BUDGET_REQUESTS, **labels) == PLAIN + OVER + SLOW
        assert run.total(catalog.BUDGET_BREACHES, **labels) == OVER + SLOW
    users = {"http_route": "/api/users/{user_id}"}
    assert run.total(catalog.BUDGET_REQUESTS, pbmon_budget_limit="availability", **users) == USERS
    assert run.total(catalog.BUDGET_BREACHES, **users) == 0
    assert run.total(catalog.BUDGET_THRESHOLD, pbmon_budget_limit="p99", **route) == 1.5
    assert run.total(catalog.BUDGET_ALLOWED, pbmon_budget_limit="p95", **route) == 0.05


def test_nothing_is_left_open(run):
    assert run.total(catalog.ACTIVE_REQUESTS) == 0
    assert run.total(catalog.WEBSOCKET_CONNECTIONS, http_route="/ws/{room}") == 0


def test_queries_are_counted_exactly(run):
    selects = {"db_operation_name": "SELECT", "db_collection_name": "transactions"}
    assert run.total(catalog.QUERY_DURATION, "_count", **selects) == PLAIN + OVER + SLOW
    inserts = {"db_operation_name": "INSERT", "db_collection_name": "transactions"}
    assert run.total(catalog.QUERY_DURATION, "_count", **inserts) == len(SALES)
    assert run.total(catalog.SLOW_QUERIES) == OVER + SLOW
    assert run.total(catalog.QUERY_ERRORS, db_response_status_code="42P01") == BAD_QUERIES
    assert run.total(catalog.QUERY_ERRORS) == BAD_QUERIES


def asked(
    run: Run, title: str, *labels: str, dashboard: str = "business"
) -> dict[tuple[str, ...], float]:
    """What the panel's own queries answer, taken from the committed dashboard."""
    answers: dict[tuple[str, ...], float] = {}
    for expression in panels_queries(run, dashboard, title):
        answers |= run.by(expression, *labels)
    return answers


def panels_queries(run: Run, dashboard: str, title: str) -> list[str]:
    return panel_queries(
        dashboard, title, service=run.service, environment=".*", range_="1h", rate_interval="4m"
    )


def test_budgets_by_the_table_s_own_queries(run):
    """Threshold, requests, breaches, share, allowed, left."""
    labels = ("http_request_method", "http_route", "pbmon_budget_limit")
    columns = [run.by(query, *labels) for query in panels_queries(run, "budgets", "Budgets")]
    all_of_it, over = PLAIN + OVER + SLOW, OVER + SLOW
    slow = ("", "/api/transactions")
    for limit, threshold, allowed in (("max", 2, 0), ("p95", 1.2, 0.05), ("p99", 1.5, 0.01)):
        row = [column.get((*slow, limit)) for column in columns]
        left = [1 - over / all_of_it / allowed] if allowed else [None]
        assert row == pytest.approx([threshold, all_of_it, over, over / all_of_it, allowed, *left])
    users = ("GET", "/api/users/{user_id}", "availability")
    assert [column.get(users) for column in columns] == pytest.approx([None, USERS, 0, 0, 0.001, 1])
    assert {len(column) for column in columns[1:5]} == {7}
    assert asked(run, "Promises Broken", "pbmon_budget_limit", dashboard="budgets") == {
        ("max",): 1, ("p95",): 1, ("p99",): 1, ("availability",): 0,
    }  # fmt: skip


def test_the_report_of_the_release_has_the_same_figures(run):
    asked = fresh.environment(**run.environment, PBMON_PROMETHEUS_URL=run.prometheus.url)
    command = [sys.executable, "-m", "pbmon.cli", "report", "release", RELEASE]
    done = subprocess.run(command, cwd=ROOT, env=asked, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    rows = rows_of(done.stdout)
    all_of_it, over = PLAIN + OVER + SLOW, OVER + SLOW
    share = f"{over / all_of_it:.1%}".replace("%", " %")
    counts = [str(all_of_it), str(over), share, "–"]
    assert ["/api/transactions", "max", "2 s", *counts, "0.0 %", "–"] in rows
    left = f"{100 * (1 - over / all_of_it / 0.05):.1f} %"
    assert ["/api/transactions", "p95", "1.2 s", *counts, "5.0 %", left] in rows
    users = ["GET /api/users/{user_id}", "availability", "–", str(USERS), "0", "0.0 %", "–"]
    assert [*users, "0.1 %", "100.0 %"] in rows
    assert ["Promises of budgets broken", "3", "–", "–"] in rows
    assert ["Slow queries", str(over), "0", "new"] in rows
    assert ["SELECT transactions", "postgresql", str(over), "0"] in rows


def test_failures_by_the_panels_own_queries(run):
    found = {
        title: asked(run, title, dashboard="errors")
        for title in ("Failed Requests", "Aborted Requests", "Failed Statements")
    }
    assert found == {
        "Failed Requests": {(): BROKEN / REQUESTS},
        "Aborted Requests": {(): 0},
        "Failed Statements": {(): BAD_QUERIES},
    }
    codes = asked(
        run, "Database Errors", "error_type", "db_response_status_code", dashboard="errors"
    )
    assert codes == {("psycopg2.errors.UndefinedTable", "42P01"): BAD_QUERIES}
    releases = asked(run, "Errors by Release", "service_version", dashboard="errors")
    assert releases.keys() == {(RELEASE,)}


def test_the_release_is_marked(run):
    (line,) = (each for each in load("budgets")["annotations"]["list"] if each["name"] == "Deploys")
    expression = interpolate(line["target"]["expr"], service=run.service)
    ((name,), at_ms) = run.by(expression, "pbmon_mark_name").popitem()
    assert name == RELEASE
    assert at_ms / 1000 == pytest.approx(time.time(), abs=600)


def test_revenue_by_the_panels_own_query(run):
    completed = [(currency, Decimal(amount)) for amount, currency, s in SALES if s == "completed"]
    earned = float(sum(amount for currency, amount in completed if currency == "USD"))
    assert asked(run, "Revenue (24h)", "pbmon_currency") == {("USD",): earned}
    assert asked(run, "Waiting for a Rate", "pbmon_currency") == {
        ("USD",): 0, ("EUR",): 1, ("JPY",): 1, ("KWD",): 1,
    }  # fmt: skip
    compared = [
        value
        for expression in panel_queries("business", "Metric and Store (24h)", service=run.service)
        for _, value in run.prometheus.query(expression)
    ]
    assert compared == [earned, earned, 0, 0, 0, 0]


def test_features_by_the_panels_own_query(run):
    answered = asked(run, "Feature Usage", "pbmon_feature_name", "pbmon_feature_action")
    by_feature: dict[str, float] = {}
    for (feature, _action), uses in answered.items():
        by_feature[feature] = by_feature.get(feature, 0) + uses
    assert {k: v for k, v in by_feature.items() if v} == {"data_export": 12, "search": 3}


def test_active_users_by_the_panels_own_query(run):
    assert asked(run, "Active Users", "pbmon_window") == {
        ("24h",): VISITORS, ("7d",): 7 * VISITORS, ("30d",): 30 * VISITORS,
    }  # fmt: skip


def test_transactions_by_status(run):
    labels = ("pbmon_transaction_kind", "pbmon_transaction_status")
    assert asked(run, "Transactions (24h)", *labels) == {
        ("charge", "completed"): 6, ("charge", "pending"): 1, ("charge", "failed"): 1,
    }  # fmt: skip


def test_slow_over_budget_and_failing_traces_are_found(run):
    slow = run.spans(pbmon__slow=True)
    assert len(slow) == SLOW
    assert {attributes(s)["http.route"] for s in slow} == {"/api/transactions"}
    over = run.spans(pbmon__budget__exceeded=True)
    assert len(over) == OVER + SLOW
    for span in over:
        found = attributes(span)
        assert json.loads(found["pbmon.budget.limits"]) == ["max", "p95", "p99"]
        assert found["pbmon.budget.excess"] > 0
        assert found["http.response.status_code"] == 200
    # Upstream ends its span with the answer, before the exception reaches it.
    failing = run.spans(error__type="LookupError" if run.mode == "pbmon" else "500")
    assert len(failing) == BROKEN
    for span in failing:
        found = attributes(span)
        assert (found["http.route"], found["otel.status_code"]) == ("/api/broken", "ERROR")
    queries = run.spans(db__response__status_code="42P01")
    assert {attributes(s)["error.type"] for s in queries} == {"psycopg2.errors.UndefinedTable"}


def test_slow_queries_are_children_of_their_request(run):
    queries = run.spans(pbmon__db__slow=True)
    assert len(queries) == OVER + SLOW
    parents = {span["spanID"] for span in run.spans(pbmon__budget__exceeded=True)}
    for query in queries:
        found = attributes(query)
        assert found["db.query.text"] == "SELECT count(*), pg_sleep(%s) FROM transactions"
        assert found["db.query.summary"] == "SELECT transactions"
        assert found["code.file.path"].endswith("tests/e2e/app.py")
        assert query["references"][0]["spanID"] in parents


def test_an_exemplar_leads_from_the_histogram_to_a_kept_trace(run):
    name = f"{catalog.REQUEST_DURATION.prometheus_name}_bucket"
    found = run.prometheus.exemplars(f'{name}{{service_name="{run.service}"}}')
    ids = {labels["trace_id"] for _series, labels, _value in found}
    slow = {span["traceID"] for span in run.spans(pbmon__slow=True)}
    assert ids & slow


def test_no_literal_message_or_query_value_left_the_process(run):
    spans = [
        span
        for line in run.raw.splitlines()
        for part in json.loads(line).get("resourceSpans", [])
        for scope in part["scopeSpans"]
        for span in scope["spans"]
    ]
    routes = Counter(
        pair["value"]["stringValue"]
        for span in spans
        for pair in span["attributes"]
        if pair["key"] == "http.route"
    )
    # Those that had something to keep to themselves, none of them sampled away.
    assert routes["/api/broken"] == BROKEN
    assert routes["/api/bad-query"] == BAD_QUERIES
    assert routes["/api/users/{user_id}"] == USERS
    # Whole: four digits of a card may stand in a span's id by chance.
    for secret in ("4111111111111111", "4111 1111 1111 1111", "ann@example.com"):
        assert secret not in run.raw


def test_each_process_has_its_own_instance(run):
    instances = run.by(
        f"group by (instance) ({catalog.FEATURE_USAGE.prometheus_name}"
        f'{{service_name="{run.service}"}})',
        "instance",
    )
    assert len(instances) == 1
    assert re.fullmatch(r"[0-9a-f-]{36}", next(iter(instances))[0])


def test_logs_say_what_was_slow(run):
    lines = run.log.splitlines()
    assert sum("Slow query detected" in line for line in lines) == OVER + SLOW
    assert sum("Performance budget exceeded" in line for line in lines) == OVER + SLOW
