"""What the collector has taken survives it: backends down, kill -9, restart, backends up."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from tests.collector_config import otlp
from tests.collector_config.conftest import Pipeline
from tests.collector_config.sink import Sink
from tests.collector_config.test_sampling import FLAGGED, request
from tests.stack.servers import wait_until

INSTANCES = ("one", "two", "three")
EXPORTS = 20


def send_work(running: Pipeline, first: int, last: int) -> list[str]:
    """One flagged trace of each kind and one export of each instance per round."""
    names = []
    for number in range(first, last + 1):
        for flag in FLAGGED:
            name = f"{flag} {number}"
            running.send(otlp.traces(request(name, **FLAGGED[flag])))
            names += [name, f"{name}: query"]
        for instance in INSTANCES:
            running.send(otlp.counter("pbmon.revenue", number, instance=instance))
    return names


def wait_until_queued(running: Pipeline, traces: int) -> None:
    """The sampler lets go of a trace when the queue on the disk has it."""
    name = "otelcol_processor_tail_sampling_sampling_trace_removal_age"
    wait_until(
        lambda: running.metric(f"{name}_seconds_count") + running.metric(f"{name}_count") >= traces,
        f"{traces} traces in the queue",
        20,
    )


def totals(sink: Sink) -> dict[str, list[float]]:
    """What each instance's counter read, in the order of arrival."""
    found: dict[str, list[float]] = {}
    for export in list(sink.requests):
        for group in getattr(export, "resource_metrics", ()):
            instance = otlp.attributes_of(group.resource)["service.instance.id"]
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    points = metric.sum.data_points
                    found.setdefault(instance, []).extend(each.as_double for each in points)
    return found


def everything_arrived(sink: Sink, names: list[str], exports: int) -> bool:
    points = [value for series in totals(sink).values() for value in series]
    return len(sink.spans()) >= len(names) and len(points) >= exports * len(INSTANCES)


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_was_taken_outlives_the_collector(
    pipelines: Callable[..., Pipeline], end: str
) -> None:
    sink = Sink()  # not started: both backends are down
    running = pipelines(sink, PBMON_TRACE_SAMPLE_PERCENT="0")
    names = send_work(running, 1, EXPORTS)
    wait_until_queued(running, EXPORTS * len(FLAGGED))

    getattr(running.collector, end)()
    running.collector.start()
    names += send_work(running, EXPORTS + 1, EXPORTS + 2)
    with sink:
        what = "all traces and exports"
        wait_until(lambda: everything_arrived(sink, names, EXPORTS + 2), what, 60)

        assert sorted(span.name for span in sink.spans()) == sorted(names)
        # In order, too: out of it, Prometheus would refuse what is older than its window.
        assert totals(sink) == dict.fromkeys(INSTANCES, list(range(1, EXPORTS + 3)))


def test_a_backend_that_comes_back_gets_what_it_missed(
    pipelines: Callable[..., Pipeline],
) -> None:
    with Sink() as sink:
        running = pipelines(sink, PBMON_TRACE_SAMPLE_PERCENT="0")
        names = send_work(running, 1, 1)
        wait_until(lambda: everything_arrived(sink, names, 1), "the first round", 20)
        sink.close()
        names += send_work(running, 2, 5)
        wait_until_queued(running, 5 * len(FLAGGED))
        sink.start()

        wait_until(lambda: everything_arrived(sink, names, 5), "the rounds that were missed", 60)
        assert sorted({span.name for span in sink.spans()}) == sorted(names)
        assert {key: sorted(set(each)) for key, each in totals(sink).items()} == dict.fromkeys(
            INSTANCES, [1, 2, 3, 4, 5]
        )


@pytest.mark.parametrize("status", [429, 503])
def test_a_backend_that_asks_for_patience_loses_nothing(
    pipelines: Callable[..., Pipeline], status: int
) -> None:
    with Sink() as sink:
        sink.refuse_with = status
        running = pipelines(sink)
        running.send(otlp.counter("pbmon.revenue", 1))
        wait_until(lambda: sink.refused > 0, "a refusal", 20)
        sink.refuse_with = None

        found: Any = sink.wait_for_metric("pbmon.revenue")
        assert found.sum.data_points[0].as_double == 1


FULL = """
exporters:
  {name}:
    sending_queue:
      queue_size: 20000
      batch: {{min_size: 1000}}
"""


def test_a_full_queue_of_metrics_makes_the_sender_keep_them(
    pipelines: Callable[..., Pipeline],
) -> None:
    running = pipelines(Sink(), FULL.format(name="otlp_http/prometheus"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        for number in range(1000):
            running.send(otlp.counter("pbmon.revenue", number))

    refused.value.close()
    assert refused.value.code == 503


def test_a_full_queue_of_traces_holds_up_no_metrics(
    pipelines: Callable[..., Pipeline],
) -> None:
    with Sink() as sink:
        lost = {"PBMON_TEMPO_OTLP_ENDPOINT": Sink().environment["PBMON_TEMPO_OTLP_ENDPOINT"]}
        running = pipelines(sink, FULL.format(name="otlp_grpc/tempo"), **lost)
        for number in range(200):
            running.send(otlp.traces(request(f"failed {number}", error="boom")))
        running.wait_for_metric("otelcol_exporter_enqueue_failed_spans_total", 1)
        running.send(otlp.counter("pbmon.revenue", 7))

        found: Any = sink.wait_for_metric("pbmon.revenue")
        assert found.sum.data_points[0].as_double == 7
