"""Spans, log records and metrics as OTLP bytes, whatever they hold.

The stock encoders refuse a whole batch for one lone surrogate or one integer beyond 64 bits.
Here each item is looked at first. What is plainly legal goes to the stock encoder as it is; any
other item is mended, value by value, and the number of its replaced values stands in its
attribute `pbmon.replaced_values`. Data points have no such mark, as one attribute more would
make another series of them.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite, isnan, nan
from typing import Any, TypeVar

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as _stock_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import (
    encode_metrics as _stock_metrics,
)
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as _stock_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
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
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode

from pbmon import catalog

MAX_TEXT_BYTES = 64 * 1024
"""Of a text in UTF-8, or of a value of bytes; what is longer is cut."""
MAX_ELEMENTS = 1000
"""Of an array or a map that is a value."""
MAX_DEPTH = 8
"""Arrays and maps within each other."""
MAX_ITEM_BYTES = 1024 * 1024
"""Of an encoded span or log record; in a bigger one every long value is cut to 1 KiB."""
CUT = "…[cut]"
"""Ends a text that was cut."""

_CUT_BYTES = CUT.encode()
_SHORT_BYTES = 1024
_INT64 = range(-(2**63), 2**63)
_MAX_UINT32 = 2**32 - 1
_MAX_UINT64 = 2**64 - 1
_SURROGATES = re.compile("[\ud800-\udfff]")

_E = TypeVar("_E", bound=Enum)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One serialized Export…ServiceRequest, and what became of what was to be in it."""

    payload: bytes
    items: int
    """Spans, log records or data points in it."""
    replaced: Mapping[str, int] = field(default_factory=dict)
    """Reason → values made legal: surrogate, too_long, out_of_range, not_finite, type, cycle,
    too_deep."""
    left_out: int = 0
    """Items that could not be encoded at all."""


def encode_spans(spans: Sequence[ReadableSpan]) -> Encoded:
    """Never raises; the spans are left as they are."""
    return _encode(spans, _plain_span, _mend_span, _stock_spans)


def encode_logs(records: Sequence[ReadableLogRecord]) -> Encoded:
    """Never raises; takes the SDK's ReadWriteLogRecord as well."""
    return _encode(records, _plain_log, _mend_log, _stock_logs)


# --- requests -------------------------------------------------------------------------------

_LAYOUTS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics"),
}


def count(signal: str, payload: bytes) -> int:
    """Items in a request of traces, logs or metrics; ValueError for what is no such request."""
    return sum(map(len, _lists(signal, _parse(signal, payload))))


def split(signal: str, payload: bytes) -> list[Encoded]:
    """A request as two of half its items, each with its resource and scope.

    One of a single item is given back as it is. ValueError for what is no request.
    """
    items = count(signal, payload)
    if items < 2:
        return [Encoded(payload, items)]
    middle = items // 2
    return [
        Encoded(_slice(signal, payload, 0, middle), middle),
        Encoded(_slice(signal, payload, middle, items), items - middle),
    ]


def _parse(signal: str, payload: bytes) -> Any:
    if signal not in _LAYOUTS:
        raise ValueError(f"{signal!r} is none of {', '.join(_LAYOUTS)}")
    request = _LAYOUTS[signal][0]()
    try:
        request.ParseFromString(payload)
    except Exception as error:  # protobuf's own class is no ValueError
        raise ValueError(f"no request of {signal}: {error}") from error
    return request


def _lists(signal: str, request: Any) -> Iterator[Any]:
    """Every list that holds items."""
    _, resources, scopes, items = _LAYOUTS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            if signal != "metrics":
                yield getattr(scope, items)
                continue
            for metric in scope.metrics:
                if kind := metric.WhichOneof("data"):
                    yield getattr(metric, kind).data_points


def _slice(signal: str, payload: bytes, start: int, stop: int) -> bytes:
    request = _parse(signal, payload)
    first = 0
    for items in _lists(signal, request):
        end = first + len(items)
        del items[max(stop - first, 0) :]
        del items[: max(start - first, 0)]
        first = end
    _, resources, scopes, items = _LAYOUTS[signal]
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            if signal == "metrics":
                _remove_empty(scope.metrics, _points)
        _remove_empty(getattr(resource, scopes), operator.attrgetter(items))
    _remove_empty(getattr(request, resources), operator.attrgetter(scopes))
    return bytes(request.SerializeToString())


