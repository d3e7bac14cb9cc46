"""Encoding: legal items as the stock encoders have them, illegal ones mended, none lost."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import logging
import math
import sys
import uuid
from collections import Counter, UserDict, deque
from contextlib import contextmanager
from decimal import Decimal
from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common import _log_encoder, metrics_encoder, trace_encoder
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from pbmon.telemetry.encoding import (
    CUT,
    MAX_ITEM_BYTES,
    MAX_TEXT_BYTES,
    batches,
    count,
    encode_logs,
    encode_metrics,
    encode_spans,
    split,
)
from pbmon.telemetry.encoding import spans as spans_module

MARK = "pbmon.replaced_values"
MIB = 1024 * 1024

REQUESTS = {
    "traces": (ExportTraceServiceRequest, encode_spans, trace_encoder.encode_spans),
    "logs": (ExportLogsServiceRequest, encode_logs, _log_encoder.encode_logs),
    "metrics": (ExportMetricsServiceRequest, encode_metrics, metrics_encoder.encode_metrics),
}

examples = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@contextmanager
def silence():
    """The stock encoder logs a traceback for each value that it can't encode."""
    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.common")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in heard] == []


def items_of(signal, payload):
    """(resource, scope, item) of every item, serialized; a data point with its metric's name."""
    request = REQUESTS[signal][0].FromString(payload)
    found = []
    for resource in getattr(request, f"resource_{'spans' if signal == 'traces' else signal}"):
        if signal == "metrics":
            lists = [
                (scope, metric, getattr(metric, metric.WhichOneof("data")).data_points)
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.WhichOneof("data")
            ]
        elif signal == "traces":
            lists = [(scope, None, scope.spans) for scope in resource.scope_spans]
        else:
            lists = [(scope, None, scope.log_records) for scope in resource.scope_logs]
        for scope, metric, items in lists:
            around = (
                resource.resource.SerializeToString() + resource.schema_url.encode(),
                scope.scope.SerializeToString() + scope.schema_url.encode(),
                metric and (metric.name, metric.unit, metric.description),
            )
            found += [(*around, item.SerializeToString()) for item in items]
    return found


