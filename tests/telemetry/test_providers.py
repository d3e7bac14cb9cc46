"""Providers: the resource, real delivery, a sink that hangs, and an application's own."""

from __future__ import annotations

import json
import uuid

import pytest
from opentelemetry.sdk.resources import Resource

from pbmon import catalog, signals
from pbmon.settings import resolve
from pbmon.telemetry import providers
from pbmon.telemetry.providers import Providers
from tests.fresh import installed, python
from tests.telemetry.receiver import Receiver, closed_port, hanging

OTLP = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}

SERVE = """
    import json, os, sys, time, logging
    import pbmon
    from pbmon import runtime
    from tests.telemetry.drive import http

    def serve(route="/x"):
        record = runtime.active.requests.request(http())
        record.route = route
        record.response_started(200, ())
        record.response_completed()
        record.closed()
"""


def script(code):
    return SERVE + code


# --- the resource ---


def test_the_resource_names_distribution_service_and_process(monkeypatch):
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    settings, _ = resolve({"service_name": "shop"}, {})
    attributes = providers.resource(settings).attributes
    assert attributes["telemetry.distro.name"] == "pbmon"
    assert attributes["telemetry.distro.version"] == catalog.VERSION
    assert attributes["telemetry.sdk.name"] == "opentelemetry"
    assert attributes["service.name"] == "shop"
    assert uuid.UUID(attributes["service.instance.id"])


def test_the_users_own_resource_attributes_win(monkeypatch):
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=from-env,service.instance.id=mine,deployment.environment.name=prod",
    )
    attributes = providers.resource(resolve({}, {})[0]).attributes
    assert attributes["service.name"] == "from-env"
    assert attributes["service.instance.id"] == "mine"
    assert attributes["deployment.environment.name"] == "prod"
    named = providers.resource(resolve({"service_name": "code"}, {})[0])
    assert named.attributes["service.name"] == "code"
    assert isinstance(named, Resource)


# --- real delivery, in fresh processes ---


def test_spans_and_metrics_arrive_with_their_resource():
    with Receiver() as receiver:
        python(
            script("""
    pbmon.configure(service_name="shop")
    serve()
    assert pbmon.track_feature("export", "viewed")
    assert pbmon.flush(20) is True
    serve("/late")  # left for the exit
    """),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_HEADERS="x-tenant=a%20b",
            **OTLP,
        )
        assert [span.name for span in receiver.spans()] == ["GET /x", "GET /late"]
        (uses,) = receiver.metrics()["pbmon.feature.usage"].sum.data_points
        assert uses.as_int == 1
        buckets = receiver.metrics()["http.server.request.duration"].histogram.data_points
        assert sorted(point.count for point in buckets) == [1, 1]
        assert receiver.scopes() == {("pbmon", catalog.VERSION, catalog.SCHEMA_URL)}
        assert {headers["x-tenant"] for _, headers, _ in receiver.arrived} == {"a b"}
        resources = receiver.resources()
        # The process's, and the store's, whose figures it exports too.
        first = resources[0]
        others = [resource for resource in resources if resource != first]
        assert all("process.pid" not in other for other in others)
        assert len({other["service.instance.id"] for other in others}) == 1
        assert first["service.name"] == "shop"
        assert first["telemetry.distro.name"] == "pbmon"
        assert first["telemetry.distro.version"] == catalog.VERSION
        assert uuid.UUID(first["service.instance.id"])


def test_each_process_and_each_fork_has_an_instance_id_of_its_own():
    with Receiver() as receiver:
        for _ in range(2):
            python(
                script("""
    pbmon.configure()
    serve("/parent")
    child = os.fork()
    if not child:
        serve("/child")
        pbmon.shutdown(20)
        os._exit(0)
    os.waitpid(child, 0)
    """),
                OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
                **OTLP,
            )
        names = sorted(span.name for span in receiver.spans())
        assert names == ["GET /child"] * 2 + ["GET /parent"] * 2
        assert len({r["service.instance.id"] for r in receiver.resources()}) == 4


@pytest.mark.parametrize("failing", ["delivery", "pipeline", "accounts", "_reader"])
def test_in_a_fork_every_part_forgets_also_behind_one_that_fails(monkeypatch, failing):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(signals, "_last_told", {})
    forgotten = []

    class Part:
        queue = "the child's"

        def __init__(self, name):
            self.name = name

        def forget(self, *given):
            forgotten.append((self.name, *given))
            if self.name == failing:
                raise OSError("injected")

        def start(self):
            forgotten.append("started")

    made = Providers.__new__(Providers)
    made._meters = None
    for name in ("delivery", "pipeline", "accounts", "_reader"):
        setattr(made, name, Part(name))
    made.forget()
    assert forgotten == [
        ("delivery",), ("pipeline", "the child's"), ("accounts",), ("_reader",), "started",
    ]  # fmt: skip


