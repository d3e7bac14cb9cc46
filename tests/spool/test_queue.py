from __future__ import annotations

import errno
import mmap
import os
import threading
import time
import warnings
from pathlib import Path

import pytest

from pbmon.spool import directory, frames, ledger, queue, shelf
from pbmon.spool.books import Books
from pbmon.spool.directory import UnusableError
from pbmon.spool.frames import CHANNELS
from pbmon.spool.queue import MAX_RECORD, Spool
from tests.spool.spools import drain, fill, is_balanced, totals


def files(directory, channel="traces"):
    return sorted(path.name for path in directory.glob(f"{channel}-*"))


# --- reading and settling ---


def test_records_come_back_in_their_order_and_whole(spools):
    spool = spools.make()
    payloads = [os.urandom(size) for size in (0, 1, 7, 8, 9, 400, 70_000)]
    for index, payload in enumerate(payloads):
        assert spool.append("traces", payload, index + 1) == ""
    batch = spool.read("traces", 512, 2**20)
    assert [record.payload for record in batch.records] == payloads
    assert [record.items for record in batch.records] == [1, 2, 3, 4, 5, 6, 7]
    assert batch.items == spool.waiting("traces") == 28
    now_ns = time.monotonic_ns()
    assert all(0 <= now_ns - record.monotonic_ns < 60e9 for record in batch.records)


def test_channels_are_apart(spools):
    spool = spools.make()
    for channel in CHANNELS:
        assert spool.append(channel, channel.encode(), 3) == ""
    assert drain(spool, "logs") == [b"logs"]
    assert {c: spool.waiting(c) for c in CHANNELS} == {
        "traces": 3, "metrics": 3, "logs": 0, "events": 3,
    }  # fmt: skip


def test_a_batch_keeps_to_its_items_and_bytes_but_holds_one_record_at_least(spools):
    spool = spools.make()
    for items, size in ((5, 100), (5, 100), (1, 100), (50, 10), (1, 5000), (1, 10)):
        assert spool.append("logs", b"x" * size, items) == ""
    sizes = []
    while (batch := spool.read("logs", 10, 1000)) is not None:
        sizes.append([len(record.payload) for record in batch.records])
        spool.settle(batch, batch.items, {})
    assert sizes == [[100, 100], [100], [10], [5000], [10]]


def test_a_batch_waits_until_it_is_settled(spools):
    spool = spools.make()
    fill(spool, "traces", 3)
    first = spool.read("traces", 2, 2**20)
    assert spool.read("traces", 2, 2**20) == first
    assert spool.waiting("traces") == 3
    spool.settle(first, 1, {"rejected": 1})
    assert spool.waiting("traces") == 1
    assert len(drain(spool, "traces")) == 1
    assert spool.read("traces", 512, 2**20) is None
    assert totals(spool._books, "traces") == (3, 2, 1)
    assert spool._books.total("traces", "dropped", "rejected") == 1


def test_what_is_appended_between_reading_and_settling_waits(spools):
    spool = spools.make()
    fill(spool, "traces", 2)
    batch = spool.read("traces", 512, 2**20)
    spool.append("traces", b"later", 1)
    spool.settle(batch, batch.items, {})
    assert drain(spool, "traces") == [b"later"]


def test_segments_are_freed_when_they_are_settled(spools, home):
    spool = spools.make()
    payloads = fill(spool, "traces", 3000, size=1000)
    made = files(spool.directory)
    assert len(made) >= 3
    assert spool.size("traces") == len(made) * home.segment_size
    got = []
    while (batch := spool.read("traces", 512, 2**20)) is not None:
        got += [record.payload for record in batch.records]
        spool.settle(batch, batch.items, {})
        assert files(spool.directory) == made[batch.position.segment - 1 :]
    assert got == payloads
    assert files(spool.directory) == made[-1:]
    assert spool.size("traces") == home.segment_size
    fill(spool, "traces", 10)
    assert files(spool.directory) == made[-1:]


