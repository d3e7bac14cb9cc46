"""From pieces back to text: bounded lists, and no name that may be a string."""

from __future__ import annotations

from collections.abc import Iterator

from pbmon.telemetry.tokens import Piece, keywords

# A double-quoted token after one of these can't be a string, also where SQLite or MySQL would
# take it for one elsewhere.
_BEFORE_NAMES = keywords(
    """AS COLUMN CONSTRAINT FROM INDEX INTO JOIN REFERENCES RELEASE RENAME SAVEPOINT TABLE TO
    TRIGGER UPDATE VIEW"""
)
_END_OF_COLUMNS = frozenset(("VALUES", "SELECT", "WITH", "DEFAULT"))


def settle_names(pieces: list[Piece]) -> None:
    """Decide on each token that is an identifier or a string, by where it stands.

    One that a string could not stand for is an identifier; any other becomes `?`.
    """
    columns = _insert_columns(pieces)
    for at, piece in enumerate(pieces):
        if piece.kind != "perhaps":
            continue
        before = pieces[at - 1] if at else None
        after = pieces[at + 1].text if at + 1 < len(pieces) else ""
        word = before.upper.rpartition(" ")[2] if before is not None else ""
        dotted = after == "." or (before is not None and before.text == ".")
        assigned = word == "SET" and after == "="
        if dotted or assigned or word in _BEFORE_NAMES or at in columns:
            piece.kind = "name"
        else:
            piece.kind, piece.text = "literal", "?"


def _insert_columns(pieces: list[Piece]) -> range:
    """Where the column list of `INSERT INTO t (…) VALUES` is; empty if there is none."""
    words = [piece.upper.rpartition(" ")[2] for piece in pieces]
    if "INTO" not in words:
        return range(0)
    table = words.index("INTO") + 1
    at = table + 1
    while at < len(pieces) and pieces[at].text == ".":
        at += 2
    if words[at : at + 1] == ["AS"]:
        at += 2
    end = _closing(pieces, at)
    if not end or end + 1 == len(pieces) or words[end + 1] not in _END_OF_COLUMNS:
        return range(0)
    if not _END_OF_COLUMNS.isdisjoint(words[table:at]):
        return range(0)  # `INTO VALUES (…)`: these are values
    return range(at, end)


def _closing(pieces: list[Piece], at: int) -> int:
    """Index of the parenthesis that closes the one at `at`; 0 if there is none."""
    if at >= len(pieces) or pieces[at].text not in ("(", "["):
        return 0
    depth = 0
    for end in range(at, len(pieces)):
        if pieces[end].text in ("(", "["):
            depth += 1
        elif pieces[end].text in (")", "]"):
            depth -= 1
            if depth == 0:
                return end
    return 0


def render(pieces: list[Piece], limit: int) -> str:
    """The text: one space where there was any, lists folded, cut at `limit` characters."""
    out: list[str] = []
    size = 0
    for piece in _folded(pieces):
        size += len(piece.text) + piece.spaced
        if size > limit - 1:
            out.append("…")
            break
        out.append(" " + piece.text if piece.spaced else piece.text)
    return "".join(out).strip()


def _folded(pieces: list[Piece]) -> Iterator[Piece]:
    """Leave out what repeats: `IN (?, ?, ?)` is `IN (?)`, the rows after the first of VALUES."""
    at = 0
    while at < len(pieces):
        piece = pieces[at]
        yield piece
        at += 1
        if piece.upper == "VALUES":
            end = _closing(pieces, at)
            if end:
                yield from pieces[at : end + 1]
                at = _after_rows(pieces, end + 1)
        elif piece.text in {"(", "["}:
            items, end = _items(pieces, at - 1)
            if items is not None:
                yield from _distinct(items)
                at = end


def _after_rows(pieces: list[Piece], at: int) -> int:
    while at + 1 < len(pieces) and pieces[at].text == "," and pieces[at + 1].text == "(":
        end = _closing(pieces, at + 1)
        if not end:
            break
        at = end + 1
    return at


def _items(pieces: list[Piece], at: int) -> tuple[list[list[Piece]] | None, int]:
    """The items of the list in the parentheses at `at`, and the index of its end."""
    if pieces[at].text == "(" and (not at or pieces[at - 1].upper.rpartition(" ")[2] != "IN"):
        return None, at
    end = _closing(pieces, at)
    if not end:
        return None, at
    items: list[list[Piece]] = [[]]
    depth = 0
    for piece in pieces[at + 1 : end]:
        if piece.text in ("(", "["):
            depth += 1
        elif piece.text in (")", "]"):
            depth -= 1
        if piece.text == "," and depth == 0:
            items.append([])
        else:
            items[-1].append(piece)
        if piece.upper == "SELECT":
            return None, at
    return items, end


def _distinct(items: list[list[Piece]]) -> Iterator[Piece]:
    """Each kind of item once, in the order of their first."""
    seen: set[tuple[str, ...]] = set()
    for item in items:
        look = tuple("?" if p.kind in ("literal", "number", "parameter") else p.text for p in item)
        if look in seen:
            continue
        if seen:
            yield Piece("mark", ",", spaced=False)
        seen.add(look)
        yield from item
