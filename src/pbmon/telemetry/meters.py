"""Meters that no measurement can poison and no attribute can explode.

The SDK's own MeterProvider raises for a value that is no number, keeps one a receiver refuses
(then every later export fails), and has no cap on series. CheckedMeterProvider is that provider
with two changes: measurements are checked where they come in (`measurements`), and series are
capped where the SDK keeps them (`storages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.metrics import CallbackT
from opentelemetry.metrics import Meter as APIMeter
from opentelemetry.sdk.metrics import Meter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.util.types import Attributes

from pbmon import catalog, signals
from pbmon.telemetry import storages
from pbmon.telemetry.measurements import MOST_AS_INT, Refusals, check, watch
from pbmon.telemetry.observables import Observables


class CheckedMeter(Meter):
    """The SDK's Meter; its instruments refuse what they can't count instead of raising."""

    refusals: Refusals
    observables: Observables

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        return check(super().create_counter(name, unit, description), "add", 0, self.refusals)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        made = super().create_up_down_counter(name, unit, description)
        return check(made, "add", -MOST_AS_INT, self.refusals)

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Any:
        made = super().create_histogram(
            name,
            unit,
            description,
            explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory,
        )
        return check(made, "record", 0, self.refusals)

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Any:
        made = super().create_gauge(name, unit, description)
        return check(made, "set", -MOST_AS_INT, self.refusals)

    def create_observable_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = watch(callbacks, name, 0, self.refusals, self.observables)
        return super().create_observable_counter(name, watched, unit, description)

    def create_observable_up_down_counter(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = watch(callbacks, name, -MOST_AS_INT, self.refusals, self.observables)
        return super().create_observable_up_down_counter(name, watched, unit, description)

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Sequence[CallbackT] | None = None,
        unit: str = "",
        description: str = "",
    ) -> Any:
        watched = watch(callbacks, name, -MOST_AS_INT, self.refusals, self.observables)
        return super().create_observable_gauge(name, watched, unit, description)


class CheckedMeterProvider(MeterProvider):
    """The SDK's MeterProvider, with the same arguments.

    Its instruments never raise for a wrong value or wrong attributes: these are refused, counted
    in pbmon.refused_measurements and told of with the remedy. An instrument has at most
    signals.MAX_SERIES series for each reader and view; the last of them, `otel.metric.overflow`,
    is of all that comes after.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The SDK's own meter, which its readers ask for in here, needs no checks.
        self._refusals: Refusals | None = None
        self.observables = Observables()
        super().__init__(*args, **kwargs)
        self._refusals = Refusals(
            super().get_meter("pbmon", catalog.VERSION, schema_url=catalog.SCHEMA_URL)
        )
        with signals.guard("capping metrics"):
            storages.cap(self)

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> APIMeter:
        meter = super().get_meter(name, version, schema_url, attributes)
        if type(meter) is Meter and self._refusals is not None:
            # The SDK makes and keeps its meters itself, of the one class.
            vars(meter).update(refusals=self._refusals, observables=self.observables)
            meter.__class__ = CheckedMeter
        return meter

    def add_metric_reader(self, metric_reader: MetricReader) -> None:
        super().add_metric_reader(metric_reader)
        with signals.guard("capping metrics"):
            storages.cap(self)
