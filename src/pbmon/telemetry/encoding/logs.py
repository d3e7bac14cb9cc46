"""Log records as OTLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs as _stock
from opentelemetry.sdk._logs import ReadableLogRecord

from pbmon.telemetry.encoding import standins
from pbmon.telemetry.encoding.batches import encode
from pbmon.telemetry.encoding.cleaning import clean_log
from pbmon.telemetry.encoding.limits import UINT32
from pbmon.telemetry.encoding.mending import Mender
from pbmon.telemetry.encoding.payloads import Encoded
from pbmon.telemetry.encoding.sources import Sources
from pbmon.telemetry.encoding.weighing import check_size, copied, weigh, weigh_text, weigh_value


def encode_logs(records: Sequence[ReadableLogRecord], *, clean: bool = False) -> Encoded:
    """Never raises; takes the SDK's ReadWriteLogRecord as well. clean: see `cleaning`."""
    return encode(records, _plain_log, _mend_log, _stock, clean_log if clean else None)


def _plain_log(readable: Any, sources: Sources) -> standins.Log:
    record = readable.log_record
    attributes = copied(record.attributes)
    check_size(
        weigh(attributes)
        + weigh_value(record.body)
        + weigh_text(record.severity_text)
        + weigh_text(record.event_name)
    )
    return standins.Log(
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


def _mend_log(readable: Any, mender: Mender) -> standins.Log:
    read = mender.read
    record = read(readable, "log_record")
    severity = read(record, "severity_number")
    return standins.Log(
        timestamp=mender.time(read(record, "timestamp")),
        observed_timestamp=mender.time(read(record, "observed_timestamp")),
        trace_id=mender.id(read(record, "trace_id"), 128),
        span_id=mender.id(read(record, "span_id"), 64),
        trace_flags=mender.number(read(record, "trace_flags"), UINT32),
        severity_number=None
        if severity is None
        else mender.choice(severity, SeverityNumber, SeverityNumber.UNSPECIFIED),
        severity_text=mender.text(read(record, "severity_text")),
        event_name=mender.text(read(record, "event_name")),
        body=mender.value(read(record, "body")),
        attributes=mender.attributes(read(record, "attributes")),
        dropped_attributes=mender.number(read(readable, "dropped_attributes"), UINT32),
        resource=standins.NO_RESOURCE,
        instrumentation_scope=None,
    )
