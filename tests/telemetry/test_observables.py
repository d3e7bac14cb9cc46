"""Callbacks of the application: asked for exports only, waited for by nobody else."""

from __future__ import annotations

import threading

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pbmon import signals
from pbmon.telemetry.meters import CheckedMeterProvider
from tests.faults.sink import Sink
from tests.stack.process import wait_until
from tests.telemetry.programs import Program


@pytest.fixture
def sink():
    with Sink() as receiver:
        yield receiver


@pytest.fixture
def provider():
    made = CheckedMeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    yield made
    made.shutdown()


def values(provider, name):
    (reader,) = provider._measurement_consumer._reader_storages
    data = reader.get_metrics_data()
    return [
        point.value
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_what_they_said_last_is_replayed_in_the_thread_that_wants_it(provider):
    asked = []

    def read(_):
        asked.append(threading.current_thread().name)
        return [Observation(len(asked))]

    provider.get_meter("test").create_observable_gauge("seats", [read])
    with provider.observables.replaying():
        assert values(provider, "seats") == []
    provider.observables.start()
    provider.observables.wait(10)
    with provider.observables.replaying():
        assert values(provider, "seats") == [1]
        assert values(provider, "seats") == [1]
        others = []
        thread = threading.Thread(target=lambda: others.extend(values(provider, "seats")))
        thread.start()
        thread.join()
        assert others == [2]  # a reader of the application's own asks as ever
    assert asked == ["pbmon-observe", thread.name]


def test_one_that_fails_is_told_of_and_gives_what_it_had(provider, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})

    def read(_):
        yield Observation(1)
        raise OSError("hunter2")

    meter = provider.get_meter("test")
    meter.create_observable_gauge("bad", [read])
    meter.create_observable_gauge("good", [lambda _: [Observation(2)]])
    provider.observables.start()
    provider.observables.wait(10)
    with provider.observables.replaying():
        assert (values(provider, "bad"), values(provider, "good")) == ([1], [2])
    (record,) = [r for r in caplog.records if r.name == "pbmon.internal"]
    assert record.getMessage() == (
        "pbmon: a callback of bad failed with OSError; what it gave until then counts"
    )


def test_at_the_interpreters_exit_who_was_never_asked_is_asked_at_once(provider, monkeypatch):
    class Thread(threading.Thread):
        def start(self):
            raise RuntimeError("can't create new thread at interpreter shutdown")

    asked = []
    provider.get_meter("test").create_observable_gauge(
        "seats", [lambda _: [Observation(asked.append(1) or len(asked))]]
    )
    monkeypatch.setattr(threading, "Thread", Thread)
    provider.observables.start()
    provider.observables.start()
    with provider.observables.replaying():
        assert values(provider, "seats") == [1]


HANGING = """
from opentelemetry import metrics; import threading; held = threading.Event(); asked = []
def read(_):
    asked.append(1)
    held.wait()
    return [metrics.Observation(5)]

metrics.get_meter('test').create_observable_gauge('slow', [read])
metrics.get_meter('test').create_counter('test.quick').add(3)
"""


def test_one_that_hangs_holds_up_neither_spans_nor_a_flush_nor_the_others(sink):
    with Program(sink, OTEL_METRIC_EXPORT_INTERVAL="200") as program:
        program.do(f"exec({HANGING!r}, globals())")
        wait_until(lambda: program.do("print(len(asked))") == "1", "asked")
        program.work(0, 20)
        wait_until(lambda: len(sink.accepted.spans) == 20, "the spans")
        program.do("assert pbmon.flush(3)")
        assert sink.accepted.total("test.quick") == 3
        assert sink.accepted.total("slow") == 0
        assert program.do("print(len(asked))") == "1"
        program.do("held.set()")
        wait_until(lambda: sink.accepted.total("slow") == 5, "its figure")
        program.end()