def test_a_name_and_an_endpoint_given_later_count_for_all_that_follows():
    with Receiver() as first, Receiver() as second:
        python(
            script("""
    pbmon.configure()
    serve("/one")
    assert pbmon.flush(20)
    pbmon.configure(service_name="shop", endpoint=os.environ["TO"])
    serve("/two")
    assert pbmon.flush(20)
    """),
            OTEL_EXPORTER_OTLP_ENDPOINT=first.url,
            OTEL_SERVICE_NAME="early",
            TO=second.url,
            **OTLP,
        )
        assert [s.name for s in first.spans()] == ["GET /one"]
        assert [s.name for s in second.spans()] == ["GET /two"]
        assert {r["service.name"] for r in first.resources()} == {"early"}
        assert {r["service.name"] for r in second.resources()} == {"shop"}
        both = first.resources() + second.resources()
        assert len({r["service.instance.id"] for r in both}) == 1
        durations = second.metrics()["http.server.request.duration"].histogram.data_points
        assert sorted(p.count for p in durations) == [1, 1]


def test_a_sink_that_hangs_holds_nobody_longer_than_the_deadline():
    with hanging() as url:
        done = python(
            script("""
    pbmon.configure()
    serve()
    took = []
    for stop in (pbmon.flush, pbmon.shutdown):
        began = time.monotonic()
        took.append([stop(0.2), time.monotonic() - began])
    print(json.dumps(took))
    """),
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_EXPORTER_OTLP_TIMEOUT="3600",
            **OTLP,
        )
        for handed_over, took_s in json.loads(done.stdout):
            assert handed_over is False
            assert took_s < 30  # of an hour


