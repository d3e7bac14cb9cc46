from __future__ import annotations

import collections
import errno
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pbmon.spool import adoption, directory, frames, ledger
from pbmon.spool.books import Books
from pbmon.spool.directory import Home
from pbmon.spool.frames import CHANNELS
from pbmon.spool.ledger import Origin
from pbmon.spool.queue import Spool
from tests import fresh
from tests.spool.spools import Spools, drain, fill, is_balanced, tell, totals
from tests.spool.worker import NUMBER, RANGE
from tests.stack.process import wait_until

ROUNDS = int(os.environ.get("SPOOL_ROUNDS", "1"))
"""25 for what is done once in a while."""

ROOT = Path(__file__).parents[2]
OTHER_VERSION = ledger._VERSION + 1


@contextmanager
def worker(*arguments):
    """A running tests.spool.worker; killed in the end, its forked children too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.spool.worker", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=fresh.environment(),
        start_new_session=True, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)
        process.stdin.close()
        process.stdout.close()


def kill(process):
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def end(process):
    """Let it come to its own end."""
    process.stdin.close()
    assert process.wait(60) == 0


def numbers(log):
    """Whole ones: a process can be killed in the middle of noting one."""
    data = log.read_bytes() if log.exists() else b""
    return [n for (n,) in NUMBER.iter_unpack(data[: len(data) // NUMBER.size * NUMBER.size])]


def size(log):
    return log.stat().st_size if log.exists() else 0


@pytest.fixture
def plain(tmp_path, books):
    """Spools of the usual kind only, for what does not depend on how files are written."""
    home = Home(tmp_path / "state", "shop")
    made = Spools(home, books)
    yield made
    made.let_go()
    os.close(home._lock_fd)


# --- who is adopted ---


def test_a_dead_processs_records_are_found_in_their_order(spools, books):
    spool = spools.make(Books())
    payloads = {channel: fill(spool, channel, 2000, size=1000) for channel in CHANNELS}
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert {channel: drain(orphan, channel) for channel in CHANNELS} == payloads
    assert orphan.is_done()
    orphan.close()
    assert not orphan.directory.exists()
    assert all(totals(books, channel) == (2000, 2000, 0) for channel in CHANNELS)


def test_what_was_settled_before_is_not_found_again(spools):
    spool = spools.make()
    payloads = fill(spool, "logs", 3000, size=1000)
    for _ in range(4):
        batch = spool.read("logs", 512, 2**20)
        spool.settle(batch, batch.items, {})
    spools.crash(spool)
    assert drain(spools.adopt_one(), "logs") == payloads[4 * 512 :]


def test_ones_own_and_living_ones_are_left(plain):
    own, other = plain.make(), plain.make()
    fill(own, "logs", 1)
    fill(other, "logs", 1)
    assert plain.adopt(own=own.directory) == []
    assert plain.adopt() == []
    plain.crash(other)
    (orphan,) = plain.adopt(own=own.directory)
    assert orphan.directory == other.directory
    assert plain.adopt(own=own.directory) == []  # this process has it already


def test_a_living_process_is_left_and_a_killed_one_is_not(plain):
    with worker("hold", plain.home.state_directory, 5) as process:
        assert process.stdout.readline() == "ready\n"
        assert plain.adopt() == []
        kill(process)
        orphan = plain.adopt_one()
        assert [orphan.waiting(channel) for channel in CHANNELS] == [5] * 4


def test_one_that_another_adopter_removed_after_it_was_opened_is_not_taken(plain, monkeypatch):
    spool = plain.make(Books())
    fill(spool, "logs", 3)
    plain.crash(spool)
    other, lock = Books(), adoption.lock

    def be_late(fd):
        monkeypatch.setattr(adoption, "lock", lock)
        orphan = plain.adopt_one(other)
        drain(orphan, "logs")
        orphan.close()
        return lock(fd)

    monkeypatch.setattr(adoption, "lock", be_late)
    assert plain.adopt() == []
    assert totals(other, "logs") == (3, 3, 0)
    assert totals(plain.books, "logs") == (0, 0, 0)


def test_other_services_are_left(plain, tmp_path):
    fill(spool := plain.make(), "logs", 1)
    plain.crash(spool)
    other = Home(tmp_path / "state", "shop/2")
    assert other.path != plain.home.path
    assert adoption.adopt(other, Books(), None) == []
    os.close(other._lock_fd)


def test_hidden_leftovers_of_ours_go_after_a_minute(plain):
    old_s = time.time() - 61
    made = {}
    for name, age, locked in (
        (".1-0123abcd", 61, False), (".2-0123abcd.done", 61, False), (".3-0123abcd", 59, False),
        (".4-0123abcd", 61, True), (".snapshot", 61, False), (".5-0123abcd", 61, None),
    ):  # fmt: skip
        path = plain.home.path / name
        path.mkdir()
        if locked is not None:
            fd = os.open(path / ledger.NAME, os.O_RDWR | os.O_CREAT)
            if locked:
                assert adoption.lock(fd)
                held = fd
            else:
                os.close(fd)
        os.utime(path, (old_s, time.time() - age))
        made[name] = path
    assert plain.adopt() == []
    left = {name for name, path in made.items() if path.exists()}
    assert left == {".3-0123abcd", ".4-0123abcd", ".snapshot"}
    os.close(held)


def test_what_is_none_of_ours_is_left_alone(plain):
    place = plain.home.path
    (place / "a file").write_text("x")
    (place / "empty").mkdir()
    (place / "theirs").mkdir()
    (place / "theirs" / "notes.txt").write_text("x")
    (place / "a link").symlink_to(place / "theirs")
    (place / "fifo").mkdir()
    os.mkfifo(place / "fifo" / ledger.NAME)
    (place / "folder").mkdir()
    (place / "folder" / ledger.NAME).mkdir()
    (place / "linked").mkdir()
    (place / "linked" / ledger.NAME).symlink_to(place / "a file")
    for path in place.iterdir():
        os.utime(path, (0, 0))
    before = sorted(str(path) for path in place.rglob("*"))
    assert plain.adopt() == []
    assert sorted(str(path) for path in place.rglob("*")) == before


def test_foreign_files_among_the_segments_are_overlooked(plain, books):
    spool = plain.make(Books())
    payloads = fill(spool, "traces", 3)
    place = plain.crash(spool)
    for name in ("traces-²2345678.seg", "traces-1.seg", "traces-.seg", "traces-00000009.seg.gz",
                 "notes", "-00000001.seg", "other-00000001.seg"):  # fmt: skip
        (place / name).write_bytes(b"foreign")
    shutil.copy(place / "traces-00000001.seg", place / "traces-00000002.seg")
    shutil.copy(place / "traces-00000001.seg", place / "logs-00000001.seg")
    orphan = plain.adopt_one()
    assert drain(orphan, "traces") == payloads
    assert drain(orphan, "logs") == []
    assert totals(books, "traces") == (3, 3, 0)


def test_a_spool_of_another_version_is_left_alone(plain, monkeypatch):
    monkeypatch.setattr(ledger, "_VERSION", OTHER_VERSION)
    spool = plain.make()
    fill(spool, "traces", 3)
    place = plain.crash(spool)
    monkeypatch.undo()
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert plain.adopt() == []
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    monkeypatch.setattr(ledger, "_VERSION", OTHER_VERSION)
    assert len(drain(plain.adopt_one(), "traces")) == 3


def test_a_place_that_is_gone_has_no_orphans(plain):
    shutil.rmtree(plain.home.state_directory)
    assert plain.adopt() == []


@pytest.mark.parametrize("call", ["open", "pread", "scandir", "listdir"])
def test_what_cant_be_read_now_is_tried_again_later(plain, books, monkeypatch, call):
    spool = plain.make(Books())
    payloads = fill(spool, "traces", 3)
    plain.crash(spool)

    def fail(*_, **__):
        raise OSError(errno.EMFILE, "injected")

    monkeypatch.setattr(os, call, fail)
    orphans = plain.adopt()
    monkeypatch.undo()
    orphan = orphans[0] if orphans else plain.adopt_one()
    assert drain(orphan, "traces") == payloads
    assert totals(books, "traces") == (3, 3, 0)


def test_segments_that_cant_be_read_now_are_not_given_up(plain, books, monkeypatch):
    spool = plain.make(Books())
    payloads = fill(spool, "traces", 3000, size=1000)
    plain.crash(spool)
    read_bytes = Path.read_bytes

    def fail(path):
        if path.name.startswith("traces"):
            raise OSError(errno.EIO, "injected")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert plain.adopt() == []
    monkeypatch.undo()
    assert totals(books, "traces") == (0, 0, 0)
    orphan = plain.adopt_one()
    orphan.read("traces", 512, 2**20)
    monkeypatch.setattr(Path, "read_bytes", fail)
    got = drain(orphan, "traces")
    assert orphan.read("traces", 512, 2**20) is None
    monkeypatch.undo()
    assert got + drain(orphan, "traces") == payloads
    assert totals(books, "traces") == (3000, 3000, 0)


# --- the books ---


def test_what_was_not_yet_told_is_told_by_the_adopter(spools):
    spool = spools.make(Books())
    fill(spool, "logs", 10)
    batch = spool.read("logs", 4, 2**20)
    spool.settle(batch, 3, {"rejected": 1})
    tell(spool._books)  # told: 10, 3, 1
    fill(spool, "logs", 5)
    batch = spool.read("logs", 5, 2**20)
    spool.settle(batch, 3, {"rejected": 2})
    spools.crash(spool)
    heir = Books()
    orphan = spools.adopt_one(heir)
    assert totals(heir, "logs") == (5, 3, 2)
    assert heir.total("logs", "dropped", "rejected") == 2
    assert orphan.waiting("logs") == 6
    assert len(drain(orphan, "logs")) == 6
    assert totals(heir, "logs") == (5, 9, 2)  # with the first one's 10, 3, 1: 15 = 12 + 3


def test_an_adopter_that_dies_leaves_the_rest_to_the_next_and_nothing_is_told_twice(spools):
    spool = spools.make(Books())
    payloads = fill(spool, "logs", 10)
    spools.crash(spool)
    first, second = Books(), Books()
    orphan = spools.adopt_one(first)
    batch = orphan.read("logs", 4, 2**20)
    orphan.settle(batch, 4, {})
    assert totals(first, "logs") == (10, 4, 0)
    tell(first)
    spools.crash(orphan)
    orphan = spools.adopt_one(second)
    assert drain(orphan, "logs") == payloads[4:]
    assert totals(second, "logs") == (0, 6, 0)


def test_an_adopter_that_dies_before_it_could_tell_leaves_that_to_the_next(spools):
    spool = spools.make(Books())
    fill(spool, "logs", 10)
    spools.crash(spool)
    first, second = Books(), Books()
    orphan = spools.adopt_one(first)
    orphan.settle(orphan.read("logs", 4, 2**20), 4, {})
    rows, _ = first.snapshot()  # told: 10, 4
    orphan.settle(orphan.read("logs", 1, 2**20), 0, {"rejected": 1})
    assert not orphan.is_told()
    for part, row in rows.items():
        part.report(row)
    assert not orphan.is_told()
    spools.crash(orphan)
    orphan = spools.adopt_one(second)
    assert totals(second, "logs") == (0, 0, 1)
    assert len(drain(orphan, "logs")) == 5
    tell(second)
    assert orphan.is_told()
    assert totals(second, "logs") == (0, 5, 1)


def test_killed_between_a_record_and_its_count_it_is_found(spools, books):
    spool = spools.make(Books())
    fill(spool, "logs", 3)
    spool._current["logs"].append(frames.body(2, time.monotonic_ns(), b"not counted"))
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert orphan.waiting("logs") == 5
    assert drain(orphan, "logs")[-1] == b"not counted"
    assert totals(books, "logs") == (5, 5, 0)


def test_killed_between_the_position_and_the_count_nothing_is_sent_twice(spools, books):
    spool = spools.make(Books())
    fill(spool, "logs", 5)
    batch = spool.read("logs", 2, 2**20)
    spool.ledger.move("logs", batch.position)
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert len(drain(orphan, "logs")) == 3
    assert totals(books, "logs") == (5, 3, 2)


# --- the room it takes ---


def sizes(directory):
    return {path.name: path.stat().st_size for path in directory.glob("*.seg")}


def test_what_a_killed_one_had_allocated_is_given_back(spools):
    spool = spools.make()
    payloads = fill(spool, "logs", 2 * mmap.PAGESIZE // frames.room(400), size=400)
    fill(spool, "traces", 3)
    drain(spool, "traces")
    place = spools.crash(spool)
    assert sizes(place)["logs-00000001.seg"] == spools.home.segment_size
    orphan = spools.adopt_one()
    assert sizes(place) == {"logs-00000001.seg": 2 * mmap.PAGESIZE}
    spools.crash(orphan)
    assert drain(spools.adopt_one(), "logs") == payloads


def test_nothing_is_cut_off_that_was_ever_written(spools):
    """Half a record, or what a damaged one hides, may still be of use to somebody."""
    spool = spools.make()
    fill(spool, "logs", 3)
    place = spools.crash(spool)
    with (place / "logs-00000001.seg").open("r+b") as file:
        file.seek(3 * mmap.PAGESIZE)
        file.write(b"x")
    before = (place / "logs-00000001.seg").read_bytes()
    orphan = spools.adopt_one()
    assert (place / "logs-00000001.seg").read_bytes() == before
    assert len(drain(orphan, "logs")) == 3


# --- the newest metrics ---


def test_last_metrics_only_where_no_later_ones_were_spooled(spools):
    spool = spools.make()
    spool.append("metrics", b"exported", 5)
    spool.keep_latest(b"kept", 6)
    spool.append("metrics", b"exported later", 5)
    spools.crash(spool)
    orphan = spools.adopt_one()
    assert orphan.last_metrics() is None
    assert drain(orphan, "metrics") == [b"exported", b"exported later"]


@pytest.mark.parametrize(("age_s", "sent"), [(3590, True), (3610, False)])
def test_last_metrics_of_more_than_an_hour_are_not_sent(spools, books, monkeypatch, age_s, sent):
    spool = spools.make()
    spool.keep_latest(b"kept", 6)
    spools.crash(spool)
    later_ns = time.monotonic_ns() + age_s * 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: later_ns)
    orphan = spools.adopt_one()
    assert (orphan.last_metrics() is not None) is sent
    assert totals(books, "metrics") == (0, 0, 0)
    assert orphan.is_done()


@pytest.mark.parametrize(("off_s", "sent"), [(1800, True), (7200, False)])
def test_over_a_reboot_the_wall_clock_tells_the_age_of_the_last_metrics(
    spools, monkeypatch, off_s, sent
):
    spool = spools.make()
    spool.keep_latest(b"kept", 6)
    spools.crash(spool)
    boot_s = time.time() + off_s
    monkeypatch.setattr(ledger, "boot_id", lambda: "the next boot")
    monkeypatch.setattr(time, "time_ns", lambda: int(boot_s * 1e9))
    monkeypatch.setattr(time, "monotonic_ns", lambda: 40 * 10**9)
    assert (spools.adopt_one().last_metrics() is not None) is sent


def test_last_metrics_none_were_kept(spools):
    spools.crash(spools.make())
    orphan = spools.adopt_one()
    assert orphan.last_metrics() is None
    assert orphan.is_done()


# --- killed ---


@pytest.mark.parametrize("number", range(10 * ROUNDS))
def test_killed_at_any_moment_nothing_that_was_taken_is_lost_or_doubled(plain, tmp_path, number):
    generator = random.Random(number)
    log = tmp_path / "taken"
    with worker("write", plain.home.state_directory, log, 0, 0) as process:
        enough = generator.randrange(1, 60_000)
        wait_until(lambda: size(log) > enough, "records were taken", 30)
        kill(process)
    orphan = plain.adopt_one()
    found = [
        NUMBER.unpack_from(payload)[0] for channel in CHANNELS for payload in drain(orphan, channel)
    ]
    taken = numbers(log)
    assert taken == list(range(len(taken)))
    assert sorted(found) == list(range(len(found)))
    assert len(found) - len(taken) in (0, 1)  # killed before it could note the last one
    assert is_balanced(plain.books, orphan)
    assert all(plain.books.total(channel, "dropped") == 0 for channel in CHANNELS)


@pytest.mark.parametrize("number", range(5 * ROUNDS))
def test_killed_while_it_delivers_nothing_is_delivered_twice(plain, tmp_path, number):
    generator = random.Random(number)
    log, delivered = tmp_path / "taken", tmp_path / "delivered"
    with worker("write", plain.home.state_directory, log, 0, 0, delivered) as process:
        enough = generator.randrange(1, 60_000)
        wait_until(lambda: size(delivered) > enough, "records were delivered", 30)
        kill(process)
    orphan = plain.adopt_one()
    found = numbers(delivered) + [
        NUMBER.unpack_from(payload)[0] for channel in CHANNELS for payload in drain(orphan, channel)
    ]
    assert max(collections.Counter(found).values()) == 1
    # It notes a batch as delivered only after it has settled it.
    assert len(set(numbers(log)) - set(found)) <= 64
    assert is_balanced(plain.books, orphan)


def test_forked_writers_and_two_adopters_killed_lose_and_double_nothing(plain, tmp_path):
    """Writers come and are killed with their forked children while two adopters compete."""
    state = plain.home.state_directory
    generator = random.Random(11)
    found = [tmp_path / "found-0", tmp_path / "found-1"]
    logs = []
    with worker("adopt", state, found[0]) as first, worker("adopt", state, found[1]) as second:
        for number in range(4 * ROUNDS):
            log = tmp_path / f"taken-{number}"
            logs.append(log)
            with worker("write", state, log, number * 10 * RANGE, 2) as writers:
                enough = generator.randrange(1, 30_000)
                wait_until(lambda: size(log) > enough, "records were taken", 30)  # noqa: B023
                kill(writers)
        # A child killed while it made its spool leaves a hidden one, with nothing in it.
        wait_until(lambda: not [*plain.home.path.glob("[0-9]*")], "all were adopted", 60)
        end(first)
        end(second)
    taken = {number for log in logs for number in numbers(log)}
    counts = collections.Counter(number for log in found for number in numbers(log))
    assert taken <= set(counts)
    assert set(counts.values()) == {1}
    # Each of the three writers may have been killed before it noted its last one.
    assert len(counts) - len(taken) <= 3 * len(logs)


def test_adopters_killed_in_the_middle_lose_nothing(plain, tmp_path):
    """An adopter notes after it has settled, so a batch at most is missing for each kill."""
    state = plain.home.state_directory
    with worker("hold", state, 20_000) as process:
        assert process.stdout.readline() == "ready\n"
        kill(process)
    kills = 5 * ROUNDS
    for number in range(kills):
        log = tmp_path / f"found-{number}"
        with worker("adopt", state, log) as process:
            wait_until(lambda: size(log) > 8 * 64 * 20, "some were found", 30)  # noqa: B023
            kill(process)
    orphan = plain.adopt_one()
    rest = sum(len(drain(orphan, channel)) for channel in CHANNELS)
    noted = sum(len(numbers(tmp_path / f"found-{number}")) for number in range(kills))
    assert 80_000 - kills * 64 <= noted + rest <= 80_000
    # What a kill took from between the reading and the settling was found by the next.
    assert rest > 0


def test_of_two_adopters_exactly_one_gets_it(plain, tmp_path):
    state = plain.home.state_directory
    logs = [tmp_path / "first", tmp_path / "second"]
    with worker("adopt", state, logs[0]) as first, worker("adopt", state, logs[1]) as second:
        for number in range(40):
            spool = plain.make(Books())
            for each in range(5):
                assert spool.append("logs", NUMBER.pack(number * 5 + each), 1) == ""
            plain.crash(spool)
        # A child killed while it made its spool leaves a hidden one, with nothing in it.
        wait_until(lambda: not [*plain.home.path.glob("[0-9]*")], "all were adopted", 60)
        end(first)
        end(second)
    assert sorted(numbers(logs[0]) + numbers(logs[1])) == list(range(200))


# --- damaged ---


class Remains:
    """A dead process's files, which are damaged again and again."""

    def __init__(self, spools):
        self.spools = spools
        spool = spools.make(Books())
        self.payloads = {c: fill(spool, c, 12, size=40 + n) for n, c in enumerate(CHANNELS)}
        batch = spool.read("logs", 3, 2**20)
        spool.settle(batch, 2, {"rejected": 1})
        self.settled = self.payloads["logs"][:3]
        self.payloads["logs"] = self.payloads["logs"][3:]
        spool.keep_latest(b"older" * 10, 1)
        spool.keep_latest(b"newer" * 10, 2)
        self.directory = spools.crash(spool)
        self.files = {path.name: path.read_bytes() for path in self.directory.iterdir()}

    def adopt(self, changed):
        """name → bytes, None for a missing file. Returns the orphan and the books."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700)
        for name, data in (self.files | changed).items():
            if data is not None:
                (self.directory / name).write_bytes(data)
        books = Books()
        return self.spools.adopt(books), books


@pytest.fixture
def remains(plain, monkeypatch):
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", 64 * 1024)  # there are many to be written
    return Remains(plain)


def let_go(orphan):
    orphan.close()
    assert not orphan.directory.exists()


def test_a_segment_cut_at_any_byte_gives_the_whole_records_before(remains):
    whole = remains.files["traces-00000001.seg"]
    stops, offset = [], frames.START
    for payload in remains.payloads["traces"]:
        stops.append(offset + frames.OVERHEAD + len(payload))
        offset += frames.room(len(payload))
    for length in [*range(offset + 20), 8192, len(whole) - 1]:
        (orphan,), books = remains.adopt({"traces-00000001.seg": whole[:length]})
        expected = remains.payloads["traces"][: sum(stop <= length for stop in stops)]
        assert drain(orphan, "traces") == expected, length
        assert totals(books, "traces") == (12, len(expected), 12 - len(expected))
        assert books.total("traces", "dropped", "corrupt") == 12 - len(expected)
        for channel in ("metrics", "logs", "events"):
            assert drain(orphan, channel) == remains.payloads[channel]
        let_go(orphan)


def test_flipped_bits_anywhere_give_only_true_records_and_balanced_books(remains):
    generator = random.Random(5)
    lengths = {name: min(len(data), 1200) for name, data in remains.files.items()}
    for number in range(2000 * ROUNDS):
        changed = {}
        for _ in range(generator.choice((1, 1, 3))):
            name = generator.choice(sorted(lengths))
            data = bytearray(changed.get(name, remains.files[name]))
            for _ in range(generator.choice((1, 1, 8, 64))):
                data[generator.randrange(lengths[name])] ^= 1 << generator.randrange(8)
            changed[name] = bytes(data)
        (orphan,), books = remains.adopt(changed)
        for channel in CHANNELS:
            got = drain(orphan, channel)
            truth = remains.payloads[channel]
            if "ledger" in changed and got[:1] == remains.settled[:1]:
                truth = remains.settled + truth  # its position was damaged: the beginning
            assert got == truth[: len(got)], number
            if not {"ledger", f"{channel}-00000001.seg"} & set(changed):
                assert got == truth
        assert is_balanced(books, orphan)
        written = orphan.last_metrics()
        if "latest" not in changed and "ledger" not in changed:
            assert written.payload == b"newer" * 10
        assert written is None or written.payload in (b"older" * 10, b"newer" * 10)
        let_go(orphan)


@pytest.mark.parametrize(
    "data", [b"", bytes(4096), random.Random(1).randbytes(4096), b"short"],
    ids=["empty", "zeros", "garbage", "short"],
)  # fmt: skip
def test_without_a_ledger_to_be_read_the_records_are_found(remains, data):
    (orphan,), books = remains.adopt({"ledger": data})
    assert len(drain(orphan, "logs")) == 12  # the position is gone, too
    for channel in ("traces", "metrics", "events"):
        assert drain(orphan, channel) == remains.payloads[channel]
        assert totals(books, channel) == (12, 12, 0)
    assert is_balanced(books, orphan)
    let_go(orphan)


def test_without_a_ledger_nothing_is_touched(remains):
    """It is no spool of ours, or a living process's whose ledger was deleted."""
    orphans, _ = remains.adopt({"ledger": None})
    assert orphans == []
    assert (remains.directory / "traces-00000001.seg").exists()


