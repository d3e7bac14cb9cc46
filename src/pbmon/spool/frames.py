"""The bytes of a segment file: a header, then records one after the other. Pure.

    header   magic, version, channel, number, crc32 of these
    record   length, crc32 | items, monotonic time | payload      (8-byte aligned)

A record's first eight bytes are written last, so whoever finds them finds the whole record. Zeros
in their place are the end of what was written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

VERSION = 1
CHANNELS = ("traces", "metrics", "logs", "events")
"""What records belong to; its place in this tuple is what the file holds."""

_HEADER = struct.Struct("<8sIIQ")
_MAGIC = b"pbmonseg"
_HEADER_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<II")
_BODY = struct.Struct("<IQ")

START = 32
"""Offset of the first record."""
OVERHEAD = _FRAME.size + _BODY.size


class Record(NamedTuple):
    """One record as read. items: spans, log records, data points or events in the payload."""

    items: int
    monotonic_ns: int
    """CLOCK_MONOTONIC of the machine when it was written."""
    payload: bytes


class Found(NamedTuple):
    """A record and the offset behind it; no record where the bytes there are none (damaged)."""

    record: Record | None
    end: int


def header(channel: str, number: int) -> bytes:
    """What the segment of this channel and number begins with; another beginning is no segment."""
    start = _HEADER.pack(_MAGIC, VERSION, CHANNELS.index(channel), number)
    return start + _HEADER_CRC.pack(zlib.crc32(start)) + bytes(4)


def body(items: int, monotonic_ns: int, payload: bytes) -> bytes:
    """A record without its frame."""
    return _BODY.pack(items, monotonic_ns) + payload


def frame(content: bytes) -> bytes:
    """The eight bytes that publish a record's body."""
    return _FRAME.pack(len(content), zlib.crc32(content))


def room(payload_length: int) -> int:
    """Bytes that a record of this payload takes in a segment."""
    return _aligned(OVERHEAD + payload_length)


def _aligned(length: int) -> int:
    return (length + 7) & ~7


def read(data: bytes | memoryview, offset: int, end: int) -> Iterator[Found]:
    """The records from an offset on, up to `end` or the first place where there is none.

    A damaged record ends the walk with an empty Found: what is behind it can't be trusted, since
    its length can't.
    """
    end = min(end, len(data))
    while offset + OVERHEAD <= end:
        length, crc = _FRAME.unpack_from(data, offset)
        if length == 0:
            if crc:
                yield Found(None, offset)
            return
        start = offset + _FRAME.size
        stop = start + length
        if length < _BODY.size or stop > end:
            yield Found(None, offset)
            return
        content = bytes(data[start:stop])
        if zlib.crc32(content) != crc:
            yield Found(None, offset)
            return
        items, monotonic_ns = _BODY.unpack_from(content)
        offset = _aligned(stop)
        yield Found(Record(items, monotonic_ns, content[_BODY.size :]), offset)
