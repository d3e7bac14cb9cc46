"""The sink's modes and its books, against hand-made exports over a real socket."""

from __future__ import annotations

import gzip
import http.client
import threading
import time

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.faults import sink as modes
from tests.faults.sink import HOST, Sink
from tests.stack.process import wait_until

CUMULATIVE, DELTA = 2, 1


@pytest.fixture
def sink():
    with Sink() as sink:
        yield sink


def attribute(key, value):
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def spans(*numbers, poisoned=()):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in numbers:
        span = scope.spans.add(
            trace_id=bytes(16),
            span_id=number.to_bytes(8, "big"),
            name=f"name {number % 2}",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=10**9,
            end_time_unix_nano=3 * 10**9,
            attributes=[attribute("test.n", number)],
        )
        if number in poisoned:
            span.attributes.append(attribute("test.poison", "x"))
    return request


def counter(value, *, at=1, instance="one", temporality=CUMULATIVE, name="c", **attributes):
    request = ExportMetricsServiceRequest()
    part = request.resource_metrics.add()
    part.resource.attributes.append(attribute("service.instance.id", instance))
    metric = part.scope_metrics.add().metrics.add(name=name)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = temporality
    metric.sum.data_points.add(
        as_int=value,
        time_unix_nano=at,
        attributes=[attribute(key, item) for key, item in attributes.items()],
    )
    return request


def post(sink, request, path="/v1/traces", *, compressed=False, timeout_s=10.0):
    """(status, headers, body) of the answer."""
    body = request.SerializeToString() if hasattr(request, "SerializeToString") else request
    headers = {"Content-Type": "application/x-protobuf"}
    if compressed:
        body = gzip.compress(body)
        headers["Content-Encoding"] = "gzip"
    connection = http.client.HTTPConnection(HOST, sink.port, timeout=timeout_s)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        with sink.lock:  # what was just acknowledged is being written down
            return answer
    finally:
        connection.close()


def numbers(sink):
    return {number for number, _ in sink.accepted.spans}


def test_ok_keeps_spans_with_their_durations_and_names(sink):
    assert post(sink, spans(1, 2), compressed=True)[0] == 200
    assert sink.accepted.spans == {(1, "server"), (2, "server")}
    assert sink.accepted.durations_s[1, "server"] == 2.0
    assert sink.accepted.span_names == {"name 0", "name 1"}


def test_refused_closes_the_port_and_open_connections_and_opens_the_same_one_again(sink):
    port = sink.port
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request("POST", "/v1/traces", spans(1).SerializeToString())
    connection.getresponse().read()
    sink.become(modes.refused())
    with pytest.raises((OSError, http.client.HTTPException)):
        connection.request("POST", "/v1/traces", spans(2).SerializeToString())
        connection.getresponse()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        post(sink, spans(2))
    sink.become(modes.ok())
    assert post(sink, spans(3))[0] == 200
    assert (sink.port, numbers(sink)) == (port, {1, 3})


def test_hanging_reads_and_never_answers_nor_accepts(sink):
    sink.become(modes.hanging())
    with pytest.raises(TimeoutError):
        post(sink, spans(1), timeout_s=0.2)
    failures = []

    def wait_for_answer():
        try:
            post(sink, spans(2))
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    thread = threading.Thread(target=wait_for_answer)
    thread.start()
    wait_until(lambda: sink.posts == 2, "the export was read")
    sink.become(modes.ok())
    thread.join()
    assert len(failures) == 1
    assert numbers(sink) == set()


def test_slow_accepts_late_and_at_once_when_the_mode_changes(sink):
    sink.become(modes.slow(0.3))
    start_s = time.monotonic()
    assert post(sink, spans(1))[0] == 200
    assert time.monotonic() - start_s >= 0.3
    sink.become(modes.slow(60))
    threading.Timer(0.1, sink.become, [modes.ok()]).start()
    assert post(sink, spans(2))[0] == 200
    assert numbers(sink) == {1, 2}