def test_a_record_above_a_segments_size_gets_one_of_its_own(spools, home):
    spool = spools.make()
    sizes = [10, home.segment_size, 10, MAX_RECORD, 10]
    for number, size in enumerate(sizes):
        assert spool.append("logs", bytes([number]) * size, 1) == ""
    found = sorted(path.stat().st_size for path in spool.directory.glob("logs-*"))
    assert found == [home.segment_size, home.segment_size + 4096, MAX_RECORD + 4096]
    assert [len(payload) for payload in drain(spool, "logs")] == sizes


def test_a_record_too_large_is_refused_and_counted(spools, books):
    spool = spools.make()
    assert spool.append("logs", bytes(MAX_RECORD + 1), 7) == "too_large"
    assert books.total("logs", "refused", "too_large") == 7
    assert totals(books, "logs") == (0, 0, 0)
    assert spool.waiting("logs") == 0


def test_many_threads_lose_and_double_nothing(spools, books):
    spool = spools.make()
    writers, each = 6, 400
    done = threading.Event()
    got = []

    def write(writer):
        for number in range(each):
            assert spool.append("traces", f"{writer}:{number}".encode() * 50, 1) == ""

    def read():
        while not done.is_set() or spool.waiting("traces"):
            got.extend(drain(spool, "traces", 64))

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    numbers = [payload[: len(payload) // 50].decode().split(":") for payload in got]
    for writer in range(writers):
        assert [int(n) for w, n in numbers if w == str(writer)] == list(range(each))
    assert totals(books, "traces") == (writers * each, writers * each, 0)


# --- age ---


def test_telemetry_of_more_than_an_hour_is_dropped_as_expired_and_events_are_not(
    spools, books, monkeypatch
):
    spool = spools.make()
    now_ns = time.monotonic_ns() + 2 * 3600 * 10**9  # the machine may have started just now
    for channel in CHANNELS:
        for age_s, items in ((3700, 1), (3601, 2), (3590, 4), (0, 8)):
            monkeypatch.setattr(time, "monotonic_ns", lambda ns=age_s * 10**9: now_ns - ns)
            assert spool.append(channel, b"x", items) == ""
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    for channel in ("traces", "metrics", "logs"):
        batch = spool.read(channel, 512, 2**20)
        assert [record.items for record in batch.records] == [4, 8]
        assert books.total(channel, "dropped", "expired") == 3
        spool.settle(batch, batch.items, {})
    assert len(drain(spool, "events")) == 4
    assert books.total("events", "dropped") == 0
    assert is_balanced(books, spool)


@pytest.fixture
def later(monkeypatch):
    """later(seconds): so much has passed since the test began."""
    began_ns = time.monotonic_ns()
    return lambda s: monkeypatch.setattr(time, "monotonic_ns", lambda: began_ns + int(s * 1e9))


EXPIRED_S = shelf.MAX_AGE_S + 60


@pytest.mark.parametrize("expire", [True, False], ids=["by itself", "when it is read"])
def test_what_is_too_old_is_dropped_and_its_segments_freed(spools, books, later, expire):
    spool = spools.make()
    fill(spool, "logs", 3000, size=1000)
    later(EXPIRED_S)
    fill(spool, "logs", 5)
    made = files(spool.directory, "logs")
    assert len(made) == 3
    if expire:
        spool.expire("logs")
    else:
        assert len(spool.read("logs", 512, 2**20).records) == 5
    assert totals(books, "logs") == (3005, 0, 3000)
    assert files(spool.directory, "logs") == made[-1:]
    spool.expire("logs")
    assert (totals(books, "logs"), spool.waiting("logs")) == ((3005, 0, 3000), 5)
    assert len(drain(spool, "logs")) == 5
    assert is_balanced(books, spool)


def test_events_do_not_expire(spools, later):
    spool = spools.make()
    events = fill(spool, "events", 5)
    later(EXPIRED_S)
    spool.expire("events")
    assert drain(spool, "events") == events


def test_what_expires_behind_a_batch_that_is_held_makes_room(spools, books, home, monkeypatch):
    """An outage of hours, a full spool, and a sender that tries one batch again and again."""
    monkeypatch.setattr(home, "_limit", lambda used: 8 * 2**20)
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    spool = spools.make()
    held, recent, refused = None, [], 0
    for minute in range(180):
        now_ns += 60 * 10**9
        for number in range(20):
            payload = f"{minute} {number}".encode().ljust(4000, b".")
            if spool.append("traces", payload, 1):
                refused += 1
            elif minute > 120:
                recent.append(payload)
            monkeypatch.setattr(spool, "_full", dict.fromkeys(CHANNELS, ("", 0.0)))
        if held is None:
            held = spool.read("traces", 10, 2**20)
        spool.expire("traces")
    assert (len(held.records), refused) == (10, 0)
    assert len(recent) == 59 * 20
    # The receiver is back, and takes what was held too.
    assert spool.waiting("traces") == len(held.records) + 61 * 20
    spool.settle(held, 10, {})
    assert drain(spool, "traces")[-len(recent) :] == recent
    accepted = 180 * 20
    assert totals(books, "traces") == (accepted, 10 + 61 * 20, accepted - 10 - 61 * 20)
    assert books.total("traces", "dropped", "corrupt") == 0


def held_while_the_rest_expires(spool, later):
    """What a reader holds; nine more are dropped, then two come."""
    fill(spool, "logs", 12)
    held = spool.read("logs", 3, 2**20)
    later(EXPIRED_S)
    spool.expire("logs")
    fill(spool, "logs", 2)
    assert spool.waiting("logs") == 5
    return held


def test_a_batch_held_while_the_rest_expires_is_read_again_until_it_is_settled(
    spools, books, later
):
    spool = spools.make()
    held = held_while_the_rest_expires(spool, later)
    assert spool.read("logs", 512, 2**20) == held
    spool.expire("logs")
    spool.settle(held, 2, {"rejected": 1})
    assert totals(books, "logs") == (14, 2, 10)
    assert len(drain(spool, "logs")) == 2
    assert is_balanced(books, spool)


def test_a_batch_that_is_held_and_not_passed_stays_at_its_place(spools, books, later):
    spool = spools.make()
    payloads = fill(spool, "logs", 3)
    held = spool.read("logs", 3, 2**20)
    later(EXPIRED_S)
    payloads += fill(spool, "logs", 2)
    spool.expire("logs")
    assert books.total("logs", "dropped") == 0
    assert [record.payload for record in spool.read("logs", 512, 2**20).records] == payloads
    spool.settle(held, 3, {})
    assert drain(spool, "logs") == payloads[3:]


def test_a_passed_batch_is_expired_at_the_end(spools, books, later):
    spool = spools.make(Books())
    held = held_while_the_rest_expires(spool, later)
    spool.close()
    spool.settle(held, 3, {})  # too late
    assert totals(spool._books, "logs") == (14, 0, 12)
    orphan = spools.adopt_one()
    assert len(drain(orphan, "logs")) == 2
    assert totals(books, "logs") == (14, 2, 12)
    assert books.total("logs", "dropped", "expired") == 12


def test_a_passed_batch_of_a_killed_process_is_counted_once(spools, books, later):
    spool = spools.make(Books())
    held_while_the_rest_expires(spool, later)
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert orphan.waiting("logs") == 5
    assert len(drain(orphan, "logs")) == 2
    assert totals(books, "logs") == (14, 2, 12)
    assert orphan.is_done()


def test_an_adopters_passed_batch_is_expired_when_it_is_left(spools, books, later):
    spool = spools.make(Books())
    fill(spool, "logs", 12)
    spools.crash(spool)
    first = spools.adopt_one()
    first.read("logs", 3, 2**20)
    later(EXPIRED_S)
    first.expire("logs")
    assert totals(books, "logs") == (12, 0, 9)
    first.close()
    assert totals(books, "logs") == (12, 0, 12)
    assert not first.directory.exists()


def test_a_wall_clock_that_jumps_drops_nothing(spools, monkeypatch):
    spool = spools.make()
    now_ns = time.time_ns()
    fill(spool, "traces", 2)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 2 * 3600 * 10**9)
    fill(spool, "traces", 2)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns - 2 * 3600 * 10**9)
    assert len(drain(spool, "traces")) == 4


