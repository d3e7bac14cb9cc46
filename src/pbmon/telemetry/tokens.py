"""SQL text as a list of pieces that say what they are; literals keep no content.

The tokenizer is sqlglot's for the dialect. It was written to parse, not to guard, so nothing it
says is taken on trust: every character between two tokens must be white space or a comment, and
each token's own characters must look like what it claims to be. Anything else is a Doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Kind = Literal["word", "name", "perhaps", "literal", "number", "parameter", "mark"]


class Doubt(Exception):
    """The text can't be taken apart with certainty; its message never quotes it."""


@dataclass(slots=True)
class Piece:
    """One token. name: quoted identifier; perhaps: one that may be a string (SQLite, MySQL)."""

    kind: Kind
    text: str
    spaced: bool
    """Whether white space or a comment came before it."""

    @property
    def upper(self) -> str:
        """A keyword, or '' for what can't be one."""
        return self.text.upper() if self.kind == "word" else ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one family of databases writes SQL. sqlglot: its name there.

    ansi: double quotes are always identifiers. backslash: a backslash before a quote leaves no
    doubt about where the string ends. dollar_names: `$name` is a parameter. counted: marks that
    a parameter's number follows.
    """

    sqlglot: str
    ansi: bool = False
    backslash: bool = False
    dollar_names: bool = False
    counted: tuple[str, ...] = ("$",)
    hash_comments: bool = False
    known: bool = True


_POSTGRES = Dialect("postgres", ansi=True)
_MYSQL = Dialect("mysql", hash_comments=True)
_UNKNOWN = Dialect("", known=False)
_DIALECTS = {
    "postgresql": _POSTGRES,
    "cockroachdb": _POSTGRES,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "sqlite": Dialect("sqlite", backslash=True, dollar_names=True, counted=("$", "?")),
    "microsoft.sql_server": Dialect("tsql"),
    "oracle.db": Dialect("oracle", ansi=True),
}

_BLOCK = r"/\*(?:(?!\*/|/\*).)*\*/"  # one within another is read differently by each product
_GAP = re.compile(rf"(?:\s|--[^\r\n]*(?=[\r\n]|\Z)|{_BLOCK})*", re.DOTALL)
# MySQL takes `--` for a comment only where white space follows.
_GAP_MYSQL = re.compile(
    rf"(?:\s|--(?=\s|\Z)[^\r\n]*(?=[\r\n]|\Z)|#[^\r\n]*(?=[\r\n]|\Z)|{_BLOCK})*", re.DOTALL
)
_WORD = re.compile(r"[^\W\d]\w*(?:\s+[^\W\d]\w*)*")
_MARK = re.compile(r"[-+*/<>=~!@#%^&|?:.,;()\[\]{}$]+")
_QUOTED = re.compile(r'"(?:[^"]|"")+"|`(?:[^`]|``)+`|\[[^\[\]]+\]', re.DOTALL)
_USUAL_NAME = re.compile(r"[\w$ .-]{1,63}")
_ESCAPED_QUOTE = re.compile(r"\\['\"]")
# Words that may stand against a string of an unknown dialect without changing how it is read.
_PREFIXES = frozenset(("N", "X", "B", "DATE", "TIME", "TIMESTAMP", "INTERVAL"))


def keywords(text: str) -> frozenset[str]:
    """A set of words written as one text."""
    return frozenset(text.split())


def dialect(system: str) -> Dialect:
    """The dialect of a `db.system.name`; a cautious one for a system that is not known."""
    return _DIALECTS.get(system, _UNKNOWN)


def take_apart(sql: str, system: str) -> list[Piece]:
    """The pieces of a statement. Raises Doubt."""
    of = dialect(system)
    pieces: list[Piece] = []
    for literal, raw, spaced in _slices(sql, of):
        before = pieces[-1] if pieces and not spaced else None
        if before is not None and before.text == "$" and not (literal and raw.isdigit()):
            raise Doubt("$")
        piece = _piece(literal, raw, spaced, before, of)
        if piece is None:
            continue
        pieces.append(piece)
        _join_parameter(pieces, of)
    if any(piece.text == "$" for piece in pieces):
        raise Doubt("$")
    return pieces


def _slices(sql: str, of: Dialect) -> Iterator[tuple[bool, str, bool]]:
    """(is a literal, the characters of the token, spaced) for each token."""
    gap = _GAP_MYSQL if of.hash_comments else _GAP
    end = 0
    try:
        tokens = _tokenizer(of.sqlglot).tokenize(sql)
    except Exception:
        raise Doubt("tokenizer") from None  # its message quotes the statement
    for token in tokens:
        raw = sql[token.start : token.end + 1]
        if token.start < end or not gap.fullmatch(sql, end, token.start) or not raw:
            raise Doubt("gap")
        if raw.startswith("/*"):  # a hint is a comment to us
            if not gap.fullmatch(raw):
                raise Doubt("hint")
            continue
        name = token.token_type.name
        yield name.endswith("STRING") or name == "NUMBER", raw, token.start > end or not end
        end = token.end + 1
    if not gap.fullmatch(sql, end):
        raise Doubt("gap")


def _piece(
    literal: bool, raw: str, spaced: bool, before: Piece | None, of: Dialect
) -> Piece | None:
    """What one token is; None where it belongs to the number before it."""
    if literal:
        return _literal(raw, spaced, before, of)
    if _WORD.fullmatch(raw):
        if before is not None and before.kind == "number":
            return None  # 1_000, 0x1F: the tokenizer of the dialect stopped early
        if before is not None and before.kind in ("literal", "perhaps"):
            raise Doubt("word against a string")
        return Piece("word", " ".join(raw.split()), spaced)
    if _QUOTED.fullmatch(raw):
        return _quoted(raw, spaced, of)
    if of.dollar_names and re.fullmatch(r"\$\w+", raw):
        return Piece("parameter", raw, spaced)
    if _MARK.fullmatch(raw):
        return Piece("mark", raw, spaced)
    raise Doubt("token")


def _literal(raw: str, spaced: bool, before: Piece | None, of: Dialect) -> Piece:
    if raw[0].isdigit():
        counted = before is not None and before.kind == "mark" and before.text in of.counted
        counted = counted and len(raw) < 6
        return Piece("number", raw if counted else "?", spaced)
    escapes = of.backslash or (of is _POSTGRES and raw[0] in "eE$")
    if not escapes and _ESCAPED_QUOTE.search(raw):
        raise Doubt("backslash")  # where it ends depends on a setting of the server
    if not of.known:
        if raw.startswith(("'''", '"""')):
            raise Doubt("triple quotes")
        if before is not None and before.kind == "word" and before.upper not in _PREFIXES:
            raise Doubt("prefix")
    return Piece("literal", "?", spaced)


