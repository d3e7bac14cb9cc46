"""What is taken out of texts before they leave: secrets, query values, exception messages,
control characters; the pseudonyms that stand for people; figures of too few of them. Pure."""

from __future__ import annotations

import hmac
import re
from collections import deque
from collections.abc import Collection, Sequence
from fractions import Fraction
from types import TracebackType

MASK = "REDACTED"

_PLACE = re.compile(r"[\w.-]+(:\d+)?")
# What starts a line, commands a terminal, turns the reading direction, or is no UTF-8.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def mask_url(url: str) -> str:
    """The URL with its user and password masked and the values of its query removed.

    All before the last `@` goes: a password may itself hold `@`, `/` and `?`. So does the path
    from its first `;` on: a parameter's value may hold what ends one.
    """
    scheme, sign, rest = url.partition("://")
    if not sign:  # host:port, or a DSN or mistyped URL, which may hold a password anywhere
        return url if not url or _PLACE.fullmatch(url) else MASK
    before, at, place = rest.rpartition("@")
    # The `@` may stand in the query or a path's parameter, and what follows end a secret.
    if "?" in before or ";" in before:
        return f"{scheme}://{MASK}"
    place, hash_sign, _ = place.partition("#")
    place, question, query = place.partition("?")
    place, semicolon, _ = place.partition(";")
    parameters = f";{MASK}" if semicolon else ""
    userinfo = f"{MASK}@" if at else ""
    fragment = f"#{MASK}" if hash_sign else ""
    return f"{scheme}{sign}{userinfo}{place}{parameters}{question}{mask_query(query)}{fragment}"


def mask_query(query: str) -> str:
    """A query string with every value replaced, keys kept in their order.

    `a=1&secret` → `a=REDACTED&REDACTED`: a part without `=` may be a value, as in `/reset?TOKEN`.
    """
    if not query:
        return ""
    pairs = (part.partition("=") for part in query.split("&"))
    return "&".join(f"{name}={MASK}" if sign else MASK if name else "" for name, sign, _ in pairs)


def error_type(error: BaseException) -> str:
    """Class of an exception, as `error.type` wants it: `KeyError`, `psycopg2.errors.DataError`."""
    cls = type(error)
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def frames(trace: TracebackType | None, limit: int = 32) -> str:
    """The innermost frames as `file:line in function` lines, each escaped.

    The exception's message, source lines and locals are left out: they carry people's data.
    """
    innermost: deque[TracebackType] = deque(maxlen=limit)
    while trace is not None:
        innermost.append(trace)
        trace = trace.tb_next
    return "\n".join(map(_frame, innermost))


def _frame(trace: TracebackType) -> str:
    code = trace.tb_frame.f_code
    return escape(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")


def escape(text: str) -> str:
    r"""The text as one line of harmless characters: a line break as `\n`, ESC as `\x1b`.

    Written so are C0 and C1 controls, line and paragraph separators, bidi controls and lone
    surrogates. A backslash stays as it is: paths and JSON are to be read by people.
    """
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


# --- pseudonyms -----------------------------------------------------------------------------


def lookup(pepper: bytes, user_id: str) -> bytes:
    """By what a person's key is found: HMAC-SHA256 of the user's id, cut to 128 bits."""
    return _hmac(pepper, "user|" + user_id)


def veiled(pepper: bytes, name: bytes) -> bytes:
    """The same under a second pepper, which is kept elsewhere: who has the first alone can't tell
    by trying ids whose it is."""
    return hmac.digest(pepper, b"pbmon/veil|" + name, "sha256")[:16]


def session_pseudonym(pepper: bytes, session_id: str) -> bytes:
    return _hmac(pepper, "session|" + session_id)


def pseudonym(key: bytes, destination: str) -> bytes:
    """A person as one destination knows them; without the key nobody can tell whose it is, nor
    that two destinations mean the same person."""
    return _hmac(key, "pbmon/1|" + destination)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256")[:16]


# --- figures of few people ------------------------------------------------------------------

K = 10
"""The fewest people of whom a figure is told: with few enough, it is about somebody."""


def hidden(people: Sequence[int], told: Sequence[Sequence[int]]) -> set[int] | None:
    """Which cells of a table are not to be told, by their places; None: no cell, nor any sum.

    people: of each cell. told: of each sum that is told as well, the weight of each cell in it.

    Hidden is a cell of fewer than K people, unless it is nobody's; and as many others, the smallest
    first, as it takes that those hidden are K people together and that none of them can be
    computed from the sums and from what is told.
    """
    chosen = {at for at, count in enumerate(people) if 0 < count < K}
    others = sorted(
        (at for at in range(len(people)) if at not in chosen),
        key=lambda at: (people[at] == 0, people[at], at),
    )
    while chosen and (
        sum(people[at] for at in chosen) < K
        or _is_any_determined([[row[at] for at in sorted(chosen)] for row in told])
    ):
        if not others:
            return None
        chosen.add(others.pop(0))
    return chosen


def _is_any_determined(equations: Collection[Sequence[int]]) -> bool:
    """Whether a system of linear equations determines one of its unknowns: then a row of its
    reduced echelon form has one number alone."""
    rows = [[Fraction(number) for number in row] for row in equations]
    done = 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in rows[done:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        unit = [number / pivot[column] for number in pivot]
        rows = [
            [number - row[column] * of_unit for number, of_unit in zip(row, unit, strict=True)]
            for row in rows
        ]
        rows.insert(done, unit)
        done += 1
    return any(sum(map(bool, row)) == 1 for row in rows)
