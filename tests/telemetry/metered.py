"""A checked provider, and what its reader reads."""

from __future__ import annotations

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from pbmon.telemetry.meters import CheckedMeterProvider

REFUSED = "pbmon.refused_measurements"
OVERFLOW = (("otel.metric.overflow", True),)


class Metered:
    """A provider and what its reader reads: metric → attributes → point."""

    def __init__(self, cls=CheckedMeterProvider, views=(), **reader):
        self.reader = InMemoryMetricReader(**reader)
        self.provider = cls(
            [self.reader], resource=Resource.get_empty(), shutdown_on_exit=False, views=views
        )
        self.meter = self.provider.get_meter("test")

    def collect(self):
        return self.reader.get_metrics_data()

    def read(self):
        data = self.collect()
        return {
            metric.name: {
                tuple(sorted(point.attributes.items())): point for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def refused(self):
        return {
            dict(k)["pbmon.reason"]: p.value for k, p in self.read()[REFUSED].items() if p.value
        }

    def aggregations(self):
        """How many the SDK keeps, over all instruments but ours."""
        consumer = self.provider._measurement_consumer
        return sum(
            len(match._attributes_aggregation)
            for storage in consumer._reader_storages.values()
            for instrument, matches in storage._instrument_view_instrument_matches.items()
            for match in matches
            if instrument.name != REFUSED
        )


def values(points):
    return {key: point.value for key, point in points.items()}


def synchronous(meter):
    """Every synchronous instrument's method, with whether it takes numbers below 0."""
    return {
        "counter": (meter.create_counter("counter").add, False),
        "updown": (meter.create_up_down_counter("updown").add, True),
        "histogram": (meter.create_histogram("histogram").record, False),
        "gauge": (meter.create_gauge("gauge").set, True),
    }
