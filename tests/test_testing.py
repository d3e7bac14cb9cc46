"""capture(): what it shows, that it repeats, and that it leaves everything as it was."""

from __future__ import annotations

import logging
from dataclasses import fields

import pytest
from opentelemetry import metrics, trace

import pbmon
from pbmon import runtime
from pbmon.settings import SettingsError
from pbmon.testing import START_NS, capture
from tests.telemetry.drive import http, query, request

pytest_plugins = ["pytester"]


def state():
    return {
        item.name: dict(value) if isinstance(value, dict) else value
        for item in fields(runtime.active)
        for value in [getattr(runtime.active, item.name)]
    }


# --- isolation ---


def test_everything_is_as_before():
    import sqlite3

    logger = logging.getLogger("pbmon")
    handlers, level = list(logger.handlers), logger.level
    before, connect = state(), sqlite3.connect
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    with capture(service_name="inside"):
        assert runtime.active.settings.service_name == "inside"
        assert runtime.active.hooks["sqlite3"].state == "active"
        assert sqlite3.connect is not connect
    assert state() == before
    assert sqlite3.connect is connect
    assert (logger.handlers, logger.level) == (handlers, level)
    assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == providers
    assert pbmon.track_feature("x", "viewed") == pbmon.Refused("not_configured")


def test_also_after_an_exception():
    before = state()
    with pytest.raises(KeyError), capture():
        raise KeyError
    assert state() == before


def test_a_wrong_setting_raises_and_changes_nothing():
    before = state()
    with pytest.raises(SettingsError, match="must be above 0"), capture(slow_query_s=0):
        pytest.fail("must not begin")
    with pytest.raises(SettingsError, match="did you mean slow_query_s"), capture(slow_query=1):
        pytest.fail("must not begin")
    assert state() == before


def test_nested_captures_do_not_mix():
    with capture() as outer:
        request(outer, route="/outer")
        with capture() as inner:
            request(inner, route="/inner")
        request(outer, route="/again")
        assert [s.name for s in inner.spans] == ["GET /inner"]
        assert [s.name for s in outer.spans] == ["GET /outer", "GET /again"]
        assert inner.metric("http.server.request.duration")[0] == 1
        assert outer.metric("http.server.request.duration")[0] == 2
        assert runtime.active.hooks["sqlite3"].state == "active"  # still the outer one's


def test_it_asks_no_database():
    before, runtime.active.reader = runtime.active.reader, object
    try:
        with capture(), pytest.raises(runtime.StoreError):
            runtime.active.reader()
    finally:
        runtime.active.reader = before


# --- what is seen ---


def drive():
    with capture(request_log="all", slow_query_s=0.1) as seen:
        record = runtime.active.requests.request(http("/pay"))
        record.route = "/pay"
        query(seen, "SELECT 1", took_s=0.25, returned=1)
        seen.clock.advance(1.5)
        record.response_started(200, ())
        record.response_completed()
        record.closed()
        request(seen, status=500)
        pbmon.track_revenue("1.50", "EUR", transaction_id="t")
        return seen, (seen.spans, seen.logs, seen.metrics)


def test_two_captures_of_the_same_are_the_same():
    assert drive()[1] == drive()[1]


def test_ids_and_clock_are_deterministic():
    seen, _ = drive()
    statement, pay, failed = seen.spans
    assert (pay.trace_id, pay.span_id, pay.parent_id) == (f"{1:032x}", f"{1:016x}", None)
    assert (statement.trace_id, statement.span_id) == (pay.trace_id, f"{2:016x}")
    assert statement.parent_id == pay.span_id
    assert (failed.trace_id, failed.span_id) == (f"{2:032x}", f"{3:016x}")
    assert pay.start_ns == statement.start_ns == START_NS == 1_700_000_000_000_000_000
    assert failed.start_ns == START_NS + 1_750_000_000
    assert (statement.duration_s, pay.duration_s, failed.duration_s) == (0.25, 1.75, 0.0)
    assert (statement.kind, pay.kind) == ("CLIENT", "SERVER")
    assert (pay.status, failed.status) == ("UNSET", "ERROR")


def test_logs_are_seen_with_their_fields():
    seen, _ = drive()
    assert [(log.logger, log.level) for log in seen.logs] == [
        ("pbmon.db", "WARNING"),
        ("pbmon.http", "INFO"),
        ("pbmon.http", "INFO"),
    ]
    assert seen.logs[1].fields["duration"] == 1.75


def test_metric_sums_the_series_that_have_the_attributes():
    with capture() as seen:
        for route, took_s, times in (("/a", 0.5, 2), ("/b", 0.25, 3)):
            for _ in range(times):
                request(seen, http(method="PUT"), route=route, first_s=took_s)
        request(seen, route="/a", first_s=2.0)
        name = "http.server.request.duration"
        assert seen.metric(name) == (6, 3.75)
        assert seen.metric(name, http__route="/a") == (3, 3.0)
        assert seen.metric(name, http__route="/a", http__request__method="PUT") == (2, 1.0)
        assert seen.metric(name, http__route="/c") == 0
        assert seen.metric("pbmon.http.server.slow_requests") == 1
        with pytest.raises(ValueError, match="there is no metric 'no.such.metric'"):
            seen.metric("no.such.metric")
        with pytest.raises(ValueError, match=r"has no \['route'\]; it has .*http.route"):
            seen.metric(name, route="/a")
        assert seen.metric(name) == (6, 3.75)  # looking changes nothing


def test_settings_are_those_of_configure():
    with capture(slow_request_s="80ms", strict=False, request_log="off") as seen:
        request(seen, route="/x", first_s=0.09)
        assert seen.spans[0].attributes["pbmon.slow"] is True
        assert not pbmon.track_feature("x", "bad")
        assert seen.logs[0].logger == "pbmon.api"


def test_strict_is_on():
    with capture(), pytest.raises(ValueError, match="is not one of viewed"):
        pbmon.track_feature("x", "bad")


def test_a_threads_work_is_seen_too():
    import threading

    with capture() as seen:
        thread = threading.Thread(target=lambda: pbmon.track_feature("x", "viewed"))
        thread.start()
        thread.join()
        assert seen.metric("pbmon.feature.usage", pbmon__feature__name="x") == 1


# --- the pytest plugin ---


def test_the_fixture_is_a_capture_for_each_test(pytester):
    pytester.makepyfile("""
        import pbmon

        def test_one(pbmon_capture):
            assert pbmon.track_feature("x", "viewed")
            assert pbmon_capture.metric("pbmon.feature.usage") == 1

        def test_another(pbmon_capture):
            assert pbmon_capture.metric("pbmon.feature.usage") == 0
            pbmon_capture.clock.advance(1)

        def test_without():
            assert pbmon.track_feature("x", "viewed") == pbmon.Refused("not_configured")
    """)
    pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest"
    ).assert_outcomes(passed=3)
