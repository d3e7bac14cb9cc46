"""Why a database can't be used, in words with a remedy, from what its driver raised.

The text of an exception is only looked at, never shown: it may hold a password or people's data.
"""

from __future__ import annotations

import errno
import re
import sys
from typing import NamedTuple

from pbmon import privacy
from pbmon.store.engine import RemovedError


class Fault(NamedTuple):
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}; {self.remedy}"


_UPGRADE = "run `pbmon store upgrade`"

REFUSED = Fault("nobody listens there", "start the server, or mend host and port in its URL")
UNKNOWN_HOST = Fault("its host's name is not known", "mend the host in its URL, or the DNS")
NO_ANSWER = Fault("it does not answer in time", "look at the server, the network and firewalls")
LOST = Fault("the connection was lost", "look at the server's log and the network")
PASSWORD = Fault(
    "it refuses this user or password", "mend them in its URL; for the address see pg_hba.conf"
)
NEEDS_SSL = Fault("it takes no connection without SSL", "add ?sslmode=require to its URL")
NO_SSL = Fault("it has no SSL, which is asked for", "turn it on there, or mend sslmode in its URL")
NO_DATABASE = Fault("there is no such database", "create it, or mend the name in its URL")
PERMISSION = Fault(
    "its user may not use the tables in the schema pbmon",
    "grant it the schema and its tables, or let it run `pbmon store upgrade`",
)
NO_TABLES = Fault("the tables, or the schema pbmon, are missing", _UPGRADE)
OTHER_TABLES = Fault("the tables are of another version", _UPGRADE)
TOO_MANY = Fault(
    "it has too many connections", "raise max_connections there, or put a pooler before it"
)
STARTING = Fault("it is shutting down, starting or recovering", "wait, or look at its log")
READ_ONLY = Fault(
    "it is read-only", "name the primary in its URL and no standby, and see "
    "default_transaction_read_only",
)  # fmt: skip
FULL = Fault("its disk is full", "free space there")
MEMORY = Fault("it is out of memory", "look at the server")
LOCKED = Fault("another holds a lock for too long", "look who does: pg_locks, or an open sqlite3")
CONFLICT = Fault("another transaction was in the way", "nothing is to be done; it is tried again")
TOO_LONG = Fault("a statement took too long", "look at the server's load and its locks")
IO_ERROR = Fault("its disk fails", "look at the disk, and at the kernel's log")
CORRUPT = Fault("it is damaged", "restore it from a backup, or move it away to begin anew")
NO_FILE_ACCESS = Fault(
    "this user can't open the file or make one in its directory",
    "mend owner and mode of both, or name another place",
)
NOT_WRITABLE = Fault(
    "the file, its directory or its file system is read-only",
    "mend owner and mode, or name another place",
)
NO_DATABASE_FILE = Fault("the file is no SQLite database", "name another in its URL")
REMOVED = Fault(
    "the file was removed or replaced while it was in use",
    "it is opened, or made, anew; keep others away from it",
)

_BY_STATE = {
    "08": LOST,
    "28": PASSWORD,
    "3D000": NO_DATABASE,
    "42501": PERMISSION,
    "3F000": NO_TABLES,
    "42P01": NO_TABLES,
    "42703": OTHER_TABLES,
    "53100": FULL,
    "53200": MEMORY,
    "53300": TOO_MANY,
    "55P03": LOCKED,
    "40": CONFLICT,
    "57014": TOO_LONG,
    "57P01": STARTING,
    "57P02": STARTING,
    "57P03": STARTING,
    "57P05": LOST,
    "25006": READ_ONLY,
    "58030": IO_ERROR,
    "XX001": CORRUPT,
    "XX002": CORRUPT,
}
"""SQLSTATE, or its first two characters, of PostgreSQL."""

