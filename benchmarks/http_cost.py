"""What a request costs: bare Starlette, upstream's ASGI instrumentation, pbmon.

    python -m benchmarks.http_cost [--requests 6000] [--rounds 5]

Total CPU of the process (all threads: the request, batching, encoding, sending by OTLP/HTTP) per
request, less the bare application's, every request sampled, no send and receive spans. Rounds
are interleaved, so that a drifting machine hits all alike; the medians and their ratio are
printed. The receiver runs in another process and its count proves that nothing was dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

_CHUNK = 400  # requests between flushes: below the batch processor's queue of 2,048
_HEADERS = [
    (b"host", b"localhost:8000"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) benchmark"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]


def _bare() -> tuple[Any, Callable[[], object]]:
    return _application(), lambda: None


def _upstream() -> tuple[Any, Callable[[], object]]:
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
    return app, tracers.force_flush


def _pbmon() -> tuple[Any, Callable[[], object]]:
    from opentelemetry import trace

    import pbmon

    pbmon.configure(
        service_name="bench",
        budgets=[pbmon.Budget("/items/{item_id}", max_s=0.5, p95_s=0.3, p99_s=0.4)],
    )
    return _application(), trace.get_tracer_provider().force_flush  # type: ignore[attr-defined]


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


async def _drive(app: Any, requests: int, flush: Callable[[], object]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        pass

    for number in range(requests):
        await app(_scope(number), receive, send)
        if number % _CHUNK == _CHUNK - 1:
            flush()
    flush()


def _child(variant: str, requests: int) -> None:
    app, flush = VARIANTS[variant]()
    asyncio.run(_drive(app, _CHUNK, flush))  # warm-up: imports, caches, connections
    start = time.process_time()
    asyncio.run(_drive(app, requests, flush))
    print(json.dumps({"us": (time.process_time() - start) / requests * 1e6}))


def _measure(variant: str, requests: int, endpoint: str) -> float:
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }
    command = [sys.executable, "-m", "benchmarks.http_cost", "--child", variant]
    command += ["--requests", str(requests)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    with urllib.request.urlopen(endpoint) as answer:
        spans = json.load(answer)["spans"]
    expected = 0 if variant == "bare" else requests + _CHUNK
    if spans != expected:
        sys.exit(f"{variant}: {spans} spans arrived of {expected}; the comparison is void")
    return float(json.loads(done.stdout)["us"])


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=VARIANTS)
    args = parser.parse_args()
    if args.child:
        _child(args.child, args.requests)
        return
    sink = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sink"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert sink.stdin is not None
    assert sink.stdout is not None
    endpoint = f"http://127.0.0.1:{int(sink.stdout.readline())}"
    try:
        rounds = [
            {name: _measure(name, args.requests, endpoint) for name in VARIANTS}
            for _ in range(args.rounds)
        ]
    finally:
        sink.stdin.close()
        sink.wait()
    _report(rounds)


def _report(rounds: list[dict[str, float]]) -> None:
    print("µs of CPU added per request over bare Starlette (median, min–max)")
    added = {name: [r[name] - r["bare"] for r in rounds] for name in VARIANTS if name != "bare"}
    for name, values in added.items():
        print(
            f"  {name:<10} {statistics.median(values):7.1f}   {min(values):.1f}–{max(values):.1f}"
        )
    ratios = [p / u for p, u in zip(added["pbmon"], added["upstream"], strict=True)]
    print(
        f"  pbmon / upstream: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
