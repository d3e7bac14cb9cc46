"""Series are capped, and start again in a forked child."""

from __future__ import annotations

import json
import math
import sys
import threading
import timeit

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from pbmon import signals
from pbmon.signals import MAX_SERIES
from pbmon.telemetry import storages
from pbmon.telemetry.meters import CheckedMeterProvider
from tests.fresh import python
from tests.telemetry.metered import OVERFLOW, Metered, synchronous, values


@pytest.fixture
def metered():
    return Metered()


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


# --- the cap ---


@pytest.mark.parametrize("kind", ["counter", "updown", "histogram"])
def test_memory_is_bounded_and_nothing_is_lost(metered, kind):
    measure = synchronous(metered.meter)[kind][0]
    for n in range(20_000):
        measure(2, {"path": f"/{n}"})
    measure(5, {"path": "/0"})
    points = metered.read()[kind]
    assert len(points) == metered.aggregations() == MAX_SERIES

    def total(point):
        return point.sum if kind == "histogram" else point.value

    assert total(points[OVERFLOW]) == 2 * 18_001
    assert total(points[("path", "/0"),]) == 7
    assert sum(map(total, points.values())) == 2 * 20_000 + 5
    if kind == "histogram":
        assert points[OVERFLOW].count == 18_001


def test_order_of_attributes_and_equal_numbers_do_not_get_past_the_cap(metered):
    counter = metered.meter.create_counter("n")
    counter.add(1, {"a": 1, "b": 2})
    counter.add(1, {"b": 2, "a": 1})
    counter.add(1, {"a": 1.0, "b": 2})
    counter.add(1, {"a": True, "b": 2})
    assert metered.aggregations() == 3


@pytest.mark.parametrize("kind", ["counter", "up_down_counter", "gauge"])
def test_observables_have_the_same_cap(metered, kind):
    def read(_options):
        return [Observation(3, {"n": n}) for n in range(5000)]

    getattr(metered.meter, f"create_observable_{kind}")("o", [read])
    for _ in range(3):
        points = values(metered.read()["o"])
        assert len(points) == metered.aggregations() == MAX_SERIES
        if kind != "gauge":
            assert points[OVERFLOW] == 3 * 3001
            assert sum(points.values()) == 3 * 5000


def test_an_overflow_that_was_counted_before_is_the_same_series(metered):
    counter = metered.meter.create_counter("n")
    counter.add(1, dict(OVERFLOW))
    for n in range(MAX_SERIES + 10):
        counter.add(1, {"n": n})
    counter.add(1, dict(OVERFLOW))
    points = metered.read()["n"]
    # An SDK with a limit of its own takes this series for one of those that it counts.
    assert len(points) in (MAX_SERIES - 1, MAX_SERIES)
    assert points[OVERFLOW].value == MAX_SERIES + 12 - (len(points) - 1)


def test_the_cap_is_of_what_a_view_leaves():
    metered = Metered(views=[View(instrument_name="n", attribute_keys={"kept"})])
    counter = metered.meter.create_counter("n")
    for n in range(5000):
        counter.add(1, {"kept": n % 2, "dropped": n})
    assert values(metered.read()["n"]) == {(("kept", 0),): 2500, (("kept", 1),): 2500}


def test_a_reader_added_later_is_capped(metered):
    counter = metered.meter.create_counter("n")
    later = InMemoryMetricReader()
    metered.provider.add_metric_reader(later)
    for n in range(3000):
        counter.add(1, {"n": n})
    assert metered.aggregations() == 2 * MAX_SERIES


def test_delta_sums_stay_exact_beyond_the_cap():
    from opentelemetry.sdk.metrics import Counter

    metered = Metered(preferred_temporality={Counter: AggregationTemporality.DELTA})
    counter = metered.meter.create_counter("n")
    totals = []
    for turn in range(3):
        for n in range(3000):
            counter.add(1, {"n": n, "turn": turn})
        totals.append(sum(point.value for point in metered.read()["n"].values()))
    assert totals == [3000] * 3


