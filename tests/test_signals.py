"""Signals: counting exactly, saying a fault once a minute, and instruments as declared."""

from __future__ import annotations

import gc
import logging
import sys
import threading

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from pbmon import catalog, signals
from pbmon.signals import MAX_SERIES, Counts, guard

THREADS = 8
ADDS = 100_000


class Meters:
    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            [self.reader], resource=Resource.get_empty(), shutdown_on_exit=False
        )
        self.meter = self.provider.get_meter("test")

    def read(self):
        """Metric → attributes → point."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: {
                tuple(sorted(point.attributes.items())): point for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def meters():
    return Meters()


@pytest.fixture
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def now(monkeypatch):
    """signals' clock, in seconds, to be set by the test."""
    clock = [1000.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(signals, "_last_told", {})
    return clock


@pytest.fixture
def quiet(monkeypatch):
    """Our faults are told, as in production, and not raised."""
    monkeypatch.setattr(signals, "reraise", False)


def run_together(workers):
    threads = [threading.Thread(target=worker) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- counting ---


def test_threads_lose_no_count_while_others_read(meters, quick_switches):
    counts = Counts(catalog.SLOW_REQUESTS, meters.meter)
    key = (("http.route", "/x"),)
    done = threading.Event()
    seen = {0: [], 1: []}

    def add():
        up = counts.cell(key).up
        for _ in range(ADDS):
            up()

    def read(values):
        while not done.is_set():
            values += [observation.value for observation in counts._observe()]

    readers = [threading.Thread(target=read, args=(seen[n],)) for n in seen]
    for reader in readers:
        reader.start()
    run_together([add] * THREADS)
    done.set()
    for reader in readers:
        reader.join()
    assert meters.read()["pbmon.http.server.slow_requests"][key].value == THREADS * ADDS
    for values in seen.values():  # a counter never falls, whoever else reads
        assert values == sorted(values)
        assert values[-1] <= THREADS * ADDS


def test_ups_and_downs_come_back_to_zero_and_never_pass_below(meters, quick_switches):
    counts = Counts(catalog.ACTIVE_REQUESTS, meters.meter)
    cell = counts.cell(())
    done = threading.Event()
    seen = []

    def add():
        for _ in range(ADDS // 10):
            cell.up()
            cell.down()

    def read():
        while not done.is_set():
            seen.append(cell.value)

    reader = threading.Thread(target=read)
    reader.start()
    run_together([add] * THREADS)
    done.set()
    reader.join()
    assert cell.value == 0
    assert min(seen) >= 0


def test_reading_changes_nothing(meters):
    counts = Counts(catalog.ACTIVE_REQUESTS, meters.meter)
    cell = counts.cell(())
    cell.up()
    cell.up()
    cell.down()
    assert [cell.value for _ in range(5)] == [1] * 5


def test_a_cell_exists_at_zero_before_it_is_counted(meters):
    Counts(catalog.SLOW_REQUESTS, meters.meter).cell((("http.route", "/x"),))
    ((_, point),) = meters.read()["pbmon.http.server.slow_requests"].items()
    assert point.value == 0


def test_series_beyond_the_cap_are_counted_in_one(meters):
    counts = Counts(catalog.SLOW_REQUESTS, meters.meter)
    for n in range(MAX_SERIES + 500):
        counts.cell((("http.route", f"/{n}"),)).up()
    counts.cell((("http.route", "/0"),)).up()
    points = meters.read()["pbmon.http.server.slow_requests"]
    assert len(points) == MAX_SERIES == 2000
    assert points[("otel.metric.overflow", True),].value == 501
    assert points[("http.route", "/0"),].value == 2
    assert sum(point.value for point in points.values()) == MAX_SERIES + 501


def test_new_series_from_many_threads_are_each_made_once(meters, quick_switches):
    counts = Counts(catalog.SLOW_REQUESTS, meters.meter)

    def add():
        for n in range(500):
            counts.cell((("http.route", f"/{n}"),)).up()

    def read():
        for _ in range(200):
            list(counts._observe())

    run_together([add] * THREADS + [read])
    points = meters.read()["pbmon.http.server.slow_requests"]
    assert {point.value for point in points.values()} == {THREADS}
    assert len(points) == 500


def test_a_finite_set_is_there_at_zero_from_the_start(meters):
    counts = Counts(catalog.REFUSED_MEASUREMENTS, meters.meter)
    points = meters.read()["pbmon.refused_measurements"]
    assert {key: point.value for key, point in points.items()} == {
        (("pbmon.reason", reason),): 0
        for reason in ("type", "not_finite", "negative", "out_of_range", "attributes")
    }
    counts.cell((("pbmon.reason", "type"),)).up()
    assert len(meters.read()["pbmon.refused_measurements"]) == 5


# --- after a fork ---


def test_forget_starts_every_cell_at_zero_and_keeps_what_was_bound_counting(meters):
    slow = Counts(catalog.SLOW_REQUESTS, meters.meter)
    active = Counts(catalog.ACTIVE_REQUESTS, meters.meter)
    slow_up, open_cell = slow.cell(()).up, active.cell(())
    down = open_cell.down
    for _ in range(5):
        slow_up()
        open_cell.up()
    down()
    signals.forget()
    assert (slow.cell(()).value, open_cell.value) == (0, 0)
    slow_up()
    open_cell.up()
    open_cell.up()
    down()
    assert (slow.cell(()).value, open_cell.value) == (1, 1)
    signals.forget()  # a child's child
    assert (slow.cell(()).value, open_cell.value) == (0, 0)


def test_forget_is_right_when_a_thread_was_just_reading(meters):
    cell = Counts(catalog.ACTIVE_REQUESTS, meters.meter).cell(())
    cell.up()
    cell.down()  # a read steps down first; its step up is not in the child
    cell.down()
    signals.forget()
    assert cell.value == 0
    cell.up()
    assert cell.value == 1


def test_forget_renews_the_locks_that_other_threads_held(meters):
    counts = Counts(catalog.SLOW_REQUESTS, meters.meter)
    held, let_go = threading.Event(), threading.Event()

    def hold(*locks):
        for lock in locks:
            lock.acquire()
        held.set()
        let_go.wait()

    holder = threading.Thread(target=hold, args=(counts._lock, signals._reading), daemon=True)
    holder.start()
    held.wait()
    signals.forget()
    counts.cell((("http.route", "/new"),)).up()
    assert meters.read()["pbmon.http.server.slow_requests"][("http.route", "/new"),].value == 1
    let_go.set()
    holder.join()


def test_a_part_that_is_gone_is_not_asked_to_forget():
    class Part:
        asked = 0

        def forget(self):
            Part.asked += 1

    kept, gone = Part(), Part()
    signals.enlist(kept)
    signals.enlist(gone)
    del gone
    gc.collect()
    signals.forget()
    assert Part.asked == 1


def test_a_part_that_fails_to_forget_does_not_keep_the_others_from_it(quiet, now, caplog):
    class Failing:
        def forget(self):
            raise RuntimeError("broken")

    class Part(Failing):
        asked = False

        def forget(self):
            self.asked = True

    parts = [Part(), Failing(), Part()]
    for part in parts:
        signals.enlist(part)
    signals.forget()
    assert parts[0].asked
    assert parts[2].asked
    (message,) = caplog.messages
    assert message.startswith("pbmon: forgetting Failing failed with RuntimeError; ")


# --- instruments ---


@pytest.mark.parametrize(
    ("metric", "monotonic"),
    [
        (catalog.SLOW_REQUESTS, True),
        (catalog.ACTIVE_REQUESTS, False),
        (catalog.BUDGET_THRESHOLD, None),
    ],
)
def test_observe_makes_the_declared_instrument(meters, metric, monotonic):
    signals.observe(metric, lambda: [Observation(3, {"a": "b"})], meter=meters.meter)
    data = meters.reader.get_metrics_data()
    (made,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert (made.name, made.unit, made.description) == (metric.name, metric.unit, metric.meaning)
    assert getattr(made.data, "is_monotonic", None) is monotonic
    assert made.data.data_points[0].value == 3


def test_histogram_has_the_declared_buckets_and_the_extra_ones(meters):
    made = signals.histogram(
        catalog.QUERY_DURATION, extra_buckets=[0.08, 0.1, 0.08], meter=meters.meter
    )
    made.record(0.08)
    (point,) = meters.read()["db.client.operation.duration"].values()
    assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.08, 0.1, 0.5, 1, 5, 10)
    assert point.bucket_counts[4] == 1  # a bound belongs to its bucket


def test_a_failing_read_leaves_its_series_out_and_the_others_in(meters, quiet, now, caplog):
    def fail():
        yield Observation(1)
        raise RuntimeError("secret")

    signals.observe(catalog.SLOW_REQUESTS, fail, meter=meters.meter)
    signals.observe(catalog.ABORTED_REQUESTS, lambda: [Observation(2)], meter=meters.meter)
    assert set(meters.read()) == {"pbmon.http.server.aborted_requests"}
    assert "reading pbmon.http.server.slow_requests failed with RuntimeError" in caplog.text


def test_key_is_sorted():
    assert signals.key({"b": 1, "a": 2}) == (("a", 2), ("b", 1))


# --- faults ---


def test_tell_speaks_once_a_minute_for_each_key(now, caplog):
    for second in (0, 1, 59.9, 60, 119, 120):
        now[0] = 1000.0 + second
        signals.tell("a", "told at %s", second)
    signals.tell("b", "another")
    assert [r.getMessage() for r in caplog.records] == [
        "told at 0",
        "told at 60",
        "told at 120",
        "another",
    ]
    assert {(r.name, r.levelno) for r in caplog.records} == {("pbmon.internal", logging.WARNING)}


def test_tell_speaks_on_a_machine_that_has_just_started(now, caplog):
    now[0] = 0.0
    signals.tell("a", "first")
    assert caplog.messages == ["first"]


def test_guard_swallows_our_fault_and_says_so_once_a_minute(quiet, now, caplog):
    for _ in range(3):
        with guard("request hook"):
            raise KeyError("x")
    with guard("request hook"):
        raise ValueError("another kind is told too")
    assert caplog.messages == [
        f"pbmon: request hook failed with {name}; the application is not affected. "
        "Please report it."
        for name in ("KeyError", "ValueError")
    ]
    assert all(record.exc_info for record in caplog.records)


def test_guard_lets_what_is_no_fault_of_ours_through(quiet):
    for stop in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(stop), guard("x"):
            raise stop


def test_reraise_shows_the_fault_itself():
    error = KeyError("x")
    with pytest.raises(KeyError) as caught, guard("x"):
        raise error
    assert caught.value is error
