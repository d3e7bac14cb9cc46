"""What is taken out of texts before they leave: secrets, query values, exception messages,
control characters; and the pseudonyms that stand for people. Pure."""

from __future__ import annotations

import hmac
import re
from types import TracebackType

MASK = "REDACTED"

K = 10
"""The fewest people of whom a figure is told."""

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
    lines: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return "\n".join(map(escape, lines[-limit:]))


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


def session_pseudonym(pepper: bytes, session_id: str) -> bytes:
    return _hmac(pepper, "session|" + session_id)


def pseudonym(key: bytes, destination: str) -> bytes:
    """A person as one destination knows them; without the key nobody can tell whose it is, nor
    that two destinations mean the same person."""
    return _hmac(key, "pbmon/1|" + destination)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode("utf-8", "replace"), "sha256")[:16]