@pytest.mark.parametrize(("off_s", "kept"), [(1800, 3), (7200, 0)])
def test_after_a_reboot_the_wall_clock_tells_the_age(spools, monkeypatch, off_s, kept):
    spool = spools.make()
    fill(spool, "logs", 3)
    spool.append("events", b"event", 1)
    spools.crash(spool)
    boot_s = time.time() + off_s
    monkeypatch.setattr(ledger, "boot_id", lambda: "the next boot")
    monkeypatch.setattr(time, "time_ns", lambda: int(boot_s * 1e9))
    monkeypatch.setattr(time, "monotonic_ns", lambda: 40 * 10**9)
    orphan = spools.adopt_one()
    assert len(drain(orphan, "logs")) == kept
    assert spools.books.total("logs", "dropped", "expired") == 3 - kept
    assert len(drain(orphan, "events")) == 1


# --- the disk ---


@pytest.fixture
def failing(monkeypatch):
    """failing(name, error number): os.<name> fails from now on; None ends it."""

    def fail(name, number):
        monkeypatch.undo()
        if number is not None:
            target = __import__("mmap") if name == "mmap" else os

            def refuse(*_, **__):
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(target, name, refuse)
            if hasattr(Path, name):  # before Python 3.11 it keeps functions of os for itself
                monkeypatch.setattr(Path, name, refuse)

    return fail


