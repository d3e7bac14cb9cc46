from __future__ import annotations

import os
import random
import time

import pytest

from pbmon.spool import ledger
from pbmon.spool.frames import CHANNELS
from pbmon.spool.ledger import FIELDS, SIZE, Ledger, Origin, OtherVersionError, Position


@pytest.fixture(params=[True, False], ids=["mapped", "written"])
def mapped(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / ledger.NAME


def opened(path, *, fresh=False, mapped=False):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        return Ledger(fd, fresh=fresh, mapped=mapped)
    except ValueError:
        os.close(fd)
        raise


def filled(path, mapped):
    made = opened(path, fresh=True, mapped=mapped)
    for index, channel in enumerate(CHANNELS):
        for number, name in enumerate(FIELDS):
            made.set(channel, name, 1000 * index + number)
        made.report(channel, made.rows[channel])
        made.add(channel, "accepted", 500)
        made.move(channel, Position(index + 1, 80 * index))
    return made


def reread(path):
    found = opened(path)
    found.close()
    return found


def test_what_was_set_is_read_by_the_next(path, mapped):
    made = filled(path, mapped)
    found = reread(path)
    assert found.rows == made.rows
    assert found.rows["logs"] == {
        "accepted": 2500, "delivered": 2001, "expired": 2002, "rejected": 2003, "corrupt": 2004,
        "lost": 2005,
    }  # fmt: skip
    assert found.reported["logs"]["accepted"] == 2000
    assert found.positions["events"] == Position(4, 240)
    assert found.damaged == set()
    assert found.origin == made.origin
    made.close()


def test_waiting_is_what_was_accepted_and_not_settled(path, mapped):
    made = opened(path, fresh=True, mapped=mapped)
    made.add("logs", "accepted", 10)
    made.add("logs", "delivered", 3)
    made.add("logs", "corrupt", 2)
    assert (made.settled("logs"), made.waiting("logs"), made.waiting("traces")) == (5, 5, 0)
    made.add("logs", "delivered", 20)
    assert made.waiting("logs") == 0
    made.close()


def test_the_largest_numbers_fit(path, mapped):
    made = opened(path, fresh=True, mapped=mapped)
    made.set("logs", "accepted", 2**48 - 1)
    made.move("logs", Position(2**27 - 1, 2**24 - 8))
    found = reread(path)
    assert found.rows["logs"]["accepted"] == 2**48 - 1
    assert found.positions["logs"] == Position(2**27 - 1, 2**24 - 8)
    made.close()


def test_every_flipped_bit_of_a_number_is_known(path):
    filled(path, False).close()
    whole = path.read_bytes()
    truth = reread(path)
    for bit in range(128 * 8, (128 + 4 * 13 * 8) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        found = reread(path)
        channel = CHANNELS[(bit // 64 - 16) // 13]
        if (bit // 64 - 16) % 13 == 12:
            assert found.positions[channel] == Position(0, 0)
            assert found.damaged == set()
        else:
            assert found.damaged == {channel}
        assert {c: found.rows[c] for c in CHANNELS if c != channel} == {
            c: truth.rows[c] for c in CHANNELS if c != channel
        }


def test_every_flipped_bit_of_its_beginning_is_known(path):
    filled(path, False).close()
    whole = path.read_bytes()
    for bit in range(68 * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ValueError) as caught:
            opened(path)
        assert not isinstance(caught.value, OtherVersionError)


def test_a_cut_empty_or_garbage_file_is_no_ledger(path):
    filled(path, False).close()
    whole = path.read_bytes()
    generator = random.Random(3)
    wrong = [whole[:-1], b"", bytes(SIZE), generator.randbytes(SIZE), whole[:100]]
    for data in wrong:
        path.write_bytes(data)
        with pytest.raises(ValueError):
            opened(path)


def test_another_version_is_told_from_a_damaged_one(path, monkeypatch):
    monkeypatch.setattr(ledger, "_VERSION", 99)
    opened(path, fresh=True).close()
    monkeypatch.undo()
    with pytest.raises(OtherVersionError, match="version 99"):
        opened(path)


def test_zeroed_numbers_are_damaged(path):
    filled(path, False).close()
    data = path.read_bytes()
    path.write_bytes(data[:128].ljust(SIZE, b"\0"))
    assert reread(path).damaged == set(CHANNELS)


def test_a_failing_disk_is_no_error_and_is_made_up_for(path, monkeypatch):
    made = opened(path, fresh=True)

    def fail(*_):
        raise OSError(5, "injected")

    monkeypatch.setattr(os, "pwrite", fail)
    made.add("logs", "accepted", 1)
    monkeypatch.undo()
    assert made.rows["logs"]["accepted"] == 1
    assert reread(path).rows["logs"]["accepted"] == 0
    made.add("logs", "accepted", 1)
    assert reread(path).rows["logs"]["accepted"] == 2
    made.close()


HOUR_NS = 3600 * 10**9


def test_within_a_boot_a_stepped_wall_clock_changes_no_age(monkeypatch):
    origin = Origin(ledger.boot_id(), time.time_ns(), time.monotonic_ns())
    for step_ns in (-HOUR_NS, HOUR_NS):
        monkeypatch.setattr(time, "time_ns", lambda step=step_ns: 1_700_000_000 * 10**9 + step)
        before_ns = time.monotonic_ns()
        limit_ns = origin.limit_ns(3600.0)
        assert before_ns - HOUR_NS <= limit_ns <= time.monotonic_ns() - HOUR_NS


def test_over_a_reboot_the_wall_clock_decides(monkeypatch):
    origin = Origin("another boot", 1_700_000_000 * 10**9, 50 * 10**9)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000 * 10**9 + 2 * HOUR_NS)
    assert origin.limit_ns(3600.0) == 50 * 10**9 + HOUR_NS


def test_the_boot_is_known_here():
    assert len(ledger.boot_id()) == 36
    assert ledger.boot_id() == ledger.boot_id()
