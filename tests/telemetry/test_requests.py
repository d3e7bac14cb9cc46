"""Requests: what span, metrics and budgets say of each way a request can go."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import copy_context

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value
from opentelemetry.sdk.trace import TracerProvider

import pbmon
from pbmon import catalog, identity, runtime
from pbmon.budgets import Budget
from pbmon.hooks.asgi import Observed
from pbmon.telemetry import requests as requests_module
from pbmon.testing import START_NS, capture
from tests.telemetry.drive import http, points, raised, request, traceparent, websocket

BUDGET = Budget("/pay", max_s=0.5, p95_s=0.3, p99_s=0.4, availability=0.999)
START = {
    "http.request.method": "GET",
    "url.scheme": "http",
    "url.path": "/",
    "network.protocol.version": "1.1",
    "server.address": "127.0.0.1",
    "server.port": 8000,
}
HISTOGRAM = "http.server.request.duration"


@pytest.fixture
def seen():
    with capture(request_log="off") as seen:
        yield seen
        assert seen.metric("http.server.active_requests") == 0


def only(seen):
    (span,) = seen.spans
    return span


def boom():
    return raised(ValueError("a secret"))


# --- the span of each outcome ---


def test_a_good_answer(seen):
    request(seen, route="/items/{item_id}", scope=http("/items/7"), first_s=0.25, last_s=0.5)
    span = only(seen)
    assert (span.name, span.kind, span.status) == ("GET /items/{item_id}", "SERVER", "UNSET")
    assert span.attributes == START | {
        "url.path": "/items/7",
        "http.route": "/items/{item_id}",
        "http.response.status_code": 200,
    }
    assert (span.start_ns, span.duration_s) == (START_NS, 0.75)
    assert span.parent_id is None
    assert span.events == ()


@pytest.mark.parametrize(
    ("status", "route", "name"),
    [(404, None, "GET"), (405, "/items", "GET /items"), (302, "/", "GET /")],
)
def test_an_answer_below_500_is_no_error(seen, status, route, name):
    request(seen, route=route, status=status)
    span = only(seen)
    assert (span.name, span.status) == (name, "UNSET")
    assert span.attributes["http.response.status_code"] == status
    assert span.attributes.get("http.route") == route
    assert "error.type" not in span.attributes


def test_a_500_without_an_exception(seen):
    request(seen, route="/x", status=503)
    span = only(seen)
    assert (span.status, span.attributes["error.type"], span.events) == ("ERROR", "503", ())


def test_a_500_whose_exception_arrives_after_it(seen):
    request(seen, route="/x", status=500, last_s=0.25, error=boom(), after_s=1.0)
    span = only(seen)
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "ValueError")
    assert span.attributes["http.response.status_code"] == 500
    assert span.duration_s == 0.25
    ((name, event),) = span.events
    assert name == "exception"
    assert set(event) == {"exception.type", "exception.stacktrace"}
    assert "a secret" not in str(event)
    assert event["exception.stacktrace"].endswith(" in raised")


def test_an_exception_without_an_answer_is_a_500(seen):
    request(seen, route="/x", status=None, error=boom())
    span = only(seen)
    assert span.attributes["http.response.status_code"] == 500
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "ValueError")
    assert seen.metric("pbmon.http.server.aborted_requests") == 0


def test_an_exception_in_the_middle_of_an_answer(seen):
    request(seen, route="/x", status=200, completed=False, error=boom(), last_s=0.5)
    span = only(seen)
    assert span.attributes["http.response.status_code"] == 200
    assert (span.status, span.attributes["error.type"]) == ("ERROR", "ValueError")
    assert seen.metric("pbmon.http.server.aborted_requests") == 0


@pytest.mark.parametrize("error", [None, asyncio.CancelledError()])
@pytest.mark.parametrize("status", [None, 200])
def test_an_answer_cut_short_is_aborted_and_no_error(seen, error, status):
    request(seen, route="/x", status=status, completed=False, error=error, first_s=0.5)
    span = only(seen)
    assert (span.status, span.duration_s) == ("UNSET", 0.5)
    assert span.attributes.get("http.response.status_code") == status
    assert "error.type" not in span.attributes
    assert seen.metrics["pbmon.http.server.aborted_requests"] == {
        (("http.request.method", "GET"), ("http.route", "/x")): 1
    }


def test_cancelled_after_the_last_byte_is_not_aborted(seen):
    request(seen, route="/x", error=asyncio.CancelledError())
    assert "pbmon.http.server.aborted_requests" not in seen.metrics


def test_background_work_does_not_count(seen):
    request(seen, route="/x", first_s=0.25, last_s=0.25, error=boom(), after_s=60.0)
    span = only(seen)
    assert (span.duration_s, span.status) == (0.5, "UNSET")
    assert "pbmon.slow" not in span.attributes
    assert seen.metric(HISTOGRAM) == (1, 0.5)


def test_active_while_it_runs_and_current_until_closed(seen):
    outside = trace.get_current_span()
    record = runtime.active.requests.request(http())
    key = (("http.request.method", "GET"), ("url.scheme", "http"))
    assert seen.metrics["http.server.active_requests"] == {key: 1}
    assert trace.get_current_span().get_span_context().is_valid
    record.response_started(200, ())
    record.response_completed()
    assert seen.metrics["http.server.active_requests"] == {key: 0}
    assert trace.get_current_span().get_span_context().is_valid  # background work is its child
    record.closed()
    assert trace.get_current_span() is outside


def test_suppressed_requests_are_left_alone(seen):
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        assert runtime.active.requests.request(http()) is None
        assert runtime.active.requests.websocket(websocket()) is None
    assert seen.spans == []


# --- span and histogram agree ---


@pytest.mark.parametrize(
    ("given", "status", "error_type"),
    [
        ({"status": 200}, 200, None),
        ({"status": 404}, 404, None),
        ({"status": 500}, 500, "500"),
        ({"status": 500, "error": KeyError()}, 500, "KeyError"),
        ({"status": None, "error": KeyError()}, 500, "KeyError"),
        ({"status": None}, None, None),
        ({"status": 200, "completed": False}, 200, None),
    ],
)
def test_the_histogram_has_the_spans_duration_and_attributes(seen, given, status, error_type):
    request(seen, route="/x", first_s=0.003, last_s=0.0041, **given)
    span = only(seen)
    expected = {
        "http.request.method": "GET",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.route": "/x",
        "http.response.status_code": status,
        "error.type": error_type,
    }
    expected = {name: value for name, value in expected.items() if value is not None}
    ((attributes, (count, total)),) = seen.metrics[HISTOGRAM].items()
    assert dict(attributes) == expected
    assert expected.items() <= span.attributes.items()
    assert count == 1
    assert total == pytest.approx(span.duration_s, abs=1e-9)


def test_counts_and_sums_are_exact_per_series(seen):
    for n in range(1, 101):
        request(seen, route="/a" if n % 2 else "/b", first_s=n / 1024)
    assert seen.metric(HISTOGRAM, http__route="/a") == (50, sum(range(1, 101, 2)) / 1024)
    assert seen.metric(HISTOGRAM, http__route="/b") == (50, sum(range(2, 101, 2)) / 1024)


def test_the_buckets_have_the_thresholds_as_bounds():
    with capture(slow_request_s=0.8, budgets=[BUDGET], request_log="off") as seen:
        request(seen, route="/pay", first_s=0.5)
        (point,) = points(seen, HISTOGRAM)
        assert set(point.explicit_bounds) == {*catalog.REQUEST_DURATION.buckets, 0.3, 0.4, 0.5, 0.8}
        # within 0.5 s, its upper bound included
        assert point.bucket_counts[point.explicit_bounds.index(0.5)] == 1


def test_an_exemplar_carries_the_server_spans_ids(seen):
    request(seen, route="/x", first_s=0.2)
    span = only(seen)
    (point,) = points(seen, HISTOGRAM)
    (exemplar,) = point.exemplars
    assert f"{exemplar.trace_id:032x}" == span.trace_id
    assert f"{exemplar.span_id:016x}" == span.span_id
    assert exemplar.value == 0.2


# --- slow ---


@pytest.mark.parametrize(("took_s", "slow"), [(1.0, False), (1.0009765625, True)])
def test_slow_is_longer_than_the_threshold(seen, took_s, slow):
    request(seen, route="/x", first_s=took_s)
    assert only(seen).attributes.get("pbmon.slow", False) is slow
    assert seen.metric("pbmon.http.server.slow_requests", http__route="/x") == int(slow)


@pytest.mark.parametrize("content_type", [b"text/event-stream", b"Text/Event-Stream; charset=x"])
def test_an_event_stream_is_judged_on_its_first_byte(seen, content_type):
    headers = [(b"Content-Type", content_type)]
    request(seen, route="/events", first_s=0.5, last_s=100.0, response=headers)
    request(seen, route="/events", first_s=1.5, last_s=1.0, response=headers)
    quick, late = seen.spans
    assert (quick.duration_s, late.duration_s) == (100.5, 2.5)
    assert "pbmon.slow" not in quick.attributes
    assert late.attributes["pbmon.slow"] is True
    assert seen.metric(HISTOGRAM) == (2, 103.0)


def test_a_stream_route_is_judged_on_its_first_byte():
    with capture(stream_routes=["/download"], request_log="off") as seen:
        request(seen, route="/download", first_s=0.5, last_s=9.0)
        request(seen, route="/other", first_s=0.5, last_s=9.0)
        assert ["pbmon.slow" in span.attributes for span in seen.spans] == [False, True]


# --- budgets ---


def budget_counts(seen):
    """Limit → (requests, breaches)."""
    return {
        limit: tuple(
            seen.metric(f"pbmon.budget.{name}", http__route="/pay", pbmon__budget__limit=limit)
            for name in ("requests", "breaches")
        )
        for limit in ("max", "p95", "p99", "availability")
    }


@pytest.fixture
def paid():
    with capture(budgets=[BUDGET], request_log="off") as seen:
        yield seen


def test_budget_counters_start_at_zero(paid):
    for name in ("requests", "breaches"):
        assert paid.metrics[f"pbmon.budget.{name}"] == {
            (("http.route", "/pay"), ("pbmon.budget.limit", limit)): 0
            for limit in ("max", "p95", "p99", "availability")
        }


@pytest.mark.parametrize(
    ("took_s", "passed", "excess"),
    [
        (0.25, (), None),
        (0.3, (), None),
        (0.35, ("p95",), None),
        (0.45, ("p95", "p99"), None),
        (0.5, ("p95", "p99"), None),
        (0.75, ("max", "p95", "p99"), 0.25),
    ],
)
def test_each_limit_is_judged_and_counted(paid, took_s, passed, excess):
    request(paid, route="/pay", first_s=took_s)
    attributes = only(paid).attributes
    assert attributes["pbmon.budget.exceeded"] is ("max" in passed)
    assert set(attributes.get("pbmon.budget.limits", ())) == set(passed)
    assert attributes.get("pbmon.budget.excess") == excess
    assert budget_counts(paid) == {
        "max": (1, int("max" in passed)),
        "p95": (1, int("p95" in passed)),
        "p99": (1, int("p99" in passed)),
        "availability": (1, 0),
    }


@pytest.mark.parametrize(
    "given", [{"status": 500}, {"status": None, "error": KeyError()}, {"status": 503}]
)
def test_a_5xx_leaves_the_latency_limits_and_spends_availability(paid, given):
    request(paid, route="/pay", first_s=9.0, **given)
    request(paid, route="/pay", first_s=0.1)
    assert budget_counts(paid) == {
        "max": (1, 0),
        "p95": (1, 0),
        "p99": (1, 0),
        "availability": (2, 1),
    }


def test_a_4xx_is_a_request_like_another(paid):
    request(paid, route="/pay", status=404, first_s=0.6)
    assert budget_counts(paid)["max"] == (1, 1)
    assert budget_counts(paid)["availability"] == (1, 0)


def test_budget_counts_are_exact_over_many_requests(paid):
    for n in range(1000):
        request(paid, route="/pay", first_s=n / 1024, status=500 if n % 10 == 0 else 200)
    judged = [n / 1024 for n in range(1000) if n % 10]
    assert budget_counts(paid) == {
        "max": (900, sum(t > 0.5 for t in judged)),
        "p95": (900, sum(t > 0.3 for t in judged)),
        "p99": (900, sum(t > 0.4 for t in judged)),
        "availability": (1000, 100),
    }


def test_another_route_spends_nothing(paid):
    request(paid, route="/other", first_s=9.0)
    request(paid, route=None, status=404)
    assert set(budget_counts(paid).values()) == {(0, 0)}
    assert all("pbmon.budget.exceeded" not in span.attributes for span in paid.spans)


def test_a_stream_spends_its_budget_by_the_first_byte():
    with capture(budgets=[BUDGET], stream_routes=["/pay"], request_log="off") as seen:
        request(seen, route="/pay", first_s=0.1, last_s=9.0)
        assert budget_counts(seen)["max"] == (1, 0)


def test_the_methods_own_budget_is_the_one_spent():
    every, post = Budget("/pay", max_s=1.0), Budget("/pay", max_s=0.1, method="POST")
    with capture(budgets=[every, post], request_log="off") as seen:
        request(seen, http(method="POST"), route="/pay", first_s=0.5)
        request(seen, http(method="GET"), route="/pay", first_s=0.5)
        limit = ("pbmon.budget.limit", "max")
        of_every = (("http.route", "/pay"), limit)
        of_post = (("http.request.method", "POST"), *of_every)
        assert seen.metrics["pbmon.budget.breaches"] == {of_every: 0, of_post: 1}
        assert seen.metrics["pbmon.budget.requests"] == {of_every: 1, of_post: 1}


def test_thresholds_and_allowed_shares_are_gauges(paid):
    def gauge(name):
        return {dict(k)["pbmon.budget.limit"]: v for k, v in paid.metrics[name].items()}

    assert gauge("pbmon.budget.threshold") == {"max": 0.5, "p95": 0.3, "p99": 0.4}
    allowed = gauge("pbmon.budget.allowed")
    assert allowed["availability"] == pytest.approx(0.001, rel=1e-9)
    del allowed["availability"]
    assert allowed == {"max": 0.0, "p95": 0.05, "p99": 0.01}


# --- what a client may send ---


def test_an_unknown_method_is_other():
    with capture(request_log="off") as seen:
        request(seen, http(method="BREW"), route="/pot", status=418)
        request(seen, http(method="BREW" * 100), status=405)
        request(seen, http(method="get"), status=405)
        pot, long, lower = seen.spans
        assert (pot.name, long.name, lower.name) == ("HTTP /pot", "HTTP", "HTTP")
        assert pot.attributes["http.request.method"] == "_OTHER"
        assert pot.attributes["http.request.method_original"] == "BREW"
        assert len(long.attributes["http.request.method_original"]) == 64
        assert lower.attributes["http.request.method_original"] == "get"
        assert {dict(k)["http.request.method"] for k in seen.metrics[HISTOGRAM]} == {"_OTHER"}


@pytest.mark.parametrize("method", sorted(catalog.KNOWN_METHODS))
def test_known_methods_are_themselves(seen, method):
    request(seen, http(method=method), route="/x")
    assert only(seen).name == f"{method} /x"
    assert "http.request.method_original" not in only(seen).attributes


GARBAGE = bytes(range(256))


@pytest.mark.parametrize(
    "name",
    [b"host", b"user-agent", b"traceparent", b"tracestate", b"baggage", b"cookie", GARBAGE],
)
def test_garbage_bytes_in_headers_change_nothing(name):
    with capture(request_log="off", excluded_urls=["/never"]) as seen:
        headers = [(name, GARBAGE), (name, b"\xff\\x"), (b"traceparent", b"\xff")]
        request(seen, http(headers=headers, query=GARBAGE), route="/x")
        span = only(seen)
        assert span.attributes["http.response.status_code"] == 200
        assert span.parent_id is None


def test_query_values_are_masked_and_the_agent_is_cut(seen):
    headers = [(b"user-agent", b"a" * 1000)]
    request(seen, http(headers=headers, query=b"token=hunter2&page=2&flag"), route="/x")
    attributes = only(seen).attributes
    assert attributes["url.query"] == "token=REDACTED&page=REDACTED&REDACTED"
    assert attributes["user_agent.original"] == "a" * 256


@pytest.mark.parametrize("missing", ["scheme", "http_version", "query_string", "server", "headers"])
def test_what_asgi_leaves_optional_may_be_missing(seen, missing):
    request(seen, http(**{missing: None}), route="/x")
    assert only(seen).attributes["url.scheme"] == "http"
    assert seen.metric(HISTOGRAM)[0] == 1


def test_an_address_without_a_port_and_no_client(seen):
    request(seen, http(server=("/run/app.sock", None), client=None), route="/x")
    attributes = only(seen).attributes
    assert attributes["server.address"] == "/run/app.sock"
    assert "server.port" not in attributes


def test_client_addresses_only_where_switched_on(seen):
    given = {"client": ("203.0.113.9", 1), runtime.PEER: ("10.0.0.1", 2)}
    request(seen, http(**given))
    assert not {"client.address", "network.peer.address"} & set(only(seen).attributes)
    with capture(client_address=True, request_log="off") as seen:
        request(seen, http(**given))
        attributes = only(seen).attributes
        assert attributes["client.address"] == "203.0.113.9"
        assert attributes["network.peer.address"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        (["/health"], "/health/live", True),
        (["/health"], "/pay", False),
        (["shop.example/admin"], "/admin", True),
        (["^(http|ws)://shop.example/$"], "/", True),
        (["(?i)HEALTH", "(?i)metrics"], "/health", True),
        ([r"(a)\1", r"(b)\1"], "/bb", True),
        (["(?P<x>a)z", "(?P<x>b)z"], "/bz", True),
    ],
)
def test_excluded_urls(patterns, path, excluded):
    headers = [(b"Host", b"shop.example")]
    with capture(excluded_urls=patterns):
        records = [
            runtime.active.requests.request(http(path, headers=headers)),
            runtime.active.requests.websocket(websocket(path, headers=headers)),
        ]
        assert [record is None for record in records] == [excluded] * 2
        for record in reversed(records):
            if record is not None:
                record.closed()


# --- headers, by allow-list ---


def test_allowed_headers_are_put_on_the_span_and_credentials_masked():
    settings = {
        "request_headers": ["(?i)x-tenant", "x-id.*", "authorization"],
        "response_headers": ["x-cache", "set-cookie"],
        "masked_headers": ["x-id-secret"],
        "request_log": "off",
    }
    with capture(**settings) as seen:
        sent = [(b"X-Tenant", b"a"), (b"x-tenant", b"b"), (b"x-id-secret", b"hunter2")]
        sent += [(b"authorization", b"hunter2"), (b"x-other", b"c")]
        answered = [(b"X-Cache", b"\xffhit"), (b"set-cookie", b"hunter2")]
        request(seen, http(headers=sent), route="/x", response=answered)
        attributes = only(seen).attributes
        captured = {k: v for k, v in attributes.items() if ".header." in k}
        assert captured == {
            "http.request.header.x-tenant": ("a", "b"),
            "http.request.header.x-id-secret": ("REDACTED",),
            "http.request.header.authorization": ("REDACTED",),
            "http.response.header.x-cache": ("ÿhit",),
            "http.response.header.set-cookie": ("REDACTED",),
        }


# --- bounded series ---


def test_twenty_thousand_combinations_stay_within_the_cap(seen):
    for n in range(20_000):
        scope = http(
            method=f"M{n}",
            scheme=f"s{n % 100}",
            http_version=str(n % 50),
            headers=[traceparent("00")],  # unsampled: the spans would only take memory
        )
        request(seen, scope, route=f"/{n}", status=200 + n % 5, first_s=2.0)
    figures = seen.metrics
    for name in (HISTOGRAM, "pbmon.http.server.slow_requests", "http.server.active_requests"):
        series = figures[name]
        assert len(series) <= 2000, name
        values = [v[0] if isinstance(v, tuple) else v for v in series.values()]
        assert sum(values) == (0 if name.endswith("active_requests") else 20_000)
    overflow = (("otel.metric.overflow", True),)
    assert figures[HISTOGRAM][overflow][0] == 18_001
    assert figures["pbmon.http.server.slow_requests"][overflow] == 18_001


def test_a_budget_is_exact_beyond_the_cap():
    with capture(budgets=[BUDGET], request_log="off") as seen:
        for n in range(2100):
            request(seen, route=f"/{n}")
        request(seen, route="/pay", first_s=0.6)
        assert set(seen.metrics["pbmon.budget.requests"].values()) == {1}


def test_repeated_headers_are_joined_once():
    """Joined one by one, 300,000 of them held the event loop for 22 s."""
    fields = [(b"a", b"b")] * 50_000 + [(b"tracestate", b"x=1"), (b"tracestate", b"y=2")]
    joined = requests_module._headers({"headers": fields})
    assert joined["tracestate"] == "x=1,y=2"
    assert len(joined["a"]) == 2 * 50_000 - 1


def test_a_path_of_megabytes_is_cut(seen):
    scope = http("/" + "p" * 1_000_000, query=b"&a=" * 300_000)
    runtime.active.requests.request(scope).closed()
    attributes = seen.spans[0].attributes
    assert len(attributes["url.path"]) == 2048
    assert len(attributes["url.query"]) < 4 * 2048


def test_what_an_exporter_asks_is_not_observed(seen):
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        assert runtime.active.requests.request(http("/x")) is None
        assert runtime.active.requests.websocket(http("/x") | {"type": "websocket"}) is None
    finally:
        detach(token)


def test_a_failure_after_the_answer_is_told(seen):
    record = runtime.active.requests.request(http("/x"))
    record.route = "/x"
    record.response_started(200, [])
    record.response_completed()
    record.failed(raised(RuntimeError("secret")))
    record.closed()
    (log,) = seen.logs
    assert log.message.startswith("Failed after the answer endpoint=/x method=GET error=RuntimeEr")
    assert log.fields["trace_id"] == seen.spans[0].trace_id
    assert "secret" not in log.message


def test_a_5xx_is_not_active_during_its_background_work(seen):
    record = runtime.active.requests.request(http("/x"))
    record.response_started(503, [])
    record.response_completed()
    assert seen.metric("http.server.active_requests") == 0
    record.closed()
    assert seen.metric("http.server.active_requests") == 0


def test_a_request_is_freed_without_the_garbage_collector(seen):
    class Marker:
        pass

    marker = Marker()
    freed = weakref.ref(marker)
    scope = http("/x") | {"state": marker}
    scope[runtime.RECORD] = runtime.active.requests.request(scope)
    scope[runtime.RECORD].closed()
    gc.disable()
    try:
        del scope, marker
        assert freed() is None
    finally:
        gc.enable()


def test_a_coroutine_that_is_thrown_away_is_an_abort(seen):
    def thrown_away():
        record = runtime.active.requests.request(http("/x"))
        record.failed(GeneratorExit())
        record.closed()

    copy_context().run(thrown_away)  # it leaves its context attached: the collector has another
    assert seen.metric("pbmon.http.server.aborted_requests") == 1
    assert seen.spans[0].status == "UNSET"


def test_only_upstreams_asgi_span_is_annotated():
    with capture(hooks={"psycopg2": "upstream"}) as seen:
        foreign = TracerProvider(shutdown_on_exit=False).get_tracer(
            "opentelemetry.instrumentation.x"
        )
        with foreign.start_as_current_span("outer"):
            runtime.active.requests.request(http("/x")).closed()
        assert [span.kind for span in seen.spans] == ["SERVER"]


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ({}, {}),
        (
            {"http.url": "http://a/x?token=hunter2#&b", "http.target": "/x?token=hunter2"},
            {"http.url": "http://a/x", "http.target": "/x"},
        ),
    ],
)
def test_upstreams_span_keeps_no_value_of_the_query(old, kept):
    upstream = TracerProvider(shutdown_on_exit=False).get_tracer(
        "opentelemetry.instrumentation.asgi"
    )
    made = old | {"url.query": "token=hunter2", "url.path": "/x"}
    with capture(hooks={"uvicorn": "upstream"}) as seen:
        for scope, start in ((http, runtime.active.requests.request),
                             (websocket, runtime.active.requests.websocket)):  # fmt: skip
            with upstream.start_as_current_span("GET", attributes=made) as span:
                record = start(scope("/x", query=b"token=hunter2"))
                assert dict(span.attributes) == kept | {
                    "url.query": "token=REDACTED",
                    "url.path": "/x",
                }
                record.closed()
        assert seen.spans == []


# --- segments of the user ---


def asked(seen, app, path="/"):
    """A request through the layer that servers and frameworks put around an application; the
    attributes of its span that are segments."""
    observed = Observed(app)

    async def drive():
        transport = httpx.ASGITransport(observed, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            await client.get(path)

    asyncio.run(drive())
    return {k: v for k, v in seen.spans[-1].attributes.items() if k.startswith("pbmon.segment.")}


async def answer_as(send, status=200):
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def answering(scope, receive, send):
    await answer_as(send)


async def of_pro(scope, receive, send):
    with pbmon.context(user_id=7, plan="pro", region="eu", email="a@b.c"):
        await answer_as(send)


SEGMENTS = {"plan": ["free", "pro"], "region": []}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (False, {}),
        (True, {"pbmon.segment.plan": "pro", "pbmon.segment.region": "eu"}),
        (["region", "email"], {"pbmon.segment.region": "eu"}),
    ],
)
def test_segments_that_the_settings_name_are_on_the_span(wanted, found):
    with capture(segments=SEGMENTS, segment_spans=wanted) as seen:
        assert asked(seen, of_pro) == found


def test_a_value_that_is_not_declared_is_other():
    async def app(scope, receive, send):
        with pbmon.context(plan="gold"):
            await answer_as(send)

    with capture(segments=SEGMENTS, segment_spans=True) as seen:
        assert asked(seen, app) == {"pbmon.segment.plan": "_other"}


def test_what_was_said_in_the_request_counts_also_where_it_fails_at_its_end():
    async def app(scope, receive, send):
        with pbmon.context(plan="pro"):
            pass
        if scope["path"] == "/late":
            await answer_as(send, 500)
        raise KeyError

    with capture(segments=SEGMENTS, segment_spans=True) as seen:
        for path in ("/", "/late"):
            assert asked(seen, app, path) == {"pbmon.segment.plan": "pro"}
        assert asked(seen, answering) == {}  # another request knows nothing of it


def test_another_persons_segments_are_not_the_requests():
    async def app(scope, receive, send):
        scope["user"] = {"id": 7}
        with pbmon.context(user_id=8, plan="free"):
            pass
        await answer_as(send)

    with capture(segments=SEGMENTS, segment_spans=True) as seen:
        assert asked(seen, app) == {}


def test_a_websocket_has_them_too():
    with capture(segments=SEGMENTS, segment_spans=True) as seen:
        scope = websocket()
        begun = identity.begin(scope)
        record = runtime.active.requests.websocket(scope)
        record.accepted()
        with pbmon.context(plan="pro"):
            pass
        record.closed()
        identity.end(begun)
    assert only(seen).attributes["pbmon.segment.plan"] == "pro"
