"""Queries: span, metrics and log of each way a statement can go."""

from __future__ import annotations

import contextvars
import threading

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider

from pbmon import catalog, runtime
from pbmon.testing import START_NS, capture
from tests.telemetry.drive import POSTGRES, http, points, query, raised

HISTOGRAM = "db.client.operation.duration"
SQLITE = runtime.Database("sqlite", "shop.db")


class UniqueViolation(Exception):
    pass


@pytest.fixture
def seen():
    with capture() as seen:
        yield seen


def only(seen):
    (span,) = seen.spans
    return span


# --- the span ---


def test_a_select(seen):
    query(seen, "SELECT name FROM users WHERE id = 42", took_s=0.03125, returned=3)
    span = only(seen)
    assert (span.name, span.kind, span.status) == ("SELECT users", "CLIENT", "UNSET")
    assert (span.start_ns, span.duration_s) == (START_NS, 0.03125)
    assert span.attributes == {
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "db.operation.name": "SELECT",
        "db.collection.name": "users",
        "db.query.summary": "SELECT users",
        "db.query.text": "SELECT name FROM users WHERE id = ?",
        "db.response.returned_rows": 3,
        "server.address": "db.example",
        "server.port": 5432,
        "pbmon.db.slow": False,
    }
    assert seen.logs == []
    assert "pbmon.db.slow_queries" not in seen.metrics


def test_rows_changed_and_the_batch(seen):
    query(seen, "INSERT INTO t VALUES (%s)", affected=5, batch_size=5)
    attributes = only(seen).attributes
    assert attributes["pbmon.db.affected_rows"] == 5
    assert attributes["db.operation.batch.size"] == 5
    assert "db.response.returned_rows" not in attributes


def test_no_rows_is_a_number_too(seen):
    query(seen, returned=0)
    assert only(seen).attributes["db.response.returned_rows"] == 0


def test_an_operation_without_text(seen):
    query(seen, None, operation="COMMIT", database=SQLITE)
    span = only(seen)
    assert span.name == "COMMIT"
    assert span.attributes == {
        "db.system.name": "sqlite",
        "db.namespace": "shop.db",
        "db.operation.name": "COMMIT",
        "db.query.summary": "COMMIT",
        "pbmon.db.slow": False,
    }


def test_an_error_with_its_sqlstate(seen):
    error = raised(UniqueViolation("Key (email)=(ada@example.org) already exists"))
    query(seen, "INSERT INTO users VALUES ('ada')", error=error, status_code="23505")
    span = only(seen)
    assert span.status == "ERROR"
    name = f"{__name__}.UniqueViolation"
    assert span.attributes["error.type"] == name
    assert span.attributes["db.response.status_code"] == "23505"
    assert "ada" not in str(span)
    assert seen.metrics["pbmon.db.errors"] == {
        (
            ("db.response.status_code", "23505"),
            ("db.system.name", "postgresql"),
            ("error.type", name),
        ): 1
    }


def test_an_error_without_a_code(seen):
    query(seen, error=raised(OSError("gone")))
    assert seen.metrics["pbmon.db.errors"] == {
        (("db.system.name", "postgresql"), ("error.type", "OSError")): 1
    }


def test_suppressed_is_not_observed(seen):
    with suppress_instrumentation():
        assert query(seen) is None
    assert seen.spans == []
    assert HISTOGRAM not in seen.metrics


def test_what_an_exporter_asks_is_not_observed(seen):
    key = context._SUPPRESS_INSTRUMENTATION_KEY  # as the SDK's processors set it
    token = context.attach(context.set_value(key, True))
    try:
        assert query(seen) is None
    finally:
        context.detach(token)
    assert seen.spans == []


def test_finished_twice_is_counted_once(seen):
    record = query(seen, took_s=0.25)
    seen.clock.advance(1.0)
    record.finish(error=raised(OSError()))
    assert only(seen).status == "UNSET"
    assert seen.metric(HISTOGRAM) == (1, 0.25)


def test_the_clock_stands_still_while_paused(seen):
    record = runtime.active.queries.query(POSTGRES, "SELECT 1")
    seen.clock.advance(0.0625)
    record.pause()
    record.pause()
    seen.clock.advance(60.0)
    record.resume()
    record.resume()
    seen.clock.advance(0.015625)
    record.pause()
    seen.clock.advance(60.0)
    record.finish(returned=1)
    assert only(seen).duration_s == 0.078125
    assert seen.metric(HISTOGRAM) == (1, 0.078125)