@pytest.mark.parametrize("code", [500, 401, 503])
def test_failing_statuses_accept_nothing(sink, code):
    sink.become(modes.status(code, retry_after_s=7))
    status, headers, _ = post(sink, spans(1))
    assert (status, headers["Retry-After"]) == (code, "7")
    assert numbers(sink) == set()


def test_a_redirect_leads_to_a_page_that_keeps_nothing(sink):
    sink.become(modes.redirect())
    status, headers, _ = post(sink, spans(1))
    assert (status, headers["Location"]) == (301, "/login")
    assert post(sink, spans(1), headers["Location"])[0] == 200
    assert numbers(sink) == set()


def test_garbage_is_200_and_accepts_nothing(sink):
    sink.become(modes.garbage())
    status, headers, body = post(sink, spans(1))
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert body.startswith(b"<html>")
    assert numbers(sink) == set()


@pytest.mark.parametrize(("rejected", "kept"), [(None, set()), (1, {1, 2})])
def test_what_a_partial_success_rejects_is_not_accepted(sink, rejected, kept):
    sink.become(modes.partial(rejected))
    status, _, body = post(sink, spans(1, 2, 3))
    answer = ExportTraceServiceResponse.FromString(body)
    assert (status, answer.partial_success.rejected_spans) == (200, 3 - len(kept))
    assert numbers(sink) == kept


def test_a_poisoned_batch_is_rejected_whole(sink):
    sink.become(modes.rejecting_poison())
    assert post(sink, spans(1, 2, poisoned={2}))[0] == 400
    assert post(sink, spans(3))[0] == 200
    assert numbers(sink) == {3}


def test_what_can_not_be_decoded_is_counted(sink):
    assert post(sink, b"\xff\xff\xff")[0] == 400
    assert sink.undecodable == 1


def test_a_span_or_log_that_comes_twice_is_a_duplicate(sink):
    post(sink, spans(1))
    post(sink, spans(1, 2))
    assert (sink.accepted.span_total, sink.accepted.duplicate_spans) == (3, 1)
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(body=AnyValue(string_value="work 5"))
    records.add(body=AnyValue(string_value="a text"), attributes=[attribute("test.n", 6)])
    records.add(body=AnyValue(string_value="other"))
    post(sink, request, "/v1/logs")
    assert (sink.accepted.logs, sink.accepted.duplicate_logs) == ({5, 6}, 0)
    post(sink, request, "/v1/logs")
    assert (sink.accepted.log_total, sink.accepted.duplicate_logs) == (6, 2)


def test_a_span_that_ends_before_its_start_is_counted(sink):
    request = spans(1)
    request.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = 1
    post(sink, request)
    assert sink.accepted.negative_durations == 1


def test_cumulative_counters_are_their_newest_values_over_instances(sink):
    for request in (
        counter(3, at=1, route="a"),
        counter(5, at=3, route="a"),
        counter(4, at=2, route="a"),  # arrives late, and is no step back
        counter(10, at=1, route="b"),
        counter(100, at=1, instance="two", route="a"),
    ):
        post(sink, request, "/v1/metrics")
    accepted = sink.accepted
    assert accepted.total("c") == 115
    assert accepted.by_attribute("c", "route") == {("a",): 105, ("b",): 10}
    assert accepted.instances() == {"one", "two"}
    assert len(accepted.series["c"]) == 3
    assert accepted.decreases == 0


def test_delta_counters_are_added_up(sink):
    for _ in range(3):
        post(sink, counter(2, temporality=DELTA), "/v1/metrics")
    assert sink.accepted.total("c") == 6


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_counter_that_goes_back_is_noticed_in_either_order(sink, order):
    exports = (counter(7, at=1), counter(6, at=2))
    for index in order:
        post(sink, exports[index], "/v1/metrics")
    assert sink.accepted.decreases == 1


def test_a_histogram_is_its_count(sink):
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="h")
    metric.histogram.aggregation_temporality = CUMULATIVE
    metric.histogram.data_points.add(count=4, sum=8.0, time_unix_nano=1)
    post(sink, request, "/v1/metrics")
    assert sink.accepted.total("h") == 4