REASONS = [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EIO, "io_error")]


@pytest.mark.parametrize(("number", "reason"), REASONS)
@pytest.mark.parametrize("call", ["posix_fallocate", "open", "mmap", "pwrite"])
def test_a_disk_that_refuses_is_counted_and_forgotten_when_it_takes_again(
    spools, books, home, failing, monkeypatch, call, number, reason
):
    if (call == "mmap" and not home.mapped) or (call == "pwrite" and home.mapped):
        pytest.skip("not used in this mode")
    spool = spools.make()
    failing(call, number)
    assert [spool.append("traces", b"refused", 2) for _ in range(3)] == [reason] * 3
    failing(call, None)
    assert books.total("traces", "refused", reason) == 6
    assert totals(books, "traces") == (0, 0, 0)
    assert len(files(spool.directory)) == 0
    # It is not asked at every record, but soon.
    assert spool.append("traces", b"still", 1) == reason
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 1.1)
    assert spool.append("traces", b"taken", 3) == ""
    assert spool.waiting("traces") == 3
    assert drain(spool, "traces") == [b"taken"]


@pytest.mark.parametrize(("number", "reason"), REASONS)
def test_a_write_that_fails_in_a_segment_leaves_the_ones_before(
    spools, books, home, failing, number, reason
):
    if home.mapped:
        pytest.skip("a mapping has no errors")
    spool = spools.make()
    before = fill(spool, "logs", 5)
    failing("pwrite", number)
    assert spool.append("logs", b"refused", 1) == reason
    failing("pwrite", None)
    after = fill(spool, "logs", 2)
    spools.crash(spool)
    assert drain(spools.adopt_one(), "logs") == before + after
    assert books.total("logs", "refused", reason) == 1


