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

from opentelemetry import _logs, metrics, trace
from opentelemetry._logs._internal import ProxyLoggerProvider
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes import (
    deployment_attributes,
    service_attributes,
    telemetry_attributes,
)

from pbmon import catalog, signals
from pbmon.runtime import Reading, active
from pbmon.settings import Settings
from pbmon.telemetry import (
    encoding,
    exporters,
    logs,
    meters,
    pipeline,
    plugins,
    preferences,
    sampling,
    storages,
)
from pbmon.telemetry.accounts import Accounts
from pbmon.telemetry.deadlines import within
from pbmon.telemetry.delivery import Delivery
from pbmon.telemetry.pipeline import Pipeline, interval_s
from pbmon.telemetry.processors import Flush, SpooledLogs, SpooledMetrics, SpooledSpans
from pbmon.telemetry.sampling import CountedSampler
from pbmon.telemetry.shared import Shared

_GRACE_S = 0.5
_END_S = 2.0
_FORGIVEN_S = 10.0
_SHARE_OF_METRICS = 0.3
"""Of a flush's time, for the metrics that say how the rest of it went."""


def resource(settings: Settings) -> Resource:
    """What everything this process emits says about it.

    service.instance.id is the SDK's: fresh in every process, renewed after a fork, and the
    user's own where OTEL_RESOURCE_ATTRIBUTES sets one.
    """
    return Resource.create(_attributes(settings))


def release(settings: Settings) -> str | None:
    """The release in force, likewise."""
    found = resource(settings).attributes.get(service_attributes.SERVICE_VERSION)
    return str(found) if found else None


def environment(settings: Settings) -> str | None:
    """`deployment.environment.name`, likewise."""
    found = resource(settings).attributes.get(deployment_attributes.DEPLOYMENT_ENVIRONMENT_NAME)
    return str(found) if found else None


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
    if settings.release is not None:
        attributes[service_attributes.SERVICE_VERSION] = settings.release
    return attributes


def _encode_spans(spans: Any) -> encoding.Encoded:
    return encoding.encode_spans(spans, clean=active.settings.scrub)


def _encode_logs(records: Any) -> encoding.Encoded:
    return encoding.encode_logs(records, clean=active.settings.scrub)


