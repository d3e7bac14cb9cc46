"""The launcher: pbmon without a code change, with configure(), beside other distributions."""

from __future__ import annotations

import json
import textwrap
from importlib.metadata import entry_points

import pytest

from pbmon import distro, wiring
from tests.fresh import launched
from tests.telemetry.receiver import Receiver

OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}

STATE = """
import _sqlite3, json, os, sqlite3, sys, starlette.applications
from opentelemetry import trace
from pbmon.runtime import active
connection = sqlite3.connect(":memory:")
connection.execute("SELECT 1")
print(json.dumps({
    "service": active.settings.service_name,
    "configured": active.configured,
    "hooks": {h.name: h.state for h in active.hooks.values()},
    "hooked": type(connection) is not _sqlite3.Connection,
    "upstream": sorted(n for n in sys.modules if n.startswith("opentelemetry.instrumentation.")
                       and n.rpartition(".")[2] in
                       ("asgi", "fastapi", "starlette", "psycopg2", "sqlite3")),
    "provider": type(trace.get_tracer_provider()).__module__,
    "conventions": os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN"),
}))
"""


def state(code="", **variables):
    done = launched(textwrap.dedent(code) + STATE, **variables)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


# --- entry points ---


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("opentelemetry_distro", distro.Distro),
        ("opentelemetry_configurator", distro.Configurator),
        ("opentelemetry_pre_instrument", distro.step_aside),
    ],
)
def test_entry_points(group, target):
    (found,) = entry_points(group=group, name="pbmon")
    assert found.load() is target


OWN = {
    "uvicorn", "gunicorn", "hypercorn", "granian", "multiprocessing", "unhandled", "apscheduler",
}  # fmt: skip
"""Hooks on what upstream has no instrumentor for."""


def test_each_hook_is_an_entry_point_named_after_its_library():
    hooks = wiring.own_instrumentors()
    assert {e.name for e in hooks} == OWN | {
        "starlette",
        "fastapi",
        "django",
        "psycopg2",
        "sqlite3",
    }
    for entry_point in hooks:
        assert entry_point.load().library == entry_point.name
        assert entry_point.load()().instrumentation_dependencies() == ()


def test_what_our_hooks_report_is_what_is_replaced():
    assert {e.name for e in wiring.own_instrumentors()} - distro.REPLACED == OWN


# --- end to end ---


def test_a_script_under_the_launcher_is_observed():
    with Receiver() as receiver:
        seen, stderr = state(
            """
            import sqlite3
            connection = sqlite3.connect(":memory:")
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (42)")
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_SERVICE_NAME="script",
            **OTLP,
        )
        assert stderr == ""
        assert seen == {
            "service": "script",
            "configured": True,
            "hooks": {
                "sqlite3": "active",
                "starlette": "active",
                "psycopg2": "waiting",
                "uvicorn": "waiting",
                "gunicorn": "waiting",
                "hypercorn": "waiting",
                "granian": "waiting",
                "multiprocessing": "waiting",
                "unhandled": "active",
                "apscheduler": "waiting",
                "fastapi": "waiting",
                "django": "waiting",
            },
            "hooked": True,
            "upstream": [],
            "provider": "opentelemetry.sdk.trace",
            "conventions": "http,database",
        }
        # each once: upstream's own sqlite3 instrumentor stays out
        assert [s.name for s in receiver.spans()] == ["CREATE TABLE t", "INSERT t", "SELECT"]
        (first, *others) = receiver.resources()
        assert first["service.name"] == "script"
        assert first["telemetry.distro.name"] == "pbmon"
        assert all(other == first for other in others)
        durations = receiver.metrics()["db.client.operation.duration"].histogram.data_points
        assert sum(point.count for point in durations) == 3


def test_the_launcher_and_configure_are_one_configuration():
    with Receiver() as receiver:
        seen, _ = state(
            """
            import pbmon
            from opentelemetry import trace
            before = trace.get_tracer_provider()
            pbmon.configure(service_name="named-in-code")
            assert trace.get_tracer_provider() is before
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_SERVICE_NAME="named-in-the-environment",
            OTEL_SEMCONV_STABILITY_OPT_IN="http/dup",
            **OTLP,
        )
        assert len(receiver.spans()) == 1
        assert {r["service.name"] for r in receiver.resources()} == {"named-in-code"}
        assert seen["conventions"] == "http/dup"  # the user's own wins


