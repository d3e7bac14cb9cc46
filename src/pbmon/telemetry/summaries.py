"""From the pieces of a statement to what it does to which tables, by the semantic conventions.

`INSERT INTO a SELECT * FROM b JOIN c …` is `INSERT a SELECT b c`. Only keywords of the lists
below and identifiers get in, so a summary can hold no value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pbmon.telemetry.tokens import Piece, keywords

_DATA = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "COPY"))
_DEFINITIONS = frozenset(("CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE"))
_OTHERS = keywords(
    """ABORT ANALYZE ATTACH BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMIT DEALLOCATE DECLARE DESC
    DESCRIBE DETACH DISCARD DO END EXEC EXECUTE EXPLAIN FETCH FLUSH HANDLER IMPORT KILL LISTEN
    LOAD LOCK MOVE NOTIFY OPTIMIZE PRAGMA PREPARE REFRESH REINDEX RELEASE RENAME REPAIR RESET
    ROLLBACK SAVEPOINT SECURITY SET SHOW START TABLE UNLISTEN UNLOCK USE VACUUM VALUES"""
)
VERBS = _DATA | _DEFINITIONS | _OTHERS
_OBJECTS = keywords(
    """AGGREGATE COLLATION DATABASE DOMAIN EXTENSION FUNCTION INDEX MATERIALIZED POLICY PROCEDURE
    ROLE RULE SCHEMA SEQUENCE SERVER TABLE TABLESPACE TRIGGER TYPE USER VIEW"""
)
_NO_TABLES = _OBJECTS - {"MATERIALIZED", "TABLE", "VIEW"}
# After these a write stands as a statement of its own; elsewhere it is part of a clause, such
# as FOR UPDATE or ON CONFLICT DO UPDATE.
_OPENERS = frozenset(("AS", "EXPLAIN", "ANALYZE", "VERBOSE"))
_SKIPPED = keywords(
    """CONCURRENTLY EXISTS IF IGNORE INTO LATERAL LOW_PRIORITY NOT ONLY OVERWRITE TABLE"""
)
_END_OF_FROM = keywords(
    """CONNECT EXCEPT FETCH FOR GROUP HAVING INTERSECT LIMIT OFFSET ORDER RETURNING
    SET START UNION VALUES WHERE WINDOW"""
)
_PLAIN_NAME = re.compile(r"[\w$]+(?:[-.][\w$]+)*")


@dataclass(slots=True)
class _Level:
    """What is known inside one pair of parentheses."""

    verb: str = ""
    in_from: bool = False
    expecting: bool = False


@dataclass(slots=True)
class Outline:
    """words: verbs and targets in their order. operation: the first verb at the outermost
    level, after a WITH. tables: distinct tables, functions left out."""

    words: list[str] = field(default_factory=list)
    operation: str | None = None
    tables: dict[str, None] = field(default_factory=dict)


class _Reader:
    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.outline = Outline()
        self.levels = [_Level()]
        self.queries = _named_queries(pieces)
        self.begins = True
        """Whether the piece at hand is the first of a statement."""

    def read(self) -> Outline:
        at = 0
        while at < len(self.pieces):
            at = self._step(at)
        if self.outline.operation is None:  # all of it in parentheses
            self.outline.operation = next(iter(self.outline.words), None)
        return self.outline

    def _step(self, at: int) -> int:
        piece = self.pieces[at]
        level = self.levels[-1]
        word = piece.upper.partition(" ")[0]
        begins, self.begins = self.begins, False
        if piece.text == "(":
            level.expecting = False
            self.levels.append(_Level())
        elif piece.text == ")" and len(self.levels) > 1:
            self.levels.pop()
        elif piece.text == ";":
            self.levels, self.begins = [_Level()], True
        elif piece.text == ",":
            level.expecting = level.in_from
        elif word in VERBS and self._is_verb(word, at, begins):
            return self._verb(word, at)
        elif word in ("FROM", "JOIN") or piece.upper.endswith(" JOIN"):
            level.in_from = level.expecting = self._opens_tables(word, at)
        elif word == "INTO" or (word == "USING" and level.verb in ("MERGE", "DELETE")):
            level.expecting = bool(level.verb)
        elif word in _END_OF_FROM:
            level.in_from = level.expecting = False
        elif level.expecting and word not in _SKIPPED:
            return self._target(at)
        return at + 1

    def _is_verb(self, word: str, at: int, begins: bool) -> bool:
        if begins:
            return True
        if self.levels[0].verb in ("GRANT", "REVOKE"):
            return False
        if word == "SELECT":
            return True
        before = self.pieces[at - 1]
        opens = before.text in ("(", ")") or before.upper in _OPENERS
        return opens and word in _DATA and word not in ("REPLACE", "COPY")

    def _verb(self, word: str, at: int) -> int:
        level = self.levels[-1]
        level.verb, level.in_from = word, False
        self.outline.words.append(word)
        if len(self.levels) == 1:
            self.outline.operation = self.outline.operation or word
        level.expecting = word in ("UPDATE", "COPY", "TRUNCATE", "CALL", "REPLACE")
        if word not in ("CREATE", "ALTER", "DROP"):
            return at + 1
        # CREATE UNIQUE INDEX, CREATE OR REPLACE VIEW, DROP TABLE …: the kind, then its name.
        for ahead in range(at + 1, min(at + 6, len(self.pieces))):
            kind = self.pieces[ahead].upper.partition(" ")[0]
            if kind in _OBJECTS:
                self.outline.words.append(kind)
                level.verb, level.expecting = kind, True
                return ahead + 1
        return at + 1

    def _opens_tables(self, word: str, at: int) -> bool:
        """Whether names follow, unlike in `EXTRACT(day FROM …)` or `IS DISTINCT FROM`."""
        level = self.levels[-1]
        if word != "FROM":
            return bool(level.verb)
        if at and self.pieces[at - 1].upper.endswith("DISTINCT"):
            return False
        return level.verb in ("SELECT", "DELETE", "UPDATE", "FETCH", "SHOW", "MERGE")

    def _target(self, at: int) -> int:
        """Read a dotted name."""
        self.levels[-1].expecting = False
        parts: list[str] = []
        end = at
        while end < len(self.pieces) and self.pieces[end].kind in ("word", "name"):
            piece = self.pieces[end]
            parts.append(piece.text[1:-1] if piece.kind == "name" else piece.text.split()[0])
            end += 1
            if end >= len(self.pieces) or self.pieces[end].text != ".":
                break
            end += 1
        name = ".".join(parts)
        if not parts or not _PLAIN_NAME.fullmatch(name) or name.lower() in self.queries:
            return max(end, at + 1)
        if name not in self.outline.words or self.outline.words[-1] in VERBS:
            self.outline.words.append(name)
        verb = self.levels[-1].verb
        called = end < len(self.pieces) and self.pieces[end].text == "("
        function = verb == "CALL" or (verb == "SELECT" and called)
        if not function and verb not in _NO_TABLES:
            self.outline.tables[name] = None
        return end


def _named_queries(pieces: list[Piece]) -> frozenset[str]:
    """The names that WITH gives to queries; they are not tables."""
    if not any(piece.upper.startswith("WITH") for piece in pieces):
        return frozenset()
    names = set()
    for at in range(1, len(pieces) - 1):
        if pieces[at].upper == "AS" and pieces[at + 1].text in ("(", "MATERIALIZED", "NOT"):
            names.add(_name_before(pieces, at).lower())
    return frozenset(names)


def _name_before(pieces: list[Piece], at: int) -> str:
    """The name in `name AS` and `name (columns) AS`."""
    at -= 1
    if pieces[at].text == ")":
        while at and pieces[at].text != "(":
            at -= 1
        at -= 1
    piece = pieces[at]
    return piece.text[1:-1] if piece.kind == "name" else piece.text


def outline(pieces: list[Piece]) -> Outline:
    """What the statement does to which tables."""
    return _Reader(pieces).read()
