"""configure(): one configuration however often it is called, and none at all before."""

from __future__ import annotations

import json
import os

import pytest

from tests.fresh import python
from tests.telemetry.receiver import Receiver

SEEN = """
    import json, logging, os, sys
    import pbmon
    from pbmon import runtime, signals
    from tests.telemetry.drive import http
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))

    def read():
        return [(m.name, [(dict(p.attributes), p.count if hasattr(p, "count") else p.value)
                          for p in m.data.data_points])
                for r in reader.get_metrics_data().resource_metrics
                for s in r.scope_metrics for m in s.metrics]

    def serve(route):
        record = runtime.active.requests.request(http())
        record.route = route
        record.response_started(200, ())
        record.response_completed()
        record.closed()
"""


def test_before_configure_every_call_is_a_no_op():
    done = python("""
    import sys, pbmon
    from pbmon import runtime
    assert pbmon.track_revenue("1", "EUR", transaction_id="t") == pbmon.Refused("not_configured")
    assert pbmon.track_revenue(1.5, None, transaction_id=None) == pbmon.Refused("not_configured")
    assert pbmon.track_feature("x", "viewed") == pbmon.Refused("not_configured")
    assert pbmon.track_feature(None, None, feature=1) == pbmon.Refused("not_configured")
    assert not pbmon.track_feature("x", "viewed")
    assert pbmon.flush() is True
    assert pbmon.shutdown() is True
    assert pbmon.websocket_connections() == 0
    assert runtime.active.requests.request({"type": "http"}) is None
    assert runtime.active.queries.query(runtime.Database("x"), "SELECT 1") is None
    """)
    assert (done.stdout, done.stderr) == ("", "")


def test_disabled_makes_configure_a_no_op():
    done = python(
        """
    import logging, sys, pbmon
    from opentelemetry import trace
    from pbmon import runtime
    logging.basicConfig(level=logging.INFO)
    before = trace.get_tracer_provider()
    pbmon.configure(service_name="x")
    assert trace.get_tracer_provider() is before
    assert runtime.active.configured is False
    assert runtime.active.hooks == {}
    assert pbmon.track_feature("x", "viewed") == pbmon.Refused("not_configured")
    """,
        OTEL_SDK_DISABLED="true",
    )
    assert done.stderr == ""


def test_twice_is_one_configuration():
    """No instrument twice, and changed thresholds, budgets and features apply."""
    done = python(
        SEEN
        + """
    pbmon.configure(budgets=["/x max=1s"], features=["export"], slow_request_s=0.0001)
    queries = runtime.active.queries
    serve("/x")
    pbmon.configure(budgets=["/x max=1us", "/y max=1s"], slow_request_s=60)
    pbmon.configure(features=["import"])
    assert runtime.active.queries is queries
    assert runtime.active.settings.slow_request_s == 60  # kept from the call before
    serve("/x")
    pbmon.track_feature("import", "viewed")
    print(json.dumps(read()))
    """
    )
    lines = done.stdout.splitlines()
    seen = json.loads(next(line for line in lines if line.startswith("[[")))
    names = [name for name, _ in seen]
    assert len(names) == len(set(names))
    figures = dict(seen)

    def of(metric, **attributes):
        wanted = {k.replace("__", "."): v for k, v in attributes.items()}
        return [v for a, v in figures[metric] if wanted.items() <= a.items()]

    assert of("http.server.request.duration") == [2]
    assert of("pbmon.budget.requests", http__route="/x") == [2]
    assert of("pbmon.budget.breaches", http__route="/x") == [1]
    assert of("pbmon.budget.requests", http__route="/y") == [0]
    thresholds = {a["http.route"]: v for a, v in figures["pbmon.budget.threshold"]}
    assert thresholds == {"/x": 1e-6, "/y": 1.0}
    assert of("pbmon.feature.usage", pbmon__feature__name="import") == [1, 0, 0]
    starts = [line for line in lines if line.startswith("pbmon pbmon ")]
    assert len(starts) == 1, lines
    assert "engine sdk, to http://localhost:4318; hooks " in starts[0]


