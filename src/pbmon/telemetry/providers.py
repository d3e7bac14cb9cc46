"""The OpenTelemetry providers of this process, and the end of their life.

A provider that the application set before is kept and the hooks work on it; what it exports is
then the application's business.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes import service_attributes, telemetry_attributes

from pbmon import catalog, signals
from pbmon.settings import Settings
from pbmon.telemetry import exporters, sampling
from pbmon.telemetry.exporters import MetricDelivery, SpanDelivery

_GRACE_S = 0.5
_POLL_S = 0.02


def resource(settings: Settings) -> Resource:
    """What everything this process emits says about it.

    service.instance.id is the SDK's: fresh in every process, renewed after a fork, and the
    user's own where OTEL_RESOURCE_ATTRIBUTES sets one.
    """
    return Resource.create(_attributes(settings))


def service_name(settings: Settings) -> str:
    """The name in force, which OTEL_RESOURCE_ATTRIBUTES may have given."""
    return str(resource(settings).attributes[service_attributes.SERVICE_NAME])


def _attributes(settings: Settings) -> Mapping[str, str]:
    attributes = {
        telemetry_attributes.TELEMETRY_DISTRO_NAME: "pbmon",
        telemetry_attributes.TELEMETRY_DISTRO_VERSION: catalog.VERSION,
    }
    if settings.service_name is not None:
        attributes[service_attributes.SERVICE_NAME] = settings.service_name
    return attributes


class Providers:
    """Tracer and meter provider, with the exporters behind them."""

    def __init__(self, settings: Settings) -> None:
        self._deliveries: list[Any] = []
        self._own: list[Any] = []
        self._kept: list[Any] = []
        self._gave_up = False
        self.kept: list[str] = []
        """What the application had set; it is flushed, and never shut down by us."""
        self._closed = False
        described = resource(settings)
        self._start_traces(settings, described)
        self._start_metrics(settings, described)

    def _start_traces(self, settings: Settings, described: Resource) -> None:
        if _is_set(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            self._keep("tracer provider", trace.get_tracer_provider())
            return
        provider = TracerProvider(
            resource=described, sampler=sampling.from_environment(), shutdown_on_exit=False
        )
        for name in exporters.names("traces"):
            delivery = SpanDelivery(name, settings)
            self._deliveries.append(delivery.delivery)
            provider.add_span_processor(BatchSpanProcessor(delivery))
        trace.set_tracer_provider(provider)
        self._own.append(provider)

    def _start_metrics(self, settings: Settings, described: Resource) -> None:
        from opentelemetry.metrics._internal import _ProxyMeterProvider

        if _is_set(metrics.get_meter_provider(), _ProxyMeterProvider):
            self._keep("meter provider", metrics.get_meter_provider())
            return
        readers: list[MetricReader] = []
        for name in exporters.names("metrics"):
            with signals.guard(f"metrics exporter {name}"):
                try:
                    delivery = MetricDelivery(name, settings)
                except exporters.ExporterError as error:
                    signals.tell("exporter:metrics", "pbmon: %s", error)
                    continue
                self._deliveries.append(delivery.delivery)
                readers.append(PeriodicExportingMetricReader(delivery))
        provider = MeterProvider(metric_readers=readers, resource=described, shutdown_on_exit=False)
        metrics.set_meter_provider(provider)
        self._own.append(provider)

    def _keep(self, what: str, provider: Any) -> None:
        self.kept.append(what)
        if hasattr(provider, "force_flush"):
            self._kept.append(provider)

    def apply(self, settings: Settings) -> None:
        """Settings made in code after the launcher: name and endpoint for all that follows."""
        update = Resource(dict(_attributes(settings)))
        for provider in self._own:
            provider._update_resource(update)  # noqa: SLF001 - the SDK's own way after a fork
        for delivery in self._deliveries:
            delivery.apply(settings)

    def flush(self, timeout_s: float) -> bool:
        """Send everything now. True if all of it was handed over within the time."""
        providers = (*self._own, *self._kept)
        return self._hand_over(timeout_s, [_flusher(p, timeout_s) for p in providers])

    def shutdown(self, timeout_s: float) -> bool:
        """Flush, then stop; one deadline over all signals.

        After a flush that got nowhere, as at a server's shutdown, it is not waited for again.
        """
        if self._closed:
            return True
        self._closed = True
        if self._gave_up:
            timeout_s = min(timeout_s, _GRACE_S)
        flushers = [_flusher(p, timeout_s) for p in self._kept]
        return self._hand_over(timeout_s, [*flushers, *(p.shutdown for p in self._own)])

    def _hand_over(self, timeout_s: float, tasks: list[Callable[[], Any]]) -> bool:
        # The SDK's processors say that they called the exporter, not that it succeeded.
        before = self._failures()
        done = _within(timeout_s, tasks, self._is_hopeless)
        self._gave_up = not done
        if not done:
            for delivery in self._deliveries:
                if delivery.hopeless.is_set():
                    delivery.tell()
        return done and self._failures() == before

    def _is_hopeless(self) -> bool:
        return any(delivery.hopeless.is_set() for delivery in self._deliveries)

    def _failures(self) -> int:
        return sum(delivery.failures for delivery in self._deliveries)


def _is_set(provider: object, proxy: type) -> bool:
    return not isinstance(provider, proxy)


def _flusher(provider: Any, timeout_s: float) -> Callable[[], Any]:
    return lambda: provider.force_flush(int(timeout_s * 1000))


def _within(
    timeout_s: float,
    tasks: list[Callable[[], Any]],
    hopeless: Callable[[], bool] = lambda: False,
) -> bool:
    """Run the tasks side by side and wait for them until the deadline, never longer.

    hopeless: from then on only _GRACE_S more, for what goes somewhere else.

    Daemon threads: the stock exporters may sleep through a shutdown while they retry.
    """
    done: list[bool] = []

    def run(task: Callable[[], Any]) -> None:
        with signals.guard("flush"):
            done.append(task() is not False)

    deadline = time.monotonic() + timeout_s
    threads: list[threading.Thread] = []
    for task in tasks:
        thread = threading.Thread(target=run, args=(task,), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # Python 3.12 starts none once the interpreter is exiting
            run(task)
        else:
            threads.append(thread)
    given_up = False
    while any(t.is_alive() for t in threads) and (left_s := deadline - time.monotonic()) > 0:
        if not given_up and hopeless():
            given_up, deadline = True, min(deadline, time.monotonic() + _GRACE_S)
        for thread in threads:
            thread.join(min(left_s, _POLL_S))
    return len(done) == len(tasks) and all(done)


def disabled() -> bool:
    """OTEL_SDK_DISABLED=true: nothing is to be made or sent."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