def _points(metric: Any) -> Any:
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def _remove_empty(parents: Any, children: Callable[[Any], Any]) -> None:
    for index in reversed(range(len(parents))):
        if not children(parents[index]):
            del parents[index]


# --- what the stock encoders read -------------------------------------------------------------
# They are given these in place of the SDK's objects. A resource and a scope are compared by
# identity, which spares the SDK's hash of a resource, JSON of all its attributes, for each item.


@dataclass(slots=True, eq=False)
class _Resource:
    attributes: Mapping[str, Any] = field(default_factory=dict)
    schema_url: str | None = None


@dataclass(slots=True, eq=False)
class _Scope:
    name: str | None = None
    version: str | None = None
    schema_url: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Context:
    trace_id: int
    span_id: int
    is_remote: bool
    trace_state: Mapping[str, str] | None


@dataclass(slots=True)
class _Status:
    status_code: StatusCode
    description: str


@dataclass(slots=True)
class _Event:
    name: str
    timestamp: int
    attributes: Mapping[str, Any]
    dropped_attributes: int


@dataclass(slots=True)
class _Link:
    context: _Context
    attributes: Mapping[str, Any]
    dropped_attributes: int


@dataclass(slots=True)
class _Span:
    name: str
    context: Any
    parent: Any
    kind: SpanKind
    start_time: int | None
    end_time: int | None
    attributes: dict[str, Any]
    events: Sequence[Any]
    links: Sequence[Any]
    status: Any
    dropped_attributes: int
    dropped_events: int
    dropped_links: int
    resource: _Resource
    instrumentation_scope: Any

    def get_span_context(self) -> Any:
        return self.context


@dataclass(slots=True)
class _Log:
    timestamp: int | None
    observed_timestamp: int | None
    trace_id: int
    span_id: int
    trace_flags: int
    severity_number: Any
    severity_text: str | None
    event_name: str | None
    body: Any
    attributes: dict[str, Any]
    dropped_attributes: int
    resource: _Resource
    instrumentation_scope: Any

    @property
    def log_record(self) -> _Log:
        return self


_NO_RESOURCE = _Resource()


# --- the quick look: what is plainly legal, and small -----------------------------------------


class _Doubt(Exception):
    """Not plainly legal; mending will tell."""


_DOUBT = _Doubt()


def _weigh(attributes: Any) -> int:
    """Bytes that attributes take, about; _Doubt, or any other exception, if it isn't plain."""
    if type(attributes) is not dict:
        raise _DOUBT
    size = 0
    for key, value in attributes.items():
        if type(key) is str and type(value) is str and value.isascii() and key.isascii():
            size += len(key) + len(value) + 16
        else:
            size += _weigh_value(value) + _weigh_text(key)
    return size


def _weigh_text(text: Any) -> int:
    if text is None:
        return 0
    if type(text) is not str or len(text) > MAX_TEXT_BYTES:
        raise _DOUBT
    return len(text) if text.isascii() else len(text.encode())


def _weigh_value(value: Any) -> int:  # noqa: C901 - a branch for each type
    kind = type(value)
    if kind is str:
        return 16 + _weigh_text(value)
    if kind is int:
        if value not in _INT64:
            raise _DOUBT
    elif kind is float:
        if not isfinite(value):
            raise _DOUBT
    elif kind is tuple or kind is list:
        if len(value) > MAX_ELEMENTS:
            raise _DOUBT
        size = 16
        for element in value:
            if type(element) in _NESTING:
                raise _DOUBT
            size += _weigh_value(element)
        return size
    elif kind is bytes:
        return 16 + len(value)
    elif kind is not bool and value is not None:
        raise _DOUBT
    return 16


_NESTING = frozenset((list, tuple))


def _copy(attributes: Any) -> Any:
    # Of the SDK's bounded attributes this is the only quick way to their dict.
    return attributes.copy() if attributes is not None else {}


def _check(size: int) -> None:
    # So small that no single value and no sum of them can be too long.
    if size > MAX_TEXT_BYTES:
        raise _DOUBT


