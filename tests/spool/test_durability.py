"""What sync() says is on the disk itself was given to it: each file and each name, by fsync."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from pbmon.spool import directory, disk
from pbmon.spool.backlog import BEGIN, Backlog
from pbmon.spool.directory import Home
from pbmon.spool.journal import Journal

SIZE = 64 * 1024


class Disk:
    """Stands before os.fsync: notes what is synced, and fails for paths that are to fail."""

    def __init__(self):
        self.synced = []
        self.failing = lambda path: None
        self._fsync = os.fsync

    def fsync(self, fd):
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        self.synced.append(path)
        code = self.failing(path)
        if code is not None:
            raise OSError(code, os.strerror(code))
        self._fsync(fd)

    def take(self):
        taken, self.synced = self.synced, []
        return taken


@pytest.fixture
def watched(monkeypatch):
    made = Disk()
    monkeypatch.setattr(disk.os, "fsync", made.fsync)
    return made


@pytest.fixture(params=["mapped", "written"])
def home(request, tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "_LARGEST_SEGMENT", SIZE)
    made = Home(tmp_path / "state", "shop", "events")
    made.mapped = request.param == "mapped"
    yield made
    made.close()


@pytest.fixture
def journal(home):
    made = Journal(home)
    yield made
    made.close()


def segments(journal):
    return sorted(journal.directory.glob("*.seg"))


def test_nothing_is_to_be_done_where_nothing_came(journal, watched):
    journal.sync()
    assert watched.take() == []


def test_the_file_its_name_and_the_names_of_all_directories_above(journal, home, watched):
    journal.append(b"one")
    journal.sync()
    synced = watched.take()
    (file,) = segments(journal)
    assert synced[:2] == [file, journal.directory]
    assert synced[2:] == list(journal.directory.parents)
    assert home.state_directory in synced
    journal.sync()
    assert watched.take() == []
    journal.append(b"two")
    journal.sync()
    assert watched.take() == [file, journal.directory]


def test_every_segment_since_the_last_time(journal, watched):
    journal.append(b"x" * 40_000)
    journal.sync()
    watched.take()
    for _ in range(3):
        journal.append(b"x" * 40_000)
    journal.sync()
    assert watched.take() == [*segments(journal), journal.directory]
    journal.append(b"x" * 40_000)
    journal.sync()
    assert watched.take() == [*segments(journal)[-2:], journal.directory]


def test_closed_it_can_still_be_synced(journal, watched):
    journal.append(b"one")
    journal.close()
    journal.sync()
    assert watched.take()[:2] == [*segments(journal), journal.directory]


def test_what_the_disk_failed_to_take_is_never_believed_again(journal, watched):
    """The second fsync of a file after an error of the disk succeeds: its pages count as clean."""
    journal.append(b"one")
    watched.failing = lambda path: errno.EIO if path.suffix == ".seg" else None
    with pytest.raises(OSError, match="Input/output"):
        journal.sync()
    watched.failing = lambda path: None
    watched.take()
    with pytest.raises(OSError, match="Input/output"):
        journal.sync()
    assert watched.take() == []
    assert journal.append(b"two") == ""
    first, second = segments(journal)
    with pytest.raises(OSError, match="Input/output"):
        journal.sync()
    # Read by the shipper, as any other; once it is in the store there is nothing to doubt.
    backlog = Backlog(journal.directory)
    chunk = backlog.read(BEGIN, 10, 10**6)
    assert [item.payload for item in chunk.items] == [b"one", b"two"]
    backlog.release(chunk.position)
    assert not first.exists()
    journal.sync()
    assert watched.take()[:2] == [second, journal.directory]


@pytest.mark.parametrize("above", [0, 1, 2, 3])
def test_a_directory_whose_names_the_disk_does_not_take(journal, watched, above):
    journal.append(b"one")
    failing = [journal.directory, *journal.directory.parents][above]
    watched.failing = lambda path: errno.EIO if path == failing else None
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            journal.sync()
    watched.failing = lambda path: None
    journal.sync()
    assert failing in watched.take()


def test_places_of_others_above_the_state_directory_are_no_matter(journal, home, watched):
    journal.append(b"one")
    watched.failing = lambda path: (
        errno.EACCES if not path.is_relative_to(home.state_directory) else None
    )
    journal.sync()
    watched.take()
    journal.sync()
    assert watched.take() == []


def test_without_a_descriptor_nothing_is_said_of_the_disk(journal, watched, monkeypatch):
    journal.append(b"one")

    def full(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(disk.os, "open", full)
    with pytest.raises(OSError, match="Too many open files"):
        journal.sync()
    monkeypatch.undo()
    journal.sync()


def test_a_removed_directory_is_told_unless_the_journal_was_closed(home):
    journals = [Journal(home) for _ in range(2)]
    for each in journals:
        each.append(b"one")
    closed, used = journals
    closed.close()
    for each in journals:
        shutil.rmtree(each.directory)
    closed.sync()  # the shipper removes it when all is in the store
    with pytest.raises(FileNotFoundError):
        used.sync()
    used.close()


def test_what_comes_meanwhile_is_for_the_next_time(journal, watched):
    journal.append(b"one")
    watched.failing = lambda path: journal.append(b"two") or None
    journal.sync()
    watched.failing = lambda path: None
    watched.take()
    journal.sync()
    assert watched.take() == [*segments(journal), journal.directory]
