"""What a value may be: OTLP's own ranges, and our limits on size."""

MAX_TEXT_BYTES = 64 * 1024
"""Of a text in UTF-8, or of a value of bytes; what is longer is cut."""
MAX_ELEMENTS = 1000
"""Of an array or a map that is a value."""
MAX_DEPTH = 8
"""Arrays and maps within each other."""
MAX_ITEM_BYTES = 1024 * 1024
"""Of an encoded span or log record; in a bigger one every long value is cut to SHORT_BYTES."""
SHORT_BYTES = 1024
CUT = "…[cut]"
"""Ends a text that was cut."""
CUT_BYTES = CUT.encode()

INT64 = range(-(2**63), 2**63)
INT32 = range(-(2**31), 2**31)
UINT32 = range(2**32)
UINT64 = range(2**64)