def test_disabled_instrumentations_stay_out_ours_and_upstreams():
    seen, _ = state(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlite3,starlette")
    assert seen["hooked"] is False
    assert seen["hooks"]["sqlite3"] == seen["hooks"]["starlette"] == "skipped"
    assert seen["hooks"]["fastapi"] == "waiting"
    assert seen["upstream"] == []


def test_the_switch_of_opentelemetry_turns_all_off():
    seen, _ = state(OTEL_SDK_DISABLED="true")
    assert (seen["configured"], seen["hooked"], seen["hooks"]) == (False, False, {})


# --- beside another distribution ---

FOREIGN = {
    "foreign.py": """
from opentelemetry.instrumentation.distro import BaseDistro

class Distro(BaseDistro):
    def _configure(self, **kwargs):
        pass

class Configurator:
    def configure(self, **kwargs):
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        trace.set_tracer_provider(TracerProvider())
""",
    "foreign-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n",
    "foreign-1.0.dist-info/entry_points.txt": """\
[opentelemetry_distro]
foreign = foreign:Distro
[opentelemetry_configurator]
foreign = foreign:Configurator
""",
}


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """The environment in which another distribution is installed and chosen."""
    for name, text in FOREIGN.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {
        "PYTHONPATH": str(tmp_path),
        "OTEL_PYTHON_DISTRO": "foreign",
        "OTEL_PYTHON_CONFIGURATOR": "foreign",
    }


def test_under_a_foreign_distribution_pbmon_runs_and_what_it_replaces_stays_out(foreign):
    pytest.importorskip("opentelemetry.instrumentation.psycopg2", reason="no release for 1.45.2")
    done = launched(
        """
        import sqlite3
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from pbmon.runtime import active
        seen = InMemorySpanExporter()
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(seen))
        sqlite3.connect(":memory:").execute("SELECT 1")
        from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
        print(active.configured, active.hooks["sqlite3"].state)
        print(Psycopg2Instrumentor().is_instrumented_by_opentelemetry)
        print([(s.name, s.instrumentation_scope.name) for s in seen.get_finished_spans()])
        """,
        **foreign,
    )
    assert done.stdout == "True active\nFalse\n[('SELECT', 'pbmon')]\n"
    assert "Traceback" not in done.stderr


def test_pbmon_is_chosen_by_name_beside_a_foreign_distribution(foreign):
    chosen = foreign | {"OTEL_PYTHON_DISTRO": "pbmon"}
    del chosen["OTEL_PYTHON_CONFIGURATOR"]  # ours keeps the pair together
    seen, _ = state(OTEL_SERVICE_NAME="shop", **chosen)
    assert (seen["configured"], seen["upstream"], seen["service"]) == (True, [], "shop")


def test_with_another_configurator_pbmon_runs_on_its_providers(foreign):
    """Else nobody would report what is replaced."""
    chosen = foreign | {"OTEL_PYTHON_DISTRO": "pbmon"}
    seen, stderr = state(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        import sqlite3
        kept = InMemorySpanExporter()
        trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(kept))
        sqlite3.connect(":memory:").execute("SELECT 1")
        assert [span.name for span in kept.get_finished_spans()] == ["SELECT"]
        """,
        OTEL_SERVICE_NAME="shop",
        **chosen,
    )
    assert (seen["configured"], seen["upstream"], seen["service"]) == (True, [], "shop")
    assert seen["hooks"]["sqlite3"] == "active"
    assert "Traceback" not in stderr