def test_an_unreachable_collector_is_one_line_and_flush_says_no():
    url = closed_port()
    done = python(
        script("""
    pbmon.configure()
    serve()
    assert pbmon.flush(20) is False
    os._exit(0)  # the flush at exit would take as long again
    """),
        OTEL_EXPORTER_OTLP_ENDPOINT=url.replace("http://", "http://app:hunter2@"),
        OTEL_EXPORTER_OTLP_TIMEOUT="1.5",
        **OTLP,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    host = url.removeprefix("http://")
    for signal, line in zip(("metrics", "traces"), sorted(lines), strict=True):
        assert line.startswith(
            f"pbmon: {signal} can't be delivered to http://REDACTED@{host}/v1/{signal} "
            "(connection refused); kept and tried again. Is a collector listening there? Set "
        )
    assert "hunter2" not in done.stderr


def test_providers_of_the_application_are_kept_and_used():
    done = python(
        script("""
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    kept, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    pbmon.configure()
    assert trace.get_tracer_provider() is tracers
    assert metrics.get_meter_provider() is meters
    tracers.add_span_processor(SimpleSpanProcessor(kept))  # later than configure()
    serve()
    assert [span.name for span in kept.get_finished_spans()] == ["GET /x"]
    names = {m.name for r in reader.get_metrics_data().resource_metrics
             for s in r.scope_metrics for m in s.metrics}
    assert "http.server.request.duration" in names
    assert pbmon.shutdown() is True
    serve()  # the application's provider is not ours to stop
    assert len(kept.get_finished_spans()) == 2
    """),
    )
    assert "; the application's own tracer provider and meter provider kept" in done.stdout


@pytest.mark.parametrize(("value", "disabled"), [("true", True), (" TRUE ", True), ("1", False)])
def test_disabled(monkeypatch, value, disabled):
    monkeypatch.setenv("OTEL_SDK_DISABLED", value)
    assert providers.disabled() is disabled


def test_a_kept_provider_is_flushed_too():
    done = python(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        import pbmon
        pbmon.configure()
        trace.get_tracer("app").start_span("kept").end()
        print(pbmon.flush(), len(exporter.get_finished_spans()))
        """
    )
    assert done.stdout.split() == ["True", "1"]


def test_the_providers_own_flush_sends_and_says_whether_all_of_it_went():
    with Receiver() as receiver:
        python(
            script("""
    from opentelemetry import _logs, metrics, trace
    pbmon.configure(logs=True)
    serve()
    assert trace.get_tracer_provider().force_flush(20_000)
    assert metrics.get_meter_provider().force_flush(20_000)
    logging.getLogger("app").warning("x")
    assert _logs.get_logger_provider().force_flush(20_000)
    pbmon.configure(endpoint="http://127.0.0.1:9")
    serve()
    assert not trace.get_tracer_provider().force_flush(500)
    os._exit(0)
    """),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            **OTLP,
        )
        assert len(receiver.spans()) == 1
        assert "http.server.request.duration" in receiver.metrics()
        assert {path for path, _, _ in receiver.arrived} == {
            "/v1/traces", "/v1/metrics", "/v1/logs",
        }  # fmt: skip


def test_no_request_holds_more_than_the_environment_says():
    with Receiver() as receiver:
        python(
            script("""
    pbmon.configure(signals=False)
    for _ in range(50):
        serve()
    """),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="7",
            **OTLP,
        )
        sizes = receiver.counts()
        assert sum(sizes) == 50
        assert max(sizes) <= 7


# --- exporters that are not OTLP, in fresh processes ---

PULLED = """
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    class Reader(InMemoryMetricReader):
        made = []

        def __init__(self):
            super().__init__()
            self.made.append(self)

    def no_exporter():
        return object()
"""
ENTRY_POINTS = """
    [opentelemetry_metrics_exporter]
    pulled = plugin:Reader
    neither = plugin:no_exporter
"""


def test_an_exporter_that_is_a_reader_is_asked_itself(tmp_path):
    done = python(
        script("""
    import plugin
    pbmon.configure(signals=False)
    serve()
    [reader] = plugin.Reader.made
    [resource] = reader.get_metrics_data().resource_metrics
    print(*[(m.name, p.count) for s in resource.scope_metrics for m in s.metrics
            for p in m.data.data_points if m.name == "http.server.request.duration"])
    print(pbmon.flush(20))
    """),
        **installed(tmp_path, PULLED, ENTRY_POINTS),
        OTEL_METRICS_EXPORTER="pulled",
    )
    assert done.stdout == "('http.server.request.duration', 1)\nTrue\n"
    assert done.stderr == ""


def test_an_exporter_that_can_not_be_wrapped_costs_itself_only(tmp_path):
    with Receiver() as receiver:
        done = python(
            script("""
    pbmon.configure(signals=False)
    serve()
    """),
            **installed(tmp_path, PULLED, ENTRY_POINTS),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_METRICS_EXPORTER="neither,otlp",
        )
        assert [span.name for span in receiver.spans()] == ["GET /x"]
        assert "http.server.request.duration" in receiver.metrics()
    assert "pbmon: metrics exporter neither failed with AttributeError; " in done.stderr


# --- what entry points give ---

PARTS = """
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

    class ByName(Sampler):
        def __init__(self, argument):
            self.argument = argument

        def should_sample(self, parent_context, trace_id, name, *args, **kwargs):
            kept = name == self.argument
            return SamplingResult(Decision.RECORD_AND_SAMPLE if kept else Decision.DROP)

        def get_description(self):
            return "ByName"

    class Ids(RandomIdGenerator):
        def generate_trace_id(self):
            return 7

    def broken(*arguments):
        raise LookupError("hunter2")
"""
NAMED = """
    [opentelemetry_traces_sampler]
    by_name = plugin:ByName
    broken = plugin:broken
    text = builtins:str
    [opentelemetry_id_generator]
    sevens = plugin:Ids
    broken = plugin:broken
"""
TRACE = """
    pbmon.configure(signals=False)
    from opentelemetry import trace
    for name in ("wanted", "other"):
        trace.get_tracer("app").start_span(name).end()
"""


def test_a_sampler_and_an_id_generator_are_taken_by_entry_point(tmp_path):
    with Receiver() as receiver:
        done = python(
            script(TRACE),
            **installed(tmp_path, PARTS, NAMED),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_TRACES_SAMPLER="by_name",
            OTEL_TRACES_SAMPLER_ARG="wanted",
            OTEL_PYTHON_ID_GENERATOR="sevens",
            **OTLP,
        )
        assert done.stderr == ""
        [span] = receiver.spans()
        assert (span.name, int.from_bytes(span.trace_id, "big")) == ("wanted", 7)


@pytest.mark.parametrize(
    ("sampler", "generator", "trouble"),
    [
        ("nobody", "nobody", "it is not installed"),
        ("broken", "broken", "it failed with LookupError"),
        ("text", None, "it makes no Sampler"),
    ],
)
def test_one_that_can_not_be_used_is_one_line(tmp_path, sampler, generator, trouble):
    with Receiver() as receiver:
        variables = {"OTEL_PYTHON_ID_GENERATOR": generator} if generator else {}
        done = python(
            script(TRACE),
            **installed(tmp_path, PARTS, NAMED),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_TRACES_SAMPLER=sampler,
            **OTLP,
            **variables,
        )
        assert [span.name for span in receiver.spans()] == ["wanted", "other"]
    samplers = (
        "always_off, always_on, broken, by_name, parentbased_always_off, parentbased_always_on, "
        "parentbased_traceidratio, text, traceidratio"
    )
    told = [("OTEL_TRACES_SAMPLER", sampler, samplers)]
    if generator:
        told.append(("OTEL_PYTHON_ID_GENERATOR", generator, "broken, random, sevens"))
    assert done.stderr.splitlines() == [
        f"pbmon: {variable}={name} can't be used: {trouble}; set one of {known}, or install it. "
        "The default is used now"
        for variable, name, known in told
    ]
