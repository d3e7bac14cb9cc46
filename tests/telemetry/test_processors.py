"""What the SDK hands over: clocks that are set, spans that aren't sampled, logs without
their context.
"""

from __future__ import annotations

import gc
import time
import weakref

import pytest
from opentelemetry import context
from opentelemetry._logs import LogRecord
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

from pbmon.telemetry import processors
from pbmon.telemetry.processors import SpooledLogs, SpooledSpans

MS = 1_000_000
HOUR = 3600 * 10**9


class Kept:
    """What reached the queue."""

    def __init__(self):
        self.items = []
        self.flushed_s = []

    def put(self, item):
        self.items.append(item)

    def flush(self, timeout_s):
        self.flushed_s.append(timeout_s)
        return False


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def spans(kept):
    return SpooledSpans(kept, kept.flush)


@pytest.fixture
def tracer(spans):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    return provider.get_tracer("t")


@pytest.fixture
def clock(monkeypatch):
    """Sets the wall clock, for us and for the SDK."""
    true_ns = time.time_ns
    step_ns = [0]
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + step_ns[0])
    monkeypatch.setattr(sdk_trace, "time_ns", time.time_ns)

    def step(by_ns):
        step_ns[0] += by_ns

    return step


def pause(seconds):
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


# --- the clock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step_ns", [0, HOUR, -HOUR, 300 * MS, -300 * MS, 2 * MS, -2 * MS])
def test_a_duration_is_the_time_that_passed_whatever_the_clock_was_set_to(
    kept, tracer, clock, step_ns
):
    began_ns = time.perf_counter_ns()
    wall_ns = time.time_ns()
    span = tracer.start_span("x")
    started_ns = time.perf_counter_ns()
    started_wall_ns = time.time_ns()
    pause(0.02)
    clock(step_ns)
    ending_ns = time.perf_counter_ns()
    span.end()
    ended_ns = time.perf_counter_ns()
    (seen,) = kept.items
    duration_ns = seen.end_time - seen.start_time
    assert ending_ns - started_ns - MS <= duration_ns <= ended_ns - began_ns + MS
    assert wall_ns <= seen.start_time <= started_wall_ns  # by the clock as it was at the start


def test_an_untouched_clock_is_believed_to_the_nanosecond(kept, tracer, monkeypatch):
    true_ns = time.time_ns
    asked = []
    monkeypatch.setattr(sdk_trace, "time_ns", lambda: asked.append(true_ns()) or asked[-1])
    tracer.start_span("x").end()
    (seen,) = kept.items
    assert [seen.start_time, seen.end_time] == asked


def test_a_span_made_in_retrospect_is_left_alone(kept, tracer):
    now_ns = time.time_ns()
    for start_ns, end_ns in [
        (now_ns - HOUR, now_ns - HOUR + 5),
        (now_ns - 300 * MS, now_ns - 200 * MS),
        (now_ns - 300 * MS, now_ns),
        (now_ns - HOUR, now_ns),
        (now_ns, now_ns + HOUR),
        (1, 2),
    ]:
        tracer.start_span("x", start_time=start_ns).end(end_time=end_ns)
        seen = kept.items[-1]
        assert (seen.start_time, seen.end_time) == (start_ns, end_ns)


def test_a_start_of_the_callers_own_and_an_end_by_the_clock(kept, tracer, clock):
    start_ns = time.time_ns() - HOUR
    span = tracer.start_span("x", start_time=start_ns)
    span.end()
    assert abs(kept.items[0].end_time - start_ns - HOUR) < 1000 * MS


def test_an_end_of_the_callers_own_is_left_alone(kept, tracer):
    span = tracer.start_span("x")
    end_ns = span.start_time - 5
    span.end(end_time=end_ns)
    assert kept.items[0].end_time == end_ns


def test_spans_that_nobody_ends_are_not_kept_for_ever(spans, tracer):
    for _ in range(2 * processors._MOST_LIVE + 5):
        tracer.start_span("x")
    assert len(spans._clocks) <= processors._MOST_LIVE


def test_an_ended_span_leaves_nothing_behind(spans, tracer):
    tracer.start_span("x").end()
    assert not spans._clocks


# --- sampling -----------------------------------------------------------------------------------


class OnlyRecording(Sampler):
    def should_sample(self, *args, **kwargs):
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self):
        return "only recording"


def test_what_is_not_sampled_is_not_queued(kept):
    for sampler in (OnlyRecording(), ALWAYS_OFF):
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        spans = SpooledSpans(kept, kept.flush)
        provider.add_span_processor(spans)
        span = provider.get_tracer("t").start_span("x")
        recorded = sampler is not ALWAYS_OFF
        assert (spans.live[True].value, spans.live[False].value) == (0, recorded)
        span.end()
        assert (spans.live[True].value, spans.live[False].value) == (0, 0)
        assert not spans._clocks
    assert kept.items == []


def test_live_spans_are_counted(spans, tracer):
    open_spans = [tracer.start_span("x") for _ in range(3)]
    assert spans.live[True].value == 3
    open_spans.pop().end()
    assert spans.live[True].value == 2


def test_a_flush_says_what_became_of_it_and_stopping_them_is_harmless(kept, spans, tracer):
    assert spans.force_flush(1500) is False
    assert kept.flushed_s == [1.5]
    spans.shutdown()
    tracer.start_span("x").end()
    assert len(kept.items) == 1


# --- logs ---------------------------------------------------------------------------------------


class Big:
    pass


def test_a_log_record_keeps_its_trace_and_lets_go_of_its_context(kept, tracer):
    provider = LoggerProvider(Resource({"service.name": "s"}), shutdown_on_exit=False)
    logs = SpooledLogs(kept, kept.flush)
    provider.add_log_record_processor(logs)
    big = Big()
    token = context.attach(context.set_value("request", big))
    with tracer.start_as_current_span("x") as span:
        record = LogRecord(body="hello", context=context.get_current())
        provider.get_logger("app", "1").emit(record)
    context.detach(token)
    seen = kept.items[0]
    assert seen.log_record.body == "hello"
    assert seen.log_record.trace_id == span.get_span_context().trace_id
    assert seen.log_record.span_id == span.get_span_context().span_id
    assert seen.log_record.trace_flags == span.get_span_context().trace_flags
    assert seen.resource.attributes["service.name"] == "s"
    assert seen.instrumentation_scope.name == "app"
    assert record.context  # other processors still get it
    watched = weakref.ref(big)
    del big, record, token
    gc.collect()
    assert watched() is None
    assert logs.created.value == 1
    assert logs.force_flush(2500) is False
    assert kept.flushed_s == [2.5]
    logs.shutdown()
