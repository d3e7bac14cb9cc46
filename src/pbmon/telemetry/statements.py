"""What may be told of a SQL statement: its text without literals, and a short summary.

describe() costs about a microsecond for a text seen before. A new one goes through the
tokenizer of its dialect; where that leaves any doubt, or would take too long, the text is
withheld and the summary is what the statement's first words say for certain.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pbmon import signals
from pbmon.telemetry import folding, summaries
from pbmon.telemetry.tokens import Doubt, take_apart

LIMIT_INPUT = 16_384  # characters; a longer statement has a summary only
LIMIT_SHORT = 2_048  # characters; texts up to here are cached by the thousand
LIMIT_TEXT = 4_096  # characters of a sanitised text
LIMIT_SUMMARY = 255  # characters, the semantic conventions' limit
LIMIT_SUMMARIES = 500  # distinct ones in a process, as they are metric attributes


@dataclass(frozen=True, slots=True)
class Statement:
    """text: literals replaced by `?`; None where that is in doubt. summary: operations and
    tables, '' where none is known. operation: the main verb. collection: the one table."""

    text: str | None
    summary: str
    operation: str | None = None
    collection: str | None = None


NOTHING = Statement(None, "")


class _Busy(Exception):
    """Too much new text of late."""


class Allowance:
    """Characters that may be tokenised: about a tenth of one core, however many new texts come."""

    def __init__(self, rate: float = 50_000, most: float = 400_000) -> None:
        self._rate, self._most = rate, most
        self._left = most
        self._at_s = time.monotonic()
        self.forget()
        signals.enlist(self)

    def forget(self) -> None:
        self._lock = threading.Lock()

    def take(self, characters: int) -> bool:
        with self._lock:
            now_s = time.monotonic()
            self._left = min(self._most, self._left + (now_s - self._at_s) * self._rate)
            self._at_s = now_s
            if self._left < characters:
                return False
            self._left -= characters
            return True


allowance = Allowance()
_summaries: set[str] = set()


def describe(sql: str | bytes | None, system: str) -> Statement:
    """What may be told of a statement. Never raises, whatever it is given.

    system: `db.system.name`, which decides the dialect; an unknown one is read cautiously.
    """
    try:
        text = sql if type(sql) is str else _as_text(sql)
        if len(text) <= LIMIT_SHORT:
            return _describe_short(text, system)
        if len(text) <= LIMIT_INPUT:
            return _describe_long(text, system)
        return _from_head(text)
    except _Busy:
        return _from_head(text)
    except Exception as error:
        # Without the traceback: its lines could show the statement.
        signals.tell("statements", "pbmon: describing SQL failed with %s", type(error).__name__)
        return NOTHING


def _as_text(sql: object) -> str:
    if isinstance(sql, str):
        return str.__str__(sql)  # a subclass may hash and compare as it likes
    if isinstance(sql, bytes | bytearray):
        return sql.decode("utf-8", "surrogateescape")
    return ""


def _describe_new(sql: str, system: str) -> Statement:
    if not sql or sql.isspace():
        return NOTHING
    if not allowance.take(len(sql)):
        raise _Busy
    try:
        pieces = take_apart(sql, system)
        folding.settle_names(pieces)
        outline = summaries.outline(pieces)
        text = folding.render(pieces, LIMIT_TEXT)
        text.encode()
    except (Doubt, UnicodeEncodeError):
        return _from_head(sql)
    if outline.operation not in summaries.VERBS:
        return Statement(text, "")
    tables = list(outline.tables)
    return _capped(text, outline.words, outline.operation, tables[0] if len(tables) == 1 else None)


# Two caches bound the memory: many short texts, few long ones.
_describe_short: Callable[[str, str], Statement] = lru_cache(1024)(_describe_new)
_describe_long: Callable[[str, str], Statement] = lru_cache(64)(_describe_new)


def _capped(
    text: str | None, words: list[str], operation: str | None, collection: str | None
) -> Statement:
    summary = words[0] if words else ""
    for word in words[1:]:
        if len(summary) + 1 + len(word) > LIMIT_SUMMARY:
            break
        summary += " " + word
    if summary not in _summaries:
        if len(_summaries) >= LIMIT_SUMMARIES:
            return Statement(text, operation or "", operation)
        _summaries.add(summary)
    return Statement(text, summary, operation, collection)


# Before the first literal nothing can be misread: comments, the verb, and for a write its table.
_HEAD = re.compile(
    r"(?:\s|--[^\r\n]*[\r\n]|/\*(?:(?!\*/|/\*).){0,4096}\*/)*"
    r"(?P<verb>[A-Za-z]{2,12})\b"
    r"(?:(?<=INSERT)(?:\s+OR\s+[A-Z]{2,10})?\s+INTO|(?<=REPLACE)\s+INTO|(?<=DELETE)\s+FROM"
    r"|(?<=UPDATE)|(?<=COPY))?"
    r"(?:\s+(?P<table>(?:\"[A-Za-z_]\w*\"|`[A-Za-z_]\w*`|[A-Za-z_]\w*)"
    r"(?:\.(?:\"[A-Za-z_]\w*\"|`[A-Za-z_]\w*`|[A-Za-z_]\w*)){0,2})(?=[\s(,;]|\Z))?",
    re.IGNORECASE | re.DOTALL,
)
_WRITES = frozenset(("INSERT", "REPLACE", "DELETE", "UPDATE", "COPY"))


def _from_head(sql: str) -> Statement:
    """The summary of what can't be tokenised, by its first words."""
    found = _HEAD.match(sql[:LIMIT_INPUT])
    if found is None or (verb := found["verb"].upper()) not in summaries.VERBS:
        return NOTHING
    table = found["table"] if verb in _WRITES else None
    if table is None or len(table) > 128:
        return _capped(None, [verb], verb, None)
    table = table.replace('"', "").replace("`", "")
    return _capped(None, [verb, table], verb, table)