def _plain_span(span: Any, sources: _Sources) -> _Span:
    attributes = _copy(span.attributes)
    name = span.name
    size = _weigh(attributes) + _weigh_text(name)
    events = span.events
    for event in events:
        size += 16 + _weigh_text(event.name) + _weigh(_copy(event.attributes))
    links = span.links
    for link in links:
        size += 48 + _weigh(_copy(link.attributes))
    status = span.status
    if status is not None:
        size += _weigh_text(status.description)
    context = span.get_span_context()
    if context.trace_state:
        size += _weigh(dict(context.trace_state))
    _check(size)
    return _Span(
        name=name,
        context=context,
        parent=span.parent,
        kind=span.kind,
        start_time=span.start_time,
        end_time=span.end_time,
        attributes=attributes,
        events=events,
        links=links,
        status=status,
        dropped_attributes=span.dropped_attributes,
        dropped_events=span.dropped_events,
        dropped_links=span.dropped_links,
        resource=sources.resource(span.resource),
        instrumentation_scope=sources.scope(span.instrumentation_scope),
    )


def _plain_log(readable: Any, sources: _Sources) -> _Log:
    record = readable.log_record
    attributes = _copy(record.attributes)
    _check(
        _weigh(attributes)
        + _weigh_value(record.body)
        + _weigh_text(record.severity_text)
        + _weigh_text(record.event_name)
    )
    return _Log(
        timestamp=record.timestamp,
        observed_timestamp=record.observed_timestamp,
        trace_id=record.trace_id,
        span_id=record.span_id,
        trace_flags=record.trace_flags,
        severity_number=record.severity_number,
        severity_text=record.severity_text,
        event_name=record.event_name,
        body=record.body,
        attributes=attributes,
        dropped_attributes=readable.dropped_attributes,
        resource=sources.resource(readable.resource),
        instrumentation_scope=sources.scope(readable.instrumentation_scope),
    )


# --- mending ------------------------------------------------------------------------------------


