from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pbmon.spool import frames
from pbmon.spool.frames import CHANNELS, Record
from tests.patience import patiently

payloads = st.lists(st.binary(max_size=60), max_size=8)


def written(payloads):
    """A segment of these and the offsets behind its records, without their padding."""
    data, stops = bytearray(frames.header("logs", 7).ljust(frames.START, b"\0")), []
    for number, payload in enumerate(payloads):
        content = frames.body(number, 5, payload)
        record = frames.frame(content) + content
        stops.append(len(data) + len(record))
        data += record.ljust(frames.room(len(payload)), b"\0")
    return bytes(data), stops


def read(data, end=None):
    found = list(frames.read(data, frames.START, len(data) if end is None else end))
    return [record for record, _ in found if record is not None], found


def expected(payloads):
    return [Record(number, 5, payload) for number, payload in enumerate(payloads)]


@given(payloads, st.integers(0, 100))
def test_what_was_written_is_read(payloads, zeros):
    data, _ = written(payloads)
    records, found = read(data + bytes(zeros))
    assert records == expected(payloads)
    assert len(found) == len(payloads)
    if found:
        assert found[-1].end == len(data)


def test_records_begin_at_multiples_of_eight_and_room_is_what_they_take():
    for length in range(40):
        data, _ = written([b"x" * length, b"y"])
        records, found = read(data)
        assert len(records) == 2
        assert found[0].end == frames.START + frames.room(length)
        assert found[0].end % 8 == 0


@patiently()
@given(payloads)
def test_cut_anywhere_the_whole_records_before_are_found(payloads):
    data, stops = written(payloads)
    for length in range(frames.START, len(data)):
        records, _ = read(data[:length])
        assert records == expected(payloads)[: sum(stop <= length for stop in stops)]


def test_a_limit_inside_a_record_hides_it():
    data, stops = written([b"first", b"second"])
    records, _ = read(data, end=stops[1] - 1)
    assert [record.payload for record in records] == [b"first"]


def test_a_flipped_bit_anywhere_leaves_the_records_before_it():
    data, stops = written([b"first", b"", b"third one", b"4"])
    starts = [frames.START, *((stop + 7) & ~7 for stop in stops)]
    for bit in range(frames.START * 8, len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        records, found = read(flipped)
        whole = sum(stop <= bit // 8 for stop in stops)
        in_padding = any(
            stop <= bit // 8 < start for stop, start in zip(stops, starts[1:], strict=True)
        )
        assert len(records) == (4 if in_padding else whole), bit
        assert records == expected([b"first", b"", b"third one", b"4"])[: len(records)]
        assert in_padding or found[-1].record is None


def test_garbage_is_no_record():
    generator = random.Random(7)
    for _ in range(2000):
        data = generator.randbytes(generator.randrange(200))
        records, found = read(data)
        assert records == []
        assert len(found) <= 1


def test_a_damaged_record_is_told_from_the_end():
    data, _ = written([b"only"])
    assert read(data + bytes(64))[1][-1].record is not None
    assert read(data + b"\1" * 64)[1][-1] == (None, len(data))
    # A length of zero with a checksum is no end either.
    assert read(data + bytes(4) + b"\1" * 60)[1][-1] == (None, len(data))


def test_headers_differ_by_channel_and_number():
    made = {frames.header(channel, number) for channel in CHANNELS for number in (1, 2, 2**40)}
    assert len(made) == 12
    assert {len(header) for header in made} == {frames.START}
