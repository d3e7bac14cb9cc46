"""Each server starts, takes data, answers and stops; the data goes the whole way."""

from __future__ import annotations

import socket
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.stack import web
from tests.stack.plugin import CollectorFactory, missing, started
from tests.stack.postgres import URL_VARIABLE, Postgres
from tests.stack.process import ServerError, wait_until
from tests.stack.programs import MissingProgram
from tests.stack.samples import NOWHERE, PIPELINE, SPAN_ID, TRACE_ID, metrics_of, traces_of
from tests.stack.servers import Collector, Jaeger, Prometheus, collector_validate, promtool


@pytest.fixture
def service() -> str:
    """A name of its own per test: the servers live for the session."""
    return f"stack-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def collector(
    stack_prometheus: Prometheus, stack_jaeger: Jaeger, stack_collector: CollectorFactory
) -> Collector:
    env = {
        "METRICS_TO": stack_prometheus.otlp_endpoint,
        "TRACES_TO": stack_jaeger.otlp_endpoint,
    }
    return stack_collector(PIPELINE, env)


def test_metrics_go_through_the_collector_to_prometheus(
    collector: Collector, stack_prometheus: Prometheus, service: str
) -> None:
    with collector:
        web.post_json(f"{collector.otlp_endpoint}/v1/metrics", metrics_of(service))
        selector = f'{{service_name="{service}"}}'
        wait_until(lambda: stack_prometheus.query(f"shop_revenue_total{selector}") != [], "revenue")
    assert stack_prometheus.query(f"shop_revenue_total{selector}") == [
        (
            {
                "__name__": "shop_revenue_total",
                "currency": "EUR",
                "deployment_environment_name": "test",
                "instance": "one",
                "job": service,
                "service_name": service,
            },
            1234.56,
        )
    ]
    buckets = stack_prometheus.query(f'shop_latency_seconds_bucket{{service_name="{service}"}}')
    assert {labels["le"]: value for labels, value in buckets} == {"0.5": 1.0, "+Inf": 3.0}
    [(_, ratio)] = stack_prometheus.query(f"shop_retention_ratio{selector}")
    assert ratio == 0.25
    [(series, exemplar, value)] = stack_prometheus.exemplars(
        f"shop_latency_seconds_bucket{selector}"
    )
    assert series["le"] == "+Inf"
    assert exemplar == {"trace_id": TRACE_ID, "span_id": SPAN_ID}
    assert value == 0.7


def test_a_counter_counts_from_its_start_time(stack_prometheus: Prometheus, service: str) -> None:
    """Start-time zeros: the first value already is an increase. And OTLP straight to Prometheus."""
    web.post_json(f"{stack_prometheus.otlp_endpoint}/v1/metrics", metrics_of(service))
    [(_, samples)] = stack_prometheus.query(
        f'count_over_time(shop_revenue_total{{service_name="{service}"}}[1m])'
    )
    assert samples == 2