# A connection that is not made has no SQLSTATE in libpq, which leaves the words.
_BY_WORDS = [
    (re.compile(pattern), fault)
    for pattern, fault in (
        ("no encryption|SSL off", NEEDS_SSL),
        ("does not support SSL", NO_SSL),
        ("authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist",
         PASSWORD),
        ("database .* does not exist", NO_DATABASE),
        ("permission denied for database", PERMISSION),
        ("too many (clients|connections)|remaining connection slots", TOO_MANY),
        ("the database system is|terminating connection due to", STARTING),
        ("session is (read-only|not read-only)|in hot standby mode", READ_ONLY),
        ("could not translate host name|[Nn]ame or service not known|getaddrinfo|resolve host",
         UNKNOWN_HOST),
        ("Connection refused|No such file or directory", REFUSED),
        ("[Tt]imeout expired|timed out|[Nn]o route to host|[Nn]etwork is unreachable", NO_ANSWER),
        ("closed the connection|connection (already|is|was|has been) closed", LOST),
        ("[Cc]onnection reset|connection is lost|terminated abnormally|EOF detected", LOST),
    )
]  # fmt: skip

_BY_SQLITE_CODE = {
    5: LOCKED,
    6: LOCKED,
    7: MEMORY,
    8: NOT_WRITABLE,
    9: TOO_LONG,
    10: IO_ERROR,
    11: CORRUPT,
    13: FULL,
    14: NO_FILE_ACCESS,
    26: NO_DATABASE_FILE,
}
"""The result code of SQLite without its extension."""

# Of code 1, and of Python 3.10, which does not tell the code.
_BY_SQLITE_WORDS = [
    (re.compile(pattern), fault)
    for pattern, fault in (
        ("is locked", LOCKED),
        ("interrupted", TOO_LONG),
        ("readonly database", NOT_WRITABLE),
        ("disk I/O error", IO_ERROR),
        ("malformed", CORRUPT),
        ("is full", FULL),
        ("unable to open", NO_FILE_ACCESS),
        ("not a database", NO_DATABASE_FILE),
        ("no such table", NO_TABLES),
        ("no such column|has no column", OTHER_TABLES),
    )
]

_BY_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: NOT_WRITABLE,
    errno.EACCES: NO_FILE_ACCESS,
    errno.EPERM: NO_FILE_ACCESS,
    errno.ENOTDIR: NO_FILE_ACCESS,
    errno.ENOENT: NO_FILE_ACCESS,
    errno.EISDIR: NO_FILE_ACCESS,
    errno.EIO: IO_ERROR,
}


def find(error: BaseException) -> Fault | None:
    """The fault that an exception of SQLAlchemy, a driver or the system means, if it is known."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, RemovedError):
        return REMOVED
    sqlite3 = sys.modules.get("sqlite3")
    if sqlite3 is not None and isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 1) & 0xFF
        return _BY_SQLITE_CODE.get(code) or _in_words(original, _BY_SQLITE_WORDS)
    state = _state(original)
    if state:
        return _BY_STATE.get(state) or _BY_STATE.get(state[:2])
    if isinstance(original, OSError) and original.errno in _BY_ERRNO:
        return _BY_ERRNO[original.errno]
    return _in_words(original, _BY_WORDS)


def explain(error: BaseException) -> str:
    """Cause and remedy; of one that is not known the class, and the SQLSTATE."""
    fault = find(error)
    if fault is not None:
        return str(fault)
    original = getattr(error, "orig", None) or error
    state = _state(original)
    return privacy.error_type(original) + (f", SQLSTATE {state}" if state else "")


def _state(error: BaseException) -> str:
    """psycopg's and asyncpg's sqlstate, psycopg2's pgcode; empty where there is none."""
    for name in ("sqlstate", "pgcode"):
        value = getattr(error, name, None)
        if isinstance(value, str) and re.fullmatch("[0-9A-Z]{5}", value):
            return value
    return ""


def _in_words(error: BaseException, table: list[tuple[re.Pattern[str], Fault]]) -> Fault | None:
    text = str(error)
    return next((fault for pattern, fault in table if pattern.search(text)), None)