def plain_value(value):
    """An AnyValue as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain_value(v) for v in value.array_value.values]
    if kind == "kvlist_value":
        return {kv.key: plain_value(kv.value) for kv in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def attributes_of(message):
    return {kv.key: plain_value(kv.value) for kv in message.attributes}


def first_span(encoded):
    request = ExportTraceServiceRequest.FromString(encoded.payload)
    return request.resource_spans[0].scope_spans[0].spans[0]


def first_record(encoded):
    request = ExportLogsServiceRequest.FromString(encoded.payload)
    return request.resource_logs[0].scope_logs[0].log_records[0]


# --- samples ------------------------------------------------------------------------------------

RESOURCE = Resource({"service.name": "shop"}, "https://schema/1")
SCOPE = InstrumentationScope("scope", "1.0", "https://schema/2", {"a": 1})


def make_span(attributes=None, **fields):
    return ReadableSpan(
        **{
            "name": "GET /",
            "context": SpanContext(5, 6, is_remote=False),
            "resource": RESOURCE,
            "attributes": {} if attributes is None else attributes,
            "instrumentation_scope": SCOPE,
            "start_time": 1,
            "end_time": 2,
        }
        | fields
    )


def make_record(body="text", attributes=None, **fields):
    record = LogRecord(timestamp=1, observed_timestamp=2, body=body, attributes=attributes)
    for name in fields.keys() & vars(record).keys():
        setattr(record, name, fields.pop(name))
    return ReadableLogRecord(
        record, **{"resource": RESOURCE, "instrumentation_scope": SCOPE} | fields
    )


def make_metrics(*metrics, resource=RESOURCE, scope=SCOPE):
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def make_sum(*values, name="n", **fields):
    points = [NumberDataPoint(**{"attributes": {"i": i}, "start_time_unix_nano": 1,
                                 "time_unix_nano": 2, "value": v} | fields)
              for i, v in enumerate(values)]  # fmt: skip
    return Metric(name, "what", "1", Sum(points, AggregationTemporality.CUMULATIVE, True))


HISTOGRAM_POINT = HistogramDataPoint({"a": "b"}, 1, 2, 3, 4.5, [1, 2], [0.5], 0.1, 4.0)
EXPONENTIAL_POINT = ExponentialHistogramDataPoint(
    {"a": "b"}, 1, 2, 3, 4.5, 1, 0, Buckets(0, [1, 2]), Buckets(0, []), 0, 0.1, 4.0
)


# --- strategies ---------------------------------------------------------------------------------

uint64 = st.integers(0, 2**64 - 1)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary(),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
legal_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
    ),
    max_leaves=8,
)
legal_maps = st.dictionaries(st.text(), legal_values, max_size=5)
legal_attributes = st.one_of(legal_maps, legal_maps.map(lambda a: BoundedAttributes(3, a)))
resources = st.one_of(
    st.just(RESOURCE),
    st.builds(Resource, st.just({"service.name": "shop"}), st.just("https://schema/1")),
    st.builds(Resource, legal_maps, st.text()),
)
scopes = st.one_of(
    st.none(),
    st.just(SCOPE),
    st.builds(InstrumentationScope, st.text(), st.text() | st.none(), st.text(), legal_maps),
)
contexts = st.builds(
    SpanContext, st.integers(0, 2**128 - 1), uint64, st.booleans(),
    trace_state=st.sampled_from([None, TraceState([("a", "b"), ("c", "d=e")])]),
)  # fmt: skip
SPAN_FIELDS = {
    "name": st.text(),
    "context": contexts,
    "parent": st.none() | contexts,
    "resource": resources,
    "attributes": st.none() | legal_attributes,
    "events": st.lists(
        st.builds(Event, st.text(), st.none() | legal_attributes, uint64), max_size=2
    ),
    "links": st.lists(st.builds(Link, contexts, st.none() | legal_attributes), max_size=2),
    "kind": st.sampled_from(SpanKind),
    "status": st.sampled_from([Status(), Status(StatusCode.ERROR, "ü"), Status(StatusCode.OK)]),
    "start_time": st.none() | uint64,
    "end_time": st.none() | uint64,
    "instrumentation_scope": scopes,
}
spans = st.builds(ReadableSpan, **SPAN_FIELDS)
RECORD_FIELDS = {
    "timestamp": st.none() | uint64,
    "observed_timestamp": uint64,
    "trace_id": st.integers(0, 2**128 - 1),
    "span_id": uint64,
    "trace_flags": st.integers(0, 255),
    "severity_text": st.none() | st.text(),
    "severity_number": st.none() | st.sampled_from(SeverityNumber),
    "body": legal_values,
    "attributes": st.none() | legal_attributes,
    "event_name": st.none() | st.text(),
    "resource": resources,
    "instrumentation_scope": scopes,
}
records = st.fixed_dictionaries(RECORD_FIELDS).map(lambda fields: make_record(**fields))

exemplars = st.lists(
    st.builds(
        Exemplar, legal_maps, st.floats() | st.integers(-(2**63), 2**63 - 1), uint64,
        st.none() | uint64, st.none() | st.integers(0, 2**128 - 1),
    ),
    max_size=2,
)  # fmt: skip
POINT = (legal_maps, uint64, uint64)
numbers = st.builds(
    NumberDataPoint, *POINT, st.integers(-(2**63), 2**63 - 1) | st.floats(), exemplars
)
counts = st.lists(uint64, max_size=3)
histogram_points = st.builds(
    HistogramDataPoint, *POINT, uint64, st.floats() | st.integers(0, 2**60), counts,
    st.lists(st.floats(), max_size=3), st.none() | st.floats(), st.none() | st.floats(), exemplars,
)  # fmt: skip
int32 = st.integers(-(2**31), 2**31 - 1)
exponential_points = st.builds(
    ExponentialHistogramDataPoint, *POINT, uint64, st.floats(), int32, uint64,
    st.builds(Buckets, int32, counts), st.builds(Buckets, int32, counts),
    st.integers(0, 2**32 - 1), st.floats(), st.floats(), exemplars,
)  # fmt: skip
temporalities = st.sampled_from(AggregationTemporality)


def metrics_of(number, histogram, exponential, text):
    def points(point):
        return st.lists(point, max_size=3)

    data = st.one_of(
        st.builds(Gauge, points(number)),
        st.builds(Sum, points(number), temporalities, st.booleans()),
        st.builds(Histogram, points(histogram), temporalities),
        st.builds(ExponentialHistogram, points(exponential), temporalities),
    )
    metric = st.builds(Metric, text, text, text, data)
    return st.lists(
        st.builds(
            ResourceMetrics,
            resources,
            st.lists(
                st.builds(ScopeMetrics, scopes.filter(bool), st.lists(metric, max_size=3),
                          st.just("")),
                max_size=2, unique_by=lambda group: group.scope,
            ),
            st.just(""),
        ),
        max_size=2, unique_by=lambda group: group.resource,
    ).map(MetricsData)  # fmt: skip


legal_metrics = metrics_of(numbers, histogram_points, exponential_points, st.text())


class Silent:
    """Has no text of its own."""


class Raising:
    def __str__(self):
        raise RuntimeError("no text")


class NoText:
    def __str__(self):
        return 5  # noqa: PLE0307 - the case itself


class Huge:
    def __str__(self):
        return "x" * 100_000


class BadBool(Raising):
    def __bool__(self):
        raise RuntimeError("neither")


class Shade(str, enum.Enum):
    RED = "red"


class Liar(str):  # noqa: SLOT000 - as an application writes it
    def __str__(self):
        raise RuntimeError

    __len__ = isascii = encode = __getitem__ = __str__  # fmt: skip


class BadItems(UserDict):
    def items(self):
        yield "a", 1
        raise RuntimeError("gone")


class BadSequence(list):
    def __iter__(self):
        raise RuntimeError("gone")


class Endless(UserDict):
    def __bool__(self):
        return True

    def items(self):
        while True:
            yield "\ud800", [1] * 100


class Dishonest:
    """Like a lazy proxy that can't be resolved."""

    @property
    def __class__(self):
        raise RuntimeError("not yet")


