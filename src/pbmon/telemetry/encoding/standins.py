"""What the stock encoders are given to read, in place of the SDK's objects.

A resource and a scope are compared by identity, which spares the SDK's hash of a resource, JSON of
all its attributes, for each item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode


@dataclass(slots=True, eq=False)
class Resource:
    attributes: Mapping[str, Any] = field(default_factory=dict)
    schema_url: str | None = None


@dataclass(slots=True, eq=False)
class Scope:
    name: str | None = None
    version: str | None = None
    schema_url: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    trace_id: int
    span_id: int
    is_remote: bool
    trace_state: Mapping[str, str] | None


@dataclass(slots=True)
class Status:
    status_code: StatusCode
    description: str


@dataclass(slots=True)
class Event:
    name: str
    timestamp: int
    attributes: Mapping[str, Any]
    dropped_attributes: int


@dataclass(slots=True)
class Link:
    context: Context
    attributes: Mapping[str, Any]
    dropped_attributes: int


@dataclass(slots=True)
class Span:
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
    resource: Resource
    instrumentation_scope: Any

    def get_span_context(self) -> Any:
        return self.context


@dataclass(slots=True)
class Log:
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
    resource: Resource
    instrumentation_scope: Any

    @property
    def log_record(self) -> Log:
        return self


NO_RESOURCE = Resource()
