from __future__ import annotations

import errno
import os

import pytest

from pbmon.spool import latest
from pbmon.spool.latest import Latest, Written


@pytest.fixture
def kept(home, tmp_path):
    made = Latest(tmp_path, home)
    yield made
    made.close()


def test_nothing_written_is_nothing(kept, tmp_path):
    assert latest.read(tmp_path) is None
    assert latest.read(tmp_path / "missing") is None


def test_the_newest_of_the_two_slots_wins(kept, tmp_path):
    for number in range(7):
        written = Written(number * 10, number, 7 + number, b"%d" % number * number)
        kept.write(written)
        assert latest.read(tmp_path) == written
    assert (tmp_path / "latest").stat().st_size == 32 * 1024


def test_a_torn_writing_leaves_the_older(kept, tmp_path):
    kept.write(Written(1, 1, 7, b"first" * 100))
    kept.write(Written(2, 2, 7, b"second" * 100))
    before = (tmp_path / "latest").read_bytes()
    kept.write(Written(3, 3, 7, b"third" * 100))
    after = (tmp_path / "latest").read_bytes()
    changed = [at for at in range(len(after)) if before[at] != after[at]]
    for at in changed[:-1]:  # the payload is written before its head, each from the beginning
        torn = bytearray(after)
        torn[at] = before[at]
        (tmp_path / "latest").write_bytes(torn)
        assert latest.read(tmp_path) == Written(2, 2, 7, b"second" * 100)


def test_cut_anywhere_it_is_whole_or_nothing(kept, tmp_path):
    kept.write(Written(1, 1, 7, b"first"))
    kept.write(Written(2, 2, 7, b"second"))
    data = (tmp_path / "latest").read_bytes()
    for length in [*range(80), 8192, *range(16384, 16384 + 80), len(data) - 1]:
        (tmp_path / "latest").write_bytes(data[:length])
        found = latest.read(tmp_path)
        assert found in (None, Written(1, 1, 7, b"first"), Written(2, 2, 7, b"second"))


def test_it_grows_and_the_older_stays_until_the_larger_is_written(kept, tmp_path, monkeypatch):
    kept.write(Written(1, 1, 7, b"small"))
    large = Written(2, 2, 7, b"large" * 100_000)

    def fail(*_):
        raise OSError(errno.EIO, "injected")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError):
        kept.write(large)
    assert latest.read(tmp_path) == Written(1, 1, 7, b"small")
    monkeypatch.undo()
    kept.write(large)
    assert latest.read(tmp_path) == large
    kept.write(Written(3, 3, 7, b"small again"))
    assert latest.read(tmp_path) == Written(3, 3, 7, b"small again")
    assert sorted(path.name for path in tmp_path.glob("latest*")) == ["latest"]


def test_no_room_to_grow_leaves_the_older(kept, home, tmp_path, monkeypatch):
    kept.write(Written(1, 1, 7, b"small"))
    monkeypatch.setattr(home, "_limit", lambda used: 40_000)
    with pytest.raises(OSError) as caught:
        kept.write(Written(2, 2, 7, b"x" * 50_000))
    assert caught.value.errno == errno.ENOSPC
    kept.write(Written(3, 3, 7, b"small"))
    assert latest.read(tmp_path) == Written(3, 3, 7, b"small")