def test_short_writes_are_completed(spools, home, monkeypatch):
    if home.mapped:
        pytest.skip("a mapping is written whole")
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data)[:3], at))
    spool = spools.make()
    payloads = fill(spool, "logs", 20)
    spool.keep_latest(b"metrics" * 100, 4)
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert orphan.last_metrics().payload == b"metrics" * 100
    assert drain(orphan, "logs") == payloads


def test_a_segment_that_cant_be_removed_is_no_error(spools, books, failing):
    spool = spools.make()
    payloads = fill(spool, "traces", 3000, size=1000)
    failing("unlink", errno.EIO)
    assert drain(spool, "traces") == payloads
    failing("unlink", None)
    assert totals(books, "traces") == (3000, 3000, 0)
    directory = spools.crash(spool)
    orphan = spools.adopt_one()
    assert orphan.is_done()
    assert drain(orphan, "traces") == []
    orphan.close()
    assert not directory.exists()


def test_a_number_that_stayed_behind_is_not_taken_again(spools, monkeypatch):
    """Neither the making nor the clearing away worked: the next segment has another name."""
    spool = spools.make()
    (spool.directory / "traces-00000001.seg").write_bytes(b"left over")
    assert spool.append("traces", b"first", 1) == "io_error"
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 1.1)
    assert spool.append("traces", b"second", 1) == ""
    assert drain(spool, "traces") == [b"second"]


def test_a_disk_that_cant_be_read_gives_nothing_up(spools, books, home, failing):
    spool = spools.make()
    payloads = fill(spool, "logs", 5)
    failing("pread", errno.EIO)
    batch = spool.read("logs", 512, 2**20)
    assert (batch is None) == (not home.mapped)
    failing("pread", None)
    assert drain(spool, "logs") == payloads
    assert totals(books, "logs") == (5, 5, 0)


def test_only_the_segment_that_is_written_to_takes_a_descriptor(spools, monkeypatch):
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", 64 * 1024)
    spool = spools.make()
    descriptors = len(os.listdir("/dev/fd"))
    payloads = fill(spool, "traces", 1000, size=1000)
    assert len(files(spool.directory)) == 16
    assert len(os.listdir("/dev/fd")) - descriptors == 1
    assert drain(spool, "traces") == payloads


def test_waiting_segments_removed_under_it_are_counted(spools, books, home):
    spool = spools.make()
    payloads = fill(spool, "traces", 3000, size=1000)
    (spool.directory / "traces-00000001.seg").unlink()
    per_segment = (home.segment_size - frames.START) // frames.room(1000)
    assert drain(spool, "traces") == payloads[per_segment:]
    assert books.total("traces", "dropped", "corrupt") == per_segment
    assert is_balanced(books, spool)


def test_a_really_full_disk(volume, spools, books, tmp_path):
    home = spools.home
    home.root = home.path = volume(8 * 2**20) / "spool"
    home.path.mkdir()
    home._limit = lambda used: 2**40  # so that the disk itself says no
    home.limit = 2**20
    spool = spools.make()
    payloads, reasons = [], []
    while "full" not in reasons:
        payload = os.urandom(20_000)
        reasons.append(spool.append("traces", payload, 1))
        if not reasons[-1]:
            payloads.append(payload)
    assert 7 * 2**20 * 0.95 < len(payloads) * 20_000 < 8 * 2**20
    assert drain(spool, "traces") == payloads
    spool._full["traces"] = ("", 0.0)
    assert spool.append("traces", b"there is room again", 1) == ""
    assert is_balanced(books, spool)
    spools.crash(spool)
    assert drain(spools.adopt_one(), "traces") == [b"there is room again"]


def test_no_room_for_its_directory_is_unusable_with_a_remedy(home, books, failing):
    for call, number in (
        ("posix_fallocate", errno.ENOSPC), ("open", errno.EIO), ("mkdir", errno.EROFS),
        ("rename", errno.EIO), ("pwrite", errno.EDQUOT),
    ):  # fmt: skip
        failing(call, number)
        with pytest.raises(UnusableError, match="free disk space, or give this user") as caught:
            Spool(home, books)
        assert str(home.path) in str(caught.value)
        assert os.strerror(number) in str(caught.value)
        failing(call, None)
        # Without open() nothing can be cleared away either; an adopter does it.
        left = [path.name[0] for path in home.path.iterdir()]
        assert left == (["."] if call == "open" else [])
        for path in home.path.iterdir():
            path.rmdir()


