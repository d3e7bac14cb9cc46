"""What was put into the journals is read, each item once and at one place, whatever the order of
events: read on, read again, killed, damaged, full."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbmon.spool import backlog, directory, disk, frames, journal, segment
from pbmon.spool.backlog import BEGIN, Backlog, Duty, Item, backlogs
from pbmon.spool.directory import Home
from pbmon.spool.journal import Journal
from pbmon.spool.ledger import Position
from tests import fresh
from tests.patience import patiently
from tests.spool.test_queue import in_fork

ROOT = Path(__file__).parents[2]
SIZE = 64 * 1024
"""Of a segment here."""

ALL = (10_000, 2**30)
"""Limits of a read that none reaches."""


@pytest.fixture(params=["mapped", "written"])
def home(request, tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", SIZE)
    made = Home(tmp_path / "state", "shop", "events")
    made.mapped = request.param == "mapped"
    yield made
    made.close()


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """Of the usual kind only, for what does not depend on how files are written."""
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", SIZE)
    made = Home(tmp_path / "state", "shop", "events")
    yield made
    made.close()


class InterruptedByHandler(Exception):
    """What a signal's handler raises."""


@contextmanager
def living(home):
    """A journal of a process that lives."""
    made = Journal(home)
    yield made
    made.close()


def fill(made, sizes, first=0):
    """Append items of these sizes, each another; returns them."""
    taken = [b"%d:" % n + bytes([n % 251 + 1]) * size for n, size in enumerate(sizes, first)]
    assert [made.append(payload) for payload in taken] == [""] * len(taken)
    return taken


def dead(home, sizes):
    """The directory of a journal whose process is gone, and the items in it."""
    with living(home) as made:
        taken = fill(made, sizes)
    return made.directory, taken


def read_on(source, begin=BEGIN, limits=(ALL,)):
    """From each returned position, until nothing is new: where each read began, and its chunk."""
    position = begin
    for count, (max_items, max_bytes) in enumerate(itertools.cycle(limits)):
        assert count < 5000
        chunk = source.read(position, max_items, max_bytes)
        yield position, chunk
        if not chunk.items and chunk.position == position:
            return
        position = chunk.position


def everything(source, begin=BEGIN, limits=(ALL,)):
    """The payloads from there to the end, the number of damaged places, and the end."""
    chunks = [chunk for _, chunk in read_on(source, begin, limits)]
    items = [item for chunk in chunks for item in chunk.items]
    places = [item.place for item in items]
    assert places == sorted(set(places))
    damaged = sum(chunk.damaged for chunk in chunks)
    return [item.payload for item in items], damaged, chunks[-1].position


def file(path, number):
    return path / segment.name("events", number)


def numbers(path):
    return segment.numbers(path, "events")


# --- reading on ---


@patiently(max_examples=60)
@given(
    st.lists(st.integers(0, 48 * 1024 - 10) | st.integers(0, 300), max_size=25),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 90_000)), min_size=1, max_size=4),
    st.booleans(),
)
def test_read_on_each_item_comes_once_in_its_order_at_a_place_of_its_own(sizes, limits, lives):
    with tempfile.TemporaryDirectory() as state, pytest.MonkeyPatch.context() as patched:
        patched.setattr(directory, "_LARGEST_SEGMENT", SIZE)
        home = Home(Path(state) / "s", "shop", "events")
        with living(home) as made:
            taken = fill(made, sizes)
            made.close() if not lives else None
            source = Backlog(made.directory)
            assert source.is_abandoned() is not lives
            chunks = list(read_on(source, limits=limits))
            assert [item.payload for _, chunk in chunks for item in chunk.items] == taken
            places = [item.place for _, chunk in chunks for item in chunk.items]
            assert places == sorted(set(places))
            read = 0
            for (begin, chunk), (max_items, max_bytes) in zip(chunks, itertools.cycle(limits)):
                size = sum(len(item.payload) for item in chunk.items)
                assert chunk.damaged == 0
                assert len(chunk.items) <= max(1, max_items)
                assert size <= max_bytes or len(chunk.items) == 1
                # Again from there, by another reader too, and all the rest at once.
                assert source.read(begin, max_items, max_bytes) == chunk
                assert Backlog(made.directory).read(begin, max_items, max_bytes) == chunk
                assert everything(Backlog(made.directory), begin)[:2] == (taken[read:], 0)
                read += len(chunk.items)
            for number, place in enumerate(places):
                rest = source.read(place, *ALL).items
                assert [item.payload for item in rest] == taken[number:]
                assert [item.place for item in rest] == places[number:]
        home.close()