class _Mender:
    """Makes the fields of one item legal and counts what it replaced. No method raises.

    text_bytes: limit of one text. share_bytes: of one attribute. whole_bytes: of everything;
    what comes after is left out.
    """

    def __init__(
        self,
        text_bytes: int = MAX_TEXT_BYTES,
        share_bytes: int = MAX_ITEM_BYTES,
        whole_bytes: int = MAX_ITEM_BYTES,
    ) -> None:
        self.replaced: dict[str, int] = {}
        self.size = 0
        """Bytes at most of what was taken so far."""
        self._text_bytes = text_bytes
        self._share_bytes = share_bytes
        self._whole_bytes = whole_bytes
        self._stop = whole_bytes

    def note(self, reason: str, values: int = 1) -> None:
        self.replaced[reason] = self.replaced.get(reason, 0) + values

    @property
    def full(self) -> bool:
        return self.size > self._stop

    def read(self, source: Any, name: str, default: Any = None) -> Any:
        try:
            return getattr(source, name)
        except Exception:
            self.note("type")
            return default

    def each(self, values: Any) -> Iterator[Any]:
        """The elements of a list of ours; as many of them as can be had."""
        if values is None:
            return
        try:
            yield from values
        except Exception:
            self.note("type")

    def text(self, value: Any) -> str:
        if value is None:
            return ""
        try:
            text = str.__str__(value)
        except TypeError:
            self.note("type")
            text = _describe(value)
        return self._text(text)

    def _text(self, value: str) -> str:
        limit = self._text_bytes
        text = str.__str__(value)[: limit + 1]  # of a subclass, the plain text
        reason = ""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            reason = "surrogate"
            text = _SURROGATES.sub("\ufffd", text)
            data = text.encode()
        if len(data) > limit:
            reason = reason or "too_long"
            text = data[: limit - len(_CUT_BYTES)].decode(errors="ignore") + CUT
            data = data[:limit]
        if reason:
            self.note(reason)
        self.size += len(data) + 16
        return text

    def value(self, value: Any, path: tuple[int, ...] = ()) -> Any:
        """An attribute's value or a body. path: ids of the arrays and maps around it."""
        self.size += 16
        try:
            return self._value(value, path)
        except Exception:  # of a class of the application's
            self.note("type")
            return self._text(_describe(value))

    def _value(self, value: Any, path: tuple[int, ...]) -> Any:  # noqa: PLR0911 - one for each type
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            number = int.__int__(value)
            if number in _INT64:
                return number
            self.note("out_of_range")
            return self._text(_describe(number))
        if isinstance(value, float):
            real = float.__float__(value)
            if isfinite(real):
                return real
            self.note("not_finite")
            return "NaN" if isnan(real) else "Infinity" if real > 0 else "-Infinity"
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, Sequence):
            return self._inside(value, path, self._array)
        if isinstance(value, Mapping):
            return self._inside(value, path, self._map)
        self.note("type")
        return self._text(_describe(value))

    def _bytes(self, value: bytes) -> bytes:
        data = b"".join((value,))
        if len(data) > self._text_bytes:
            self.note("too_long")
            data = data[: self._text_bytes - len(_CUT_BYTES)] + _CUT_BYTES
        self.size += len(data)
        return data

    def _inside(self, value: Any, path: tuple[int, ...], take: Callable[..., Any]) -> Any:
        if id(value) in path:
            self.note("cycle")
            return "<cycle>"
        if len(path) >= MAX_DEPTH:
            self.note("too_deep")
            return "<too deep>"
        return take(value, (*path, id(value)))

    def _array(self, value: Any, path: tuple[int, ...]) -> list[Any]:
        taken: list[Any] = []
        for element in value:
            if len(taken) == MAX_ELEMENTS or self.full:
                self.note("too_long")
                break
            taken.append(self.value(element, path))
        return taken

    def _map(self, value: Any, path: tuple[int, ...]) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        for key, element in value.items():
            if len(taken) == MAX_ELEMENTS or self.full:
                self.note("too_long")
                break
            taken[self._key(key, taken)] = self.value(element, path)
        return taken

    def _key(self, key: Any, taken: Mapping[str, Any]) -> str:
        self.size += 16
        if key is None:
            self.note("type")
            key = "None"
        name = self.text(key)
        while name in taken:  # two keys became one
            name = f"{name}#{len(taken)}"
        return name

    def attributes(self, attributes: Any) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        if attributes is None:
            return taken
        try:
            for key, value in attributes.items():
                if self.full:
                    self.note("too_long", max(1, len(attributes) - len(taken)))
                    break
                self._stop = min(self.size + self._share_bytes, self._whole_bytes)
                taken[self._key(key, taken)] = self.value(value)
                self._stop = self._whole_bytes
        except Exception:  # no mapping, or one that changes meanwhile
            self.note("type")
        self._stop = self._whole_bytes
        return taken

    def number(self, value: Any, low: int, high: int) -> int:
        """A field that is a whole number; an absent one is 0, as the stock encoder has it."""
        if value is None:
            return 0
        try:
            number = operator.index(value)
        except Exception:
            self.note("type")
            try:
                number = int(value)
            except Exception:
                return 0
        if low <= number <= high:
            return int(number)
        self.note("out_of_range")
        return low if number < low else high

    def time(self, value: Any) -> int:
        """Nanoseconds since the epoch."""
        return self.number(value, 0, _MAX_UINT64)

    def id(self, value: Any, bits: int) -> int:
        try:
            number = operator.index(value)
        except Exception:
            self.note("type")
            return 0
        if not 0 <= number < 1 << bits:
            self.note("out_of_range")
        return int(number) & ((1 << bits) - 1)

    def double(self, value: Any) -> float:
        try:
            return float.__float__(value)
        except TypeError:
            pass
        try:
            return _nearest(int.__int__(value))
        except TypeError:
            self.note("type")
        try:
            return float(value)
        except Exception:
            return nan

    def measure(self, value: Any) -> int | float:
        """The value of a data point or an exemplar."""
        try:
            number = int.__int__(value)
        except TypeError:
            return self.double(value)
        if number in _INT64:
            return number
        self.note("out_of_range")
        return _nearest(number)

    def choice(self, value: Any, choices: type[_E], default: _E) -> _E:
        if type(value) is choices:
            return value
        self.note("type")
        try:
            return choices(value)
        except Exception:
            return default

    def flag(self, value: Any) -> bool:
        try:
            return bool(value)
        except Exception:
            self.note("type")
            return False

    def context(self, context: Any) -> _Context:
        state = self.read(context, "trace_state")
        return _Context(
            trace_id=self.id(self.read(context, "trace_id"), 128),
            span_id=self.id(self.read(context, "span_id"), 64),
            is_remote=self.flag(self.read(context, "is_remote")),
            trace_state={k: self.text(v) for k, v in self.attributes(state).items()},
        )


