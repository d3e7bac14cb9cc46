"""Any value made one that OTLP can carry, with a count of what was replaced, and why."""

from __future__ import annotations

import operator
import re
import reprlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from math import isfinite, isnan, nan
from typing import Any, TypeVar

from pbmon.telemetry.encoding import standins
from pbmon.telemetry.encoding.limits import (
    CUT,
    CUT_BYTES,
    INT64,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_ITEM_BYTES,
    MAX_TEXT_BYTES,
    SHORT_BYTES,
    UINT64,
)

_SURROGATES = re.compile("[\ud800-\udfff]")

_E = TypeVar("_E", bound=Enum)


class Mender:
    """Makes the fields of one item legal and counts what it replaced. No method raises.

    text_bytes: limit of one text. share_bytes: of one attribute. whole_bytes: of everything;
    what comes after is left out.
    """

    def __init__(
        self,
        text_bytes: int = MAX_TEXT_BYTES,
        share_bytes: int = MAX_ITEM_BYTES,
        whole_bytes: int = MAX_ITEM_BYTES,
    ) -> None:
        self.replaced: dict[str, int] = {}
        self.size = 0
        """Bytes at most of what was taken so far."""
        self._text_bytes = text_bytes
        self._share_bytes = share_bytes
        self._whole_bytes = whole_bytes
        self._stop = whole_bytes

    def note(self, reason: str, values: int = 1) -> None:
        self.replaced[reason] = self.replaced.get(reason, 0) + values

    def note_rest(self, values: Any, taken: int) -> None:
        """That all but the first ones are left out."""
        rest = 1
        with suppress(Exception):
            rest = max(rest, len(values) - taken)
        self.note("too_long", rest)

    @property
    def full(self) -> bool:
        return self.size > self._stop

    def read(self, source: Any, name: str, default: Any = None) -> Any:
        try:
            return getattr(source, name)
        except Exception:
            self.note("type")
            return default

    def each(self, values: Any) -> Iterator[Any]:
        """The elements of a list of ours; as many of them as can be had."""
        if values is None:
            return
        try:
            yield from values
        except Exception:
            self.note("type")

    def text(self, value: Any) -> str:
        if value is None:
            return ""
        try:
            text = str.__str__(value)
        except TypeError:
            self.note("type")
            text = _describe(value)
        return self._text(text)

    def _text(self, value: str) -> str:
        limit = self._text_bytes
        text = str.__str__(value)[: limit + 1]  # of a subclass, the plain text
        reason = ""
        try:
            data = text.encode()
        except UnicodeEncodeError:
            reason = "surrogate"
            text = _SURROGATES.sub("\ufffd", text)
            data = text.encode()
        if len(data) > limit:
            reason = reason or "too_long"
            text = data[: limit - len(CUT_BYTES)].decode(errors="ignore") + CUT
            data = data[:limit]
        if reason:
            self.note(reason)
        self.size += len(data) + 16
        return text

    def value(self, value: Any, path: tuple[int, ...] = ()) -> Any:
        """An attribute's value or a body. path: ids of the arrays and maps around it."""
        self.size += 16
        try:
            return self._value(value, path)
        except Exception:  # of a class of the application's
            self.note("type")
            return self._text(_describe(value))

    def _value(self, value: Any, path: tuple[int, ...]) -> Any:  # noqa: PLR0911 - one for each type
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            number = int.__int__(value)
            if number in INT64:
                return number
            self.note("out_of_range")
            return self._text(_describe(number))
        if isinstance(value, float):
            real = float.__float__(value)
            if isfinite(real):
                return real
            self.note("not_finite")
            return "NaN" if isnan(real) else "Infinity" if real > 0 else "-Infinity"
        if isinstance(value, bytes):
            return self._bytes(value)
        if isinstance(value, Sequence):
            return self._inside(value, path, self._array)
        if isinstance(value, Mapping):
            return self._inside(value, path, self._map)
        self.note("type")
        return self._text(_describe(value))

    def _bytes(self, value: bytes) -> bytes:
        data = b"".join((value,))
        if len(data) > self._text_bytes:
            self.note("too_long")
            data = data[: self._text_bytes - len(CUT_BYTES)] + CUT_BYTES
        self.size += len(data)
        return data

    def _inside(self, value: Any, path: tuple[int, ...], take: Callable[..., Any]) -> Any:
        if id(value) in path:
            self.note("cycle")
            return "<cycle>"
        if len(path) >= MAX_DEPTH:
            self.note("too_deep")
            return "<too deep>"
        return take(value, (*path, id(value)))

    def _array(self, value: Any, path: tuple[int, ...]) -> list[Any]:
        taken: list[Any] = []
        for element in value:
            if len(taken) == MAX_ELEMENTS or self.full:
                self.note("too_long")
                break
            taken.append(self.value(element, path))
        return taken

    def _map(self, value: Any, path: tuple[int, ...]) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        for key, element in value.items():
            if len(taken) == MAX_ELEMENTS or self.full:
                self.note("too_long")
                break
            taken[self._key(key, taken)] = self.value(element, path)
        return taken

    def _key(self, key: Any, taken: Mapping[str, Any]) -> str:
        self.size += 16
        if key is None:
            self.note("type")
            key = "None"
        name = self.text(key)
        while name in taken:  # two keys became one
            name = f"{name}#{len(taken)}"
        return name

    def attributes(self, attributes: Any) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        if attributes is None:
            return taken
        try:
            for key, value in attributes.items():
                if self.full:
                    self.note_rest(attributes, len(taken))
                    break
                self._stop = min(self.size + self._share_bytes, self._whole_bytes)
                taken[self._key(key, taken)] = self.value(value)
                self._stop = self._whole_bytes
        except Exception:  # no mapping, or one that changes meanwhile
            self.note("type")
        self._stop = self._whole_bytes
        return taken

    def number(self, value: Any, legal: range) -> int:
        """A field that is a whole number; an absent one is 0, as the stock encoder has it."""
        if value is None:
            return 0
        try:
            number = operator.index(value)
        except Exception:
            self.note("type")
            try:
                number = int(value)
            except Exception:
                return 0
        if number in legal:
            return int(number)
        self.note("out_of_range")
        return legal[0] if number < legal[0] else legal[-1]

    def time(self, value: Any) -> int:
        """Nanoseconds since the epoch."""
        return self.number(value, UINT64)

    def id(self, value: Any, bits: int) -> int:
        try:
            number = operator.index(value)
        except Exception:
            self.note("type")
            return 0
        if not 0 <= number < 1 << bits:
            self.note("out_of_range")
        return int(number) & ((1 << bits) - 1)

    def double(self, value: Any) -> float:
        try:
            return float.__float__(value)
        except TypeError:
            pass
        try:
            return _nearest(int.__int__(value))
        except TypeError:
            self.note("type")
        try:
            return float(value)
        except Exception:
            return nan

    def measure(self, value: Any) -> int | float:
        """The value of a data point or an exemplar."""
        try:
            number = int.__int__(value)
        except TypeError:
            return self.double(value)
        if number in INT64:
            return number
        self.note("out_of_range")
        return _nearest(number)

    def choice(self, value: Any, choices: type[_E], default: _E) -> _E:
        if type(value) is choices:
            return value
        self.note("type")
        try:  # choices(value) would write all of an illegal value into its error
            return next(choice for choice in choices if choice.value == value)
        except Exception:
            return default

    def flag(self, value: Any) -> bool:
        try:
            return bool(value)
        except Exception:
            self.note("type")
            return False

    def context(self, context: Any) -> standins.Context:
        state = self.read(context, "trace_state")
        return standins.Context(
            trace_id=self.id(self.read(context, "trace_id"), 128),
            span_id=self.id(self.read(context, "span_id"), 64),
            is_remote=self.flag(self.read(context, "is_remote")),
            trace_state={k: self.text(v) for k, v in self.attributes(state).items()},
        )


def _nearest(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return sys.float_info.max if number > 0 else -sys.float_info.max


def _describe(value: Any) -> str:
    """A short text for any object: its str(), or its class where that is of no use."""
    kind: Any = type(value)
    with suppress(Exception):
        if kind in _CONTAINERS:
            return _FIRST_FEW.repr(value)[:SHORT_BYTES]
        silent = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
        big = kind is int and value.bit_length() > 3 * SHORT_BYTES
        if not silent and not big and not isinstance(value, _CONTAINERS):
            text = str(value)
            if len(text) <= SHORT_BYTES:
                return str.__str__(text)
    try:
        return f"<{kind.__name__[:SHORT_BYTES]}>"
    except Exception:
        return "<object>"


_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_FIRST_FEW = reprlib.Repr()
_FIRST_FEW.maxlevel = 2
