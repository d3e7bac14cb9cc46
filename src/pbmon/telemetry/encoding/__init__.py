"""Spans, log records and metrics as OTLP bytes, whatever they hold.

The stock encoders refuse a whole batch for one lone surrogate or one integer beyond 64 bits.
Here each item is looked at first (`weighing`). What is plainly legal goes to the stock encoder as
it is; any other item is mended, value by value (`mending`), and the number of its replaced values
stands in its attribute `pbmon.replaced_values`. Data points have no such mark, as one attribute
more would make another series of them. From the texts of spans and log records people's data is
taken out (`cleaning`), unless the settings say otherwise.
"""

from pbmon.telemetry.encoding.limits import (
    CUT,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_ITEM_BYTES,
    MAX_TEXT_BYTES,
)
from pbmon.telemetry.encoding.logs import encode_logs
from pbmon.telemetry.encoding.metrics import encode_metrics
from pbmon.telemetry.encoding.payloads import Encoded, count, split
from pbmon.telemetry.encoding.spans import encode_spans

__all__ = [
    "CUT",
    "MAX_DEPTH",
    "MAX_ELEMENTS",
    "MAX_ITEM_BYTES",
    "MAX_TEXT_BYTES",
    "Encoded",
    "count",
    "encode_logs",
    "encode_metrics",
    "encode_spans",
    "split",
]