def _nearest(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return sys.float_info.max if number > 0 else -sys.float_info.max


def _describe(value: Any) -> str:
    """A short text for any object: its str(), or its class where that is of no use."""
    kind: Any = type(value)
    with suppress(Exception):
        plain = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
        big = (kind is int and value.bit_length() > 3 * _SHORT_BYTES) or (
            isinstance(value, (set, frozenset)) and len(value) > MAX_ELEMENTS
        )
        if not plain and not big:
            text = str(value)
            if len(text) <= _SHORT_BYTES:
                return str.__str__(text)
    try:
        return f"<{kind.__name__[:_SHORT_BYTES]}>"
    except Exception:
        return "<object>"


def _mend_span(span: Any, mender: _Mender) -> _Span:
    read = mender.read
    name = mender.text(read(span, "name"))
    context = mender.context(_context_of(span, mender))
    parent = read(span, "parent")
    status = read(span, "status")
    attributes = mender.attributes(read(span, "attributes"))
    return _Span(
        name=name,
        context=context,
        parent=None if parent is None else mender.context(parent),
        kind=mender.choice(read(span, "kind"), SpanKind, SpanKind.INTERNAL),
        start_time=mender.time(read(span, "start_time")),
        end_time=mender.time(read(span, "end_time")),
        attributes=attributes,
        status=None
        if status is None
        else _Status(
            mender.choice(read(status, "status_code"), StatusCode, StatusCode.UNSET),
            mender.text(read(status, "description")),
        ),
        events=_fitting(read(span, "events"), _mend_event, mender),
        links=_fitting(read(span, "links"), _mend_link, mender),
        dropped_attributes=mender.number(read(span, "dropped_attributes"), 0, _MAX_UINT32),
        dropped_events=mender.number(read(span, "dropped_events"), 0, _MAX_UINT32),
        dropped_links=mender.number(read(span, "dropped_links"), 0, _MAX_UINT32),
        resource=_NO_RESOURCE,
        instrumentation_scope=None,
    )


def _context_of(span: Any, mender: _Mender) -> Any:
    try:
        return span.get_span_context()
    except Exception:
        mender.note("type")
        return None


def _fitting(values: Any, mend: Callable[[Any, _Mender], Any], mender: _Mender) -> list[Any]:
    taken: list[Any] = []
    for value in mender.each(values):
        if mender.full:
            mender.note("too_long")
        else:
            mender.size += 64
            taken.append(mend(value, mender))
    return taken


def _mend_event(event: Any, mender: _Mender) -> _Event:
    read = mender.read
    return _Event(
        name=mender.text(read(event, "name")),
        timestamp=mender.time(read(event, "timestamp")),
        attributes=mender.attributes(read(event, "attributes")),
        dropped_attributes=mender.number(read(event, "dropped_attributes"), 0, _MAX_UINT32),
    )


def _mend_link(link: Any, mender: _Mender) -> _Link:
    read = mender.read
    return _Link(
        context=mender.context(read(link, "context")),
        attributes=mender.attributes(read(link, "attributes")),
        dropped_attributes=mender.number(read(link, "dropped_attributes"), 0, _MAX_UINT32),
    )


def _mend_log(readable: Any, mender: _Mender) -> _Log:
    read = mender.read
    record = read(readable, "log_record")
    severity = read(record, "severity_number")
    return _Log(
        timestamp=mender.time(read(record, "timestamp")),
        observed_timestamp=mender.time(read(record, "observed_timestamp")),
        trace_id=mender.id(read(record, "trace_id"), 128),
        span_id=mender.id(read(record, "span_id"), 64),
        trace_flags=mender.number(read(record, "trace_flags"), 0, _MAX_UINT32),
        severity_number=None
        if severity is None
        else mender.choice(severity, SeverityNumber, SeverityNumber.UNSPECIFIED),
        severity_text=mender.text(read(record, "severity_text")),
        event_name=mender.text(read(record, "event_name")),
        body=mender.value(read(record, "body")),
        attributes=mender.attributes(read(record, "attributes")),
        dropped_attributes=mender.number(read(readable, "dropped_attributes"), 0, _MAX_UINT32),
        resource=_NO_RESOURCE,
        instrumentation_scope=None,
    )


# --- resources and scopes -----------------------------------------------------------------------


class _Sources:
    """The resources and scopes of one request, looked at once each."""

    def __init__(self) -> None:
        self.replaced: dict[str, int] = {}
        self._resources: dict[int, tuple[Any, _Resource]] = {}
        self._equal: dict[Resource, _Resource] = {}
        self._scopes: dict[int, tuple[Any, Any]] = {}

    def resource(self, resource: Any) -> _Resource:
        known = self._resources.get(id(resource))
        if known is None:
            # With the object itself, or another could get its id.
            known = self._resources[id(resource)] = (resource, self._resource(resource))
        return known[1]

    def _resource(self, resource: Any) -> _Resource:
        try:
            attributes = _copy(resource.attributes)
            _check(_weigh(attributes) + _weigh_text(resource.schema_url))
            made = _Resource(attributes, resource.schema_url)
            return self._equal.setdefault(resource, made)
        except Exception:
            mender = _Mender()
            made = _Resource(
                mender.attributes(mender.read(resource, "attributes")),
                mender.text(mender.read(resource, "schema_url")),
            )
            _add(self.replaced, mender.replaced)
            return made

    def scope(self, scope: Any) -> Any:
        if scope is None:
            return None
        known = self._scopes.get(id(scope))
        if known is None:
            known = self._scopes[id(scope)] = (scope, self._scope(scope))
        return known[1]

    def _scope(self, scope: Any) -> Any:
        with suppress(Exception):
            if type(scope) is InstrumentationScope:
                _check(
                    _weigh(_copy(scope.attributes))
                    + _weigh_text(scope.name)
                    + _weigh_text(scope.version)
                    + _weigh_text(scope.schema_url)
                )
                return scope
        mender = _Mender()
        made = _Scope(
            mender.text(mender.read(scope, "name")),
            mender.text(mender.read(scope, "version")),
            mender.text(mender.read(scope, "schema_url")),
            mender.attributes(mender.read(scope, "attributes")),
        )
        _add(self.replaced, mender.replaced)
        return made


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, values in more.items():
        total[reason] = total.get(reason, 0) + values


# --- batches of spans and log records ----------------------------------------------------------


def _encode(
    items: Iterable[Any],
    plain: Callable[[Any, _Sources], Any],
    mend: Callable[[Any, _Mender], Any],
    stock: Callable[[Any], Any],
) -> Encoded:
    sources = _Sources()
    replaced: dict[str, int] = {}
    items = list(items)
    ready: list[Any] = []
    for item in items:
        try:
            ready.append(plain(item, sources))
        except Exception:
            ready.append(_mended(item, mend, stock, sources, replaced))
    try:
        payload = _serialize(ready, stock)
        left_out = 0
    except Exception:  # in a field that the quick look leaves to the stock encoder
        replaced.clear()
        ready = [_mended(item, mend, stock, sources, replaced) for item in items]
        payload, left_out = _serialize_each(ready, stock)
    _add(replaced, sources.replaced)
    return Encoded(payload, len(items) - left_out, replaced, left_out)


def _mended(
    item: Any,
    mend: Callable[[Any, _Mender], Any],
    stock: Callable[[Any], Any],
    sources: _Sources,
    replaced: dict[str, int],
) -> Any:
    # First with room for what is small once encoded, then only with what surely fits.
    mender = _Mender(share_bytes=_ROOM_BYTES, whole_bytes=_ROOM_BYTES)
    made = mend(item, mender)
    if mender.full or (
        mender.size > MAX_ITEM_BYTES and len(_serialize([made], stock)) > MAX_ITEM_BYTES
    ):
        mender = _Mender(_SHORT_BYTES, MAX_TEXT_BYTES, MAX_ITEM_BYTES - MAX_TEXT_BYTES)
        made = mend(item, mender)
    if mender.replaced:
        made.attributes[catalog.REPLACED_VALUES.name] = sum(mender.replaced.values())
    _add(replaced, mender.replaced)
    made.resource = sources.resource(mender.read(item, "resource"))
    made.instrumentation_scope = sources.scope(mender.read(item, "instrumentation_scope"))
    return made


_ROOM_BYTES = 4 * MAX_ITEM_BYTES


def _serialize(ready: Any, stock: Callable[[Any], Any]) -> bytes:
    return bytes(stock(ready).SerializeToString())


def _serialize_each(ready: Iterable[Any], stock: Callable[[Any], Any]) -> tuple[bytes, int]:
    """All that can be encoded, and how many can't. Requests behind each other are one request."""
    try:
        return _serialize(ready, stock), 0
    except Exception:
        parts: list[bytes] = []
        left_out = 0
        for item in ready:
            try:
                parts.append(_serialize([item], stock))
            except Exception:
                left_out += 1
        return b"".join(parts), left_out


# --- metrics ------------------------------------------------------------------------------------


def encode_metrics(data: MetricsData) -> Encoded:
    """Never raises. A metric of an unknown kind is left out."""
    gathering = _Gathering(plain=True)
    try:
        return gathering.result(_serialize(gathering.resources(data), _stock_resources))
    except Exception:  # in a number, which the quick look leaves to the stock encoder
        gathering = _Gathering(plain=False)
        ready = gathering.resources(data)
        try:
            return gathering.result(_serialize(ready, _stock_resources))
        except Exception:
            payload, left_out = _serialize_each(list(_each_metric(ready)), _stock_resources)
            gathering.left_out += left_out
            return gathering.result(payload)


def _stock_resources(resources: list[ResourceMetrics]) -> Any:
    return _stock_metrics(MetricsData(resources))


def _each_metric(ready: Iterable[ResourceMetrics]) -> Iterator[ResourceMetrics]:
    for resource in ready:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                only = ScopeMetrics(scope.scope, [metric], "")
                yield ResourceMetrics(resource.resource, [only], "")


class _Gathering:
    """Makes a MetricsData that the stock encoder takes. plain: leave legal metrics as they are."""

    def __init__(self, plain: bool) -> None:
        self.left_out = 0
        self._plain = plain
        self._mender = _Mender()
        self._sources = _Sources()

    def result(self, payload: bytes) -> Encoded:
        replaced = dict(self._mender.replaced)
        _add(replaced, self._sources.replaced)
        return Encoded(payload, count("metrics", payload), replaced, self.left_out)

    def resources(self, data: Any) -> list[ResourceMetrics]:
        mender = self._mender
        made: list[ResourceMetrics] = []
        for group in mender.each(mender.read(data, "resource_metrics")):
            source = self._sources.resource(mender.read(group, "resource"))
            # Its own for each group: of two groups of one resource the stock encoder would
            # keep the second only.
            resource: Any = _Resource(source.attributes, source.schema_url)
            scopes = mender.each(mender.read(group, "scope_metrics"))
            made.append(ResourceMetrics(resource, [self._scope(s) for s in scopes], ""))
        return made

    def _scope(self, group: Any) -> ScopeMetrics:
        mender = self._mender
        source = self._sources.scope(mender.read(group, "scope")) or _Scope()
        scope: Any = _Scope(source.name, source.version, source.schema_url, source.attributes)
        metrics = [self._metric(m) for m in mender.each(mender.read(group, "metrics"))]
        return ScopeMetrics(scope, [m for m in metrics if m is not None], "")

    def _metric(self, metric: Any) -> Metric | None:
        if self._plain:
            with suppress(Exception):
                return _look_at(metric)
        mender = self._mender
        mender.size = 0
        source = mender.read(metric, "data")
        points = list(mender.each(mender.read(source, "data_points", ())))
        data = _mend_data(source, points, mender)
        if data is None:
            self.left_out += max(1, len(points))
            return None
        read = mender.read
        name, description, unit = (read(metric, f) for f in ("name", "description", "unit"))
        return Metric(mender.text(name), mender.text(description), mender.text(unit), data)


_DATA = frozenset((Gauge, Sum, Histogram, ExponentialHistogram))


def _look_at(metric: Any) -> Metric:
    """The metric; _Doubt, or any other exception, if it isn't plain."""
    if type(metric.data) not in _DATA:
        raise _DOUBT
    _check(_weigh_text(metric.name) + _weigh_text(metric.description) + _weigh_text(metric.unit))
    for point in metric.data.data_points:
        size = _weigh(_copy(point.attributes))
        for exemplar in point.exemplars:
            size += _weigh(_copy(exemplar.filtered_attributes))
        _check(size)
    return metric  # type: ignore[no-any-return]


def _mend_data(source: Any, points: list[Any], mender: _Mender) -> Any:
    try:
        kind: Any = next(
            k for k in (Gauge, Histogram, Sum, ExponentialHistogram) if isinstance(source, k)
        )
    except Exception:
        return None
    mend = {
        Gauge: _mend_number,
        Sum: _mend_number,
        Histogram: _mend_histogram,
        ExponentialHistogram: _mend_exponential,
    }[kind]
    made: list[Any] = []
    for point in points:
        mender.size = 0
        made.append(mend(point, mender))
    if kind is Gauge:
        return Gauge(made)
    temporality = mender.choice(
        mender.read(source, "aggregation_temporality"),
        AggregationTemporality,
        AggregationTemporality.CUMULATIVE,
    )
    if kind is Sum:
        return Sum(made, temporality, mender.flag(mender.read(source, "is_monotonic")))
    return kind(made, temporality)


def _mend_number(point: Any, mender: _Mender) -> NumberDataPoint:
    read = mender.read
    return NumberDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        value=mender.measure(read(point, "value")),
        exemplars=_mend_exemplars(point, mender),
    )


