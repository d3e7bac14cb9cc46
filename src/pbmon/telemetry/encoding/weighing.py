"""The quick look: what is plainly legal, and so small that no limit can be near."""

from __future__ import annotations

from math import isfinite
from typing import Any

from pbmon.telemetry.encoding.limits import INT64, MAX_ELEMENTS, MAX_TEXT_BYTES


class Doubt(Exception):
    """Not plainly legal; mending will tell."""


DOUBT = Doubt()


def weigh(attributes: Any) -> int:
    """Bytes that attributes take, about; Doubt, or any other exception, if it isn't plain."""
    if type(attributes) is not dict:
        raise DOUBT
    size = 0
    for key, value in attributes.items():
        if type(key) is str and type(value) is str and value.isascii() and key.isascii():
            size += len(key) + len(value) + 16
        else:
            size += weigh_value(value) + weigh_text(key)
    return size


def weigh_text(text: Any) -> int:
    if text is None:
        return 0
    if type(text) is not str or len(text) > MAX_TEXT_BYTES:
        raise DOUBT
    return len(text) if text.isascii() else len(text.encode())


def weigh_value(value: Any) -> int:  # noqa: C901 - a branch for each type
    kind = type(value)
    if kind is str:
        return 16 + weigh_text(value)
    if kind is int:
        if value not in INT64:
            raise DOUBT
    elif kind is float:
        if not isfinite(value):
            raise DOUBT
    elif kind is tuple or kind is list:
        if len(value) > MAX_ELEMENTS:
            raise DOUBT
        size = 16
        for element in value:
            if type(element) in _NESTING:
                raise DOUBT
            size += weigh_value(element)
        return size
    elif kind is bytes:
        return 16 + len(value)
    elif kind is not bool and value is not None:
        raise DOUBT
    return 16


_NESTING = frozenset((list, tuple))


def copied(attributes: Any) -> Any:
    # Of the SDK's bounded attributes this is the only quick way to their dict.
    return attributes.copy() if attributes is not None else {}


def check_size(size: int) -> None:
    # So small that no single value and no sum of them can be too long.
    if size > MAX_TEXT_BYTES:
        raise DOUBT
