"""capture(): what it shows, that it repeats, and that it leaves everything as it was."""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import fields

import pytest
from opentelemetry import metrics, trace

import pbmon
from pbmon import runtime, wiring
from pbmon.settings import SettingsError
from pbmon.spool.entries import Failure, encode
from pbmon.testing import START_NS, SeenEvent, capture
from pbmon.testing import seen as seen_of
from tests.telemetry.drive import http, query, request


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
        assert sqlite3.threadsafety >= 0  # it is there, so its hook is not waiting for it
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


# --- clock ---


def test_the_systems_clock_measures():
    with capture(clock="system") as seen:
        before_ns = time.time_ns()
        record = runtime.active.requests.request(http("/pay"))
        record.route = "/pay"
        began_s = time.perf_counter()
        while time.perf_counter() - began_s < 0.01:
            pass
        record.response_started(200, ())
        record.response_completed()
        record.closed()
        took_s = time.perf_counter() - began_s
    (span,), (made,) = seen.spans, seen.requests
    assert 0.01 <= made.duration_s <= took_s + 0.1
    assert span.duration_s == pytest.approx(made.duration_s, abs=1e-6)
    assert before_ns <= span.start_ns <= time.time_ns()


def test_there_is_no_other_clock():
    with pytest.raises(ValueError, match="clock 'real' is not one of counting, system"):
        capture(clock="real").__enter__()


# --- configure() within a capture ---


def test_an_application_that_configures_itself_is_seen():
    before, parts = state(), dict(wiring._parts)
    with capture(request_log="off") as seen:
        pbmon.configure(service_name="shop", slow_request_s=0.2)
        pbmon.configure(budgets=[pbmon.Budget("/pay", max_s=0.1)])
        request(seen, route="/pay", first_s=0.25)
        (span,) = seen.spans
        assert (span.attributes["pbmon.slow"], span.attributes["pbmon.budget.exceeded"]) == (
            True,
        ) * 2
        assert runtime.active.settings.strict
        assert runtime.active.settings.service_name == "shop"
        assert [log.logger for log in seen.logs] == ["pbmon.budget"]
        assert pbmon.flush()
        assert pbmon.shutdown()
        with pytest.raises(SettingsError):
            pbmon.configure(slow_request_s=-1)
    assert state() == before
    assert (wiring._parts, wiring._keywords, wiring._worker) == (parts, {}, None)


# --- requests and their queries ---


def test_a_query_is_of_the_request_around_it():
    with capture() as seen:
        query(seen, "SELECT 0")
        outer = runtime.active.requests.request(http("/outer"))
        outer.route = "/outer"
        query(seen, "SELECT 1")
        inner = runtime.active.requests.request(http("/inner"))
        inner.route = "/inner"
        query(seen, "SELECT 2")
        query(seen, "SELECT 3 FROM t")
        inner.response_started(200, ())
        inner.response_completed()
        inner.closed()
        query(seen, "SELECT 4 FROM u")
        outer.response_started(500, ())
        outer.response_completed()
        outer.closed()
        request(seen, http("/nowhere"), status=404)
        request(seen, route="/none")
    assert len(seen.queries) == 5
    assert [(r.name, r.failed, [q.name for q in r.queries]) for r in seen.requests] == [
        ("GET /inner", False, ["SELECT", "SELECT t"]),
        ("GET /outer", True, ["SELECT", "SELECT u"]),
        ("GET /none", False, []),
    ]
    named = [s.span_id for s in seen.spans if "http.route" in s.attributes]
    assert [r.span_id for r in seen.requests] == named


def test_a_query_below_a_span_of_the_applications_own_is_the_requests():
    """Which no capture sees."""
    from opentelemetry.sdk.trace import TracerProvider

    foreign = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    with capture() as seen:
        record = runtime.active.requests.request(http("/pay"))
        record.route = "/pay"
        with foreign.start_as_current_span("work"):
            query(seen)
        record.response_started(200, ())
        record.response_completed()
        record.closed()
    assert len(seen.requests[0].queries) == 1


# --- logs, events, errors ---