def test_prometheus_takes_samples_of_the_last_half_hour(
    stack_prometheus: Prometheus, service: str
) -> None:
    url = f"{stack_prometheus.otlp_endpoint}/v1/metrics"
    web.post_json(url, metrics_of(service))
    late = metrics_of(service)
    then = time.time() - 25 * 60
    [gauge] = [m for m in late["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] if "gauge" in m]
    gauge["gauge"]["dataPoints"][0]["timeUnixNano"] = str(int(then * 1e9))
    late["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] = [gauge]
    web.post_json(url, late)
    expression = f'shop_retention_ratio{{service_name="{service}"}}'
    assert [value for _, value in stack_prometheus.query(expression, at=then + 1)] == [0.25]
    assert stack_prometheus.query(expression, at=then - 1) == []


def test_prometheus_runs_a_given_configuration(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 17s}\n", encoding="utf-8")
    with started(Prometheus(config)) as prometheus:
        answer = web.get_json(f"{prometheus.url}/api/v1/status/config")
    assert "scrape_interval: 17s" in answer["data"]["yaml"]


def test_traces_go_through_the_collector_and_are_found_by_attribute(
    collector: Collector, stack_jaeger: Jaeger, service: str
) -> None:
    with collector:
        web.post_json(f"{collector.otlp_endpoint}/v1/traces", traces_of(service))
        wait_until(lambda: len(stack_jaeger.find(service)) == 2, "two traces in Jaeger")
    [trace] = stack_jaeger.find(service, {"pbmon.slow": True})
    assert trace["traceID"] == TRACE_ID
    assert [span["operationName"] for span in trace["spans"]] == ["slow"]
    assert stack_jaeger.find(service, {"pbmon.slow": True, "http.route": "/quick"}) == []
    assert len(stack_jaeger.find(service, limit=1)) == 1
    assert service in stack_jaeger.services()


def test_the_collector_keeps_its_ports_over_a_crash(collector: Collector) -> None:
    before = dict(collector.ports)
    pid = collector.pid
    collector.kill()
    assert web.status(f"{collector.otlp_endpoint}/v1/traces") is None
    collector.start()
    assert collector.ports == before
    assert collector.pid != pid
    assert web.status(f"{collector.otlp_endpoint}/v1/traces") is not None
    socket.create_connection(("127.0.0.1", before["otlp_grpc"]), timeout=5).close()
    collector.close()


def test_a_later_configuration_is_merged_into_the_first(tmp_path: Path) -> None:
    """A Path and a text together; `{home}` and the ports reach the configuration."""
    base = tmp_path / "base.yaml"
    base.write_text(PIPELINE, encoding="utf-8")
    extra = """\
exporters:
  file: {path: "${env:OUT}", flush_interval: 20ms}
service:
  pipelines:
    traces: {exporters: [file]}
"""
    with started(Collector([base, extra], {**NOWHERE, "OUT": "{home}/spans.json"})) as collector:
        web.post_json(f"{collector.otlp_endpoint}/v1/traces", traces_of("merged"))
        written = collector.home / "spans.json"
        wait_until(lambda: written.exists() and "merged" in written.read_text(), "the spans")
    assert not written.exists()


def test_validate_names_the_fault() -> None:
    try:
        collector_validate(PIPELINE, NOWHERE)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)
    with pytest.raises(ServerError, match="otlp_htp"):
        collector_validate(PIPELINE.replace("otlp_http/traces", "otlp_htp/traces"), NOWHERE)


def test_promtool_finds_a_broken_rule(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    text = "groups: [{name: g, rules: [{record: 'a:b', expr: 'sum(up)'}]}]\n"
    rules.write_text(text, encoding="utf-8")
    try:
        assert "1 rules found" in promtool("check", "rules", rules)
    except MissingProgram as absent:
        missing(absent.name, absent.reason)
    rules.write_text(text.replace("sum(up)", "sum(up"), encoding="utf-8")
    with pytest.raises(ServerError, match="unclosed left parenthesis"):
        promtool("check", "rules", rules)


def test_postgres_answers(stack_postgres: Postgres) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    connection = psycopg2.connect(stack_postgres.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("show fsync")
            [fsync] = cursor.fetchone()
            cursor.execute("select current_user, 6 * 7")
            user, answer = cursor.fetchone()
    finally:
        connection.close()
    assert answer == 42
    assert user == urlsplit(stack_postgres.url).username
    if stack_postgres.ports:  # ours, not a given one
        assert fsync == "off"


def test_a_given_postgres_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"postgresql://me:secret@127.0.0.1:{listener.getsockname()[1]}/shop"
        monkeypatch.setenv(URL_VARIABLE, url)
        with Postgres() as postgres:
            assert postgres.url == url
            assert not postgres.is_running
    with pytest.raises(ServerError, match=URL_VARIABLE) as caught:
        Postgres().start()
    assert "secret" not in str(caught.value)
