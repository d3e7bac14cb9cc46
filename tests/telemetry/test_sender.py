"""The sender against a receiver that fails in every way: all is delivered once, in the end."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pbmon import signals
from pbmon.settings import resolve
from pbmon.spool.books import Books
from pbmon.spool.memory import MemoryQueue
from pbmon.telemetry import sender, transport
from pbmon.telemetry.sender import Sender
from pbmon.telemetry.transport import Answer
from tests.faults import sink as sinks
from tests.faults.sink import Sink
from tests.patience import patiently
from tests.stack.process import wait_until

NOWHERE = Path("/nonexistent")
FAST = {
    "_FIRST_WAIT_S": 0.02,
    "_LONGEST_WAIT_S": 0.1,
    "_LONGEST_WAIT_NOBODY_S": 0.1,
    "_URGENT_WAIT_S": 0.02,
}


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(signals, "_last_told", {})
    return monkeypatch


@pytest.fixture
def fast(environ):
    """Waits short enough for a test, in the same proportions."""
    for name, seconds in FAST.items():
        environ.setattr(sender, name, seconds)
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")


@pytest.fixture
def sink():
    with Sink() as receiver:
        yield receiver


class Lane:
    """One sender and its queue; numbered spans go in."""

    def __init__(self, connect, **options):
        self.books = Books()
        self.queue = MemoryQueue(self.books)
        self.sender = Sender("traces", connect, **{"delay_s": 0.01, **options})
        self.sender.sources.append(self.queue)

    def put(self, numbers, poison=(), queue=None):
        """One record with these numbered spans."""
        (queue or self.queue).append("traces", request(numbers, poison), len(numbers))

    def total(self, outcome, reason=None):
        return self.books.total("traces", outcome, reason)

    def is_empty(self):
        return not any(source.waiting("traces") for source in self.sender.sources)

    def settle(self, timeout_s=20.0):
        wait_until(self.is_empty, f"settled; {self.books.totals()}", timeout_s)
        assert self.total("accepted") == self.total("delivered") + self.total("dropped")


@contextmanager
def lane(receiver, **options):
    settings = resolve({"endpoint": receiver.url}, None, NOWHERE)[0]
    made = Lane(lambda: transport.connect("traces", settings), **options)
    try:
        yield made
    finally:
        end(made.sender)


def end(stopped):
    stopped.stop()
    if stopped._thread is not None:
        stopped._thread.join(10)
        assert not stopped._thread.is_alive()


def request(numbers, poison=()):
    spans = []
    for number in numbers:
        pairs = [{"key": sinks.NUMBER, "value": {"int_value": number}}]
        if number in poison:
            pairs.append({"key": sinks.POISON, "value": {"bool_value": True}})
        spans.append(
            {
                "trace_id": number.to_bytes(16, "big"),
                "span_id": (number + 1).to_bytes(8, "big"),
                "kind": 2,
                "name": "x",
                "start_time_unix_nano": 1,
                "end_time_unix_nano": 2,
                "attributes": pairs,
            }
        )
    made = ExportTraceServiceRequest(resource_spans=[{"scope_spans": [{"spans": spans}]}])
    return made.SerializeToString()


def numbers(body):
    return [
        pair.value.int_value
        for part in ExportTraceServiceRequest.FromString(body).resource_spans
        for span in part.scope_spans[0].spans
        for pair in span.attributes
        if pair.key == sinks.NUMBER
    ]


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "pbmon.internal"]


def arrived(receiver):
    """Numbers, each once."""
    with receiver.lock:
        assert receiver.accepted.duplicate_spans == 0
        assert receiver.accepted.span_total == len(receiver.accepted.spans)
        return sorted(number for number, _ in receiver.accepted.spans)


# --- a receiver that fails and comes back -------------------------------------------------------

FAILURES = {
    "refused": (sinks.refused, "connection refused"),
    "hanging": (sinks.hanging, "timed out"),
    "400": (lambda: sinks.status(400), "400 bad request"),
    "500": (lambda: sinks.status(500), "500 internal server error"),
    "401": (lambda: sinks.status(401), "401 unauthorized"),
    "404": (lambda: sinks.status(404), "404 not found"),
    "413": (lambda: sinks.status(413), "413 content too large"),
    "503": (lambda: sinks.status(503, retry_after_s=0), "503 unavailable"),
    "301": (sinks.redirect, "status 301"),
    "garbage": (sinks.garbage, "status 200 with a body that is no OTLP response"),
    "all rejected": (sinks.partial, "every item rejected"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_waited_is_delivered_once_when_the_receiver_is_back(fast, caplog, sink, case):
    mode, reason = FAILURES[case]
    sink.become(mode())
    with lane(sink, max_items=40) as sending:
        for first in range(0, 100, 10):
            sending.put(range(first, first + 10))
        sending.sender.start()
        wait_until(lambda: sending.sender._failures >= 4, "four failures", 20)
        assert sending.sender.failing == reason
        assert sending.sender.nobody_there == (case == "refused")
        assert sending.total("delivered") == sending.total("dropped") == 0
        sink.become(sinks.ok())
        sending.settle()
        assert arrived(sink) == list(range(100))
        assert sending.total("delivered") == 100
        wait_until(lambda: not sending.sender.failing, "the failure forgotten")
        assert not sending.sender.nobody_there
    (line,) = told(caplog)
    assert line == (
        f"pbmon: traces can't be delivered to {sink.url}/v1/traces ({reason}); kept and tried "
        "again. Is a collector listening there? Set OTEL_EXPORTER_OTLP_ENDPOINT, or "
        "OTEL_TRACES_EXPORTER=none for no export."
    )


def test_a_slow_receiver_is_waited_for(environ, sink):
    sink.become(sinks.slow(0.3))
    with lane(sink, max_items=50) as sending:
        for first in range(0, 100, 10):
            sending.put(range(first, first + 10))
        sending.sender.start()
        wait_until(lambda: sending.sender.inflight == 50, "a request under way")
        sending.settle()
        assert arrived(sink) == list(range(100))
        assert sending.sender.inflight == 0
        assert sink.posts == 2


def test_what_a_partial_success_rejects_is_dropped_and_counted(fast, caplog, sink):
    sink.become(sinks.partial(3))
    with lane(sink) as sending:
        sending.put(range(20))
        sending.sender.start()
        sending.settle()
        assert arrived(sink) == list(range(17))
        assert sending.total("delivered") == 17
        assert sending.total("dropped", "rejected") == 3
        assert sink.posts == 1
    (line,) = told(caplog)
    assert line == (
        f"pbmon: {sink.url}/v1/traces rejected 3 of 20 spans; they are dropped and counted"
    )


# --- a bad item ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, 200, 511])
@pytest.mark.parametrize("per_record", [128, 512])
def test_one_bad_item_among_512_is_found_with_few_requests(fast, caplog, sink, bad, per_record):
    sink.become(sinks.rejecting_poison())
    with lane(sink) as sending:
        for first in range(0, 512, per_record):
            sending.put(range(first, first + per_record), {bad})
        sending.sender.start()
        sending.settle()
        assert arrived(sink) == [n for n in range(512) if n != bad]
        assert sending.total("delivered") == 511
        assert sending.total("dropped", "rejected") == 1
        # At each of the levels 512, 256 … 1: the part with it, an empty request, the other half.
        assert sink.posts <= 3 * 10
        assert sending.sender._failures == 0  # nothing was waited for
    (line,) = told(caplog)
    assert line == (
        f"pbmon: {sink.url}/v1/traces refuses 1 of the spans (400 bad request); dropped and counted"
    )


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        *((code, bad) for code in (400, 413, 500) for bad in ({7}, {0, 7}, {6, 7}, {3, 4})),
        (200, {7}),
        (200, {6, 7}),
    ],
)
def test_a_bad_item_does_not_hold_up_the_others(fast, sink, code, bad):
    """500: of a server that falls over it. 200: rejected by a partial success, of the last."""
    sink.become(sinks.rejecting_poison(code))
    with lane(sink, max_items=8) as sending:
        sending.put(range(8), bad)
        sending.put(range(8, 16))
        sending.sender.start()
        sending.settle()
        assert arrived(sink) == [n for n in range(16) if n not in bad]
        assert sending.total("dropped", "rejected") == len(bad)


@pytest.mark.parametrize("code", [400, 500, 200])
@pytest.mark.parametrize("bad", [{0}, {0, 1}])
def test_a_bad_item_alone_does_not_hold_up_what_comes_later(fast, sink, code, bad):
    sink.become(sinks.rejecting_poison(code))
    with lane(sink, max_items=8) as sending:
        sending.put(sorted(bad), bad)
        sending.sender.start()
        wait_until(lambda: sink.posts >= 4 or sending.is_empty(), "tried")
        sending.put(range(10, 14))
        wait_until(lambda: sink.accepted.span_total, "the others")
        sending.settle()
        assert sending.total("dropped", "rejected") == len(bad)
        assert sending.total("delivered") == 4
        assert arrived(sink) == [10, 11, 12, 13]


@pytest.mark.parametrize("code", [400, 200])
@pytest.mark.parametrize("per_record", [128, 512])
def test_a_full_batch_of_bad_items_does_not_hold_up_what_comes_later(fast, sink, code, per_record):
    """As after an outage, at a receiver that takes nothing older than some minutes."""
    bad = set(range(512))
    sink.become(sinks.rejecting_poison(code))
    with lane(sink) as sending:
        for first in range(0, 768, per_record):
            many = range(first, min(first + per_record, 768))
            sending.put(many, bad)
        sending.sender.start()
        sending.settle(60)
        assert sending.total("dropped", "rejected") == 512
        assert sending.total("delivered") == 256
        assert arrived(sink) == list(range(512, 768))
        if code == 200:
            assert sink.posts <= 8  # as a whole, not item by item


def test_a_receiver_that_rejects_more_than_company_is_kept_for_is_believed(fast, environ, sink):
    environ.setattr(sender, "_MOST_BYTES", 200_000)
    sink.become(sinks.rejecting_poison(200))
    with lane(sink) as sending:
        bad = set(range(5120))
        for first in range(0, 5376, 128):
            sending.put(range(first, first + 128), bad)
        assert sum(len(request(range(n, n + 128))) for n in range(0, 5120, 128)) > 200_000
        sending.sender.start()
        wait_until(lambda: sink.accepted.span_total, "the first good ones", 60)
        sending.settle(60)
        assert sending.total("dropped", "rejected") == 5120
        assert arrived(sink) == list(range(5120, 5376))


def test_no_more_is_held_for_many_sources_than_for_few(fast, sink):
    """What many dead processes left, in an outage."""
    with lane(sink) as sending:
        sink.become(sinks.status(503))
        for n in range(12):
            orphan = MemoryQueue(sending.books)
            big = request(range(n * 4000, n * 4000 + 4000))
            assert 2**18 < len(big) < 2**20
            orphan.append("traces", big, 4000)
            sending.sender.sources.append(orphan)
        sending.sender.start()
        wait_until(lambda: sending.sender._failures >= 15, "fifteen failures", 60)
        assert sum(work.size for work in sending.sender._works) < 2**21 + 2**20
        sink.become(sinks.ok())
        sending.settle(60)
        assert len(arrived(sink)) == 12 * 4000


@pytest.mark.parametrize("code", [500, 200])
def test_a_bad_item_of_one_source_does_not_hold_up_the_other(fast, sink, code):
    """What a dead process left has no company to come."""
    sink.become(sinks.rejecting_poison(code))
    with lane(sink, max_items=8) as sending:
        orphan = MemoryQueue(sending.books)
        sending.put([0], {0}, orphan)
        sending.sender.sources.append(orphan)
        sending.sender.start()
        wait_until(lambda: sink.posts >= 4, "tried")
        sending.put([1, 2])
        sending.settle()
        assert arrived(sink) == [1, 2]
        assert sending.total("dropped", "rejected") == 1


class Picky:
    """A receiver in this process: refuses some numbers in its ways, and everything at times."""

    where = "http://picky"

    def __init__(self, ways, outages):
        self.ways = ways
        self.outages = list(outages)
        self.taken = []

    def send(self, body, left_s=None):
        found = numbers(body)
        if found and self.outages and (outage := self.outages.pop(0)) is not None:
            return outage
        ways = {self.ways[number] for number in found if number in self.ways}
        for status in sorted(ways & {400, 500}):
            return Answer(status=status, bad_data=status == 400, reason=str(status))
        rejected = sum(number in self.ways for number in found)
        self.taken += [number for number in found if number not in self.ways]
        return Answer(taken=True, rejected=rejected)


OUTAGES = [
    None,
    Answer(reason="connection refused", nobody_there=True),
    Answer(reason="timed out"),
    Answer(reason="503", status=503, retry_after_s=1.0),
    Answer(reason="401", status=401),
]


@patiently(max_examples=150)
@given(
    data=st.lists(
        st.tuples(
            st.integers(0, 1),  # which source
            st.lists(st.sampled_from([0] * 12 + [200, 400, 500]), min_size=1, max_size=6),
            st.integers(0, 3),  # rounds until the next comes
        ),
        max_size=8,
    ),
    outages=st.lists(st.sampled_from(OUTAGES), max_size=30),
    max_items=st.sampled_from([1, 3, 8, 64]),
)
def test_whatever_is_bad_and_whenever_it_comes_all_else_arrives_once(data, outages, max_items):
    ways, good = {}, []
    receiver = Picky(ways, outages)
    sending = Lane(lambda: receiver, max_items=max_items)
    orphan = MemoryQueue(sending.books)
    sending.sender.sources.append(orphan)
    number = 1
    for source, kinds, rounds in data:
        fresh = range(number, number + len(kinds))
        number += len(kinds)
        ways |= {n: kind for n, kind in zip(fresh, kinds, strict=True) if kind}
        good += [n for n, kind in zip(fresh, kinds, strict=True) if not kind]
        sending.put(fresh, queue=orphan if source else None)
        for _ in range(rounds):
            sending.sender._round()
    rounds = 0
    while not sending.is_empty():
        # There is always something good to come: with nothing to compare, no fault is certain.
        sending.put([number])
        good.append(number)
        number += 1
        sending.sender._round()
        rounds += 1
        assert rounds < 600
    assert sorted(receiver.taken) == good
    assert sending.total("delivered") == len(good)
    assert sending.total("dropped", "rejected") == sending.total("dropped") == len(ways)


def test_who_refuses_an_empty_request_too_refuses_all_and_nothing_is_dropped(fast, sink):
    sink.become(sinks.status(400))
    with lane(sink, max_items=8) as sending:
        for first in range(0, 16, 2):
            sending.put([first, first + 1])
        sending.sender.start()
        wait_until(lambda: sink.posts >= 40, "many posts")
        assert sending.total("dropped") == 0
        sink.become(sinks.ok())
        sending.settle()
        assert arrived(sink) == list(range(16))


def test_a_receiver_that_rejects_all_is_not_asked_item_by_item(fast, sink):
    sink.become(sinks.partial())
    with lane(sink) as sending:
        sending.put(range(64))
        sending.sender.start()
        wait_until(lambda: sending.sender._failures >= 8, "eight failures")
        assert sink.posts <= 10
        assert sending.total("dropped") == 0
        sink.become(sinks.ok())
        sending.settle()
        assert arrived(sink) == list(range(64))


# --- waiting ------------------------------------------------------------------------------------


class Scripted:
    """A transport that gives one answer and remembers when it was asked."""

    where = "http://scripted"

    def __init__(self, answer):
        self.answer = answer
        self.asked_s = []
        self.bodies = []

    def send(self, body, left_s=None):
        if body:
            self.asked_s.append(time.monotonic())
            self.bodies.append(body)
        return self.answer

    def close(self):
        pass


def idle(answer=None, **options):
    """A sender whose thread does not run."""
    made = Lane(lambda: Scripted(answer or Answer(reason="x")), **options)
    made.sender._transport = made.sender.connect()
    return made


@pytest.mark.parametrize(("nobody", "longest_s"), [(False, 10.0), (True, 3.0)])
def test_the_wait_doubles_up_to_a_limit_with_jitter(nobody, longest_s):
    sending = idle(Answer(reason="x", nobody_there=nobody))
    sending.put([1])
    full = [min(longest_s, 0.5 * 2**n) for n in range(1, 13)]
    shares = Counter()
    for wanted_s in full:
        wait_s = sending.sender._round()
        assert wanted_s / 2 <= wait_s <= wanted_s
        shares[wait_s / wanted_s] += 1
    assert len(shares) == len(full)  # no two alike
    for _ in range(2000):
        wait_s = sending.sender._round()
    assert longest_s / 2 <= wait_s <= longest_s


def test_retry_after_is_waited_for_and_a_little_more():
    sending = idle(Answer(reason="x", retry_after_s=20.0))
    sending.put([1])
    waits_s = [sending.sender._round() for _ in range(50)]
    assert 20.25 <= min(waits_s) < max(waits_s) <= 20.5


def test_a_failure_is_not_tried_again_before_its_time_whatever_comes(environ):
    environ.setattr(sender, "_FIRST_WAIT_S", 0.2)  # so 0.2 to 0.4 s, then 0.4 to 0.8 s
    scripted = Scripted(Answer(reason="x"))
    sending = Lane(lambda: scripted, delay_s=0.01)
    sending.put([1])
    sending.sender.start()
    wait_until(lambda: scripted.asked_s, "a try")
    for number in range(2, 100):
        sending.put([number])
        sending.sender.nudge()
        if len(scripted.asked_s) > 2:
            break
        threading.Event().wait(0.01)
    end(sending.sender)
    gaps_s = [b - a for a, b in zip(scripted.asked_s, scripted.asked_s[1:])]
    assert gaps_s[0] >= 0.2
    assert gaps_s[1:] == [] or gaps_s[1] >= 0.4


def test_items_wait_for_company_until_nudged(sink):
    with lane(sink, delay_s=600.0) as sending:
        pauses = []
        pause = sending.sender._pause
        sending.sender._pause = lambda wait_s: pauses.append(wait_s) or pause(wait_s)
        sending.sender.start()
        wait_until(lambda: pauses, "a first round, which finds nothing")
        for number in range(5):
            sending.put([number])
        assert pauses == [600.0]
        sending.sender.nudge()
        sending.settle()
        assert arrived(sink) == list(range(5))
        assert sink.posts == 1


def test_a_request_holds_so_many_items_but_no_record_is_cut_for_it():
    sending = idle(Answer(taken=True), max_items=10)
    for first, size in ((0, 6), (6, 4), (10, 1), (11, 25), (36, 3)):
        sending.put(range(first, first + size))
    assert sending.sender._round() == sending.sender.delay_s
    spans = [len(numbers(body)) for body in sending.sender._transport.bodies]
    assert spans == [10, 1, 25, 3]


def test_the_own_queue_goes_before_what_was_adopted(sink):
    sending = idle(Answer(taken=True), max_items=2)
    orphan = MemoryQueue(sending.books)
    sending.sender.sources.append(orphan)
    for number in range(4):
        sending.put([100 + number], queue=orphan)
        sending.put([number])
    sending.sender._round()
    order = [n for body in sending.sender._transport.bodies for n in numbers(body)]
    assert order == [0, 1, 2, 3, 100, 101, 102, 103]


# --- flush and stop -----------------------------------------------------------------------------


def test_flush_sends_at_once_and_says_so(sink):
    with lane(sink, delay_s=600.0) as sending:
        sending.put(range(10))
        assert sending.sender.flush(time.monotonic() + 60)  # of a delay of 600
        assert arrived(sink) == list(range(10))
        assert sending.sender.flush(time.monotonic())  # nothing waits


@pytest.mark.parametrize("mode", [sinks.hanging, lambda: sinks.status(500)])
def test_flush_keeps_its_deadline(environ, sink, mode):
    environ.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    sink.become(mode())
    with lane(sink) as sending:
        sending.put(range(10))
        began_s = time.monotonic()
        assert not sending.sender.flush(began_s + 0.4)
        assert 0.4 <= time.monotonic() - began_s < 30  # of an hour
        sink.become(sinks.ok())


def test_flush_does_not_sit_out_a_failures_wait(environ, sink):
    environ.setattr(sender, "_FIRST_WAIT_S", 600.0)
    environ.setattr(sender, "_LONGEST_WAIT_S", 600.0)
    sink.become(sinks.status(500))
    with lane(sink) as sending:
        sending.put(range(10))
        sending.sender.start()
        wait_until(lambda: sending.sender._failures, "a failure")
        sink.become(sinks.ok())
        assert sending.sender.flush(time.monotonic() + 60)  # of a wait of 600
        assert arrived(sink) == list(range(10))


def test_flush_gives_up_when_told_to(fast, sink):
    sink.become(sinks.refused())
    with lane(sink) as sending:
        sending.put(range(10))
        began_s = time.monotonic()
        assert not sending.sender.flush(began_s + 60, lambda: sending.sender.nobody_there)
        assert time.monotonic() - began_s < 30


@pytest.fixture
def exiting(environ):
    """The interpreter starts no thread any more, as from Python 3.12 on at its exit."""

    class Thread(threading.Thread):
        def start(self):
            raise RuntimeError("can't create new thread at interpreter shutdown")

    known = SimpleNamespace(Thread=Thread, Event=threading.Event, Lock=threading.Lock,
                            Condition=threading.Condition)  # fmt: skip
    environ.setattr(sender, "threading", known)


def test_flush_sends_by_itself_where_no_thread_can_be_started(exiting, sink):
    with lane(sink, max_items=8) as sending:
        for first in range(0, 40, 8):
            sending.put(range(first, first + 8))
        assert sending.sender.flush(time.monotonic() + 20) is True
        assert sending.sender._thread is None
        assert arrived(sink) == list(range(40))
        sink.become(sinks.status(503))
        sending.put([40])
        assert sending.sender.flush(time.monotonic() + 0.5) is False
        sink.become(sinks.hanging())
        began_s = time.monotonic()
        assert sending.sender.flush(began_s + 0.3) is False
        assert time.monotonic() - began_s < 9  # a request may take ten seconds otherwise
        assert sending.queue.waiting("traces") == 1
        sink.become(sinks.ok())
        assert sending.sender.flush(time.monotonic() + 20) is True
        assert arrived(sink) == list(range(41))


def test_stop_ends_the_thread_and_leaves_what_waits(fast, sink):
    sink.become(sinks.status(500))
    with lane(sink) as sending:
        sending.put(range(10))
        sending.sender.start()
        wait_until(lambda: sending.sender._failures, "a failure")
        end(sending.sender)
        sink.become(sinks.ok())
        ended = sending.sender._thread
        sending.sender.start()
        sending.sender.nudge()
        assert sending.sender._thread is ended
        assert sending.queue.waiting("traces") == 10


def test_a_changed_endpoint_takes_the_next_request(fast, sink):
    with Sink() as other, lane(sink) as sending:
        sink.become(sinks.status(500))
        sending.put([1])
        sending.sender.start()
        wait_until(lambda: sending.sender._failures, "a failure")
        settings = resolve({"endpoint": other.url}, None, NOWHERE)[0]
        closed = []
        sending.sender._transport.close = lambda: closed.append(sink.url)
        sending.sender.connect = lambda: transport.connect("traces", settings)
        sending.sender.reconnect()
        sending.settle()
        assert closed == [sink.url]
        assert arrived(other) == [1]
        assert arrived(sink) == []


def test_two_that_start_it_at_once_start_one_thread(environ):
    made = []

    class Thread(threading.Thread):
        def __init__(self, *args, **kwargs):
            made.append(self)
            with suppress(threading.BrokenBarrierError):
                both.wait(0.3)  # for the other one, which must not come
            super().__init__(*args, **kwargs)

    both = threading.Barrier(2)
    sending = idle()
    environ.setattr(sender, "threading", SimpleNamespace(Thread=Thread, Event=threading.Event))
    callers = [threading.Thread(target=sending.sender.start) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    end(sending.sender)
    assert len(made) == 1


def test_no_transport_is_a_failure_with_the_remedy_and_tried_again(fast, caplog, sink):
    from pbmon.telemetry.exporters import ExporterError

    settings = resolve({"endpoint": sink.url}, None, NOWHERE)[0]
    errors = [ExporterError("pip install it"), ValueError("secret hunter2")]

    def connect():
        if errors:
            raise errors.pop(0)
        return transport.connect("traces", settings)

    sending = Lane(connect)
    sending.put([1])
    assert sending.sender._round() > 0
    assert sending.sender.failing == "pip install it"
    assert sending.sender._round() > 0
    assert sending.sender.failing == "ValueError"
    assert sending.sender._round() == sending.sender.delay_s
    assert arrived(sink) == [1]
    assert "hunter2" not in caplog.text


def test_the_senders_own_requests_are_not_traced(sink):
    from opentelemetry import context
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen = []

    class Looking(Scripted):
        def send(self, body, left_s=None):
            seen.append(
                (is_instrumentation_enabled(), context.get_value("suppress_instrumentation"))
            )
            return Answer(taken=True)

    sending = Lane(lambda: Looking(None))
    sending.put([1])
    assert sending.sender.flush(time.monotonic() + 10)
    end(sending.sender)
    assert seen == [(False, True)]