def _quoted(raw: str, spaced: bool, of: Dialect) -> Piece:
    if not _USUAL_NAME.fullmatch(raw, 1, len(raw) - 1):
        return Piece("literal", "?", spaced)  # few name a table so: more likely a value
    if raw[0] != '"' or of.ansi:
        return Piece("name", raw, spaced)
    if not of.backslash and _ESCAPED_QUOTE.search(raw):
        raise Doubt("backslash")
    return Piece("perhaps", raw, spaced)


def _join_parameter(pieces: list[Piece], of: Dialect) -> None:
    """Make one piece of `%s`, `%(name)s`, `:name`, `$1`, `?1`."""
    last = pieces[-1]
    if last.spaced or len(pieces) < 2:
        return
    before = pieces[-2]
    numbered = last.kind == "number" and before.kind == "mark" and before.text in of.counted
    named = before.text == ":" and last.kind == "word"
    size = 0
    if numbered or named or (before.text == "%" and last.text == "s"):
        size = 2
    elif last.text == "s" and [p.text for p in pieces[-5:-3]] == ["%", "("] and before.text == ")":
        size = 5
    if not size or any(p.spaced for p in pieces[len(pieces) - size + 1 :]):
        return
    parts = pieces[-size:]
    del pieces[-size:]
    pieces.append(Piece("parameter", "".join(p.text for p in parts), parts[0].spaced))


@cache
def _tokenizer(name: str) -> Any:
    """sqlglot's tokenizer of a dialect; imported at the first statement, as it takes 0.2 s."""
    from sqlglot.dialects.dialect import Dialect as SqlglotDialect

    found = SqlglotDialect.get_or_raise(name)
    # A command (EXPLAIN, CALL …) would swallow the rest of the statement as one string.
    plain = type("Tokenizer", (found.tokenizer_class,), {"COMMANDS": set()})
    return _PerCall(plain, found)


class _PerCall:
    """A tokenizer keeps state while it runs: threads get one each."""

    def __init__(self, kind: Any, of: Any) -> None:
        self._kind, self._of = kind, of

    def tokenize(self, sql: str) -> list[Any]:
        return list(self._kind(dialect=self._of).tokenize(sql))