def test_logs_of_all_loggers_with_their_trace(caplog):
    with capture(slow_query_s=0.1) as seen:
        record = runtime.active.requests.request(http("/pay"))
        logging.getLogger("app.pay").warning("took %s", "long", extra={"order": 7})
        logging.getLogger("app.pay").debug("not at this level")
        query(seen, took_s=0.2)
        record.response_started(200, ())
        record.response_completed()
        record.closed()
        (app, slow) = seen.logs
        server = seen.span("GET")
    assert (app.logger, app.level, app.message, app.fields) == (
        "app.pay", "WARNING", "took long", {"order": 7}
    )  # fmt: skip
    assert (app.trace_id, app.span_id) == (server.trace_id, server.span_id)
    assert (slow.trace_id, slow.span_id) == (server.trace_id, seen.queries[0].span_id)
    assert seen.log("took", order=7) is app
    assert seen.log("Slow query detected") is slow
    logging.getLogger("app").error("after the end")
    assert len(seen.logs) == 2


def test_a_record_whose_arguments_do_not_fit_is_seen_without_them():
    wrong = logging.makeLogRecord({"name": "app", "msg": "wrong %d", "args": ("text",)})
    assert seen_of.log(wrong).message == "wrong %d"


def test_events_as_they_were_said():
    segments = {"segments": {"plan": ["free", "pro"]}, "features": ["export"]}
    with capture(consent="not-required", **segments) as seen:
        with pbmon.context(user_id="7", session_id="s", plan="pro"):
            pbmon.track("paid", {"amount": 1250, "tags": ["a"]}, event_id="e1")
        pbmon.track("visited", consent=True)
        pbmon.track_feature("export", "viewed", rows=3)
        pbmon.track_revenue("1.50", "EUR", transaction_id="t")
    paid, visited, viewed = seen.events
    assert paid == SeenEvent(
        "paid", {"amount": 1250, "tags": ["a"]}, "7", "s", None, {"plan": "pro"}, "e1", None
    )
    assert (visited.user_id, visited.consent, visited.properties) == (None, True, {})
    assert viewed.name == "feature_viewed"
    assert seen.event("paid", amount=1250) == paid
    assert seen.event("feature_viewed", rows=3) == viewed
    assert len(seen.entries) == 4


def test_errors_are_those_on_their_way_to_the_store():
    failure = Failure(
        1, "f" * 32, "KeyError", "app:pay", 1, True, None, None, None, None, None, None
    )
    with capture() as seen:
        seen.put(encode(failure))
        pbmon.track("paid", consent=True)
    assert seen.errors == [failure]


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (lambda s: s.span("GET /c"), "no span is 'GET /c'; there are: 'GET /a', 'GET /b'"),
        (lambda s: s.span("GET /a"), "2 spans are 'GET /a'; say more of the one you mean"),
        (lambda s: s.span(http__route="/c"), "no span is http.route='/c'; there are: 'GET /a', "),
        (lambda s: s.span("GET /b", http__request__method="PUT"),
         "no span is 'GET /b', http.request.method='PUT'; there are: "),
        (lambda s: s.log("Slow"), "no log record is 'Slow'; there are: none"),
        (lambda s: s.event("paid", amount=2), "no event is 'paid', amount=2; there are: 'paid'"),
        (lambda s: s.event(), "2 events are anything; say more"),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_look_that_finds_nothing_says_what_there_is(look, said):
    with capture() as seen:
        for route in ("/a", "/b", "/a"):
            request(seen, route=route)
        pbmon.track("paid", {"amount": 1}, consent=True)
        pbmon.track("paid", {"amount": 3}, consent=True)
    with pytest.raises(AssertionError) as raised:
        look(seen)
    assert str(raised.value).startswith(said)
    assert seen.span(http__route="/b").name == "GET /b"


def test_many_names_are_cut():
    with capture() as seen:
        for number in range(50):
            request(seen, route=f"/{number}")
    with pytest.raises(AssertionError, match="'GET /19' and 30 more$"):
        seen.span("GET /x")