# --- its parent ---


def serve(seen):
    return runtime.active.requests.request(http())


def test_the_server_span_is_the_parent(seen):
    record = serve(seen)
    query(seen)
    record.closed()
    statement, server = seen.spans
    assert (statement.parent_id, statement.trace_id) == (server.span_id, server.trace_id)


def test_also_when_it_is_finished_later_in_another_context(seen):
    record = serve(seen)
    statement = runtime.active.queries.query(POSTGRES, "SELECT 1")
    record.response_started(200, ())
    record.response_completed()
    record.closed()
    other = threading.Thread(target=lambda: contextvars.Context().run(statement.finish))
    other.start()
    other.join()
    server, client = seen.spans
    assert (client.parent_id, client.trace_id) == (server.span_id, server.trace_id)


def test_without_a_request_it_is_a_root(seen):
    query(seen)
    assert only(seen).parent_id is None


# --- metrics ---


@pytest.mark.parametrize(
    ("took_s", "finish"),
    [
        (0.03, {"returned": 2}),
        (0.3, {"returned": 2}),
        (0.01, {"error": KeyError(), "status_code": "57014"}),
    ],
)
def test_the_histogram_has_the_spans_duration_and_attributes(seen, took_s, finish):
    query(seen, took_s=took_s, **finish)
    span = only(seen)
    ((attributes, (count, total)),) = seen.metrics[HISTOGRAM].items()
    assert set(dict(attributes)) <= {a.name for a in catalog.QUERY_DURATION.attributes}
    assert dict(attributes).items() <= span.attributes.items()
    assert count == 1
    assert total == pytest.approx(span.duration_s, abs=1e-9)
    (point,) = points(seen, HISTOGRAM)
    assert 0.1 in point.explicit_bounds


def test_the_slow_threshold_is_a_bucket_bound():
    with capture(slow_query_s=0.08) as seen:
        query(seen, took_s=0.08)
        (point,) = points(seen, HISTOGRAM)
        assert point.bucket_counts[point.explicit_bounds.index(0.08)] == 1
        assert only(seen).attributes["pbmon.db.slow"] is False


def test_an_exemplar_carries_the_client_spans_ids(seen):
    record = serve(seen)
    query(seen, took_s=0.02)
    record.closed()
    (exemplar,) = points(seen, HISTOGRAM)[0].exemplars
    assert f"{exemplar.span_id:016x}" == seen.spans[0].span_id
    assert f"{exemplar.trace_id:032x}" == seen.spans[0].trace_id


def test_the_series_of_many_tenants_stay_within_the_cap(seen):
    for n in range(2500):
        tenant = runtime.Database("postgresql", f"tenant{n}")
        query(seen, database=tenant, took_s=0.25, error=KeyError(), status_code=str(n))
    overflow = (("otel.metric.overflow", True),)
    figures = seen.metrics
    durations, errors = figures[HISTOGRAM], figures["pbmon.db.errors"]
    assert len(durations) == len(errors) == 2000
    assert durations[overflow] == (501, 125.25)
    assert errors[overflow] == 501
    assert sum(count for count, _ in durations.values()) == sum(errors.values()) == 2500
    assert sum(figures["pbmon.db.slow_queries"].values()) == 2500


# --- slow ---


@pytest.mark.parametrize(("took_s", "slow"), [(0.1, False), (0.125, True)])
def test_slow_is_longer_than_the_threshold(seen, took_s, slow):
    query(seen, took_s=took_s)
    assert only(seen).attributes["pbmon.db.slow"] is slow
    assert seen.metric("pbmon.db.slow_queries") == int(slow)
    assert len(seen.logs) == int(slow)
    assert ("code.file.path" in only(seen).attributes) is slow