def _mend_histogram(point: Any, mender: _Mender) -> HistogramDataPoint:
    read = mender.read
    bounds = [mender.double(b) for b in mender.each(read(point, "explicit_bounds"))]
    return HistogramDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        count=mender.number(read(point, "count"), 0, _MAX_UINT64),
        sum=_perhaps(read(point, "sum"), mender),
        bucket_counts=_mend_counts(read(point, "bucket_counts"), mender),
        explicit_bounds=bounds,
        min=_perhaps(read(point, "min"), mender),
        max=_perhaps(read(point, "max"), mender),
        exemplars=_mend_exemplars(point, mender),
    )


def _mend_exponential(point: Any, mender: _Mender) -> ExponentialHistogramDataPoint:
    read = mender.read
    return ExponentialHistogramDataPoint(
        attributes=mender.attributes(read(point, "attributes")),
        start_time_unix_nano=mender.time(read(point, "start_time_unix_nano")),
        time_unix_nano=mender.time(read(point, "time_unix_nano")),
        count=mender.number(read(point, "count"), 0, _MAX_UINT64),
        sum=_perhaps(read(point, "sum"), mender),
        scale=mender.number(read(point, "scale"), *_INT32),
        zero_count=mender.number(read(point, "zero_count"), 0, _MAX_UINT64),
        positive=_mend_buckets(read(point, "positive"), mender),
        negative=_mend_buckets(read(point, "negative"), mender),
        flags=mender.number(read(point, "flags"), 0, _MAX_UINT32),
        min=_perhaps(read(point, "min"), mender),
        max=_perhaps(read(point, "max"), mender),
        exemplars=_mend_exemplars(point, mender),
    )


_INT32 = (-(2**31), 2**31 - 1)


def _mend_buckets(buckets: Any, mender: _Mender) -> Buckets:
    return Buckets(
        mender.number(mender.read(buckets, "offset"), *_INT32),
        _mend_counts(mender.read(buckets, "bucket_counts"), mender),
    )


def _mend_counts(counts: Any, mender: _Mender) -> list[int]:
    return [mender.number(c, 0, _MAX_UINT64) for c in mender.each(counts)]


def _perhaps(value: Any, mender: _Mender) -> Any:
    return None if value is None else mender.double(value)


def _mend_exemplars(point: Any, mender: _Mender) -> list[Exemplar]:
    read = mender.read
    made: list[Exemplar] = []
    for exemplar in mender.each(read(point, "exemplars")):
        span_id, trace_id = read(exemplar, "span_id"), read(exemplar, "trace_id")
        made.append(
            Exemplar(
                mender.attributes(read(exemplar, "filtered_attributes")),
                mender.measure(read(exemplar, "value")),
                mender.time(read(exemplar, "time_unix_nano")),
                None if span_id is None else mender.id(span_id, 64),
                None if trace_id is None else mender.id(trace_id, 128),
            )
        )
    return made