def test_a_file_system_without_locks_is_unusable(home, books, monkeypatch):
    monkeypatch.setattr(queue, "lock", lambda fd: False)
    with pytest.raises(UnusableError, match="flock"):
        Spool(home, books)
    assert list(home.path.iterdir()) == []


# --- the newest metrics ---


def test_the_newest_metrics_are_left_for_the_adopter(spools):
    spool = spools.make()
    spool.append("metrics", b"exported", 10)
    assert spool.keep_latest(b"newer", 11) == ""
    spools.crash(spool)
    orphan = spools.adopt_one()
    written = orphan.last_metrics()
    assert (written.after, written.items, written.payload) == (10, 11, b"newer")


@pytest.mark.parametrize(("number", "reason"), REASONS)
def test_metrics_that_cant_be_kept_are_no_error(spools, failing, number, reason):
    spool = spools.make()
    spool.keep_latest(b"before", 1)
    failing("pwrite", number)
    assert spool.keep_latest(b"lost", 1) == reason
    failing("posix_fallocate", number)
    assert spool.keep_latest(b"larger" * 10_000, 1) == reason
    failing("pwrite", None)
    spools.crash(spool)
    assert spools.adopt_one().last_metrics().payload == b"before"


# --- the end ---


def test_closed_with_nothing_waiting_it_leaves_nothing(spools, home):
    spool = spools.make()
    fill(spool, "traces", 3)
    drain(spool, "traces")
    spool.close()
    spool.close()
    assert list(home.path.iterdir()) == []


def test_closed_with_something_waiting_it_leaves_it_to_the_next(spools):
    spool = spools.make()
    payloads = fill(spool, "traces", 3)
    spool.close()
    assert drain(spools.adopt_one(), "traces") == payloads


def test_closed_it_takes_no_more_room_than_what_waits(spools):
    spool = spools.make()
    fill(spool, "traces", 3, size=100)
    drain(spool, "traces")
    records = (mmap.PAGESIZE - frames.START) // frames.room(104)
    last = mmap.PAGESIZE - frames.START - records * frames.room(104) - frames.OVERHEAD
    logs = fill(spool, "logs", records, size=104)
    logs.append(b"to the last byte of a page".ljust(last, b"."))
    assert spool.append("logs", logs[-1], 1) == ""
    metrics = fill(spool, "metrics", records + 2, size=104)
    spool.close()
    sizes = {path.name: path.stat().st_size for path in spool.directory.glob("*.seg")}
    assert sizes == {
        "logs-00000001.seg": mmap.PAGESIZE, "metrics-00000001.seg": 2 * mmap.PAGESIZE,
    }  # fmt: skip
    orphan = spools.adopt_one()
    assert drain(orphan, "logs") == logs
    assert drain(orphan, "metrics") == metrics


def test_a_record_of_its_own_size_is_whole_when_it_is_closed(spools, home):
    spool = spools.make()
    sizes = [10, home.segment_size, 10]
    for number, size in enumerate(sizes):
        assert spool.append("logs", bytes([number + 1]) * size, 1) == ""
    spool.close()
    assert [len(payload) for payload in drain(spools.adopt_one(), "logs")] == sizes


def test_many_short_runs_in_an_outage_fit(spools, home, monkeypatch):
    monkeypatch.setattr(home, "_limit", lambda used: 8 * 2**20)
    for number in range(100):
        spool = spools.make()
        for channel in ("traces", "logs", "metrics"):
            assert spool.append(channel, b"%d" % number, 1) == ""
        spool.close()
    assert home.used() < 6 * 2**20
    assert sum(len(drain(orphan, "traces")) for orphan in spools.adopt()) == 100


