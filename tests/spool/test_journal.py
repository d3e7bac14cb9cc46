"""An item that was taken is in a file; one that was not is said to be refused, never raised."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from pbmon.spool import directory, frames, journal, segment
from pbmon.spool.directory import Home, UnusableError
from pbmon.spool.journal import MAX_RECORD, Journal, open_home
from pbmon.spool.segment import Segment
from tests.spool.test_queue import in_fork

KB = 1024
SIZE = 64 * KB
"""Of a segment here."""


@pytest.fixture(params=["mapped", "written"])
def home(request, tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", SIZE)
    made = Home(tmp_path / "state", "shop", "events")
    made.mapped = request.param == "mapped"
    yield made
    made.close()


@pytest.fixture
def make(home):
    """Makes journals, and closes them in the end."""
    made = []

    def one(place=home):
        made.append(Journal(place))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.fixture
def impatient(monkeypatch):
    """A disk that refused is asked again at once."""
    monkeypatch.setattr(journal, "_RETRY_S", 0.0)


def records(path):
    """What is in the segment files of a journal's directory; nothing in them is damaged."""
    found = []
    for number in segment.numbers(path, "events"):
        data = (path / segment.name("events", number)).read_bytes()
        assert data.startswith(frames.header("events", number))
        found += [record for record, _ in frames.read(data, frames.START, len(data))]
    assert None not in found
    return found


def payloads(path):
    return [record.payload for record in records(path)]


def fill(made, count, size):
    """Append so many, each another; returns them."""
    taken = [b"%08d" % number + os.urandom(size - 8) for number in range(count)]
    assert [made.append(payload) for payload in taken] == [""] * count
    return taken


def fill_up(made, size=20_000):
    """Append until one is refused; returns those that were taken, and the reason."""
    taken = []
    for number in range(1000):
        payload = b"%08d" % number + os.urandom(size - 8)
        if reason := made.append(payload):
            return taken, reason
        taken.append(payload)
    raise AssertionError("it never filled up")


def is_locked(path):
    fd = os.open(path / journal.LOCK, os.O_RDWR)
    try:
        return not directory.is_free(fd)
    finally:
        os.close(fd)


# --- what is taken ---


def test_what_is_appended_is_in_its_file_in_its_order(make):
    made = make()
    taken = [os.urandom(size) for size in (0, 1, 7, 8, 9, 400)]
    assert [made.append(payload) for payload in taken] == [""] * 6
    found = records(made.directory)
    assert [record.payload for record in found] == taken
    assert [record.items for record in found] == [1] * 6
    assert sorted(os.listdir(made.directory)) == ["events-00000001.seg", "lock"]


