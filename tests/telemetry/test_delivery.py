"""Delivery: what dead processes left arrives once, and a process without a directory goes on."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from pbmon import signals
from pbmon.settings import resolve
from pbmon.spool.memory import MemoryQueue
from pbmon.spool.queue import MAX_RECORD, Spool
from pbmon.telemetry import delivery
from pbmon.telemetry.delivery import Delivery, last_words
from tests import state
from tests.faults import sink as sinks
from tests.faults.sink import Sink
from tests.faults.test_sink import counter
from tests.spool.spools import tell
from tests.stack.process import wait_until
from tests.telemetry.programs import Program
from tests.telemetry.receiver import closed_port
from tests.telemetry.test_sender import request

WAIT_S = 30.0


@pytest.fixture
def sink():
    with Sink() as receiver:
        yield receiver


@pytest.fixture
def directory():
    return state.fresh()


def spools(directory):
    """The spools there are, by service."""
    return sorted(str(path.parent.name) for path in Path(directory).glob("spool/*/[0-9]*"))


def read(receiver, name, **attributes):
    with receiver.lock:
        return receiver.accepted.total(name, **attributes)


def count_spans(receiver):
    with receiver.lock:
        return len(receiver.accepted.spans)


def has_all(receiver, numbers):
    with receiver.lock:
        accepted = receiver.accepted
        return {(n, "child") for n in numbers} <= accepted.spans and numbers <= accepted.logs


def assert_once(receiver, count):
    with receiver.lock:
        accepted = receiver.accepted
        assert (accepted.span_total, accepted.duplicate_spans) == (count, 0)
        assert accepted.duplicate_logs == 0
        assert accepted.logs == set(range(count))


def assert_balanced(receiver, count):
    """Summed over all instances, what the books say at the sink is what is there."""
    for signal in ("traces", "logs"):
        told = {
            outcome: read(receiver, "pbmon.spool.records", pbmon_signal=signal,
                          pbmon_outcome=outcome)
            for outcome in ("accepted", "delivered", "dropped")
        }  # fmt: skip
        assert told == {"accepted": count, "delivered": count, "dropped": 0}, signal


# --- processes that were killed -----------------------------------------------------------------


def killed(sink, directory, first, count, **options):
    """What a process made that could deliver nothing; its service.instance.id."""
    sink.become(sinks.refused())
    with Program(sink, PBMON_STATE_DIR=directory, **options) as dead:
        dead.work(first, count)
        instance = dead.do(
            "print(trace.get_tracer_provider().resource.attributes['service.instance.id'])"
        )
        dead.kill()
    sink.become(sinks.ok())
    return instance


def test_what_a_killed_process_left_is_delivered_by_the_next(sink, directory):
    instance = killed(sink, directory, 0, 30)
    assert spools(directory) == ["shop"]
    assert sink.accepted.span_total == 0
    with Program(sink, PBMON_STATE_DIR=directory) as heir:
        heir.work(30, 5)
        wait_until(lambda: has_all(sink, set(range(30))), "spans and logs", WAIT_S)
        wait_until(lambda: read(sink, "test.work") >= 30, "counters", WAIT_S)
        delivered = {"pbmon_signal": "traces", "pbmon_outcome": "delivered"}
        wait_until(
            lambda: read(sink, "pbmon.spool.records", **delivered) >= 30,
            "the dead one's books, long before the heir's metrics are due",
            WAIT_S,
        )
        assert heir.end() == ""
    assert_once(sink, 35)
    with sink.lock:
        assert sink.accepted.sent_by["span", instance] == 30
        assert sink.accepted.sent_by["log", instance] == 30
        assert len(sink.accepted.instances()) == 2
        assert sink.accepted.decreases == 0
    assert read(sink, "test.work") == 35
    assert read(sink, "test.sizes") == 35
    # 5 are open in the heir, which ended in order; what was open in the dead one is 0.
    assert read(sink, "test.open") == 5
    assert_balanced(sink, 35)
    assert spools(directory) == []


def test_a_process_killed_in_an_outage_that_goes_on_is_inherited_again(sink, directory):
    killed(sink, directory, 0, 10)
    sink.become(sinks.status(500))
    with Program(sink, PBMON_STATE_DIR=directory) as second:
        second.work(10, 10)
        second.do("wait_until(lambda: delivery()._orphans, 'the first one taken over', 30)")
        second.do("wait_until(lambda: delivery().senders['traces'].failing, 'a try', 30)")
        second.kill()
    sink.become(sinks.ok())
    with Program(sink, PBMON_STATE_DIR=directory) as third:
        third.work(20, 1)
        wait_until(lambda: has_all(sink, set(range(20))), "spans and logs", WAIT_S)
        wait_until(lambda: read(sink, "test.work") >= 20, "counters", WAIT_S)
        third.end()
    assert_once(sink, 21)
    assert read(sink, "test.work") == 21
    assert read(sink, "test.open") == 1
    assert_balanced(sink, 21)
    assert spools(directory) == []


def test_two_heirs_at_once_deliver_it_once(sink, directory):
    for first in (0, 10, 20):
        killed(sink, directory, first, 10)
    with (
        Program(sink, PBMON_STATE_DIR=directory) as one,
        Program(sink, PBMON_STATE_DIR=directory) as other,
    ):
        one.work(30, 5)
        other.work(35, 5)
        wait_until(lambda: has_all(sink, set(range(30))), "spans and logs", WAIT_S)
        wait_until(lambda: read(sink, "test.work") >= 30, "counters", WAIT_S)
        one.end()
        other.end()
    assert_once(sink, 40)
    assert read(sink, "test.work") == 40
    assert read(sink, "test.open") == 10
    assert_balanced(sink, 40)
    assert spools(directory) == []


def test_another_service_is_left_to_its_own(sink, directory):
    killed(sink, directory, 0, 10, service="bank")
    with Program(sink, PBMON_STATE_DIR=directory) as stranger:
        stranger.work(10, 1)
        stranger.do("look()")
        stranger.end()
    with sink.lock:
        assert {n for n, _ in sink.accepted.spans} == {10}
        assert sink.accepted.logs == {10}
    assert read(sink, "test.work") == 1
    assert spools(directory) == ["bank"]


def test_what_is_left_at_an_orderly_end_is_delivered_by_the_next(sink, directory):
    sink.become(sinks.refused())
    with Program(sink, PBMON_STATE_DIR=directory) as first:
        first.work(0, 10)
        first.do("work(10, 10)")
        began_s = time.monotonic()
        assert "can't be delivered" in first.end()
        assert time.monotonic() - began_s < 30
    sink.become(sinks.ok())
    with Program(sink, PBMON_STATE_DIR=directory) as second:
        second.work(20, 1)
        wait_until(lambda: has_all(sink, set(range(20))), "spans and logs", WAIT_S)
        wait_until(lambda: read(sink, "test.work") >= 20, "counters", WAIT_S)
        second.end()
    assert_once(sink, 21)
    assert read(sink, "test.work") == 21
    assert_balanced(sink, 21)


def test_two_living_processes_take_nothing_from_each_other(sink, directory):
    sink.become(sinks.status(503))
    with (
        Program(sink, PBMON_STATE_DIR=directory) as one,
        Program(sink, PBMON_STATE_DIR=directory) as other,
    ):
        one.work(0, 20)
        other.work(20, 20)
        one.do("look()")
        other.do("look()")
        assert spools(directory) == ["shop", "shop"]
        sink.become(sinks.ok())
        one.do("assert pbmon.flush(20)")
        other.do("assert pbmon.flush(20)")
        one.end()
        other.end()
    assert_once(sink, 40)
    with sink.lock:
        assert sorted(sink.accepted.sent_by.values()) == [20] * 4
    assert_balanced(sink, 40)


# --- without a directory ------------------------------------------------------------------------


def test_without_a_directory_it_works_from_memory_after_one_warning(sink, tmp_path):
    (tmp_path / "file").write_text("")
    with Program(sink, PBMON_STATE_DIR=str(tmp_path / "file")) as homeless:
        homeless.do("work(0, 10)")
        homeless.do("assert pbmon.flush(20)")
        homeless.do("work(10, 10)")
        (line,) = homeless.end().splitlines()
    assert line.startswith("pbmon: no state directory: ")
    assert line.endswith(
        "Telemetry waits in memory, and what waits is lost with the process. Set PBMON_STATE_DIR "
        "to a directory that this user can write to."
    )
    assert_once(sink, 20)
    assert read(sink, "test.work") == 20
    assert_balanced(sink, 20)


# --- in this process ----------------------------------------------------------------------------


@pytest.fixture
def environ(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
    return monkeypatch


@pytest.fixture
def made(environ, directory):
    """Makes deliveries to endpoints by signal, and ends them."""
    ended = []

    def make(state_dir=directory, **endpoints):
        for signal, url in endpoints.items():
            variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
            environ.setenv(variable, f"{url}/v1/{signal}")
        settings = resolve({"state_dir": state_dir}, None, Path("/nonexistent"))[0]
        ended.append(Delivery(settings, "shop", dict.fromkeys(endpoints, "otlp")))
        return ended[-1]

    yield make
    for each in ended:
        each.close()


def put(delivered, signal, first, count):
    body = request(range(first, first + count)) if signal == "traces" else b""
    assert delivered.queue.append(signal, body, count) == ""
    delivered.spooled(signal)


def test_a_receiver_that_is_gone_does_not_cut_the_others_flush_short(made, sink):
    sink.become(sinks.slow(1.2))
    delivered = made(logs=closed_port(), traces=sink.url)
    put(delivered, "logs", 0, 1)
    put(delivered, "traces", 0, 600)
    assert not delivered.flush(("logs", "traces"), time.monotonic() + 20)
    assert delivered.queue.waiting("traces") == 0
    assert delivered.queue.waiting("logs") == 1


def test_a_flush_goes_on_where_the_receiver_has_come_back(made, sink):
    sink.become(sinks.refused())
    delivered = made(traces=sink.url)
    for first in range(0, 3200, 400):
        put(delivered, "traces", first, 400)
    wait_until(lambda: delivered.senders["traces"].nobody_there, "a failure")
    sink.become(sinks.slow(0.15))
    assert delivered.flush(("traces",), time.monotonic() + 20)
    assert count_spans(sink) == 3200


def test_a_flush_gives_up_where_nobody_is(made):
    delivered = made(traces=closed_port())
    put(delivered, "traces", 0, 1)
    began_s = time.monotonic()
    assert not delivered.flush(("traces",), began_s + 60)
    assert time.monotonic() - began_s < 30


def test_a_full_batch_does_not_sit_out_its_delay(made, sink, environ):
    environ.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    delivered = made(traces=sink.url)
    put(delivered, "traces", 0, 1)  # goes with the sender's first round
    wait_until(lambda: count_spans(sink) == 1, "the first")
    put(delivered, "traces", 1, 100)
    put(delivered, "traces", 101, 411)
    assert count_spans(sink) == 1
    put(delivered, "traces", 512, 1)
    wait_until(lambda: count_spans(sink) == 513, "a full batch")


def test_a_signal_that_is_added_later_delivers_what_was_adopted_before(made, sink, directory):
    dead = made(logs=closed_port())
    assert dead.queue.append("logs", b"", 3) == ""
    dead.close()
    heir = made(traces=sink.url)
    heir._adopt_at_s = 0
    heir.look_after_orphans()
    assert len(heir._orphans) == 1
    heir._settings = resolve({"endpoint": sink.url}, None, Path("/nonexistent"))[0]
    heir.add("logs", "otlp")
    heir.senders["logs"].connect = heir.senders["traces"].connect
    assert heir.senders["logs"].sources[1:] == heir._orphans
    heir.senders["logs"].start()
    heir.senders["logs"].nudge()
    wait_until(heir._orphans[0].is_done, "delivered")
    heir.look_after_orphans()
    assert heir._orphans == []
    assert spools(directory) == ["shop"]  # its own


def test_who_ends_before_it_has_buried_what_it_adopted_leaves_it_to_the_next(made, sink, directory):
    """All records of the dead one are delivered, and only its newest metrics are still to go."""
    dead = made(metrics=sink.url)
    assert dead.queue.keep_latest(counter(7, name="test.work").SerializeToString(), 1) == ""
    dead.queue.forget()  # as its death does: the lock is free, the files are there
    heir = made(metrics=sink.url)
    heir._adopt_at_s = 0
    heir.look_after_orphans()
    assert [orphan.is_done() for orphan in heir._orphans] == [True]
    heir.close()
    assert spools(directory) == ["shop"]
    last = made(metrics=sink.url)
    last._adopt_at_s = 0
    last.look_after_orphans()
    wait_until(lambda: read(sink, "test.work") == 7, "the dead one's metrics")


def test_a_place_that_was_taken_away_is_left_for_another(sink, directory, caplog):
    """As a cleaner of temporary files does."""
    with Program(sink) as program:
        program.work(0, 10)
        wait_until(lambda: has_all(sink, set(range(10))), "the first", WAIT_S)
        program.do("import shutil; shutil.rmtree(wiring._providers().delivery.queue.directory)")
        program.work(10, 10)
        wait_until(lambda: has_all(sink, set(range(20))), "the others", WAIT_S)
        assert program.do("print(wiring._providers().delivery.is_durable)") == "True"
        err = program.end()
    assert err.count("can't be used any more") == 1
    assert_once(sink, 20)
    assert_balanced(sink, 20)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("is_open", [False, True], ids=["memory", "another place"])
def test_a_worker_that_becomes_another_user_loses_nothing(sink, tmp_path, is_open):
    """As gunicorn's and uwsgi's workers do after the fork."""
    home = Path(tempfile.mkdtemp(prefix="pbmon-user-"))
    home.chmod(0o711)
    theirs = home / "theirs"
    theirs.mkdir()
    theirs.chmod(0o777 if is_open else 0o700)
    settings = {"PBMON_STATE_DIR": ""} | {
        "XDG_STATE_HOME": str(home / "roots"), "TMPDIR": str(theirs),
    }  # fmt: skip
    try:
        with Program(sink, **settings) as program:
            program.work(0, 5)
            wait_until(lambda: has_all(sink, set(range(5))), "all that it imports", WAIT_S)
            program.do("os.setgid(65534); os.setuid(65534); os.environ['HOME'] = '/nonexistent'")
            program.work(5, 10)
            durable = program.do("print(wiring._providers().delivery.is_durable)")
            err = program.end()
    finally:
        shutil.rmtree(home)
    assert durable == str(is_open)
    assert err.count("can't be used any more") == 1
    assert_once(sink, 15)
    assert_balanced(sink, 15)


def test_an_adopted_spool_is_kept_until_metrics_have_told_its_counts(made, directory):
    dead = made(logs=closed_port())
    assert dead.queue.append("logs", b"", 3) == ""
    dead.close()
    heir = made(metrics=closed_port())
    heir._adopt_at_s = 0
    heir.look_after_orphans()
    (orphan,) = heir._orphans
    orphan.settle(orphan.read("logs", 512, 2**20), 3, {})
    heir.look_after_orphans()
    assert heir._orphans == [orphan]
    tell(heir.books)
    heir.look_after_orphans()
    assert heir._orphans == []
    assert spools(directory) == ["shop"]  # its own


def test_what_is_too_old_goes_once_a_minute_also_where_nobody_reads(made, environ, directory):
    dead = made(logs=closed_port())
    assert dead.queue.append("logs", b"", 3) == ""
    dead.close()
    heir = made(traces=closed_port())
    heir._adopt_at_s = 0
    heir.look_after_orphans()
    assert len(heir._orphans) == 1
    assert heir.queue.append("traces", b"", 2) == ""
    now_s, later_ns = time.monotonic(), time.monotonic_ns() + 3601 * 10**9
    environ.setattr(time, "monotonic_ns", lambda: later_ns)
    environ.setattr(time, "monotonic", lambda: now_s + 30)
    heir.look_after_orphans()
    assert heir.books.total("logs", "dropped") == 0
    environ.setattr(time, "monotonic", lambda: now_s + 61)
    heir.look_after_orphans()
    for signal, items in (("logs", 3), ("traces", 2)):
        assert heir.books.total(signal, "dropped", "expired") == items
    assert heir._orphans == []
    assert heir.queue.waiting("traces") == 0
    assert spools(directory) == ["shop"]  # its own


def test_what_is_too_old_goes_from_memory_too(made, environ, tmp_path):
    (tmp_path / "file").write_text("")
    homeless = made(state_dir=str(tmp_path / "file"), traces=closed_port())
    assert isinstance(homeless.queue, MemoryQueue)
    assert homeless.queue.append("traces", b"", 2) == ""
    later_ns = time.monotonic_ns() + 3601 * 10**9
    environ.setattr(time, "monotonic_ns", lambda: later_ns)
    homeless.look_after_orphans()
    assert homeless.books.total("traces", "dropped", "expired") == 2


def test_who_exports_nothing_makes_no_spool(made, directory):
    delivered = made()
    assert isinstance(delivered.queue, MemoryQueue)
    assert not delivered.is_durable
    assert delivery.described(delivered.queue) == "memory"
    assert spools(directory) == []


def test_a_spool_is_described_by_its_place(made, directory):
    delivered = made(traces=closed_port())
    assert isinstance(delivered.queue, Spool)
    assert delivered.is_durable
    assert delivery.described(delivered.queue) == f"{directory}/spool/shop"


@pytest.mark.parametrize("lost", ["the directory", "the parent's descriptors"])
def test_a_forked_child_without_its_parents_place_goes_on_in_memory(made, directory, environ, lost):
    environ.setattr(signals, "reraise", False)
    delivered = made(traces=closed_port(), logs=closed_port())
    put(delivered, "logs", 0, 1)
    old = delivered.queue
    for sender in delivered.senders.values():
        sender.stop()
    if lost == "the directory":
        shutil.rmtree(directory)
    else:
        os.close(old.ledger.fd)
        os.close(old.home._lock_fd)
    delivered.forget()
    assert isinstance(delivered.queue, MemoryQueue)
    assert [sender.sources for sender in delivered.senders.values()] == [[delivered.queue]] * 2
    assert delivered.books.totals() == {}
    put(delivered, "traces", 0, 3)
    assert delivered.queue.waiting("traces") == 3
    assert old.append("traces", b"", 1) == "io_error"


def left(made, sink, words, **records):
    """A dead process's newest metrics and, by signal, items that nobody has delivered."""
    dead = made(metrics=sink.url)
    for signal, items in records.items():
        assert dead.queue.append(signal, request(range(items)), items) == ""
    assert dead.queue.keep_latest(words.SerializeToString(), 1) == ""
    dead.queue.forget()  # as its death does: the lock is free, the files are there