def test_threads_lose_nothing_at_the_cap(metered):
    counter = metered.meter.create_counter("n")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:

        def add(part):
            for n in range(1500):
                counter.add(1, {"n": n, "part": part})

        threads = [threading.Thread(target=add, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    points = metered.read()["n"]
    assert len(points) == MAX_SERIES
    assert sum(point.value for point in points.values()) == 6000


def test_it_costs_little():
    """Against the stock provider; the bound leaves room for a busy machine."""
    attributes = {"http.route": "/users/{id}", "http.request.method": "GET", "status": 200}
    counters = [
        Metered(cls).meter.create_counter("n") for cls in (MeterProvider, CheckedMeterProvider)
    ]
    best = [math.inf, math.inf]
    for _ in range(15):
        for n, counter in enumerate(counters):
            taken = timeit.timeit(lambda c=counter: c.add(1, attributes), number=1000)
            best[n] = min(best[n], taken)
    assert best[1] < best[0] * 1.4


# --- after a fork ---

FORK = """
    import json, os, sys, threading
    from types import SimpleNamespace
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.resources import Resource
    import pbmon
    from pbmon import catalog, runtime, signals, wiring
    from pbmon.settings import resolve
    from pbmon.telemetry import meters, storages
    from pbmon.telemetry.clock import SystemClock
    from opentelemetry import trace
    from tests.telemetry.drive import http

    reader = InMemoryMetricReader()
    provider = meters.CheckedMeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("pbmon")
    runtime.active.settings, _ = resolve({"features": ["export"], "slow_request_s": 1e-9,
        "budgets": [pbmon.Budget("/x", max_s=1e-9)]})
    wiring.install_sinks(runtime.active.settings, trace.get_tracer("x"), meter, SystemClock(),
                        SimpleNamespace(put=lambda payload: ""))
    counter = meter.create_counter("n")
    updown = meter.create_up_down_counter("u")
    histogram = meter.create_histogram("h")
    gauge = meter.create_gauge("g")

    def count(times):
        for _ in range(times):
            counter.add(1, {"a": "b"})
            updown.add(1)
            histogram.record(0.5)
            gauge.set(7)
            counter.add("wrong")
            record = runtime.active.requests.request(http())
            record.route = "/x"
            record.response_started(200, ())
            record.response_completed()
            record.closed()
            pbmon.track_feature("export", "viewed")

    def read():
        return {
            m.name + "|" + ",".join(map(str, sorted(p.attributes.items()))):
                [getattr(p, "count", getattr(p, "value", None)), p.start_time_unix_nano]
            for r in reader.get_metrics_data().resource_metrics
            for s in r.scope_metrics for m in s.metrics for p in m.data.data_points
        }

    def fork(child):
        taken, given = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.write(given, json.dumps(child()).encode() + b"\\n")
            finally:
                os._exit(0)
        os.close(given)
        with os.fdopen(taken) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(text)
"""


def forked(code):
    return json.loads(python(FORK + code).stdout)


def total(read, start):
    return sum(value for key, (value, _) in read.items() if key.startswith(start))


COUNTS = [
    "n|", "u|", "h|", "http.server.request.duration|", "pbmon.http.server.slow_requests|",
    "pbmon.budget.requests|", "pbmon.budget.breaches|", "pbmon.feature.usage|",
    "pbmon.refused_measurements|",
]  # fmt: skip


def test_two_children_count_their_own_and_the_parent_all_of_its_own():
    found = forked("""
    os.register_at_fork(after_in_child=signals.forget)
    os.register_at_fork(after_in_child=lambda: storages.forget(provider))
    count(100)
    before = read()

    def child():
        first = read()
        count(2)
        return [first, read()]

    children = [fork(child), fork(child)]
    count(1)
    print(json.dumps([before, children, read()]))
    """)
    before, children, after = found
    for name in COUNTS:
        assert total(before, name) == 100, name
        for first, last in children:
            assert total(first, name) == 0, name
            assert total(last, name) == 2, name
        assert total(after, name) == 101, name
    for first, _ in children:
        # What was there at 0 is there at 0 again, and nothing of it is from before the fork.
        assert not any(key.startswith("g|") for key in first)
        assert before.keys() - {"g|"} == first.keys()
        ended = max(start or 0 for _, start in before.values())
        assert min(start for _, start in first.values() if start is not None) > ended


def test_locks_held_by_other_threads_do_not_hang_the_child():
    found = forked("""
    count(3)
    consumer = provider._measurement_consumer
    locks = [consumer._lock, signals._reading, reader._lock]
    for storage in consumer._reader_storages.values():
        locks.append(storage._lock)
        for matches in storage._instrument_view_instrument_matches.values():
            for match in matches:
                locks.append(match._lock)
                for aggregation in match._attributes_aggregation.values():
                    locks += [aggregation._lock, aggregation._reservoir._lock]
    for meter_ in provider._meters.values():
        locks += [meter_._instrument_registration_lock, meter_._instrument_ids_lock]
    locks += [part._lock for part in signals._forgetful if hasattr(part, "_lock")]
    locks = list({id(lock): lock for lock in locks}.values())
    held, let_go = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        let_go.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def child():
        signals.forget()
        storages.forget(provider)
        count(2)
        meter.create_counter("new").add(1, {"a": "b"})
        requests = runtime.active.requests
        requests.slow.cell((("http.route", "/new"),)).up()
        return read()

    found = fork(child)
    let_go.set()
    holder.join()
    print(json.dumps(found))
    """)
    assert total(found, "n|") == total(found, "pbmon.feature.usage|") == 2
    assert total(found, "new|") == 1
    assert total(found, "pbmon.http.server.slow_requests|") == 3


def test_the_cap_starts_again_in_the_child():
    """The parent had more sets than it keeps: the child begins without any of them."""
    found = forked("""
    few = meter.create_counter("few")
    few.add(0, {"zero": "initialised"})
    for n in range(3000):
        counter.add(1, {"n": n})

    def child():
        signals.forget()
        storages.forget(provider)
        first = read()
        for n in range(10):
            counter.add(1, {"n": n})
            counter.add(1, {"new": n})
        return [first, read()]

    print(json.dumps(fork(child)))
    """)
    first, last = found
    assert [key for key in first if key.startswith("n|")] == []
    assert first["few|('zero', 'initialised')"][0] == 0
    counted = {key: value for key, (value, _) in last.items() if key.startswith("n|")}
    assert set(counted.values()) == {1}
    assert len(counted) == 20


def test_an_export_under_way_in_the_parent_does_not_hold_up_the_child():
    """Its lock is held for as long as a receiver takes."""
    printed = python("""
    import os, threading
    from opentelemetry.sdk.metrics.export import (
        InMemoryMetricReader, MetricExporter, MetricExportResult, PeriodicExportingMetricReader)
    from pbmon.telemetry import meters, storages

    started, let_go = threading.Event(), threading.Event()
    parent = os.getpid()

    class Exporter(MetricExporter):
        def export(self, data, timeout_millis=0, **kwargs):
            if os.getpid() == parent:
                started.set()
                let_go.wait()
            else:
                os.write(1, b"exported by the child")
            return MetricExportResult.SUCCESS

        def shutdown(self, timeout_millis=0, **kwargs):
            pass

        def force_flush(self, timeout_millis=0):
            return True

    provider = meters.CheckedMeterProvider(
        [PeriodicExportingMetricReader(Exporter(), float("inf"))], shutdown_on_exit=False)
    provider.get_meter("x").create_counter("n").add(1)
    flushing = threading.Thread(target=provider.force_flush)
    flushing.start()
    started.wait()
    if os.fork() == 0:
        storages.forget(provider)
        provider.force_flush()
        os._exit(0)
    os.wait()
    let_go.set()
    flushing.join()
    """).stdout
    assert printed == "exported by the child"


def test_what_is_open_in_the_parent_is_not_open_in_the_child():
    found = forked("""
    open_ = runtime.active.requests.request(http())
    session = runtime.active.requests.websocket(http() | {"type": "websocket", "scheme": "ws"})
    session.route = "/ws"
    session.accepted()

    def child():
        signals.forget()
        storages.forget(provider)
        return [read(), pbmon.websocket_connections()]

    print(json.dumps([read(), fork(child)]))
    """)
    before, (child, connections) = found
    names = ["http.server.active_requests|", "pbmon.websocket.connections|"]
    assert [total(before, name) for name in names] == [1, 1]
    assert [total(child, name) for name in names] == [0, 0]
    assert connections == 0


def test_the_sdks_own_provider_forgets_as_well():
    metered = Metered(MeterProvider)
    counter = metered.meter.create_counter("n")
    counter.add(5, {"a": 1})
    storages.forget(metered.provider)
    assert values(metered.read()["n"]) == {(("a", 1),): 0}
    counter.add(2, {"a": 1})
    assert values(metered.read()["n"]) == {(("a", 1),): 2}
