"""What the environment wants of a metric reader: temporality, and how histograms are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION,
    OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE,
)
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from pbmon import signals

_DELTA: Mapping[str, frozenset[type]] = {
    "cumulative": frozenset(),
    "delta": frozenset((Counter, Histogram, ObservableCounter)),
    "lowmemory": frozenset((Counter, Histogram)),
}
_HISTOGRAMS: Mapping[str, Callable[[], Aggregation]] = {
    "explicit_bucket_histogram": ExplicitBucketHistogramAggregation,
    "base2_exponential_bucket_histogram": ExponentialBucketHistogramAggregation,
}
_KINDS: tuple[type, ...] = (
    Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge,
)  # fmt: skip


def temporality(environ: Mapping[str, str]) -> dict[type, AggregationTemporality]:
    """Temporality by instrument, as OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE says.

    A value that is none of cumulative (the default), delta and lowmemory is told of.
    """
    delta = _DELTA[_choice(environ, OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, _DELTA)]
    return {
        kind: AggregationTemporality.DELTA if kind in delta else AggregationTemporality.CUMULATIVE
        for kind in _KINDS
    }


def aggregation(environ: Mapping[str, str]) -> dict[type, Aggregation]:
    """How histograms are kept, as OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION says.

    A value that is neither explicit_bucket_histogram (the default) nor
    base2_exponential_bucket_histogram is told of.
    """
    variable = OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION
    return {Histogram: _HISTOGRAMS[_choice(environ, variable, _HISTOGRAMS)]()}


def _choice(environ: Mapping[str, str], variable: str, choices: Iterable[str]) -> str:
    """The variable's value; the first of the choices where it is unset, empty or wrong."""
    known = list(choices)
    value = environ.get(variable, "").strip().lower()
    if value and value not in known:
        signals.tell(
            variable, "pbmon: %s is none of %s; set it to one of them", variable, ", ".join(known)
        )
    return value if value in known else known[0]