@patiently(max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 30_000), max_size=6), st.integers(0, 5)), max_size=12
    )
)
def test_what_is_appended_between_the_reads_comes_too(steps):
    with tempfile.TemporaryDirectory() as state, pytest.MonkeyPatch.context() as patched:
        patched.setattr(directory, "_LARGEST_SEGMENT", SIZE)
        home = Home(Path(state) / "s", "shop", "events")
        with living(home) as made:
            source, position, taken, got = Backlog(made.directory), BEGIN, [], []
            for sizes, max_items in steps:
                taken += fill(made, sizes, len(taken))
                for _ in range(2):
                    chunk = source.read(position, max_items, 2**30)
                    position, got = chunk.position, got + chunk.items
                    source.release(position)
                assert [item.payload for item in got] == taken[: len(got)]
        for _, chunk in read_on(source, position):
            got += chunk.items
        assert [item.payload for item in got] == taken
        assert len({item.place for item in got}) == len(taken)
        home.close()


def test_limits_hold_but_for_the_first_item(plain):
    path, taken = dead(plain, [98, 98, 98, 8, 4998, 8])
    chunks = [chunk.items for _, chunk in read_on(Backlog(path), limits=[(10, 300)])]
    assert [[len(item.payload) for item in items] for items in chunks] == [
        [100, 100, 100], [10], [5000], [10], [],
    ]  # fmt: skip
    assert [len(chunk.items) for _, chunk in read_on(Backlog(path), limits=[(4, 2**20)])] == [
        4, 2, 0,
    ]  # fmt: skip


def test_an_empty_journal_has_nothing(plain):
    with living(plain) as made:
        assert Backlog(made.directory).read(BEGIN, *ALL) == ([], BEGIN, 0)
    assert Backlog(made.directory).read(BEGIN, *ALL) == ([], BEGIN, 0)


def test_an_items_place_is_its_segment_and_offset(plain):
    path, taken = dead(plain, [10, 0, 100])
    places = [
        Position(1, frames.START),
        Position(1, frames.START + frames.room(12)),
        Position(1, frames.START + frames.room(12) + frames.room(2)),
    ]
    items = [Item(place, payload) for place, payload in zip(places, taken)]
    end = Position(1, places[-1].offset + frames.room(102))
    assert Backlog(path).read(BEGIN, *ALL) == (items, end, 0)


def test_a_journal_that_is_gone(plain):
    path, _ = dead(plain, [10])
    source = Backlog(path)
    source.read(BEGIN, *ALL)
    shutil.rmtree(path)
    with pytest.raises(FileNotFoundError):
        source.read(BEGIN, *ALL)
    assert source.is_abandoned()
    source.release(Position(2, 0))
    assert not source.bury()


# --- killed ---


HOLDER = """
import sys
from pathlib import Path
from pbmon.spool.backlog import Duty
from pbmon.spool.directory import Home
from pbmon.spool.journal import Journal
home = Home(Path(sys.argv[1]), "shop", "events")
duty = Duty(home)
journal = Journal(home)
for number in range(300):
    assert journal.append(b"%d" % number) == ""
print(journal.source, duty.take(), flush=True)
sys.stdin.read()
"""

WRITER = """
import itertools, sys
from pathlib import Path
from pbmon.spool.directory import Home
from pbmon.spool.journal import Journal
home = Home(Path(sys.argv[1]), "shop", "events")
home.mapped = sys.argv[2] == "True"
journal = Journal(home)
for number in itertools.count():
    assert journal.append(b"%d " % number * (number % 50 + 1)) == ""
    print(number, flush=True)
"""


