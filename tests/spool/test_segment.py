from __future__ import annotations

import errno
import os

import pytest

from pbmon.spool import disk, frames, segment
from pbmon.spool.segment import Segment


@pytest.fixture(params=[True, False], ids=["mapped", "written"])
def mapped(request):
    return request.param


def body(payload):
    return frames.body(1, 5, payload)


def test_it_is_allocated_before_anything_is_written(tmp_path, mapped):
    made = Segment(tmp_path, "logs", 3, 65536, mapped=mapped)
    status = (tmp_path / "logs-00000003.seg").stat()
    assert status.st_size == 65536
    assert status.st_blocks * 512 >= 65536
    assert (tmp_path / "logs-00000003.seg").read_bytes().startswith(frames.header("logs", 3))
    made.close()


def test_has_room_to_the_last_byte(tmp_path, mapped):
    made = Segment(tmp_path, "logs", 1, 4096, mapped=mapped)
    last = 4096 - frames.START - frames.OVERHEAD - frames.room(100)
    made.append(body(b"x" * 100))
    assert made.has_room(last)
    assert not made.has_room(last + 1)
    made.append(body(b"y" * last))
    assert not made.has_room(0)
    found = list(frames.read(made.view(), frames.START, made.end))
    assert [len(record.payload) for record, _ in found] == [100, last]
    made.close()


def test_killed_in_the_middle_of_a_record_it_ends_before_it(tmp_path, mapped, monkeypatch):
    made = Segment(tmp_path, "logs", 1, 4096, mapped=mapped)
    made.append(body(b"whole"))
    calls = []

    class KilledMap:
        def __setitem__(self, place, data):
            calls.append(place)
            if len(calls) == 1:
                mapping[place] = data

        def close(self):
            mapping.close()

    def killed_write(fd, data, offset):
        calls.append(offset)
        if len(calls) == 1:
            os.pwrite(fd, data, offset)

    if mapped:
        mapping, made._map = made._map, KilledMap()
    monkeypatch.setattr(disk, "write", killed_write)
    made.append(body(b"half"))
    assert len(calls) == 2
    data = (tmp_path / "logs-00000001.seg").read_bytes()
    (found,) = frames.read(data, frames.START, len(data))  # and nothing damaged behind it
    assert found.record.payload == b"whole"
    made.close()


def test_a_name_is_taken_once(tmp_path, mapped):
    Segment(tmp_path, "logs", 1, 4096, mapped=mapped).close()
    with pytest.raises(FileExistsError):
        Segment(tmp_path, "logs", 1, 4096, mapped=mapped)
    assert segment.numbers(tmp_path, "logs") == [1]


def test_without_room_nothing_is_left_of_it(tmp_path, mapped, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "injected")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError):
        Segment(tmp_path, "logs", 1, 4096, mapped=mapped)
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_ascending_also_above_eight_digits(tmp_path):
    for number in (100_000_000, 99_999_999, 2):
        (tmp_path / segment.name("logs", number)).touch()
    (tmp_path / "logs-3.seg").touch()
    assert segment.numbers(tmp_path, "logs") == [2, 99_999_999, 100_000_000]
    assert segment.numbers(tmp_path, "traces") == []


def test_where_nothing_allocates_zeros_are_written(tmp_path, monkeypatch):
    """macOS has no posix_fallocate."""
    monkeypatch.delattr(os, "posix_fallocate")
    with (tmp_path / "file").open("w+b") as file:
        disk.allocate(file.fileno(), 10_000)
        assert os.fstat(file.fileno()).st_size == 10_000