def test_a_slow_statement_is_counted_and_told_without_its_literals(seen):
    query(seen, "SELECT name FROM users WHERE email = 'ada@example.org'", took_s=0.25, returned=7)
    span = only(seen)
    assert seen.metrics["pbmon.db.slow_queries"] == {
        (("db.query.summary", "SELECT users"), ("db.system.name", "postgresql")): 1
    }
    (log,) = seen.logs
    assert log.fields == {
        "query": "SELECT name FROM users WHERE email = ?",
        "duration": 0.25,
        "rows": 7,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
    }
    assert (log.logger, log.level) == ("pbmon.db", "WARNING")
    assert log.message == (
        'Slow query detected query="SELECT name FROM users WHERE email = ?" duration=0.25 rows=7'
    )


def test_a_slow_statement_names_its_caller(seen):
    def load_users():
        query(seen, took_s=0.25)

    load_users()
    attributes = only(seen).attributes
    assert attributes["code.file.path"].endswith("tests/telemetry/drive.py")
    assert attributes["code.function.name"] == "tests.telemetry.drive.query"
    assert attributes["code.line.number"] > 1


def test_the_caller_is_neither_ours_nor_a_library(seen):
    """Frames of pbmon, SQLAlchemy and drivers are passed over."""
    for name in ("pbmon.hooks.psycopg2", "sqlalchemy.engine.base", "sqlite3.dbapi2", None):
        library = {"__name__": name}
        exec("def run(function): function()", library)
        record = runtime.active.queries.query(POSTGRES, "SELECT 1")
        seen.clock.advance(0.25)
        library["run"](record.finish)
    functions = [span.attributes["code.function.name"] for span in seen.spans]
    here = f"{__name__}.test_the_caller_is_neither_ours_nor_a_library"
    assert functions[:3] == [here] * 3
    assert len(functions) == 4


def test_the_caller_is_who_waited_not_who_ended_it(seen):
    record = runtime.active.queries.query(POSTGRES, "SELECT 1")

    def waits():
        seen.clock.advance(0.25)
        record.pause()

    def reads():
        record.resume()
        seen.clock.advance(0.25)
        record.pause()

    waits()
    reads()
    record.finish()
    function = only(seen).attributes["code.function.name"]
    assert function == f"{__name__}.waits"


def test_slow_logs_are_limited_for_each_statement(seen):
    for n in range(30):
        query(seen, f"SELECT a FROM t WHERE b = {n}", took_s=0.25)
    query(seen, "SELECT a FROM other", took_s=0.25)
    assert len(seen.logs) == 11
    assert seen.metric("pbmon.db.slow_queries") == 31


def test_rows_changed_are_the_rows_of_the_log(seen):
    query(seen, "DELETE FROM t", took_s=0.25, affected=4)
    assert seen.logs[0].fields["rows"] == 4


@pytest.mark.parametrize("statement", ["", "   ", "not sql ' at all", "SELECT 'unclosed", "\0"])
def test_odd_text_is_counted_and_never_shown(seen, statement):
    query(seen, statement, took_s=0.25)
    assert seen.metric(HISTOGRAM) == (1, 0.25)
    assert only(seen).name
    assert "unclosed" not in str(only(seen))
    assert "unclosed" not in seen.logs[0].message


# --- upstream's span --------------------------------------------------------------------------

SECRET = "SELECT'hunter2' FROM cards WHERE number = '4111'"


@pytest.mark.parametrize(
    ("statement", "name", "text"),
    [
        (SECRET, "SELECT cards", "SELECT? FROM cards WHERE number = ?"),
        (r"SELECT 'a\' FROM cards WHERE number = '4111'", "SELECT", "SELECT"),  # in doubt
        ("'hunter2'", "postgresql", "?"),
    ],
)
def test_upstreams_span_keeps_no_literal(statement, name, text):
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer(
        "opentelemetry.instrumentation.psycopg2"
    )
    with capture(hooks={"psycopg2": "upstream"}) as seen:
        with tracer.start_as_current_span(statement.split()[0]) as span:
            span.set_attributes({"db.query.text": statement, "db.statement": statement})
            query(seen, statement)
        assert seen.spans == []
    assert (span.name, span.attributes["db.query.text"]) == (name, text)
    assert span.attributes["db.statement"] == text


def test_upstreams_span_gets_no_attribute_of_the_old_conventions():
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer(
        "opentelemetry.instrumentation.psycopg2"
    )
    hooks = {"psycopg2": "upstream"}
    with capture(hooks=hooks) as seen, tracer.start_as_current_span("SELECT") as span:
        query(seen)
    assert "db.statement" not in span.attributes
