"""Against upstream's psycopg2 instrumentation as the oracle: nothing it records may be missing."""

from __future__ import annotations

import psycopg2
import pytest
from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pbmon.testing import capture

# What is changed on purpose: attribute → why.
DIFFERENT = {
    "db.query.text": "literals are removed",
    "db.operation.name": "the verb alone, in capitals",
    "db.user": "of the old conventions; a name",
    "error.type": "the qualified class, so that two libraries' errors stay apart",
}

STATEMENTS = [
    ("SELECT 1", ()),
    ("SELECT %s::int AS answer", (42,)),
    ("INSERT INTO oracle (id) VALUES (%s)", (7,)),
    ("update oracle set id = 8 where id = 7", ()),
    ("SELECT * FROM no_such_table", ()),
]


def run(url, statement, values):
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE oracle (id int)")
            cursor.execute(statement, values)
    except psycopg2.Error:
        pass
    finally:
        connection.close()


def upstream_span(monkeypatch, url, statement, values):
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")
    monkeypatch.setattr(
        "opentelemetry.instrumentation._semconv._OpenTelemetrySemanticConventionStability._initialized",
        False,
    )
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = Psycopg2Instrumentor()
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    try:
        run(url, statement, values)
    finally:
        instrumentor.uninstrument()
    return exporter.get_finished_spans()[-1]


def pbmon_span(url, statement, values):
    with capture() as seen:
        run(url, statement, values)
    return seen.spans[-1]


@pytest.mark.parametrize(("statement", "values"), STATEMENTS)
def test_every_attribute_of_upstream_is_there_too(monkeypatch, stack_postgres, statement, values):
    theirs = upstream_span(monkeypatch, stack_postgres.url, statement, values)
    ours = pbmon_span(stack_postgres.url, statement, values)
    expected = {k: v for k, v in theirs.attributes.items() if k not in DIFFERENT}
    assert len(expected) >= 3
    assert expected.items() <= ours.attributes.items()
    assert ours.status == theirs.status.status_code.name
    assert ours.kind == theirs.kind.name
    for name in DIFFERENT.keys() & theirs.attributes.keys() - {"db.user"}:
        assert ours.attributes[name]