def adopting(heir):
    heir._adopt_at_s = 0
    heir.look_after_orphans()


@pytest.mark.parametrize("endpoints", ["nobody", "none"])
def test_a_dead_processs_metrics_wait_for_nothing_else_of_it(made, sink, directory, endpoints):
    left(made, sink, counter(7, name="test.work"), traces=5)
    others = {"traces": closed_port()} if endpoints == "nobody" else {}
    heir = made(metrics=sink.url, **others)
    adopting(heir)
    heir.look_after_orphans()
    wait_until(lambda: read(sink, "test.work") == 7, "its metrics")
    (orphan,) = heir._orphans
    assert orphan.waiting("traces") == 5
    assert not (orphan.directory / "latest").exists()
    # Closed before it has read the answer, it would leave them to be sent again.
    wait_until(lambda: not heir.queue.waiting("metrics"), "the answer")
    heir.close()
    taken = sink.posts
    third = made(metrics=sink.url)
    adopting(third)
    third.look_after_orphans()
    third.close()
    assert sink.posts == taken  # they are not sent a second time


def test_words_that_have_no_room_are_kept_and_refused_once(made, sink, environ):
    left(made, sink, counter(7, name="test.work"))
    heir = made(metrics=sink.url)
    take = heir.queue._append
    heir.queue._append = lambda *_: "full"
    adopting(heir)
    for _ in range(3):
        heir.look_after_orphans()
    assert heir.books.total("metrics", "refused") == 1
    heir.queue._append = take
    heir.look_after_orphans()
    wait_until(lambda: read(sink, "test.work") == 7, "its metrics")
    assert heir.books.total("metrics", "refused") == 1
    assert heir._orphans == []


