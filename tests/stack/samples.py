"""Small data and a small collector configuration: what is tested with them is the stack."""

from __future__ import annotations

import time
from typing import Any

from tests.stack.process import HOST, unused_port

PIPELINE = """\
receivers:
  otlp:
    protocols:
      http: {endpoint: "127.0.0.1:${env:PBMON_COLLECTOR_HTTP_PORT}"}
      grpc: {endpoint: "127.0.0.1:${env:PBMON_COLLECTOR_GRPC_PORT}"}
exporters:
  otlp_http/metrics: {endpoint: "${env:METRICS_TO}"}
  otlp_http/traces: {endpoint: "${env:TRACES_TO}"}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    metrics: {receivers: [otlp], exporters: [otlp_http/metrics]}
    traces: {receivers: [otlp], exporters: [otlp_http/traces]}
"""
# For a test in which nothing has to arrive.
NOWHERE = dict.fromkeys(("METRICS_TO", "TRACES_TO"), f"http://{HOST}:{unused_port()}")
TRACE_ID = "5b8efff798038103d269b633813fc60c"
SPAN_ID = "eee19b7ec3c1b174"


def attributes(**values: str | bool) -> list[dict[str, Any]]:
    return [
        {
            "key": key.replace("__", "."),
            "value": {"boolValue": value} if isinstance(value, bool) else {"stringValue": value},
        }
        for key, value in values.items()
    ]


def metrics_of(service: str) -> dict[str, Any]:
    """A counter, a ratio gauge and a histogram with an exemplar, as OTLP's JSON has them."""
    now = str(time.time_ns())
    start = str(time.time_ns() - 1_000_000_000)
    times = {"timeUnixNano": now, "startTimeUnixNano": start}
    exemplar = {"timeUnixNano": now, "asDouble": 0.7, "traceId": TRACE_ID, "spanId": SPAN_ID}
    counter = {
        "aggregationTemporality": 2,
        "isMonotonic": True,
        "dataPoints": [{**times, "asDouble": 1234.56, "attributes": attributes(currency="EUR")}],
    }
    histogram = {
        "aggregationTemporality": 2,
        "dataPoints": [
            {
                **times,
                "count": "3",
                "sum": 1.5,
                "bucketCounts": ["1", "2"],
                "explicitBounds": [0.5],
                "exemplars": [exemplar],
            }
        ],
    }
    return {
        "resourceMetrics": [
            {
                "resource": {
                    "attributes": attributes(
                        service__name=service,
                        service__instance__id="one",
                        deployment__environment__name="test",
                        host__name="not-promoted",
                    )
                },
                "scopeMetrics": [
                    {
                        "metrics": [
                            {"name": "shop.revenue", "unit": "{currency}", "sum": counter},
                            {"name": "shop.latency", "unit": "s", "histogram": histogram},
                            {
                                "name": "shop.retention",
                                "unit": "1",
                                "gauge": {"dataPoints": [{**times, "asDouble": 0.25}]},
                            },
                        ]
                    }
                ],
            }
        ]
    }


def traces_of(service: str) -> dict[str, Any]:
    """A slow request and a quick one, in two traces."""
    now = time.time_ns()

    def span(trace_id: str, name: str, slow: bool) -> dict[str, Any]:
        return {
            "traceId": trace_id,
            "spanId": SPAN_ID,
            "name": name,
            "kind": 2,
            "startTimeUnixNano": str(now - 2_000_000_000),
            "endTimeUnixNano": str(now),
            "attributes": attributes(pbmon__slow=slow, http__route=f"/{name}"),
        }

    spans = [span(TRACE_ID, "slow", True), span(TRACE_ID[::-1], "quick", False)]
    resource = {"attributes": attributes(service__name=service)}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