def cyclic():
    loop = [1]
    loop.append({"again": loop})
    return loop


def nested(levels, inside="core"):
    return inside if levels == 0 else [nested(levels - 1, inside)]


def bomb():
    """Six levels of forty times the same: four thousand million texts."""
    value = "x" * 100
    for _ in range(6):
        value = [value] * 40
    return value


class Batch(list):
    """Written short where a test fails: some oddities written out fill the memory."""

    def __repr__(self):
        return f"<{len(self)} items>"


LONG = [range(10**9), "ä" * 40_000, b"x" * 70_000, "x" * 70_000]
ODDITIES = [
    "\ud800",
    "a\udfffb" * 3,
    2**63,
    -(2**63) - 1,
    10**5000,
    math.nan,
    math.inf,
    -math.inf,
    Decimal(1),
    Decimal("sNaN"),
    dt.date(2026, 1, 1),
    uuid.UUID(int=5),
    {1, 2},
    set(range(2000)),
    object(),
    Silent,
    Silent(),
    Raising(),
    NoText(),
    Huge(),
    BadBool(),
    Shade.RED,
    Liar("\ud800"),
    Liar("a"),
    BadItems(),
    BadSequence([1]),
    Dishonest(),
    cyclic(),
    nested(50),
    bomb(),
    {1: 2, None: 3, "1": 4},
    {"\ud800": 1, "\udc01": 2},  # noqa: F601 - two keys
    *LONG,
    [1] * 2000,
    {str(i): i for i in range(2000)},
    bytearray(b"abc"),
    memoryview(b"abc"),
    1j,
    -1,
    deque([1, "\ud800"]),
    Mock(spec=bool),
    Mock(spec=int),
    Mock(spec=str),
    MagicMock(),
    SimpleNamespace(),
    [None, 1, "a", 2.5, b"", [math.nan]],
    1.5,
    "text",
    b"bytes",
    True,
    None,
    2**64,
    2**200,
    [],
    {},
    (),
    0,
    "",
]
# By index, as Hypothesis wants a repr() of what it draws.
oddities = st.integers(0, len(ODDITIES) - 1).map(lambda index: ODDITIES[index])
# For the fields of which the SDK makes a tuple each time they are read.
listable = oddities.filter(lambda value: not any(value is long for long in LONG))
odd_maps = st.one_of(
    oddities,
    st.dictionaries(
        st.text() | st.sampled_from(["\ud800", 5, None, Liar("k")]), oddities, max_size=4
    ),
)
odd_attributes = st.one_of(legal_attributes, odd_maps, st.builds(Endless))


