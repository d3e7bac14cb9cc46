"""The lag of event loops, in real loops on a real clock."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import pytest
import uvloop
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from pbmon import catalog
from pbmon.telemetry import loops
from pbmon.telemetry.loops import LoopLag

INTERVAL_S = 0.02


class Measured:
    def __init__(self):
        self.reader = InMemoryMetricReader()
        provider = MeterProvider([self.reader], resource=Resource.get_empty())
        self.lag = LoopLag(provider.get_meter("test"))

    def point(self):
        """The histogram's one data point, None before its first observation."""
        data = self.reader.get_metrics_data()
        if data is None:
            return None
        (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
        assert (metric.name, metric.unit) == ("pbmon.event_loop.lag", "s")
        (point,) = metric.data.data_points
        assert dict(point.attributes) == {}
        assert point.explicit_bounds == catalog.EVENT_LOOP_LAG.buckets
        return point

    @property
    def count(self):
        point = self.point()
        return 0 if point is None else point.count

    def at_least(self, lag_s):
        """Observations above this bucket bound."""
        point = self.point()
        bound = point.explicit_bounds.index(lag_s)
        return sum(point.bucket_counts[bound + 1 :])


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(loops, "INTERVAL_S", INTERVAL_S)
    return Measured()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


async def until(reached):
    end_s = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


def test_a_block_is_one_observation_of_its_length(measured, loop):
    async def main():
        measured.lag.watch()
        await until(lambda: measured.count >= 3)
        before = measured.count, measured.at_least(0.25)
        time.sleep(0.3)
        await until(lambda: measured.count >= before[0] + 3)
        return before[1]

    before = loop.run_until_complete(main())
    assert measured.at_least(0.25) >= before + 1  # a busy machine may add a block of its own
    assert 0.3 - 2 * INTERVAL_S <= measured.point().max < 30
    assert measured.point().min >= 0


def test_one_watcher_for_one_loop_however_often_asked(measured, loop):
    async def main():
        for _ in range(50):
            measured.lag.watch()
        begin_s = time.monotonic()
        await until(lambda: measured.count >= 5)
        return time.monotonic() - begin_s

    passed_s = loop.run_until_complete(main())
    assert measured.count <= passed_s / INTERVAL_S * 1.5 + 1  # uvloop's timers are in whole ms


def test_each_loop_has_its_own(measured):
    started = threading.Barrier(3)

    async def main():
        measured.lag.watch()
        started.wait(20)
        await until(lambda: measured.count >= 4)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait(20)
    assert len(measured.lag._watched) == 2
    for thread in threads:
        thread.join(20)
    assert measured.count >= 4


def test_no_task_and_no_thread(measured, loop):
    async def main():
        threads = threading.active_count()
        measured.lag.watch()
        await until(lambda: measured.count >= 2)
        assert len(asyncio.all_tasks()) == 1
        assert threading.active_count() == threads

    loop.run_until_complete(main())


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_is_kept_after_the_loop(measured, make):
    loop = make()

    async def main():
        measured.lag.watch()
        await until(lambda: measured.count >= 1)

    loop.run_until_complete(main())
    count = measured.count
    gone = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert gone() is None
    assert len(measured.lag._watched) == 0
    assert measured.count == count


def test_outside_of_a_loop_nothing_happens(measured):
    measured.lag.watch()
    assert measured.count == 0
    assert len(measured.lag._watched) == 0