def test_problems_are_one_line_each_and_the_rest_counts():
    done = python(
        """
    import pbmon
    from pbmon.runtime import active
    pbmon.configure(slow_query=1, request_log="some", service_name="shop")
    pbmon.configure()
    assert active.configured
    assert active.settings.service_name == "shop"
    """,
        PBMON_SLOW_REQUEST_S="soon",
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 3, done.stderr
    assert all(line.startswith("pbmon: setting ") for line in lines)
    assert lines[0].startswith("pbmon: setting slow_query (configure()): there is no such setting")
    assert "did you mean slow_query_s?" in lines[0]
    assert "environment PBMON_SLOW_REQUEST_S" in done.stderr


def test_under_strict_a_problem_raises_and_changes_nothing():
    python("""
    import pbmon
    from opentelemetry import trace
    from pbmon.runtime import active
    before = trace.get_tracer_provider()
    for call in (0, 1):
        try:
            pbmon.configure(strict=True, slow_request_s="soon", service_name="x")
        except ValueError as error:
            assert type(error).__name__ == "SettingsError"
            assert "slow_request_s (configure()): 'soon' is no duration" in str(error)
        else:
            raise AssertionError
        if call == 0:
            assert trace.get_tracer_provider() is before
            assert not active.configured
            pbmon.configure(service_name="good")
    assert active.settings.service_name == "good"
    """)


def test_an_application_without_business_loads_no_business_library():
    done = python(
        SEEN
        + """
    pbmon.configure()
    serve("/x")
    read()
    pbmon.flush()
    heavy = ("sqlalchemy", "iso4217", "sqlglot", "alembic", "psycopg2", "uvicorn", "starlette")
    print("LOADED", [name for name in heavy if name in sys.modules])
    print("THREADS", [t.name for t in __import__("threading").enumerate()])
    pbmon.track_revenue("1", "EUR", transaction_id="t")
    print("THEN", "iso4217" in sys.modules)
    """
    )
    assert "LOADED []" in done.stdout
    assert "THREADS ['MainThread']" in done.stdout
    assert "THEN True" in done.stdout


def test_import_pbmon_alone_loads_next_to_nothing():
    done = python("""
    import sys, pbmon
    assert "track_revenue" in dir(pbmon)
    loaded = [n for n in sys.modules if n.startswith(("opentelemetry", "pbmon."))]
    assert loaded == [], loaded
    assert pbmon.__version__
    try:
        pbmon.no_such_name
    except AttributeError as error:
        assert str(error) == "module 'pbmon' has no attribute 'no_such_name'"
    else:
        raise AssertionError
    """)
    assert done.stderr == ""


def test_changed_hooks_are_told_to_need_a_restart():
    done = python("""
    import pbmon
    pbmon.configure()
    pbmon.configure(hooks={"sqlite3": "off"})
    """)
    assert done.stderr == (
        "pbmon: the hooks setting is fixed when pbmon starts; set PBMON_HOOKS, or the table in "
        "pbmon.toml, and restart\n"
    )


def test_instrumentations_disabled_by_the_standard_variable_are_left_out():
    code = """
    import json, pbmon
    from pbmon.runtime import active
    pbmon.configure()
    print(json.dumps({h.name: [h.state, h.reason] for h in active.hooks.values()}))
    """
    done = python(code, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlite3, starlette")
    hooks = json.loads(done.stdout)
    said = ["skipped", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS says so"]
    assert hooks["sqlite3"] == hooks["starlette"] == said
    assert hooks["uvicorn"][0] == "waiting"
    every = json.loads(python(code, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="*").stdout)
    assert {state for state, _ in every.values()} == {"skipped"}


def test_a_failing_provider_leaves_the_application_running():
    done = python(
        """
    import pbmon
    pbmon.configure()
    print("running")
    """,
        OTEL_TRACES_EXPORTER="nonsense",
        OTEL_METRICS_EXPORTER="nonsense",
    )
    assert done.stdout == "running\n"
    assert "exporter 'nonsense' for metrics is not installed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("hooks", "line"),
    [
        (
            {"psycop2": "off"},
            "setting hooks names psycop2, which is no hook; there are apsched",
        ),
        ({"sqlite3": "upstream"}, "hook sqlite3: there is no upstream mode for it"),
    ],
)
def test_a_hook_setting_that_can_not_be_followed_is_one_line(hooks, line):
    done = python(f"import pbmon, sqlite3; pbmon.configure(hooks={hooks!r})")
    told = [words for words in done.stderr.splitlines() if line in words]
    assert len(told) == 1, done.stderr


def test_instrumenting_twice_is_quiet():
    done = python(
        """
        import pbmon, sqlite3
        from pbmon.hooks.sqlite3 import Sqlite3Hook
        pbmon.configure()
        Sqlite3Hook().instrument()
        """
    )
    assert done.stderr == ""


def test_the_start_line_says_the_name_that_the_resource_has():
    done = python(
        """
        import logging, pbmon
        logging.basicConfig(level=logging.INFO)
        pbmon.configure()
        """,
        OTEL_RESOURCE_ATTRIBUTES="service.name=till",
    )
    assert "runs as till, engine sdk" in done.stderr


def test_a_flush_counts_statements_whose_cursors_are_gone():
    done = python(
        """
        import gc, sqlite3
        import pbmon
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        seen = InMemorySpanExporter()
        pbmon.configure()
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(seen))
        connection = sqlite3.connect(":memory:")
        def abandon():
            cursor = connection.execute("SELECT 1 UNION SELECT 2")
            cursor.fetchone()
            cycle = [cursor]
            cycle.append(cycle)
        abandon()
        gc.collect()
        print(len(seen.get_finished_spans()))
        pbmon.flush()
        print(len(seen.get_finished_spans()))
        """
    )
    assert done.stdout.split() == ["0", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_the_middle_of_an_import_of_ours_leaves_a_child_that_sends():
    with Receiver() as receiver:
        python(
            """
            import importlib.abc, os, sys, threading, time
            import pbmon
            from opentelemetry import trace

            class Slow(importlib.abc.MetaPathFinder):
                met = threading.Event()

                def find_spec(self, name, path, target=None):
                    if name == "requests":
                        self.met.set()
                        time.sleep(0.3)

            sys.meta_path.insert(0, Slow())
            pbmon.configure()
            tracer = trace.get_tracer("test")
            tracer.start_span("parent").end()
            assert Slow.met.wait(30), "nobody imports it"
            child = os.fork()
            if not child:
                tracer.start_span("child").end()
                os._exit(0 if pbmon.flush(20) else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert pbmon.flush(20)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_TRACES_EXPORTER="otlp",
        )
        assert sorted(span.name for span in receiver.spans()) == ["child", "parent"]


UPSTREAM = """
    import asyncio, json, psycopg2
    from opentelemetry import trace
    from opentelemetry.instrumentation.dbapi import CursorTracer, DatabaseApiIntegration
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import pbmon
    from pbmon import runtime
    from pbmon.hooks.upstream import layer
    from tests.hooks.recorder import call, scope
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    pbmon.configure(hooks={"uvicorn": "upstream", "psycopg2": "upstream"}, signals=False)

    class Cursor:
        def execute(self, statement):
            database = runtime.Database("postgresql", "shop")
            runtime.active.queries.query(database, statement).finish()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    call(layer("uvicorn", app), scope(query_string=b"token=hunter2"), log=[])
    shop = DatabaseApiIntegration("opentelemetry.instrumentation.psycopg2", "postgresql")
    cursor = Cursor()
    for condition in ("a = 'hunter2'", r"a = 'it\\' AND b = 'hunter2'"):
        CursorTracer(shop).traced_execution(
            cursor, cursor.execute, "SELECT b FROM t WHERE " + condition
        )
    print(json.dumps([dict(span.attributes) for span in exporter.get_finished_spans()]))
"""


@pytest.mark.parametrize("opt_in", ["", "http/dup,database/dup"])
def test_in_mode_upstream_no_literal_leaves_the_process(opt_in):
    """By the stable conventions, if the user wishes no others."""
    pytest.importorskip("opentelemetry.instrumentation.psycopg2", reason="no release for 1.45.2")
    variables = {"OTEL_SEMCONV_STABILITY_OPT_IN": opt_in} if opt_in else {}
    request, plain, doubtful = json.loads(python(UPSTREAM, **variables).stdout)
    assert "hunter2" not in str((request, plain, doubtful))
    assert request["url.query"] == "token=REDACTED"
    assert plain["db.query.text"] == "SELECT b FROM t WHERE a = ?"
    assert doubtful["db.query.text"] == "SELECT"
    old = {"http.url", "http.target", "net.peer.ip", "http.method"}
    assert old & request.keys() == (old if opt_in else set())
    assert ("db.statement" in plain) is bool(opt_in)