def test_after_the_end_nothing_is_taken_and_nothing_raises(spools, books):
    spool = spools.make()
    fill(spool, "traces", 3)
    batch = spool.read("traces", 512, 2**20)
    spool.close()
    assert spool.append("traces", b"late", 1) == "io_error"
    assert spool.keep_latest(b"late", 1) == "io_error"
    assert spool.read("traces", 512, 2**20) is None
    spool.settle(batch, 3, {})
    spool.report(spool.rows())
    assert books.snapshot()[0] == {}
    spool.forget()
    assert spool.waiting("traces") == 3
    assert totals(books, "traces") == (3, 0, 0)
    assert len(drain(spools.adopt_one(), "traces")) == 3


def test_its_directory_removed_under_it_is_no_error(spools, books):
    import shutil

    spool = spools.make()
    payloads = fill(spool, "traces", 3)
    shutil.rmtree(spool.directory)
    assert drain(spool, "traces") == payloads
    assert spool.append("logs", b"x", 1) == "io_error"
    assert spool.keep_latest(b"larger" * 10_000, 1) == "io_error"
    spool.close()
    assert is_balanced(books, spool)


def test_files_and_directories_are_private_whatever_the_umask(spools, home):
    for mask in (0, 0o022, 0o177):
        old = os.umask(mask)
        try:
            spool = spools.make()
            for channel in CHANNELS:
                spool.append(channel, b"x", 1)
            spool.keep_latest(b"x", 1)
            spool.keep_latest(b"x" * 100_000, 1)
        finally:
            os.umask(old)
        assert spool.directory.stat().st_mode & 0o7777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o7777 for path in spool.directory.iterdir()}
        assert set(modes.values()) == {0o600}
        assert len(modes) == 6


# --- fork ---


def in_fork(function):
    """The exit status of a forked child that ran it: 0, or 1 where it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test runner
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_leaves_the_parents_alone(spools, home, books):
    spool = spools.make()
    payloads = fill(spool, "traces", 3)

    def child():
        spool.forget()
        home.forget()
        books.forget()
        own = Spool(home, books)
        assert spools.adopt(own=own.directory) == []  # the parent lives
        assert own.append("traces", b"the child's", 1) == ""
        assert totals(books, "traces") == (1, 0, 0)

    assert in_fork(child) == 0
    assert totals(books, "traces") == (3, 0, 0)
    more = fill(spool, "traces", 2)
    assert drain(spool, "traces") == payloads + more
    (orphan,) = spools.adopt(own=spool.directory)
    assert drain(orphan, "traces") == [b"the child's"]
    assert totals(books, "traces") == (6, 6, 0)


def test_a_living_child_does_not_keep_its_dead_parents_spool_from_being_adopted(spools, home):
    """And the parent's lock is held until the parent is dead."""
    read, write = os.pipe()
    release_read, release = os.pipe()

    def parent():
        spool = Spool(home, spools.books)
        fill(spool, "traces", 3)
        pid = os.fork()
        if pid == 0:
            spool.forget()
            os.write(write, b"c")
            os.read(release_read, 1)  # lives on after its parent
            os._exit(0)
        os.read(read, 1)
        assert spools.adopt() == []

    assert in_fork(parent) == 0
    try:
        assert len(drain(spools.adopt_one(), "traces")) == 3
    finally:
        os.write(release, b"x")
        for fd in (read, write, release_read, release):
            os.close(fd)


def test_a_directory_is_never_seen_half_made(home, books, monkeypatch):
    seen = []
    rename = Path.rename

    def look(path, target):
        if path.name.startswith("."):
            seen.append(sorted(entry.name for entry in path.iterdir()))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    Spool(home, books).close()
    assert seen[0] == ["latest.new", "ledger"]