def test_missing_segments_are_counted(remains):
    (orphan,), books = remains.adopt({"traces-00000001.seg": None, "latest": None})
    assert drain(orphan, "traces") == []
    assert totals(books, "traces") == (12, 0, 12)
    assert orphan.last_metrics() is None
    assert drain(orphan, "events") == remains.payloads["events"]


@pytest.mark.parametrize("up_s", [100, 100_000])
def test_missing_segments_are_counted_also_where_nobody_reads(remains, monkeypatch, up_s):
    # Below 0 in the first hour after the boot.
    limit_ns = min((up_s - 3600) * 10**9, 1)
    monkeypatch.setattr(Origin, "limit_ns", lambda *_: limit_ns)
    (orphan,), books = remains.adopt({"traces-00000001.seg": None})
    orphan.expire("traces")
    assert totals(books, "traces") == (12, 0, 12)
    assert books.total("traces", "dropped", "corrupt") == 12
    orphan.expire("metrics")
    assert totals(books, "metrics") == (12, 0, 0)
    for channel in ("metrics", "logs", "events"):
        assert drain(orphan, channel) == remains.payloads[channel]
    let_go(orphan)


def test_a_damaged_segment_in_the_middle_costs_only_its_own(plain, books):
    spool = plain.make(Books())
    payloads = fill(spool, "traces", 3000, size=1000)
    place = plain.crash(spool)
    per_segment = (plain.home.segment_size - frames.START) // frames.room(1000)
    with (place / "traces-00000002.seg").open("r+b") as file:
        file.seek(frames.START + 10 * frames.room(1000) + 100)
        file.write(struct.pack("<Q", 0))
    assert drain(plain.adopt_one(), "traces") == (
        payloads[: per_segment + 10] + payloads[2 * per_segment :]
    )
    assert books.total("traces", "dropped", "corrupt") == per_segment - 10


def test_it_ends_in_the_middle_of_being_removed(plain):
    """Killed while it was removed: what is left is hidden, and cleared later."""
    spool = plain.make()
    fill(spool, "logs", 1)
    plain.crash(spool)
    orphan = plain.adopt_one()
    drain(orphan, "logs")
    hidden = orphan.directory.with_name(f".{orphan.directory.name}.done")
    orphan.directory.rename(hidden)
    plain.crash(orphan)
    assert plain.adopt() == []
    os.utime(hidden, (0, 0))
    assert plain.adopt() == []
    assert not hidden.exists()


def test_spools_are_removed_while_they_are_still_locked(plain, monkeypatch):
    """Else an adopter could take one between its release and its removal."""
    spool = plain.make()
    rename = Path.rename
    seen = []

    def look(path, target):
        seen.append(plain.adopt())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    spool.close()
    assert seen == [[]]
    assert isinstance(spool, Spool)