@contextmanager
def process(code, *arguments):
    """A running one; killed in the end."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=fresh.environment(), text=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        kill(started)
        started.stdin.close()
        started.stdout.close()


def kill(started):
    started.kill()
    assert started.wait(30) == -signal.SIGKILL


def test_a_journal_is_abandoned_when_its_process_was_killed(plain):
    with process(HOLDER, plain.state_directory) as holder:
        source = Backlog(plain.path / holder.stdout.readline().split()[0])
        assert not source.is_abandoned()
        assert not source.is_abandoned()  # asking takes nothing
        before = everything(source)
        kill(holder)
        assert source.is_abandoned()
        assert everything(source) == everything(Backlog(source.path)) == before
    assert before[0] == [b"%d" % number for number in range(300)]
    assert before[1] == 0


def test_killed_in_the_middle_of_anything_what_was_taken_is_there(home):
    with process(WRITER, home.state_directory, home.mapped) as writer:
        for _ in range(3000):
            last = writer.stdout.readline()
        kill(writer)
        last = [last, *writer.stdout][-1]
        (path,) = backlogs(home)
        payloads, damaged, _ = everything(Backlog(path), limits=[(100, 2**20)])
    assert damaged == 0
    assert payloads == [b"%d " % n * (n % 50 + 1) for n in range(len(payloads))]
    assert int(last) + 1 <= len(payloads) <= int(last) + 2  # one may be taken and not noted


def test_a_lock_that_cant_be_opened_is_no_dead_process(plain):
    path, _ = dead(plain, [10])
    assert Backlog(path).is_abandoned()
    (path / journal.LOCK).rename(path / "elsewhere")
    (path / journal.LOCK).symlink_to(path / "elsewhere")
    assert not Backlog(path).is_abandoned()
    (path / journal.LOCK).unlink()
    assert Backlog(path).is_abandoned()


# --- damage ---


def layout(path):
    """Of each segment: number → (data, [(start, stop, end) of each record])."""
    found = {}
    for number in numbers(path):
        data, spans, start = file(path, number).read_bytes(), [], frames.START
        for record, end in frames.read(data, frames.START, len(data)):
            spans.append((start, start + frames.OVERHEAD + len(record.payload), end))
            start = end
        found[number] = data, spans
    return found


def test_cut_anywhere_the_whole_items_before_are_read(plain):
    path, taken = dead(plain, [40_000, 30_000, 0, 7, 60, 1, 150, 9])
    data, spans = layout(path)[2]
    assert numbers(path) == [1, 2]
    assert len(spans) == 7
    for length in itertools.chain(range(spans[0][0] + 100), range(spans[1][0], spans[-1][2] + 40)):
        file(path, 2).write_bytes(data[:length])
        payloads, damaged, end = everything(Backlog(path), limits=[(3, 2**30)])
        assert payloads == taken[: 1 + sum(stop <= length for _, stop, _ in spans)], length
        assert damaged <= 1
        # Only what was cut in two can be damaged, and is where its frame is still there.
        inside = [start for start, stop, _ in spans if start < length < stop]
        assert damaged == bool(
            0 < length < frames.START or (inside and length >= inside[0] + frames.OVERHEAD)
        ), length
        assert everything(Backlog(path), end)[:2] == ([], 0)


def test_a_flipped_byte_costs_no_item_before_it_nor_of_another_segment(plain):
    path, taken = dead(plain, [(n * 37) % 900 for n in range(400)])
    segments, generator = layout(path), random.Random(7)
    assert len(segments) == 3
    by_segment, done = {}, 0
    for number, (_, spans) in segments.items():
        by_segment[number] = taken[done : done + len(spans)]
        done += len(spans)
    damages = []
    for _ in range(400):
        number = generator.choice([*segments])
        data, spans = segments[number]
        at = generator.randrange(spans[-1][2] + 8)
        flipped = bytearray(data)
        flipped[at] ^= generator.randrange(1, 256)
        file(path, number).write_bytes(flipped)
        payloads, damaged, end = everything(Backlog(path), limits=[(50, 2**30)])
        file(path, number).write_bytes(data)
        whole = sum(stop <= at for _, stop, _ in spans) if at >= frames.START else 0
        in_padding = any(stop <= at < behind for _, stop, behind in spans)
        left = by_segment[number][: len(spans) if in_padding else whole]
        others = {**by_segment, number: left}
        assert payloads == [payload for each in others.values() for payload in each], at
        assert damaged == (not in_padding), at
        damages.append(damaged)
        assert end.segment == 3
    assert 0.8 < sum(damages) / len(damages) < 1


def torn(payload=b"torn" * 20):
    """A record on its way: its frame is there, its bytes not all."""
    content = frames.body(1, 5, payload)
    return frames.frame(content) + content[:40]


def test_a_torn_record_is_waited_for_while_its_process_lives(home):
    with living(home) as made:
        taken = fill(made, [50, 60])
        with file(made.directory, 1).open("r+b") as written:
            written.seek(made._segment.end)
            written.write(torn())
        source = Backlog(made.directory)
        end = Position(1, made._segment.end)
        for _ in range(3):
            payloads, damaged, position = everything(source)
            assert (payloads, damaged, position) == (taken, 0, end)
        assert source.read(end, *ALL) == ([], end, 0)
        # Now it is there.
        more = fill(made, [200], 2)
        assert everything(source, end)[:2] == (more, 0)


def test_a_torn_record_of_a_dead_process_is_counted_once(home):
    with living(home) as made:
        taken = fill(made, [50, 60])
        with file(made.directory, 1).open("r+b") as written:
            written.seek(made._segment.end)
            written.write(torn())
    for limits in ([ALL], [(1, 2**20)]):
        source = Backlog(made.directory)
        chunks = list(read_on(source, limits=limits))
        assert [i.payload for _, chunk in chunks for i in chunk.items] == taken
        assert [chunk.damaged for _, chunk in chunks if chunk.damaged] == [1]
        end = chunks[-1][1].position
        for again in (source, Backlog(made.directory)):
            assert again.read(end, *ALL) == ([], end, 0)


def test_a_torn_record_before_another_segment_is_passed_over(home):
    """Nothing more comes into a segment that another follows."""
    with living(home) as made:
        first = fill(made, [30_000, 30_000])
        torn_at = made._segment.end
        more = fill(made, [30_000], 2)
        with file(made.directory, 1).open("r+b") as written:
            written.seek(torn_at)
            written.write(torn())
        source = Backlog(made.directory)
        payloads, damaged, end = everything(source)
        assert (payloads, damaged) == (first + more, 1)
        assert end == Position(2, made._segment.end)


def test_killed_before_a_segments_header_nothing_is_damaged(plain):
    path, taken = dead(plain, [10, 20])
    for content in (b"", bytes(100), bytes(SIZE)):
        file(path, 2).write_bytes(content)
        source = Backlog(path)
        payloads, damaged, end = everything(source)
        assert (payloads, damaged) == (taken, 0)
        assert source.read(end, *ALL) == ([], end, 0)


def test_a_segment_in_the_making_is_waited_for(plain):
    with living(plain) as made:
        taken = fill(made, [40_000])
        path = file(made.directory, 2)
        path.write_bytes(bytes(SIZE))
        source = Backlog(made.directory)
        payloads, damaged, end = everything(source)
        assert (payloads, damaged) == (taken, 0)
        assert source.read(end, *ALL) == ([], end, 0)
        path.unlink()
        more = fill(made, [40_000], 1)
        assert numbers(made.directory) == [1, 2]
        assert everything(source, end)[:2] == (more, 0)


def test_what_is_no_segment_is_counted_and_passed_over(plain):
    path, _ = dead(plain, [10])
    content = file(path, 1).read_bytes()
    file(path, 2).write_bytes(b"x" * SIZE)
    file(path, 3).write_bytes(content)  # of another number
    for limits in ([ALL], [(1, 1)]):
        payloads, damaged, end = everything(Backlog(path), limits=limits)
        assert (len(payloads), damaged) == (1, 2)
        assert everything(Backlog(path), end)[1] == 0


def test_a_segment_of_an_odd_length_without_its_header_is_counted_once(plain):
    path, _ = dead(plain, [10])
    file(path, 1).write_bytes(b"x" * 101)
    source = Backlog(path)
    first = source.read(BEGIN, *ALL)
    assert first.damaged == 1
    assert source.read(first.position, *ALL) == ([], first.position, 0)


def test_a_missing_segment_is_passed_over(home):
    path, taken = dead(home, [30_000] * 6)
    assert numbers(path) == [1, 2, 3]
    source = Backlog(path)
    chunk = source.read(BEGIN, 1, 2**20)
    file(path, 2).unlink()
    assert everything(source, chunk.position)[:2] == (taken[1:2] + taken[4:], 0)
    assert everything(Backlog(path))[:2] == (taken[:2] + taken[4:], 0)


def test_a_segment_that_goes_while_it_is_read_is_passed_over(plain, monkeypatch):
    """Another shipper releases it."""
    path, taken = dead(plain, [30_000] * 6)
    listed = segment.numbers

    def then_gone(*arguments):
        found = listed(*arguments)
        file(path, 2).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(segment, "numbers", then_gone)
    source = Backlog(path)
    payloads, damaged, end = everything(source)
    assert (payloads, damaged) == (taken[:2] + taken[4:], 0)
    assert source.read(end, *ALL) == ([], end, 0)


def test_an_append_broken_off_by_a_handler_costs_none_of_the_next(plain, monkeypatch):
    plain.mapped = False
    write = disk.write

    def broken_off(fd, data, offset):
        write(fd, data, offset)
        if len(data) == 8:
            raise InterruptedByHandler

    with living(plain) as made:
        taken = fill(made, [10])
        with monkeypatch.context() as patched, pytest.raises(InterruptedByHandler):
            patched.setattr(disk, "write", broken_off)
            made.append(b"perhaps")
        source = Backlog(made.directory)
        got, _, end = everything(source)
        taken += fill(made, [300, 20], 1)
    got += everything(source, end)[0]
    assert [payload for payload in got if payload != b"perhaps"] == taken


# --- a full disk ---


def test_read_while_the_next_segment_cant_be_made_nothing_is_lost(home, monkeypatch):
    """The file is there for a moment, until the disk says that it has no room for it."""
    monkeypatch.setattr(journal, "_RETRY_S", 0.0)
    with living(home) as made:
        taken = fill(made, [40_000])
        source = Backlog(made.directory)
        chunks = []

        def refuse(fd, size):
            chunks.append(source.read(BEGIN, *ALL))  # by the shipper, at this moment
            raise OSError(errno.ENOSPC, "injected")

        with monkeypatch.context() as failing:
            failing.setattr(disk, "allocate", refuse)
            assert made.append(bytes(40_000)) == "full"
        taken += fill(made, [100], 1)
    (seen,) = chunks
    got = [item.payload for item in seen.items]
    for reader in (source, Backlog(made.directory)):
        assert got + everything(reader, seen.position)[0] == taken


def test_where_a_segment_that_was_not_made_stays_nothing_is_lost(home, monkeypatch):
    """Neither the making nor the clearing away worked."""
    monkeypatch.setattr(journal, "_RETRY_S", 0.0)
    with living(home) as made:
        taken = fill(made, [40_000])
        file(made.directory, 2).write_bytes(b"")
        source = Backlog(made.directory)
        assert made.append(bytes(40_000)) == "io_error"
        payloads, _, end = everything(source)
        taken += fill(made, [100], 1)
    assert payloads + everything(Backlog(made.directory), end)[0] == taken


def test_a_full_disk_costs_nothing_that_was_taken(volume, home, monkeypatch):
    """Read and released while it fills up and finds room again."""
    monkeypatch.setattr(journal, "_RETRY_S", 0.0)
    place = Home(volume(2**20) / "state", "shop", "events")
    place.mapped = home.mapped
    place._limit = lambda used: 2**40  # so that the disk itself says no
    generator = random.Random(7)
    with living(place) as made:
        source, position, taken, got, reasons = Backlog(made.directory), BEGIN, [], [], set()
        for number in range(300):
            payload = b"%d:" % number + bytes(generator.randrange(100, 20_000))
            reasons.add(reason := made.append(payload))
            taken += [] if reason else [payload]
            if number % 100 == 99:
                while (chunk := source.read(position, 20, 2**20)).items:
                    position, got = chunk.position, got + chunk.items
                    source.release(position)
    assert reasons == {"", "full"}
    assert [item.payload for item in got] + everything(source, position)[0] == taken
    place.close()


# --- removing ---


def test_release_removes_what_is_before_the_position(plain):
    path, taken = dead(plain, [30_000] * 10)
    source = Backlog(path)
    source.release(BEGIN)
    source.release(Position(1, SIZE))
    assert numbers(path) == [1, 2, 3, 4, 5]
    source.release(Position(3, frames.START))
    source.release(Position(3, frames.START))
    assert numbers(path) == [3, 4, 5]
    assert everything(Backlog(path))[:2] == (taken[4:], 0)
    source.release(Position(2, 0))
    (path / "events-x.seg").touch()
    (path / "logs-00000001.seg").touch()
    source.release(Position(9, 0))
    assert sorted(os.listdir(path)) == ["events-x.seg", "lock", "logs-00000001.seg"]


def test_released_of_a_living_journal_it_goes_on(plain):
    with living(plain) as made:
        taken = fill(made, [30_000] * 5)
        source = Backlog(made.directory)
        chunk = source.read(BEGIN, *ALL)
        source.release(chunk.position)
        assert numbers(made.directory) == [3]
        assert [item.payload for item in chunk.items] == taken
        more = fill(made, [30_000] * 3, 5)
        assert everything(source, chunk.position)[:2] == (more, 0)


def test_buried_it_is_gone(plain):
    path, _ = dead(plain, [30_000] * 3)
    other, _ = dead(plain, [10])
    assert set(backlogs(plain)) == {path, other}
    assert Backlog(path).bury()
    assert backlogs(plain) == [other]
    assert [entry.name for entry in plain.path.iterdir()] == [other.name]
    assert not Backlog(path).bury()


def test_what_can_only_be_hidden_is_cleared_later(plain, monkeypatch):
    path, _ = dead(plain, [10])
    with monkeypatch.context() as failing:
        failing.setattr(shutil, "rmtree", lambda path, **_: None)
        assert Backlog(path).bury()
    hidden = path.with_name(f".{path.name}.done")
    assert backlogs(plain) == []
    assert hidden.exists()
    os.utime(hidden, (time.time() - 61,) * 2)
    assert backlogs(plain) == []
    assert not hidden.exists()


def test_backlogs_are_those_of_the_dead_and_of_the_living(plain):
    assert backlogs(plain) == []
    path, _ = dead(plain, [10])
    Duty(plain).forget()  # its file is none
    with living(plain) as made:
        assert backlogs(plain) == sorted([path, made.directory])
    other = Home(plain.state_directory, "other", "events")
    assert backlogs(other) == []
    other.path.rmdir()
    assert backlogs(other) == []
    other.close()


@pytest.mark.parametrize(
    ("name", "age_s", "lock", "stays"),
    [
        (".12-0123456789abcdef0123456789abcdef", 61, "free", False),
        (".12-0123456789abcdef0123456789abcdef", 61, "none", False),
        (".12-0123456789abcdef0123456789abcdef", 61, "held", True),
        (".12-0123456789abcdef0123456789abcdef", 50, "free", True),
        (".12-0123456789abcdef0123456789abcdef.done", 61, "free", False),
        (".12-0123456789abcdef0123456789abcdef.done", 50, "free", True),
        (".lost+found", 61, "none", True),
        (".12-0123456789abcdef0123456789abcdef.bak", 61, "free", True),
    ],
)
def test_hidden_leftovers(plain, name, age_s, lock, stays):
    hidden = plain.path / name
    hidden.mkdir()
    if lock != "none":
        fd = os.open(hidden / journal.LOCK, os.O_RDWR | os.O_CREAT)
        assert lock == "free" or directory.lock(fd)
    (hidden / "events-00000001.seg").touch()
    os.utime(hidden, (time.time() - age_s,) * 2)
    assert backlogs(plain) == []
    assert hidden.exists() == stays
    if lock != "none":
        os.close(fd)


# --- the shipper's role ---


@contextmanager
def duty_of(home):
    """Taken by this process."""
    duty = Duty(home)
    assert duty.take()
    yield duty
    duty.forget()


def test_one_has_the_duty(plain):
    one, other = Duty(plain), Duty(plain)
    assert one.take()
    assert one.take()
    assert not other.take()
    one.give_up()
    assert other.take()
    assert not one.take()
    other.forget()  # with the last descriptor
    assert one.take()
    assert (plain.path / backlog._SHIPPER).stat().st_mode & 0o777 == 0o600
    one.forget()


def test_another_services_duty_is_another(plain):
    other = Home(plain.state_directory, "other", "events")
    with duty_of(plain), duty_of(other):
        pass
    other.close()


def test_one_process_has_the_duty_until_it_is_killed(plain):
    with duty_of(plain), process(HOLDER, plain.state_directory) as other:
        assert other.stdout.readline().split()[1] == "False"
    with process(HOLDER, plain.state_directory) as holder:
        assert holder.stdout.readline().split()[1] == "True"
        duty = Duty(plain)
        assert not duty.take()
        kill(holder)
        assert duty.take()
        duty.forget()


def test_a_forked_child_that_forgets_leaves_the_duty_to_its_parent(plain):
    with duty_of(plain) as duty:

        def child():
            duty.forget()
            assert not Duty(plain).take()

        assert in_fork(child) == 0
        assert in_fork(lambda: os._exit(Duty(plain).take())) == 0
