"""The application under fault: numbered work, and a truth that survives SIGKILL.

Served as `tests.faults.app:app` by any ASGI server. Its environment:
FAULTS_STACK  pbmon (the launcher brings it), upstream (set up here), none
FAULTS_TRUTH  file to which the number of each counted request is appended
FAULTS_COUNT  requests to count while the module is imported, before a server forks
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable

from opentelemetry import metrics, trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

STACK = os.environ.get("FAULTS_STACK", "none")
LOGGER = logging.getLogger("app")
GIANT = "x" * (2 << 20)
FLUSH_S = 10.0


def _start_upstream():
    """What OpenTelemetry's documentation has one write, at its default intervals."""
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
    loggers = LoggerProvider()
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(loggers)
    logging.getLogger().addHandler(LoggingHandler(logging.WARNING, loggers))


if STACK == "upstream":
    _start_upstream()

TRACER = trace.get_tracer("tests.faults")
METER = metrics.get_meter("tests.faults")
WORK = METER.create_counter("test.work", "{request}")
POISONED = METER.create_counter("test.poisoned", "{request}")
_TRUTH = os.open(
    os.environ.get("FAULTS_TRUTH", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
)


def count(number: int, during: Callable[[], None] = lambda: None) -> None:
    """One log record, one on the counter, one hand-made span; then the truth of it."""
    with TRACER.start_as_current_span("child") as child:
        child.set_attribute("test.n", number)
        during()
        LOGGER.warning("work %d", number, extra={"test.n": number})
        WORK.add(1)
    os.write(_TRUTH, b"%d\n" % number)


async def work(request: Request) -> PlainTextResponse:
    number = request.path_params["n"]
    trace.get_current_span().set_attribute("test.n", number)
    count(number)
    return PlainTextResponse(str(number))


ATTRIBUTES = {
    "surrogate": "\ud800",
    "huge": 2**70,
    "giant": GIANT,
    "bytes": b"\xff\x00",
    "nan": float("nan"),
    "marked": "marked",
}
ADDITIONS = {"add text": "x", "add huge": 2**70, "add nan": float("nan")}


async def poison(request: Request) -> PlainTextResponse:
    """One value that can't be encoded, as a careless application hands it over."""
    kind = request.path_params["kind"]
    span = trace.get_current_span()
    try:
        if kind in ADDITIONS:
            POISONED.add(ADDITIONS[kind])
        elif kind == "names":
            TRACER.start_span("poison \ud800").end()  # as of a file whose name is no UTF-8
            LOGGER.warning("poison \ud800")
        else:
            span.set_attribute("test.poison", ATTRIBUTES[kind])
            LOGGER.warning("poison", extra={"test.poison": ATTRIBUTES[kind]})
    except Exception:
        # An upstream that raises here has told the application so; that is no loss.
        return PlainTextResponse("raised")
    return PlainTextResponse("taken")


async def fail(request: Request) -> PlainTextResponse:
    raise type(f"Failure{request.path_params['n']}", (Exception,), {})


def hold(request: Request) -> PlainTextResponse:
    """Work in the middle of which the wall clock is stepped; answers its true seconds.

    A plain function: the server runs it in a thread of its own.
    """
    from tests.faults import clock

    number = request.path_params["n"]
    trace.get_current_span().set_attribute("test.n", number)

    def step() -> None:
        time.sleep(0.01)
        clock.step(float(request.query_params["step_s"]))
        time.sleep(0.01)

    start_s = time.perf_counter()
    count(number, step)
    return PlainTextResponse(repr(time.perf_counter() - start_s))


async def ready(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ready")


def flush(request: Request) -> PlainTextResponse:
    """Hand over everything now."""
    if STACK == "pbmon":
        import pbmon

        pbmon.flush(FLUSH_S)
    elif STACK == "upstream":
        from opentelemetry._logs import get_logger_provider

        for provider in (
            trace.get_tracer_provider(), get_logger_provider(), metrics.get_meter_provider()
        ):  # fmt: skip
            with contextlib.suppress(Exception):  # that of one signal is no fault of the others
                provider.force_flush(int(FLUSH_S * 1000))
    return PlainTextResponse("flushed")


def memory(request: Request) -> PlainTextResponse:
    """Anonymous memory of this process in bytes, garbage collected."""
    gc.collect()
    with open("/proc/self/smaps_rollup") as lines:
        kib = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return PlainTextResponse(str(kib * 1024))


app = Starlette(
    routes=[
        Route("/work/{n:int}", work),
        Route("/poison/{kind}", poison),
        Route("/fail/{n:int}", fail),
        Route("/hold/{n:int}", hold),
        Route("/ready", ready),
        Route("/flush", flush),
        Route("/memory", memory),
    ]
)
ROUTES = len(app.routes)

if STACK == "upstream":
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    app = OpenTelemetryMiddleware(  # type: ignore[assignment]
        app,
        excluded_urls=os.environ["OTEL_PYTHON_ASGI_EXCLUDED_URLS"],
        exclude_spans=["send", "receive"],
    )

# Before a server forks its workers, as an application that warms up on import does.
for _number in range(int(os.environ.get("FAULTS_COUNT", "0"))):
    count(-1 - _number)