class Providers:
    """Tracer, meter and logger provider, and the way from them to the receivers."""

    def __init__(self, settings: Settings) -> None:
        self._own: list[Any] = []
        self._kept: list[Any] = []
        self._foreign: list[Any] = []
        self._meters: meters.CheckedMeterProvider | None = None
        self._shared: Shared | None = None
        self._told = False
        """Whether it was said that figures of the store are not exported."""
        self._reader: SpooledMetrics | None = None
        self._log_handler: logs.LogHandler | None = None
        self._gave_up_s = -_FORGIVEN_S
        self._closed = False
        self._look: Callable[[], None] = lambda: None
        self._task = _Task()
        self.kept: list[str] = []
        """What the application had set; it is flushed, and never shut down by us."""
        wanted = self._wanted(settings)
        self.delivery = Delivery(settings, service_name(settings), wanted)
        self.pipeline = Pipeline(self.delivery.queue, self.delivery.books)
        self.pipeline.replace_queue = self.delivery.replace_queue
        self.pipeline.on_spooled = self.delivery.spooled
        self.delivery.on_buried = self.pipeline.export_metrics
        self.pipeline.every_second = self._look_around
        self.pipeline.export_interval_s = interval_s("OTEL_METRIC_EXPORT_INTERVAL", 60_000)
        self.accounts = Accounts(self.pipeline, self.delivery)
        described = resource(settings)
        self._start_traces(settings, described, "traces" in wanted)
        self._start_metrics(settings, described, "metrics" in wanted)
        if settings.logs:
            self._start_logs(settings, described, "logs" in wanted)
        if wanted:
            self.pipeline.start()

    def _wanted(self, settings: Settings) -> dict[str, str]:
        """Signal → the OTLP exporter asked for, where the provider is ours to make."""
        ours = []
        if not _is_set(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            ours.append("traces")
        if not _is_set(metrics.get_meter_provider(), _ProxyMeterProvider):
            ours.append("metrics")
        if settings.logs and not _is_set(_logs.get_logger_provider(), ProxyLoggerProvider):
            ours.append("logs")
        return {signal: name for signal in ours if (name := _otlp(signal))}

    def _others(self, signal: str, settings: Settings, wrap: Callable[[Any], Any]) -> list[Any]:
        """The exporters of a signal that are not OTLP, in what hands over to them. One that can't
        be had or wrapped is told of, and costs itself only."""
        built = []
        for name in exporters.names(signal):
            if name in exporters.OTLP and not exporters.missing(signal, name):
                continue
            with signals.guard(f"{signal} exporter {name}"):
                try:
                    built.append(wrap(exporters.build(signal, name, settings)))
                except exporters.ExporterError as error:
                    signals.tell(f"exporter:{signal}", "pbmon: %s", error)
        return built

    def _start_traces(self, settings: Settings, described: Resource, otlp: bool) -> None:
        if _is_set(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            self._keep("tracer provider", trace.get_tracer_provider())
            return
        provider = TracerProvider(
            resource=described,
            sampler=sampling.from_environment(),
            id_generator=plugins.id_generator(),
            shutdown_on_exit=False,
        )
        if otlp:
            provider.sampler = self.accounts.sampler = CountedSampler(provider.sampler)
            spans = SpooledSpans(
                self.pipeline.intake("traces", _encode_spans), self._flush_of("traces")
            )
            self.accounts.spans = spans
            provider.add_span_processor(spans)
        for processor in self._others("traces", settings, BatchSpanProcessor):
            provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
        self._own.append(provider)

    def _start_metrics(self, settings: Settings, described: Resource, otlp: bool) -> None:
        if _is_set(metrics.get_meter_provider(), _ProxyMeterProvider):
            self._keep("meter provider", metrics.get_meter_provider())
            return
        readers: list[MetricReader] = []
        if otlp:
            self._reader = SpooledMetrics(
                preferences.temporality(os.environ),
                preferences.aggregation(os.environ),
                self._flush_of("metrics"),
            )
            readers.append(self._reader)
        readers += self._others("metrics", settings, _reader)
        provider = meters.CheckedMeterProvider(
            metric_readers=readers, resource=described, shutdown_on_exit=False
        )
        metrics.set_meter_provider(provider)
        self._meters = provider
        self._own.append(provider)
        if self._reader is not None:
            self.pipeline.collect = self._collect
            self._shared = Shared(described)
            self.pipeline.share = self._shared.take
            self.pipeline.observables = provider.observables

    def _collect(self, whole: bool) -> encoding.Encoded | None:
        if self._reader is None or self._meters is None:
            return None
        with self._meters.observables.replaying():
            return self._reader.take(whole=whole)

    def hear(self, reading: Reading | None) -> None:
        """The newest figures of the store, from the one process that leads; None when this one
        does not any more."""
        if self._shared is not None:
            self._shared.hear(reading)
        elif "meter provider" in self.kept and reading and reading.figures and not self._told:
            self._told = True
            signals.tell(
                "shared",
                "pbmon: figures of the store are not exported here, as the application's own meter "
                "provider can't take them under the store's name; run `pbmon worker` beside it, "
                "and set worker to process",
            )

    def _start_logs(self, settings: Settings, described: Resource, otlp: bool) -> None:
        provider: Any = _logs.get_logger_provider()
        if _is_set(provider, ProxyLoggerProvider):
            self._keep("logger provider", provider)
        else:
            provider = LoggerProvider(resource=described, shutdown_on_exit=False)
            if otlp:
                records = SpooledLogs(
                    self.pipeline.intake("logs", _encode_logs), self._flush_of("logs")
                )
                self.accounts.logs = records
                provider.add_log_record_processor(records)
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

            for processor in self._others("logs", settings, BatchLogRecordProcessor):
                provider.add_log_record_processor(processor)
            _logs.set_logger_provider(provider)
            self._own.append(provider)
        self._log_handler = logs.attach(provider)

    def _keep(self, what: str, provider: Any) -> None:
        self.kept.append(what)
        if hasattr(provider, "force_flush"):
            self._kept.append(provider)

    def watch(self, look: Callable[[], None], *, alone: bool) -> None:
        """Have look() called about once a second in the pipeline's thread. alone: also where
        there is nothing else for it to do."""
        self._look = look
        if alone:
            self.pipeline.start()

    def _look_around(self) -> None:
        """About once a second, in the pipeline's thread."""
        self.delivery.look_after_orphans()
        if self._log_handler is not None:
            logs.ensure(self._log_handler)
        with signals.guard("looking at the settings file"):
            self._look()

    def apply(self, settings: Settings) -> None:
        """Settings made in code after the launcher: name and endpoint for all that follows."""
        update = Resource(dict(_attributes(settings)))
        for provider in self._own:
            provider._update_resource(update)  # noqa: SLF001 - the SDK's own way after a fork
        if self._shared is not None:
            self._shared.apply(resource(settings))
        self.delivery.apply(settings)
        if settings.logs and self._log_handler is None:
            if name := self._wanted(settings).get("logs"):
                self.delivery.add("logs", name)
            self._start_logs(settings, resource(settings), bool(name))
            self.pipeline.start()

    def forget(self) -> None:
        """In a forked child: it begins with nothing counted, nothing queued, its own spool."""
        meters, reader = self._meters, self._reader
        for what, forget in (
            ("spool", self.delivery.forget),
            ("queues", lambda: self.pipeline.forget(self.delivery.queue)),
            ("accounts", self.accounts.forget),
            ("series", lambda: storages.forget(meters) if meters is not None else None),
            ("metrics", lambda: reader.forget() if reader is not None else None),
        ):
            with signals.guard(f"forgetting the parent's {what}"):
                forget()
        self._gave_up_s = -_FORGIVEN_S
        self._closed = False
        self.pipeline.start()

    # --- flush and shutdown ---

    def hand_over(self) -> None:
        """Put everything into the spool, in milliseconds; nothing is sent."""
        self.pipeline.drain_all()
        self.pipeline.keep_metrics()

    def flush(self, timeout_s: float) -> bool:
        """Send everything now. True if all of it was handed over within the time."""
        providers = (*self._own, *self._kept)
        return self._flush(timeout_s, [self._flusher(p, timeout_s) for p in providers])

    def finish(self, timeout_s: float) -> bool:
        """flush() at the end of a server or of a process: waits no longer than it is worth."""
        return self.flush(self._patience_s(timeout_s))

    def shutdown(self, timeout_s: float) -> bool:
        """Flush, then stop; one deadline over all signals. What is left waits on the disk.

        After a flush that got nowhere, as at a server's shutdown, it is not waited for again.
        """
        if self._closed:
            return True
        self._closed = True
        timeout_s = self._patience_s(timeout_s)
        if self._log_handler is not None:
            logs.detach(self._log_handler)
        flushers = [self._flusher(p, timeout_s) for p in self._kept]
        done = self._flush(timeout_s, [*flushers, *(p.shutdown for p in self._own)])
        self.pipeline.stop()
        self.hand_over()  # what ended meanwhile
        with signals.guard("leaving the spool"):
            self.delivery.close()
        return done

    def _flush(self, timeout_s: float, others: list[Callable[[], Any]]) -> bool:
        deadline_s = time.monotonic() + timeout_s
        self.pipeline.observables.start()
        self.hand_over()
        early_s = deadline_s - _SHARE_OF_METRICS * timeout_s
        done = self.delivery.flush(("traces", "logs"), early_s)
        # Last, so that these metrics say what became of all the rest.
        left_s = deadline_s - time.monotonic()
        self.pipeline.export_metrics(wait_s=min(left_s / 2, pipeline.OBSERVE_S))
        done &= self.delivery.flush(("metrics",), deadline_s)
        left_s = max(_GRACE_S, deadline_s - time.monotonic())
        done &= within(left_s, others)
        self.hand_over()  # what ended meanwhile: the process may end now
        if not done:
            self._gave_up_s = time.monotonic()
        return done

    def _flusher(self, provider: Any, timeout_s: float) -> Callable[[], Any]:
        """For what else its owner gave a provider to flush; our own parts are none of it."""

        def task() -> Any:
            self._task.is_ours = True
            try:
                return provider.force_flush(int(timeout_s * 1000))
            finally:
                self._task.is_ours = False

        return task

    def _flush_of(self, signal: str) -> Flush:
        """For the application's own call of a provider's force_flush()."""

        def flush(timeout_s: float) -> bool:
            if self._task.is_ours:
                return True
            deadline_s = time.monotonic() + timeout_s
            if signal == "metrics":
                self.pipeline.export_metrics(wait_s=min(timeout_s / 2, pipeline.OBSERVE_S))
            else:
                self.pipeline.drain_all()
            return self.delivery.flush((signal,), deadline_s)

        return flush

    def _patience_s(self, timeout_s: float) -> float:
        """What a process's end may wait for: less where what waits is safe on the disk, and
        hardly anything after a flush that got nowhere, as at its server's end a moment ago."""
        if self.delivery.is_durable:
            timeout_s = min(timeout_s, _END_S)
        gave_up = time.monotonic() - self._gave_up_s < _FORGIVEN_S
        return min(timeout_s, _GRACE_S) if gave_up else timeout_s


def _reader(exporter: Any) -> MetricReader:
    """Some exporters, such as Prometheus's, are readers themselves: they are asked."""
    if isinstance(exporter, MetricReader):
        return exporter
    return PeriodicExportingMetricReader(exporter)


def _otlp(signal: str) -> str:
    """The OTLP exporter asked for; two of them for one signal are one."""
    for name in exporters.names(signal):
        if name in exporters.OTLP and not exporters.missing(signal, name):
            return name
    return ""


def _is_set(provider: object, proxy: type) -> bool:
    return not isinstance(provider, proxy)


class _Task(threading.local):
    """Whether the calling thread is one of our own flush."""

    is_ours = False


def disabled() -> bool:
    """OTEL_SDK_DISABLED=true: nothing is to be made or sent."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