def oddly(make, fields, odd):
    """make() with legal fields, but for some that hold anything."""
    return st.builds(
        lambda legal, replaced: make(**legal | replaced),
        st.fixed_dictionaries(fields),
        st.fixed_dictionaries({}, optional={name: odd.get(name, oddities) for name in fields}),
    )


odd_scopes = st.one_of(
    oddities, st.builds(SimpleNamespace, name=oddities, version=oddities, schema_url=oddities),
    st.builds(InstrumentationScope, st.sampled_from(["\ud800", None, "n"]), oddities),
)  # fmt: skip
odd_resources = st.one_of(
    oddities, st.builds(SimpleNamespace, attributes=odd_maps, schema_url=oddities)
)
odd_contexts = st.one_of(
    oddities,
    st.builds(SimpleNamespace, trace_id=oddities, span_id=oddities, is_remote=oddities,
              trace_state=odd_maps),
)  # fmt: skip
odd_sources = {"resource": odd_resources, "instrumentation_scope": odd_scopes}
odd_spans = oddly(
    ReadableSpan,
    SPAN_FIELDS,
    odd_sources
    | {
        "attributes": odd_attributes,
        "context": odd_contexts,
        "parent": odd_contexts,
        "events": st.one_of(
            listable,
            st.lists(st.builds(Event, oddities, odd_attributes, oddities) | oddities, max_size=3),
        ),
        "links": st.one_of(
            listable, st.lists(st.builds(Link, odd_contexts, odd_attributes) | oddities, max_size=3)
        ),
        "status": st.one_of(
            oddities, st.builds(SimpleNamespace, status_code=oddities, description=oddities)
        ),
    },
)
odd_records = oddly(make_record, RECORD_FIELDS, odd_sources | {"attributes": odd_attributes})


def odd_points(points, **special):
    return st.builds(
        lambda point, replaced: dataclasses.replace(point, **replaced),
        points,
        st.fixed_dictionaries({}, optional={
            name: special.get(name, oddities)
            for name in [field.name for field in dataclasses.fields(NumberDataPoint)]
            if name != "value"
        }),
    )  # fmt: skip


# --- what is legal ------------------------------------------------------------------------------


@examples
@given(st.lists(spans, max_size=5))
def test_legal_spans_are_those_of_the_stock_encoder(batch):
    encoded = encode_spans(batch)
    assert encoded.payload == trace_encoder.encode_spans(batch).SerializeToString()
    assert (encoded.items, encoded.replaced, encoded.left_out) == (len(batch), {}, 0)


@examples
@given(st.lists(records, max_size=5))
def test_legal_records_are_those_of_the_stock_encoder(batch):
    encoded = encode_logs(batch)
    assert encoded.payload == _log_encoder.encode_logs(batch).SerializeToString()
    assert (encoded.items, encoded.replaced, encoded.left_out) == (len(batch), {}, 0)


@examples
@given(legal_metrics)
def test_legal_metrics_are_those_of_the_stock_encoder(data):
    encoded = encode_metrics(data)
    assert encoded.payload == metrics_encoder.encode_metrics(data).SerializeToString()
    assert encoded.items == len(items_of("metrics", encoded.payload))
    assert (encoded.replaced, encoded.left_out) == ({}, 0)