def test_over_several_segments(make):
    made = make()
    taken = fill(made, 1000, 500)
    assert payloads(made.directory) == taken
    per_segment = (SIZE - frames.START) // frames.room(500)
    assert segment.numbers(made.directory, "events") == [*range(1, -(-1000 // per_segment) + 1)]
    assert {path.stat().st_size for path in made.directory.glob("*.seg")} == {SIZE}


def test_one_above_48_kb_is_too_large(make):
    made = make()
    assert made.append(bytes(MAX_RECORD + 1)) == "too_large"
    assert not list(made.directory.glob("*.seg"))
    taken = fill(made, 3, MAX_RECORD)
    assert MAX_RECORD == 48 * KB
    assert payloads(made.directory) == taken


def test_two_journals_of_a_process_are_apart(make):
    one, other = make(), make()
    assert one.source != other.source
    assert one.source.split("-")[0] == str(os.getpid())
    assert (one.append(b"one"), other.append(b"other")) == ("", "")
    assert payloads(one.directory) == [b"one"]
    assert payloads(other.directory) == [b"other"]
    assert is_locked(one.directory) and is_locked(other.directory)


def test_only_the_segment_that_is_written_to_takes_a_descriptor(make):
    made = make()
    descriptors = len(os.listdir("/dev/fd"))
    fill(made, 1000, 500)
    assert len(os.listdir("/dev/fd")) - descriptors == 1


def test_files_and_directories_are_private_whatever_the_umask(make):
    for mask in (0, 0o022, 0o177):
        old = os.umask(mask)
        try:
            made = make()
            fill(made, 1, 10)
        finally:
            os.umask(old)
        assert made.directory.stat().st_mode & 0o7777 == 0o700
        assert [p.stat().st_mode & 0o7777 for p in made.directory.iterdir()] == [0o600] * 2


def test_a_directory_is_never_seen_half_made(home, monkeypatch):
    seen = []
    rename = Path.rename

    def look(path, target):
        seen.append((path.name[0], is_locked(path), target.exists()))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    Journal(home).close()
    assert seen == [(".", True, False)]


# --- no room ---


def test_full_by_the_limit_until_there_is_room(make, home, impatient, monkeypatch):
    monkeypatch.setattr(home, "_limit", lambda used: 3 * SIZE)
    made = make()
    taken, reason = fill_up(made)
    assert (reason, len(taken)) == ("full", 9)
    assert made.append(bytes(20_000)) == "full"
    assert payloads(made.directory) == taken
    assert home.used() == 3 * SIZE
    (made.directory / segment.name("events", 1)).unlink()
    more, reason = fill_up(made)
    assert (reason, len(more)) == ("full", 3)
    assert payloads(made.directory) == taken[3:] + more


def test_the_limit_is_for_all_journals_together(make, home, monkeypatch):
    monkeypatch.setattr(home, "_limit", lambda used: 3 * SIZE)
    one, other = make(), make()
    fill(one, 6, 20_000)
    assert len(fill_up(other)[0]) == 3
    assert one.append(bytes(20_000)) == "full"


def test_a_full_disk_is_not_asked_at_every_item(make, home, monkeypatch):
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    limit, asked = 0, []
    monkeypatch.setattr(home, "_limit", lambda used: asked.append(used) or limit)
    made = make()
    assert [made.append(b"x") for _ in range(5)] == ["full"] * 5
    assert len(asked) == 1
    limit = 3 * SIZE
    now_s += 0.9
    assert made.append(b"x") == "full"
    now_s += 0.2
    assert made.append(b"x") == ""
    assert len(asked) == 2


def test_a_really_full_disk(volume, home, make, impatient):
    place = Home(volume(2 * KB * KB) / "state", "shop", "events")
    place.mapped = home.mapped
    place._limit = lambda used: 2**40  # so that the disk itself says no
    made = make(place)
    taken, reason = fill_up(made)
    assert reason == "full"
    assert 80 < len(taken) < 2 * KB * KB // 20_000
    assert [made.append(bytes(20_000)) for _ in range(3)] == ["full"] * 3
    assert payloads(made.directory) == taken
    for number in (1, 2):
        (made.directory / segment.name("events", number)).unlink()
    more, reason = fill_up(made)
    assert (reason, len(more)) == ("full", 6)
    assert payloads(made.directory) == taken[6:] + more
    place.close()


REASONS = [(errno.ENOSPC, "full"), (errno.EDQUOT, "full"), (errno.EIO, "io_error")]


@pytest.mark.parametrize(("number", "reason"), REASONS)
@pytest.mark.parametrize("call", ["posix_fallocate", "open", "pwrite", "mmap"])
def test_a_disk_that_refuses_is_no_exception(
    make, home, monkeypatch, impatient, call, number, reason
):
    if call == ("pwrite" if home.mapped else "mmap"):
        pytest.skip("not used in this mode")
    made = make()

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(segment.mmap if call == "mmap" else os, call, refuse)
        assert [made.append(b"refused") for _ in range(3)] == [reason] * 3
    assert payloads(made.directory) == []
    assert made.append(b"taken") == ""
    assert payloads(made.directory) == [b"taken"]


def test_a_write_that_fails_in_a_segment_leaves_the_ones_before(make, home, monkeypatch):
    if home.mapped:
        pytest.skip("a mapping has no errors")
    made = make()
    taken = fill(made, 5, 300)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as failing:
        failing.setattr(os, "pwrite", refuse)
        assert made.append(b"refused") == "full"
    assert payloads(made.directory) == taken
    taken += fill(made, 2, 300)
    assert payloads(made.directory) == taken


def test_a_number_that_stayed_behind_is_not_taken_again(make, impatient):
    made = make()
    (made.directory / segment.name("events", 1)).touch()
    assert [made.append(b"first"), made.append(b"second")] == ["io_error", ""]
    assert segment.numbers(made.directory, "events") == [1, 2]


# --- at once ---


def test_an_append_in_the_middle_of_one_is_busy_and_damages_nothing(make, monkeypatch):
    made = make()
    append, inner = Segment.append, []

    def interrupted(self, content):
        inner.append(made.append(b"in the middle"))
        append(self, content)
        inner.append(made.append(b"behind it"))

    with monkeypatch.context() as patched:
        patched.setattr(Segment, "append", interrupted)
        assert [made.append(b"one"), made.append(b"two")] == ["", ""]
    assert inner == ["busy"] * 4
    assert made.append(b"three") == ""
    assert payloads(made.directory) == [b"one", b"two", b"three"]


def test_another_thread_waits_its_turn(make, monkeypatch):
    made = make()
    waiting, reasons = threading.Event(), []

    class Watched:
        """A lock that says when somebody waits for it."""

        def __init__(self, lock):
            self._lock = lock

        def __enter__(self):
            if not self._lock.acquire(blocking=False):
                waiting.set()
                self._lock.acquire()

        def __exit__(self, *error):
            self._lock.release()

    made._lock = Watched(made._lock)
    other = threading.Thread(target=lambda: reasons.append(made.append(b"other")))
    append = Segment.append

    def slow(self, content):
        if content.endswith(b"one"):
            other.start()
            assert waiting.wait(30)
            assert reasons == []
        append(self, content)

    monkeypatch.setattr(Segment, "append", slow)
    assert made.append(b"one") == ""
    other.join(30)
    assert reasons == [""]
    assert payloads(made.directory) == [b"one", b"other"]


class Interrupted:
    """A lock in whose acquire() or release() a signal's handler comes, as it can behind any call;
    waiting for itself is an error instead of for ever."""

    def __init__(self, lock, when, handler):
        self._lock = lock
        self._when = when
        self._handler = handler

    def acquire(self, blocking=True, timeout=-1):
        taken = self._lock.acquire(blocking=False)
        assert taken or not blocking, "the thread waits for itself"
        if taken:
            self._come("taken")
        return taken

    def release(self):
        self._come("released")
        self._lock.release()

    def _come(self, when):
        if when == self._when:
            self._when = ""
            self._handler()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


@pytest.mark.parametrize("when", ["taken", "released"])
def test_a_handler_at_the_edges_of_an_append_does_not_wait_for_itself(make, when):
    made = make()
    inner = []
    made._lock = Interrupted(made._lock, when, lambda: inner.append(made.append(b"handler")))
    try:
        assert made.append(b"one") == ""
        assert inner in ([""], ["busy"])
        assert sorted(payloads(made.directory)) == [b"handler", b"one"][inner == ["busy"] :]
    finally:
        made.forget()  # and its lock


def test_many_threads_lose_and_double_nothing(make):
    made = make()
    writers, each = 8, 2000
    refused = []

    def write(writer):
        for number in range(each):
            if made.append(b"%d:%d" % (writer, number)):
                refused.append((writer, number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    numbers = [tuple(map(int, payload.split(b":"))) for payload in payloads(made.directory)]
    for writer in range(writers):
        assert [n for w, n in numbers if w == writer] == [*range(each)]
    assert len(numbers) == writers * each
    assert len(segment.numbers(made.directory, "events")) > 5


# --- the end ---


def test_closed_it_takes_nothing_and_its_items_stay(make):
    made = make()
    taken = fill(made, 3, 100)
    made.close()
    made.close()
    assert [made.append(b"late") for _ in range(3)] == ["io_error"] * 3
    assert not is_locked(made.directory)
    assert payloads(made.directory) == taken
    made.forget()


def test_closed_before_anything_was_appended(make):
    made = make()
    descriptors = len(os.listdir("/dev/fd"))
    made.close()
    assert made.append(b"late") == "io_error"
    assert os.listdir(made.directory) == ["lock"]
    assert len(os.listdir("/dev/fd")) == descriptors - 1


def test_its_directory_removed_under_it(make, impatient):
    made = make()
    assert made.is_usable
    fill(made, 1, 40_000)
    shutil.rmtree(made.directory)
    assert not made.is_usable
    assert [made.append(bytes(40_000)) for _ in range(3)] == ["io_error"] * 3
    made.close()
    assert not made.directory.exists()


def test_a_process_that_became_another_user(make, monkeypatch):
    made = make()
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert not made.is_usable


# --- fork ---


def test_a_forked_child_leaves_the_parents_alone(make, home):
    made = make()
    taken = fill(made, 3, 100)

    def child():
        made.forget()
        home.forget()
        assert made.append(b"not the child's") == "io_error"
        assert is_locked(made.directory)  # by the parent
        own = Journal(home)
        assert own.source.split("-")[0] == str(os.getpid())
        assert own.append(b"the child's") == ""
        assert is_locked(own.directory)

    assert in_fork(child) == 0
    assert is_locked(made.directory)
    taken += fill(made, 300, 500)  # in new segments too
    assert payloads(made.directory) == taken
    (other,) = set(home.path.iterdir()) - {made.directory}
    assert payloads(other) == [b"the child's"]
    assert not is_locked(other)


def test_a_child_forked_in_the_middle_of_another_threads_append_makes_its_own(
    make, home, monkeypatch
):
    """That thread is not in the child, and never gives the lock back there."""
    made = make()
    writing, forked = threading.Event(), threading.Event()
    append = Segment.append

    def slow(self, content):
        writing.set()
        assert forked.wait(60)
        append(self, content)

    def child():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)  # instead of waiting for ever
        monkeypatch.undo()
        made.forget()
        home.forget()
        assert made.append(b"not the child's") == "io_error"
        assert Journal(home).append(b"the child's") == ""

    monkeypatch.setattr(Segment, "append", slow)
    other = threading.Thread(target=made.append, args=(b"the parent's",))
    other.start()
    assert writing.wait(60)
    status = in_fork(child)
    forked.set()
    other.join()
    assert status == 0
    assert payloads(made.directory) == [b"the parent's"]


def test_a_living_child_does_not_hold_its_dead_parents_journal(home):
    read, write = os.pipe()
    release_read, release = os.pipe()

    def parent():
        made = Journal(home)
        fill(made, 3, 100)
        if os.fork() == 0:
            made.forget()
            os.write(write, b"c")
            os.read(release_read, 1)  # lives on after its parent
            os._exit(0)
        os.read(read, 1)
        assert is_locked(made.directory)

    assert in_fork(parent) == 0
    try:
        (left,) = home.path.iterdir()
        assert not is_locked(left)
        assert len(payloads(left)) == 3
    finally:
        os.write(release, b"x")
        for fd in (read, write, release_read, release):
            os.close(fd)


# --- where ---


def unusable(home, *parts):
    descriptors = len(os.listdir("/dev/fd"))
    with pytest.raises(UnusableError) as caught:
        Journal(home)
    remedy = "free disk space, or give this user a directory to write to"
    for part in (home.path, remedy, *parts):
        assert str(part) in str(caught.value)
    assert len(os.listdir("/dev/fd")) == descriptors


def test_a_file_in_its_place_is_unusable(home):
    home.path.rmdir()
    home.path.touch()
    unusable(home, "Not a directory")


def test_a_place_that_was_removed_is_unusable(home):
    home.path.rmdir()
    unusable(home, "No such file")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "open", "rename"])
def test_a_disk_that_refuses_is_unusable_and_nothing_is_left(home, monkeypatch, call, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    # Where open() is refused, so is it to what clears the directory away.
    with monkeypatch.context() as failing:
        failing.setattr(os if call == "open" else Path, call, refuse)
        unusable(home, os.strerror(number))
    assert len(list(home.path.iterdir())) == (call == "open")


def test_a_file_system_without_locks_is_unusable(home, monkeypatch):
    monkeypatch.setattr(journal, "lock", lambda fd: False)
    unusable(home, "knows no flock")
    assert list(home.path.iterdir()) == []


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places that are tried without a configured one; each can be made unusable."""
    for name in ("systemd", "xdg", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "systemd"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return [
        tmp_path / "systemd" / "pbmon",
        tmp_path / "xdg" / "pbmon",
        tmp_path / "tmp" / f"pbmon-{os.geteuid()}",
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_first_usable_place_is_taken(places, count):
    for place in places[:count]:
        place.touch()
    home = open_home(None, "shop")
    assert home.path == places[count] / "events" / "shop"
    assert home.path.is_dir()
    assert [place.is_dir() for place in places] == [n == count for n in range(3)]
    home.close()


def test_without_a_usable_place_all_are_named(places):
    for place in places:
        place.touch()
    with pytest.raises(UnusableError) as caught:
        open_home(None, "shop")
    for place in places:
        assert f"{place} can't be used (File exists); give this user" in str(caught.value)


def test_a_configured_place_is_the_only_one(places, tmp_path):
    home = open_home(str(tmp_path / "own"), "shop")
    assert home.path == tmp_path / "own" / "events" / "shop"
    home.close()
    (tmp_path / "file").touch()
    with pytest.raises(UnusableError) as caught:
        open_home(str(tmp_path / "file"), "shop")
    assert str(tmp_path / "file") in str(caught.value)
    assert not any(place.exists() for place in places)


def test_it_is_beside_the_telemetrys(tmp_path):
    """And takes nothing of its room."""
    home, spool = open_home(str(tmp_path / "s"), "shop"), Home(tmp_path / "s", "shop")
    made = Journal(home)
    fill(made, 3, 100)
    assert (home.used(), spool.used()) == (home.segment_size, 0)
    fcntl.flock(spool._lock_fd, fcntl.LOCK_EX)  # nor waits for it
    assert directory.lock(home._lock_fd)
    for each in (made, home, spool):
        each.close()
