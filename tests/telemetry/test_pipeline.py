"""The pipeline: nothing is lost between the SDK and the spool, and nobody waits for it."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager

import pytest

from pbmon import signals
from pbmon.spool.books import Books
from pbmon.spool.memory import MemoryQueue
from pbmon.telemetry import pipeline
from pbmon.telemetry.encoding import Encoded
from pbmon.telemetry.pipeline import CHUNK, QUEUE_CAPACITY, Pipeline
from tests.stack.process import wait_until


class Recording(MemoryQueue):
    """A queue that shows what it took, and refuses for a reason."""

    def __init__(self, books):
        super().__init__(books)
        self.appended = []
        self.writers = set()
        self.latest = []
        self.refusal = ""
        self.reported = []
        books.join(self)

    def append(self, channel, payload, items, *, again=False):
        self.writers.add(threading.current_thread().name)
        if self.refusal:
            self._books.add(channel, "refused", items, self.refusal)
            return self.refusal
        self.appended.append((channel, payload, items))
        return super().append(channel, b"", items)

    def keep_latest(self, payload, items):
        self.latest.append((payload, items))
        return self.refusal

    def is_closed(self):
        return False

    def standing_still(self):
        return self._lock

    def rows(self):
        return {"traces": {"accepted": len(self.appended)}}

    def report(self, rows):
        self.reported.append(rows)


def encode(items):
    return Encoded(repr(list(items)).encode(), len(items), {}, 0)


@contextmanager
def running(*, start=True):
    books = Books()
    made = Pipeline(Recording(books), books)
    made.spans = made.intake("traces", encode)
    if start:
        made.start()
    try:
        yield made
    finally:
        made.stop()
        if made._thread is not None:
            made._thread.join(10)
            assert not made._thread.is_alive()


def taken(made):
    """Every item that was appended, in order."""
    return [item for _, payload, _ in made.queue.appended for item in eval(payload)]


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "pbmon.internal"]


# --- the queues ---------------------------------------------------------------------------------


def test_what_is_put_is_spooled_in_order_by_the_thread_and_soon():
    with running() as made:
        for number in range(300):
            made.spans.put(number)
        wait_until(lambda: made.spans.processed == 300, "spooled")
        assert taken(made) == list(range(300))
        assert max(items for _, _, items in made.queue.appended) <= CHUNK
        assert made.queue.writers == {"pbmon-spool"}
        assert not made.awake
        made.spans.put(300)  # and it wakes again
        wait_until(lambda: made.spans.processed == 301, "spooled")


def test_a_burst_is_slowed_and_not_lost():
    """With no thread to help, the caller himself writes down what is too much."""
    with running(start=False) as made:
        most = 0
        for number in range(5 * QUEUE_CAPACITY):
            made.spans.put(number)
            most = max(most, len(made.spans.items))
        assert most == QUEUE_CAPACITY
        assert made.queue.writers == {threading.current_thread().name}
        made.drain_all()
        assert taken(made) == list(range(5 * QUEUE_CAPACITY))
        assert made.spans.processed == 5 * QUEUE_CAPACITY
        assert made.books.total("traces", "accepted") == 5 * QUEUE_CAPACITY


def test_threads_that_put_while_it_is_emptied_lose_nothing(monkeypatch):
    monkeypatch.setattr(pipeline, "_DRAIN_S", 0.0005)
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    each, count = 4000, 4
    try:
        with running() as made:

            def put(first):
                for number in range(first, first + each):
                    made.spans.put(number)
                    if number % 50 == 0:
                        time.sleep(0)

            threads = [threading.Thread(target=put, args=(n * each,)) for n in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Nobody puts any more: only a wake that was lost would leave something.
            wait_until(lambda: made.spans.processed == each * count, "spooled")
            assert sorted(taken(made)) == list(range(each * count))
            assert not made.spans.items
    finally:
        sys.setswitchinterval(before_s)


def test_a_single_item_put_at_any_moment_is_spooled(monkeypatch):
    """The last put of all has nobody to wake the thread for it later."""
    monkeypatch.setattr(pipeline, "_DRAIN_S", 0.0)
    with running() as made:
        for number in range(300):
            made.spans.put(number)
            deadline_s = time.monotonic() + 30
            while made.spans.processed <= number:
                assert time.monotonic() < deadline_s, f"item {number} waits for another"


def test_what_is_put_while_the_other_queue_is_emptied_wakes_anew():
    """Its own queue has had its turn in this round."""
    with running(start=False) as made:

        def encode_while_a_span_ends(items):
            made.spans.put("late")
            return encode(items)

        logs = made.intake("logs", encode_while_a_span_ends)
        made.start()
        logs.put("log")
        wait_until(lambda: made.spans.processed == 1, "spooled")


def test_drain_all_by_two_threads_at_once_takes_each_item_once():
    with running(start=False) as made:
        for number in range(2000):
            made.spans.items.append(number)
        threads = [threading.Thread(target=made.drain_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken(made)) == list(range(2000))


def test_a_request_that_is_too_big_for_a_record_is_cut():
    from tests.telemetry.test_sender import numbers, request

    with running(start=False) as made:
        spans = made.intake("traces", lambda items: Encoded(request(items), len(items), {}, 0))
        size = len(request([1])) + 2
        count = 3 * pipeline._RECORD_BYTES // size
        made._spool("traces", spans.encode(range(count)))
        sizes = [len(payload) for _, payload, _ in made.queue.appended]
        assert len(sizes) == 4
        assert max(sizes) <= pipeline._RECORD_BYTES
        found = [n for _, payload, _ in made.queue.appended for n in numbers(payload)]
        assert found == list(range(count))
        assert sum(items for _, _, items in made.queue.appended) == count


# --- failures -----------------------------------------------------------------------------------


def test_a_refusal_is_told_once_and_counted(caplog):
    with running(start=False) as made:
        made.queue.refusal = "full"
        for _ in range(3):
            made.spans.put(1)
            made.drain_all()
        assert made.books.total("traces", "refused", "full") == 3
        assert made.spans.processed == 3
        made.queue.refusal = ""
        made.spans.put(2)
        made.drain_all()
        assert taken(made) == [2]
    assert told(caplog) == [
        (
            "pbmon: the spool takes no more traces (full); they are refused and counted. Free disk "
            "space, or mend the way to the collector"
        )
    ]


def test_a_fault_of_ours_costs_its_chunk_and_not_the_thread(monkeypatch, caplog):
    monkeypatch.setattr(signals, "reraise", False)

    def encode_or_fail(items):
        if "bad" in items:
            raise KeyError("bad")
        return encode(items)

    with running() as made:
        spans = made.intake("traces", encode_or_fail)
        spans.put("bad")
        wait_until(lambda: not spans.items, "taken out")
        wait_until(lambda: not made.awake, "asleep")
        spans.put("good")
        wait_until(lambda: taken(made) == ["good"], "the next")
        assert made._thread.is_alive()
        # It is missed in no sum: what was put is what was processed.
        wait_until(lambda: spans.processed == 2, "counted")
        assert made.left_out == {"traces": 1}
    (line,) = told(caplog)
    assert line.startswith("pbmon: encoding traces failed with KeyError; the application is not")


def test_what_the_encoder_mends_or_leaves_out_is_counted():
    with running(start=False) as made:
        made._spool("traces", Encoded(b"x", 2, {"too_long": 2, "not_unicode": 1}, 1))
        made._spool("traces", Encoded(b"x", 1, {"too_long": 1}, 0))
        made._spool("traces", Encoded(b"", 0, {}, 3))  # nothing is left of it
        assert made.replaced == {("traces", "too_long"): 3, ("traces", "not_unicode"): 1}
        assert made.left_out == {"traces": 4}
        assert [items for *_, items in made.queue.appended] == [2, 1]


def test_a_failure_in_the_background_work_does_not_end_it(monkeypatch):
    monkeypatch.setattr(signals, "reraise", False)
    monkeypatch.setattr(pipeline, "_SNAPSHOT_S", 0.01)
    calls = []

    def fail():
        calls.append(1)
        raise OSError("disk")

    with running(start=False) as made:
        made.every_second = fail
        made.start()
        wait_until(lambda: len(calls) >= 3, "three times")


# --- metrics ------------------------------------------------------------------------------------


def test_the_newest_metrics_are_kept_often_and_sent_seldom(monkeypatch):
    monkeypatch.setattr(pipeline, "_SNAPSHOT_S", 0.02)
    monkeypatch.setattr(pipeline, "_SNAPSHOT_SHARE", 0)
    calls = []

    def collect(whole):
        calls.append(whole)
        return Encoded(b"%d" % len(calls), 1, {}, 0)

    with running(start=False) as made:
        made._start()
        made.collect = collect
        made.export_interval_s = 0.5
        made.start()
        wait_until(lambda: calls.count(True) == 2, "two exports")
        sent = [payload for channel, payload, _ in made.queue.appended if channel == "metrics"]
        assert len(sent) == 2
        assert calls.count(False) >= 6
        assert len(made.queue.latest) >= 6


@pytest.mark.parametrize(("cost_s", "interval_s"), [(0.0, 0.02), (0.05, 2.5), (0.2, 10.0)])
def test_metrics_that_cost_much_are_kept_less_often(monkeypatch, cost_s, interval_s):
    monkeypatch.setattr(pipeline, "_SNAPSHOT_S", 0.02)

    kept = []

    def collect(whole):
        kept.append(whole)
        until_s = time.thread_time() + cost_s
        while time.thread_time() < until_s:
            pass

    with running(start=False) as made:
        made._start()
        made.collect = collect
        made.start()
        if interval_s > 0.02:
            wait_until(lambda: made._snapshot_s > 0.02, "measured")
            assert interval_s <= made._snapshot_s < 2 * interval_s
        else:
            wait_until(lambda: len(kept) >= 5, "kept again and again")
            assert made._snapshot_s < 1


def test_the_books_are_reported_once_the_metrics_that_tell_them_are_down():
    with running(start=False) as made:

        def collect(whole):
            made.observe_books()
            return Encoded(b"m", 1, {}, 0)

        made.collect = collect
        made.keep_metrics()
        assert len(made.queue.reported) == 1
        made.export_metrics()
        assert len(made.queue.reported) == 2
        made.queue.refusal = "full"
        made.keep_metrics()  # not down, so not told
        assert len(made.queue.reported) == 2
        made.collect = lambda whole: None
        made.export_metrics()
        assert len(made.queue.reported) == 2


# --- the end, and after a fork ------------------------------------------------------------------


def test_what_comes_after_the_end_is_written_down_by_drain_all():
    with running() as made:
        made.stop()
        made._thread.join(10)
        made.spans.put(1)
        made.drain_all()
        assert taken(made) == [1]


def test_a_child_begins_with_nothing():
    with running(start=False) as made:
        made.spans.put(1)
        made._spool("traces", Encoded(b"[]", 1, {"too_long": 1}, 1))
        made.spans.processed = 7
        fresh = Recording(made.books)
        made.forget(fresh)
        assert (len(made.spans.items), made.spans.processed) == (0, 0)
        assert (made.replaced, made.left_out, made.awake) == ({}, {}, False)
        made.start()
        made.spans.put(2)
        wait_until(lambda: fresh.appended, "spooled")
        assert taken(made) == [2]


# --- durations of the environment ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 5.0), ("", 5.0), ("250", 0.25), (" 1e3 ", 1.0), ("0.5", 0.0005)]
)
def test_interval(monkeypatch, value, seconds):
    if value is None:
        monkeypatch.delenv("OTEL_BSP_SCHEDULE_DELAY", raising=False)
    else:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", value)
    assert pipeline.interval_s("OTEL_BSP_SCHEDULE_DELAY", 5000) == seconds


@pytest.mark.parametrize("value", ["0", "-5", "nan", "inf", "-inf", "1e999", "soon", "0x10"])
def test_an_interval_that_is_none_is_one_line(monkeypatch, caplog, value):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", value)
    for _ in range(2):
        assert pipeline.interval_s("OTEL_METRIC_EXPORT_INTERVAL", 60_000) == 60
    assert told(caplog) == [
        (
            f"pbmon: OTEL_METRIC_EXPORT_INTERVAL={value} is no time; set milliseconds, such as "
            "60000, which is used now"
        )
    ]


# --- numbers of the environment -----------------------------------------------------------------


@pytest.mark.parametrize(("value", "number"), [("", 2048), ("7", 7), (" 16384 ", 16384)])
def test_a_whole_number(monkeypatch, value, number):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", value)
    assert pipeline.whole("OTEL_BSP_MAX_QUEUE_SIZE", 2048) == number


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "1e3", "many", "9" * 5000])
def test_what_is_no_whole_number_is_one_line(monkeypatch, caplog, value):
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", value)
    for _ in range(2):
        assert pipeline.max_items("logs") == 512
    assert told(caplog) == [
        (
            f"pbmon: OTEL_BLRP_MAX_EXPORT_BATCH_SIZE={value} is no whole number above 0; set one, "
            "such as 512, which is used now"
        )
    ]


def test_each_signal_is_queued_and_cut_by_its_own_variables(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")
    with running(start=False) as made:
        logs = made.intake("logs", encode)
        assert (logs.capacity, logs.chunk) == (QUEUE_CAPACITY, CHUNK)
        most = 0
        for number in range(100):
            made.spans.put(number)
            most = max(most, len(made.spans.items))
        assert most == 20
        made.drain_all()
        assert taken(made) == list(range(100))
        assert [items for _, _, items in made.queue.appended] == [7] * 14 + [2]
    assert [pipeline.max_items(s) for s in ("traces", "logs", "metrics")] == [7, 512, 512]


def test_what_ends_in_the_middle_of_a_chunk_waits_for_the_next():
    """An object that goes then, or a signal's handler, may end a span or log."""
    with running(start=False) as made:

        def interrupted(items):
            for n in range(QUEUE_CAPACITY + 10):
                made.spans.put(-n)
            made.spans.encode = encode
            return encode(items)

        made.spans.encode = interrupted
        made.awake = True
        for n in range(5):
            made.spans.put(n)
        worker = threading.Thread(target=made.drain, args=(made.spans,), daemon=True)
        worker.start()
        worker.join(30)
        assert not worker.is_alive()
        made.drain_all()
        assert taken(made) == [*range(5), *(-n for n in range(QUEUE_CAPACITY + 10))]