# --- last words ---------------------------------------------------------------------------------


def test_last_words_leave_all_as_it_was_but_what_is_open():
    number = {"time_unix_nano": 5, "as_int": 7}
    double = {"time_unix_nano": 5, "as_double": 7.5}
    cumulative, delta = 2, 1
    metrics = [
        {"name": "counter", "sum": {"is_monotonic": True, "aggregation_temporality": cumulative,
                                    "data_points": [number, double]}},
        {"name": "open", "sum": {"aggregation_temporality": cumulative,
                                 "data_points": [number, double]}},
        {"name": "delta", "sum": {"aggregation_temporality": delta, "data_points": [number]}},
        {"name": "gauge", "gauge": {"data_points": [number]}},
        {"name": "histogram", "histogram": {"aggregation_temporality": cumulative, "data_points": [
            {"count": 3, "time_unix_nano": 5}]}},
        {"name": "nothing"},
    ]  # fmt: skip
    before = ExportMetricsServiceRequest(
        resource_metrics=[{"scope_metrics": [{"metrics": metrics}]}]
    )
    now_ns = time.time_ns()
    (words,) = last_words(before.SerializeToString())
    assert words.items == 7
    after = ExportMetricsServiceRequest.FromString(words.payload)
    zeroed = after.resource_metrics[0].scope_metrics[0].metrics[1].sum.data_points
    for point in zeroed:
        assert point.WhichOneof("value") == "as_int"
        assert point.as_int == 0
        assert now_ns <= point.time_unix_nano <= time.time_ns()
    for made in (before, after):
        del made.resource_metrics[0].scope_metrics[0].metrics[1]
    assert after == before


def test_many_last_words_come_in_pieces_that_the_spool_takes():
    points = [{"as_int": n, "attributes": [{"key": "k", "value": {"string_value": "x" * 900}}]}
              for n in range(12_000)]  # fmt: skip
    metric = {"name": "c", "sum": {"is_monotonic": True, "data_points": points}}
    whole = ExportMetricsServiceRequest(
        resource_metrics=[{"scope_metrics": [{"metrics": [metric]}]}]
    ).SerializeToString()
    assert len(whole) > MAX_RECORD
    words = last_words(whole)
    assert sum(word.items for word in words) == 12_000
    assert max(len(word.payload) for word in words) < MAX_RECORD / 8
