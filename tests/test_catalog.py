"""The catalogue: complete, free of repetition, and true to the installed semantic conventions."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.semconv import attributes as stable_attributes
from opentelemetry.semconv import metrics
from opentelemetry.semconv._incubating import attributes as new_attributes
from opentelemetry.semconv._incubating import metrics as new_metrics
from opentelemetry.semconv.schemas import Schemas

from pbmon import catalog
from pbmon.catalog import ATTRIBUTES, LOGS, METRICS, Metric

PROMETHEUS_NAMES = {
    "http.server.request.duration": "http_server_request_duration_seconds",
    "http.server.active_requests": "http_server_active_requests",
    "pbmon.http.server.slow_requests": "pbmon_http_server_slow_requests_total",
    "pbmon.http.server.aborted_requests": "pbmon_http_server_aborted_requests_total",
    "pbmon.websocket.connections": "pbmon_websocket_connections",
    "pbmon.event_loop.lag": "pbmon_event_loop_lag_seconds",
    "db.client.operation.duration": "db_client_operation_duration_seconds",
    "pbmon.db.slow_queries": "pbmon_db_slow_queries_total",
    "pbmon.db.errors": "pbmon_db_errors_total",
    "pbmon.budget.requests": "pbmon_budget_requests_total",
    "pbmon.budget.breaches": "pbmon_budget_breaches_total",
    "pbmon.budget.threshold": "pbmon_budget_threshold_seconds",
    "pbmon.budget.allowed": "pbmon_budget_allowed_ratio",
    "pbmon.errors": "pbmon_errors_total",
    "pbmon.alerts.notifications": "pbmon_alerts_notifications",
    "pbmon.alerts.open": "pbmon_alerts_open",
    "pbmon.alerts.paging": "pbmon_alerts_paging",
    "pbmon.feature.usage": "pbmon_feature_usage_total",
    "pbmon.events": "pbmon_events_total",
    "pbmon.experiment.exposures": "pbmon_experiment_exposures_total",
    "pbmon.feedback.responses": "pbmon_feedback_responses_total",
    "pbmon.revenue": "pbmon_revenue_total",
    "pbmon.refunds": "pbmon_refunds_total",
    "pbmon.transactions": "pbmon_transactions_total",
    "pbmon.revenue.unconverted": "pbmon_revenue_unconverted",
    "pbmon.revenue.booked": "pbmon_revenue_booked",
    "pbmon.users.active": "pbmon_users_active",
    "pbmon.users.new": "pbmon_users_new",
    "pbmon.users.churned": "pbmon_users_churned",
    "pbmon.users.reactivated": "pbmon_users_reactivated",
    "pbmon.users.registered": "pbmon_users_registered",
    "pbmon.users.retention": "pbmon_users_retention_ratio",
    "pbmon.users.stickiness": "pbmon_users_stickiness_ratio",
    "pbmon.refused_calls": "pbmon_refused_calls_total",
    "pbmon.refused_measurements": "pbmon_refused_measurements_total",
    "pbmon.spool.records": "pbmon_spool_records_total",
    "pbmon.spool.size": "pbmon_spool_size_bytes",
    "pbmon.store.lag": "pbmon_store_lag_seconds",
    "pbmon.job.last_success": "pbmon_job_last_success_seconds",
    "pbmon.worker.active": "pbmon_worker_active",
    "pbmon.deletions.outstanding": "pbmon_deletions_outstanding",
    "pbmon.delivery.waiting": "pbmon_delivery_waiting",
    "pbmon.delivery.dead_letters": "pbmon_delivery_dead_letters",
    "pbmon.mark.time": "pbmon_mark_time_seconds",
    "pbmon.spool.replaced_values": "pbmon_spool_replaced_values_total",
    "otel.sdk.span.started": "otel_sdk_span_started_total",
    "otel.sdk.span.live": "otel_sdk_span_live",
    "otel.sdk.log.created": "otel_sdk_log_created_total",
    "otel.sdk.processor.span.processed": "otel_sdk_processor_span_processed_total",
    "otel.sdk.processor.log.processed": "otel_sdk_processor_log_processed_total",
    "otel.sdk.processor.span.queue.size": "otel_sdk_processor_span_queue_size",
    "otel.sdk.processor.log.queue.size": "otel_sdk_processor_log_queue_size",
    "otel.sdk.processor.span.queue.capacity": "otel_sdk_processor_span_queue_capacity",
    "otel.sdk.processor.log.queue.capacity": "otel_sdk_processor_log_queue_capacity",
    "otel.sdk.exporter.span.exported": "otel_sdk_exporter_span_exported_total",
    "otel.sdk.exporter.log.exported": "otel_sdk_exporter_log_exported_total",
    "otel.sdk.exporter.metric_data_point.exported": (
        "otel_sdk_exporter_metric_data_point_exported_total"
    ),
    "otel.sdk.exporter.span.inflight": "otel_sdk_exporter_span_inflight",
    "otel.sdk.exporter.log.inflight": "otel_sdk_exporter_log_inflight",
    "otel.sdk.exporter.metric_data_point.inflight": "otel_sdk_exporter_metric_data_point_inflight",
}

SOURCES = Path(catalog.__file__).parent


def constants(*packages):
    """Every text constant in the modules of these packages."""
    return {
        value
        for package in packages
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
        for name, value in vars(importlib.import_module(module.name)).items()
        if name.isupper() and isinstance(value, str)
    }


@pytest.mark.parametrize("table", [METRICS, ATTRIBUTES])
def test_names_are_unique(table):
    assert [name for name, n in Counter(item.name for item in table).items() if n > 1] == []


def test_log_messages_are_unique():
    assert len({log.message for log in LOGS}) == len(LOGS) == 9


def test_prometheus_names_are_these():
    assert {m.name: m.prometheus_name for m in METRICS} == PROMETHEUS_NAMES


@pytest.mark.parametrize(
    ("kind", "unit", "name", "expected"),
    [
        ("histogram", "By", "a.size", "a_size_bytes"),
        ("gauge", "1", "a.share", "a_share_ratio"),
        ("gauge", "1", "a.ratio", "a_ratio"),
        ("counter", "s", "a.busy", "a_busy_seconds_total"),
        ("counter", "{query}", "a.queries", "a_queries_total"),
        ("updowncounter", "1", "a.open", "a_open"),
    ],
)
def test_prometheus_name_follows_unit_and_kind(kind, unit, name, expected):
    assert Metric(name, kind, unit, "").prometheus_name == expected


def test_prometheus_labels_are_escaped_attribute_names():
    assert catalog.SLOW_QUERIES.prometheus_labels() == ("db_system_name", "db_query_summary")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_units_are_ucum(metric):
    assert re.fullmatch(r"1|s|By|\{[a-z]+(_[a-z]+)*\}", metric.unit)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_names_say_neither_unit_nor_total(metric):
    assert re.fullmatch(r"[a-z][a-z0-9]*([._][a-z0-9]+)*", metric.name)
    assert not re.search(r"(seconds|bytes|_total|_ms|ratio)$", metric.name)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_buckets_rise_and_belong_to_histograms_only(metric):
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_metrics_are_all_in_the_tuple():
    declared = [v for v in vars(catalog).values() if isinstance(v, Metric)]
    assert list(METRICS) == declared
    assert set(PROMETHEUS_NAMES) == {m.name for m in declared}


def test_logs_and_attributes_are_all_in_their_tuples():
    values = list(vars(catalog).values())
    assert [v for v in values if isinstance(v, catalog.Log)] == list(LOGS)
    assert [v for v in values if isinstance(v, catalog.Attribute)] == list(ATTRIBUTES)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_metric_attributes_are_declared_once(metric):
    assert set(metric.attributes) <= set(ATTRIBUTES)
    assert len(set(metric.attributes)) == len(metric.attributes)


def test_everything_is_explained():
    for item in (*METRICS, *ATTRIBUTES, *LOGS):
        assert item.meaning.endswith((".", "…")), item


@pytest.mark.parametrize("item", [*METRICS, *ATTRIBUTES], ids=lambda i: i.name)
def test_our_own_names_and_no_others_start_with_pbmon(item):
    assert item.name.startswith("pbmon.") == (item.stability == "pbmon")


def test_development_names_are_those_of_the_installed_conventions():
    """Fails on the day the conventions rename one, or make it stable."""
    development = {i.name for i in (*METRICS, *ATTRIBUTES) if i.stability == "development"}
    others = {name for name in development if not name.startswith("otel.")}
    assert others == {
        "http.server.active_requests", "db.response.returned_rows", "feature_flag.key",
        "feature_flag.result.variant", "enduser.pseudo.id", "session.id",
    }  # fmt: skip
    assert development <= constants(new_attributes, new_metrics)
    assert development.isdisjoint(constants(metrics, stable_attributes))


def test_stable_names_are_those_of_the_installed_conventions():
    stable = {i.name for i in (*METRICS, *ATTRIBUTES) if i.stability == "stable"}
    assert stable - constants(metrics, stable_attributes) == set()


def test_stable_names_are_imported_not_spelt():
    source = (SOURCES / "catalog.py").read_text(encoding="utf-8")
    stable = {i.name for i in (*METRICS, *ATTRIBUTES) if i.stability == "stable"}
    assert [name for name in stable if f'"{name}"' in source] == []


def test_no_other_module_spells_a_name_of_the_catalogue():
    names = {i.name for i in (*METRICS, *ATTRIBUTES)}
    spelt = [
        (path.name, name)
        for path in SOURCES.rglob("*.py")
        if path.name != "catalog.py"
        for name in names
        if f'"{name}"' in path.read_text(encoding="utf-8")
    ]
    assert spelt == []


def test_schema_url_is_the_newest_installed():
    assert list(Schemas)[-1].value == catalog.SCHEMA_URL


def test_methods_are_those_of_the_conventions_and_other():
    known = importlib.import_module("opentelemetry.semconv.attributes.http_attributes")
    values = {v.value for v in known.HttpRequestMethodValues} - {"_OTHER"}
    assert values <= catalog.KNOWN_METHODS
    assert set(catalog.METHOD.values) == catalog.KNOWN_METHODS | {"_OTHER"}


def test_buckets_are_those_of_the_conventions():
    assert catalog.REQUEST_DURATION.buckets == (
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    )  # fmt: skip
    assert catalog.QUERY_DURATION.buckets == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
