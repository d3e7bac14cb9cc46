"""What a request costs: bare Starlette, upstream's ASGI instrumentation, pbmon.

    python -m benchmarks.http_cost [--requests 6000] [--rounds 5]

Total CPU of the process (all threads: the request, batching, encoding, sending by OTLP/HTTP) per
request, less the bare application's, every request sampled, no send and receive spans. After every
400 requests traces and metrics are flushed, so that all of the sending is inside the measurement:
the receiver, another process, is asked for its count as soon as the clock stops. Rounds are
interleaved, so that a drifting machine hits all alike; the medians and their ratio are printed.
Exit status 1 if pbmon costs as much as upstream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import receiving, run, take

_CHUNK = 400  # requests between flushes: below the batch processor's queue of 2,048
_FLUSH_S = 30.0
_HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) benchmark"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


@dataclass(frozen=True)
class Measured:
    """us: CPU microseconds a request. spans: what the receiver had when the clock stopped."""

    us: float
    spans: int


def _bare() -> tuple[Any, Callable[[], bool]]:
    return _application(), lambda: True


def _upstream() -> tuple[Any, Callable[[], bool]]:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())])
    metrics.set_meter_provider(meters)
    app = OpenTelemetryMiddleware(_application(), exclude_spans=["send", "receive"])

    def flush() -> bool:
        timeout_ms = int(_FLUSH_S * 1000)
        return tracers.force_flush(timeout_ms) and meters.force_flush(timeout_ms)

    return app, flush


def _pbmon() -> tuple[Any, Callable[[], bool]]:
    import pbmon

    pbmon.configure(
        service_name="bench",
        budgets=[pbmon.Budget("/items/{item_id}", max_s=0.5, p95_s=0.3, p99_s=0.4)],
    )
    return _application(), lambda: pbmon.flush(_FLUSH_S)


VARIANTS = {"bare": _bare, "upstream": _upstream, "pbmon": _pbmon}


def _application() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"id": request.path_params["item_id"]})

    return Starlette(routes=[Route("/items/{item_id}", item)])


def _scope(number: int) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": f"/items/{number}",
        "raw_path": b"/items/1",
        "query_string": b"page=2",
        "root_path": "",
        "headers": list(_HEADERS),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }


async def _drive(app: Any, requests: int, flush: Callable[[], bool]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        pass

    for first in range(0, requests, _CHUNK):
        for number in range(first, min(first + _CHUNK, requests)):
            await app(_scope(number), receive, send)
        if not flush():
            sys.exit("the receiver did not take everything; the comparison is void")


def _child(variant: str, requests: int, sink: str) -> None:
    app, flush = VARIANTS[variant]()
    asyncio.run(_drive(app, _CHUNK, flush))  # warm-up: imports, caches, connections
    take(sink)
    start = time.process_time()
    asyncio.run(_drive(app, requests, flush))
    us = (time.process_time() - start) / requests * 1e6
    print(json.dumps({"us": us, "spans": take(sink)["spans"]}))


def measure(variant: str, requests: int, sink: str) -> Measured:
    """One process of a variant; no setting of the caller's, a state directory of its own."""
    arguments = ["--child", variant, "--sink", sink, "--requests", str(requests)]
    with tempfile.TemporaryDirectory(prefix="pbmon-bench-") as state:
        status, said = run(
            "benchmarks.http_cost",
            *arguments,
            OTEL_EXPORTER_OTLP_ENDPOINT=sink,
            PBMON_STATE_DIR=state,
        )
    if status:
        sys.exit(f"{variant} failed")
    return Measured(**json.loads(said))


def _cost(variant: str, requests: int, sink: str) -> float:
    measured = measure(variant, requests, sink)
    expected = 0 if variant == "bare" else requests
    if measured.spans != expected:
        sys.exit(f"{variant}: {measured.spans} spans of {expected} arrived; the comparison is void")
    return measured.us


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--sink", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(args.child, args.requests, args.sink)
        return 0
    with receiving() as sink:
        rounds = [
            {name: _cost(name, args.requests, sink) for name in VARIANTS}
            for _ in range(args.rounds)
        ]
    return int(report(rounds) >= 1.0)


def report(rounds: list[dict[str, float]]) -> float:
    """Print the table; returns the median of pbmon's part of what upstream costs."""
    print("µs of CPU added per request over bare Starlette (median, min–max)")
    added = {name: [r[name] - r["bare"] for r in rounds] for name in VARIANTS if name != "bare"}
    for name, values in added.items():
        print(
            f"  {name:<10} {statistics.median(values):7.1f}   {min(values):.1f}–{max(values):.1f}"
        )
    ratios = [p / u for p, u in zip(added["pbmon"], added["upstream"], strict=True)]
    ratio = statistics.median(ratios)
    print(f"  pbmon / upstream: {ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    return ratio


if __name__ == "__main__":
    sys.exit(main())