@pytest.mark.parametrize(
    "attributes",
    [
        {f"k{i}": "x" * 60_000 for i in range(15)},  # 900 KB
        {f"k{i}": [i] * 1000 for i in range(70)},
        {"nested": nested(8)},
        {"text": "ü" * (MAX_TEXT_BYTES // 2), "bytes": bytes(MAX_TEXT_BYTES)},
        {"shade": Shade.RED, "range": range(5), "deque": deque([1])},
    ],
)
def test_what_is_large_and_legal_is_left_as_it_is(attributes):
    batch = [make_span(attributes)]
    encoded = encode_spans(batch)
    assert encoded.payload == trace_encoder.encode_spans(batch).SerializeToString()
    assert encoded.replaced == {}


def test_what_is_plain_is_not_mended(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(batches, "_mended", refuse)
    event = Event("event", {"exception.type": "ValueError", "text": "größe"})
    span = make_span({"a": "b", "c": 1, "d": 1.5, "e": ("x", 2), "f": True}, events=[event])
    assert encode_spans([span]).items == 1
    assert encode_logs([make_record("text", {"a": "b"})]).items == 1


# --- what is not --------------------------------------------------------------------------------

FULL = "x" * (MAX_TEXT_BYTES - len(CUT.encode()))
LOOP = cyclic()
PRETENDER = Mock(spec=int)

MENDED = [
    ("a\ud800b", "a\ufffdb", "surrogate"),
    (["a", "\udfff"], ["a", "\ufffd"], "surrogate"),
    ({"\ud800": 1}, {"\ufffd": 1}, "surrogate"),
    (2**63, "9223372036854775808", "out_of_range"),
    (-(2**63) - 1, "-9223372036854775809", "out_of_range"),
    (10**5000, "<int>", "out_of_range"),
    (math.nan, "NaN", "not_finite"),
    (math.inf, "Infinity", "not_finite"),
    ([-math.inf], ["-Infinity"], "not_finite"),
    ("x" * (MAX_TEXT_BYTES + 1), FULL + CUT, "too_long"),
    ("ü" * MAX_TEXT_BYTES, "ü" * (len(FULL) // 2) + CUT, "too_long"),
    (b"x" * (MAX_TEXT_BYTES + 1), FULL.encode() + CUT.encode(), "too_long"),
    (list(range(1001)), list(range(1000)), "too_long"),
    ({str(i): i for i in range(1001)}, {str(i): i for i in range(1000)}, "too_long"),
    (Decimal("1.50"), "1.50", "type"),
    (dt.date(2026, 11, 24), "2026-11-24", "type"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005", "type"),
    ({1}, "{1}", "type"),
    (set(range(1001)), "{0, 1, 2, 3, 4, 5, ...}", "type"),
    (Silent(), "<Silent>", "type"),
    (Raising(), "<Raising>", "type"),
    (NoText(), "<NoText>", "type"),
    (Huge(), "<Huge>", "type"),
    (BadSequence([1]), "<BadSequence>", "type"),
    (PRETENDER, str(PRETENDER), "type"),
    ({1: 2}, {"1": 2}, "type"),
    (LOOP, [1, {"again": "<cycle>"}], "cycle"),
    (nested(9), nested(8, "<too deep>"), "too_deep"),
]


@pytest.mark.parametrize("index", range(len(MENDED)))
def test_an_illegal_value_is_replaced_and_counted(index):
    value, mended, reason = MENDED[index]
    with silence():
        encoded = encode_spans([make_span({"before": 1, "key": value, "after": 2})])
        logged = encode_logs([make_record(value)])
    assert attributes_of(first_span(encoded)) == {
        "before": 1, "key": mended, "after": 2, MARK: 1,
    }  # fmt: skip
    assert (encoded.items, encoded.replaced, encoded.left_out) == (1, {reason: 1}, 0)
    record = first_record(logged)
    assert (plain_value(record.body), attributes_of(record)) == (mended, {MARK: 1})
    assert logged.replaced == {reason: 1}


@pytest.mark.parametrize(
    ("field", "value", "read", "expected", "reason"),
    [
        ("name", "\ud800", lambda s: s.name, "\ufffd", "surrogate"),
        ("name", 5, lambda s: s.name, "5", "type"),
        ("name", bomb(), lambda s: s.name[:10], "[[[...], [", "type"),
        ("kind", "server", lambda s: s.kind, 1, "type"),
        ("kind", 1, lambda s: s.kind, 2, "type"),
        ("kind", bomb(), lambda s: s.kind, 1, "type"),
        ("start_time", -1, lambda s: s.start_time_unix_nano, 0, "out_of_range"),
        ("end_time", 2**64, lambda s: s.end_time_unix_nano, 2**64 - 1, "out_of_range"),
        ("context", None, lambda s: s.trace_id, bytes(16), "type"),
        ("context", SpanContext(2**128 + 7, 1, False), lambda s: s.trace_id[-1], 7, "out_of_range"),
        ("status", SimpleNamespace(status_code=StatusCode.ERROR, description="\ud800"),
         lambda s: (s.status.code, s.status.message), (2, "\ufffd"), "surrogate"),
        ("events", [Event("\ud800", None, 1)], lambda s: s.events[0].name, "\ufffd", "surrogate"),
        ("events", [Event("e", {"k": math.nan}, 1)],
         lambda s: attributes_of(s.events[0]), {"k": "NaN"}, "not_finite"),
        ("links", [Link(SpanContext(1, 2, False), {"k": 2**63})],
         lambda s: attributes_of(s.links[0]), {"k": "9223372036854775808"}, "out_of_range"),
        ("attributes", 5, lambda s: len(s.attributes), 1, "type"),
        ("attributes", {None: 1, "\ud800": 2, "\ufffd": 3},  # noqa: F601 - three keys
         attributes_of, {"None": 1, "\ufffd": 2, "\ufffd#2": 3, MARK: 2}, "surrogate"),
    ],
)  # fmt: skip
def test_any_field_of_a_span_is_mended(field, value, read, expected, reason):
    with silence():
        encoded = encode_spans([make_span(**{field: value})])
    span = first_span(encoded)
    assert read(span) == expected
    assert encoded.replaced[reason] >= 1
    assert attributes_of(span)[MARK] == sum(encoded.replaced.values())


def test_a_tracestate_is_mended():
    state = TraceState([("a", "b")])
    state._dict["c"] = "\ud800"
    context = SpanContext(1, 2, is_remote=False, trace_state=state)
    encoded = encode_spans([make_span(context=context)])
    assert first_span(encoded).trace_state == "a=b,c=\ufffd"


def test_resources_and_scopes_are_mended_once_and_leave_no_mark():
    resource = SimpleNamespace(attributes={"a": "\ud800", "b": 1}, schema_url="\ud800")
    scope = InstrumentationScope("\ud800", "1")
    batch = [make_span(resource=resource, instrumentation_scope=scope) for _ in range(3)]
    encoded = encode_spans(batch)
    request = ExportTraceServiceRequest.FromString(encoded.payload)
    assert [len(r.scope_spans) for r in request.resource_spans] == [1]
    assert attributes_of(request.resource_spans[0].resource) == {"a": "\ufffd", "b": 1}
    assert request.resource_spans[0].scope_spans[0].scope.name == "\ufffd"
    assert len(request.resource_spans[0].scope_spans[0].spans) == 3
    assert encoded.replaced == {"surrogate": 3}
    assert attributes_of(first_span(encoded)) == {}


def test_a_span_is_left_as_it_is():
    attributes = {"a": "\ud800", "b": [math.nan]}
    span = make_span(attributes)
    encode_spans([span])
    assert list(span.attributes) == ["a", "b"]
    assert attributes["a"] == "\ud800"


@pytest.mark.parametrize(
    ("attributes", "kept"),
    [
        ({f"k{i}": "x" * 60_000 for i in range(100)}, 100),
        ({f"k{i}": "x" * 1000 for i in range(3000)}, None),
        ({f"k{i}": bomb() for i in range(20)}, None),
        (Endless(), None),
    ],
)
def test_an_item_of_more_than_a_mebibyte_is_cut(attributes, kept):
    with silence():
        encoded = encode_spans([make_span(attributes)])
        logged = encode_logs([make_record(attributes, attributes)])
    span = first_span(encoded)
    assert MIB // 20 < span.ByteSize() <= MAX_ITEM_BYTES
    assert first_record(logged).ByteSize() <= MAX_ITEM_BYTES
    assert encoded.replaced["too_long"] > 0
    assert attributes_of(span)[MARK] == sum(encoded.replaced.values())
    if kept:
        assert len(span.attributes) == kept + 1
        assert {len(a.value.string_value) for a in span.attributes[:-1]} == {1024 - 2}


def test_what_can_be_read_once_only_is_encoded():
    once = encode_spans([make_span({"a": iter([1])}, links=iter([Link(SpanContext(1, 2, False))]))])
    assert (once.items, once.left_out) == (1, 0)
    assert attributes_of(first_span(once))["a"].startswith("<list_iterator")


def test_events_that_have_no_room_are_counted():
    events = [Event("e" * 2000, None, i) for i in range(3000)]
    encoded = encode_spans([make_span(events=events)])
    span = first_span(encoded)
    assert 0 < len(span.events) < 3000
    assert span.ByteSize() <= MAX_ITEM_BYTES
    # Of those that are there, each name was cut.
    assert encoded.replaced == {"too_long": 3000}


def test_what_the_sdk_lets_through_arrives():
    ended = []
    provider = TracerProvider()
    provider.add_span_processor(
        SimpleNamespace(
            on_start=lambda *_, **__: None, on_end=ended.append, _on_ending=lambda _: None,
            shutdown=lambda: None,
        )
    )  # fmt: skip
    with provider.get_tracer("t").start_as_current_span("\ud800") as span:
        span.set_attributes({"a": "\ud800", "b": 2**64})
        span.add_event("e", {"c": math.inf})
    encoded = encode_spans(ended)
    assert encoded.replaced == {"surrogate": 2, "out_of_range": 1, "not_finite": 1}
    assert attributes_of(first_span(encoded))[MARK] == 4

    emitted = []
    logs = LoggerProvider()
    logs.add_log_record_processor(
        SimpleNamespace(on_emit=emitted.append, shutdown=lambda: None, force_flush=lambda *_: True)
    )
    logs.get_logger("l").emit(LogRecord(body="\ud800", severity_number=SeverityNumber.WARN))
    encoded = encode_logs(emitted)
    assert (encoded.items, encoded.replaced) == (1, {"surrogate": 1})
    assert first_record(encoded).severity_number == 13
    logs.shutdown()
    provider.shutdown()


@examples
@given(st.lists(st.one_of(spans, odd_spans), max_size=4).map(Batch))
def test_any_spans_are_all_encoded(batch):
    check_each("traces", batch)


@examples
@given(st.lists(st.one_of(records, odd_records), max_size=4).map(Batch))
def test_any_records_are_all_encoded(batch):
    check_each("logs", batch)


@pytest.mark.parametrize("index", range(len(ODDITIES)))
@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_even_what_is_no_item_is_encoded(signal, index):
    check_each(signal, Batch([ODDITIES[index]]))


def check_each(signal, batch):
    """All are there, and each is what it is without the others."""
    encode = REQUESTS[signal][1]
    with silence():
        whole = encode(batch)
        alone = [encode([item]) for item in batch]
    assert (whole.items, whole.left_out) == (len(batch), 0)
    expected = Counter(item for one in alone for item in items_of(signal, one.payload))
    assert Counter(items_of(signal, whole.payload)) == expected
    assert sum(expected.values()) == len(batch) == count(signal, whole.payload)


def test_an_item_that_fails_in_spite_of_all_is_left_out_alone(monkeypatch):
    def break_down(*_):
        raise MemoryError

    monkeypatch.setattr(spans_module, "_mend_span", break_down)
    batch = [make_span(), make_span({"a": "\ud800"}), make_span(kind=None), make_span()]
    encoded = encode_spans(batch)
    assert (encoded.items, encoded.left_out) == (2, 2)
    assert count("traces", encoded.payload) == 2


# --- metrics ------------------------------------------------------------------------------------


def points_of(encoded):
    """(metric's name, data point) of all."""
    request = ExportMetricsServiceRequest.FromString(encoded.payload)
    return [
        (metric.name, point)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


@pytest.mark.parametrize(
    ("field", "value", "read", "expected", "reason"),
    [
        ("attributes", {"k": "\ud800"}, attributes_of, {"k": "\ufffd"}, "surrogate"),
        ("attributes", {None: 2**63}, attributes_of, {"None": "9223372036854775808"}, "type"),
        ("value", 2**63, lambda p: p.as_double, 2.0**63, "out_of_range"),
        ("value", -(10**400), lambda p: p.as_double, -sys.float_info.max, "out_of_range"),
        ("value", "many", lambda p: math.isnan(p.as_double), True, "type"),
        ("time_unix_nano", -1, lambda p: p.time_unix_nano, 0, "out_of_range"),
        ("exemplars", [Exemplar({"k": math.inf}, 1, 2, None, None)],
         lambda p: p.exemplars[0].filtered_attributes[0].value.string_value,
         "Infinity", "not_finite"),
    ],
)  # fmt: skip
def test_any_field_of_a_data_point_is_mended_and_leaves_no_mark(
    field, value, read, expected, reason
):
    with silence():
        encoded = encode_metrics(
            make_metrics(make_sum(7, name="before"), make_sum(1, **{field: value}), make_sum(8))
        )
    before, point, after = (point for _, point in points_of(encoded))
    assert read(point) == expected
    assert encoded.replaced[reason] == 1
    assert (before.as_int, after.as_int) == (7, 8)
    assert encoded.left_out == 0
    assert MARK not in attributes_of(point)


@pytest.mark.parametrize("point", [HISTOGRAM_POINT, EXPONENTIAL_POINT])
def test_a_histogram_is_mended(point):
    kind = Histogram if point is HISTOGRAM_POINT else ExponentialHistogram
    broken = dataclasses.replace(
        point, count=-3, sum="\ud800", attributes={"\ud800": 1}, min=10**400
    )
    metric = Metric("h", "", "s", kind([point, broken], AggregationTemporality.DELTA))
    encoded = encode_metrics(make_metrics(metric))
    (_, whole), (_, mended) = points_of(encoded)
    assert (whole.count, whole.sum, whole.min) == (3, 4.5, 0.1)
    assert (mended.count, mended.min) == (0, sys.float_info.max)
    assert math.isnan(mended.sum)
    assert attributes_of(mended) == {"\ufffd": 1}
    assert encoded.replaced == {"out_of_range": 1, "type": 1, "surrogate": 1}


def test_a_metric_of_an_unknown_kind_is_left_out_alone():
    unknown = Metric("x", "", "", SimpleNamespace(data_points=[1, 2]))
    encoded = encode_metrics(make_metrics(make_sum(7), unknown, make_sum(8)))
    assert [point.as_int for _, point in points_of(encoded)] == [7, 8]
    assert (encoded.items, encoded.left_out) == (2, 2)


def test_groups_of_one_resource_and_scope_are_all_kept():
    groups = [make_metrics(make_sum(value)).resource_metrics[0] for value in (1, 2)]
    scopes = [
        *groups[0].scope_metrics,
        *make_metrics(make_sum(3)).resource_metrics[0].scope_metrics,
    ]
    groups[0] = dataclasses.replace(groups[0], scope_metrics=scopes)
    encoded = encode_metrics(MetricsData(groups))
    assert [point.as_int for _, point in points_of(encoded)] == [1, 3, 2]


@pytest.mark.parametrize(
    "data", [None, 5, MetricsData(None), MetricsData([None, 5]), make_metrics(None)]
)
def test_what_are_no_metrics_is_an_empty_request(data):
    assert encode_metrics(data).items == 0


# --- requests -----------------------------------------------------------------------------------


def check_halves(signal, encoded):
    halves = split(signal, encoded.payload)
    assert [half.items for half in halves] == [
        encoded.items // 2,
        encoded.items - encoded.items // 2,
    ]
    assert all(count(signal, half.payload) == half.items for half in halves)
    pieces = [item for half in halves for item in items_of(signal, half.payload)]
    assert pieces == items_of(signal, encoded.payload)


@examples
@given(st.lists(spans, min_size=2, max_size=6))
def test_a_request_of_spans_is_cut_in_two(batch):
    check_halves("traces", encode_spans(batch))


@examples
@given(st.lists(records, min_size=2, max_size=6))
def test_a_request_of_records_is_cut_in_two(batch):
    check_halves("logs", encode_logs(batch))


@examples
@given(legal_metrics)
def test_a_request_of_metrics_is_cut_in_two(data):
    two = make_metrics(make_sum(1, 2)).resource_metrics
    check_halves("metrics", encode_metrics(MetricsData([*two, *data.resource_metrics])))


def test_a_half_keeps_no_empty_resource_scope_or_metric():
    encoded = encode_metrics(make_metrics(make_sum(1, name="a"), make_sum(2, name="b")))
    first, second = split("metrics", encoded.payload)
    assert [name for name, _ in points_of(first)] == ["a"]
    assert [name for name, _ in points_of(second)] == ["b"]
    assert len(second.payload) < len(encoded.payload) * 3 / 4


def test_one_item_is_not_cut():
    encoded = encode_spans([make_span()])
    assert split("traces", encoded.payload) == [encoded]


@pytest.mark.parametrize(
    ("signal", "payload"), [("traces", b"\xff\xff"), ("spans", b""), ("logs", b"\x0a\x7f")]
)
def test_what_is_no_request_is_named(signal, payload):
    with pytest.raises(ValueError, match=signal):
        count(signal, payload)
    with pytest.raises(ValueError, match=signal):
        split(signal, payload)
