"""What errors are told apart by, and what is said of each: fingerprints and summaries. Pure.

Nothing here reads an exception's message, its arguments, a local variable or a line of source: they
carry people's data.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from pbmon import privacy

MAX_TYPE = 200
MAX_PLACE = 300
FRAMES = 16
"""The innermost frames that are kept of an error."""

_MAX_DEPTH = 50
"""Of groups in groups."""

# These only say that the client left, which is not the application's failure. By name, since no
# framework or server is imported here: Starlette's, uvicorn's, Litestar's.
CLIENT_LEFT = frozenset(("ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect"))

_CANCELLED = frozenset(("CancelledError", "Cancelled"))
"""Of asyncio and trio, neither of which is imported here."""


class Fingerprint(NamedTuple):
    """key: 32 hexadecimal digits of error_type and place."""

    key: str
    error_type: str
    place: str


OTHER = Fingerprint("0" * 32, "_other", "")
"""Of what is too much to be told apart."""


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """One error: all that occurred of the same type at the same place.

    fingerprint: 32 hexadecimal digits, the same in every process and release. error_type: class of
    the exception. place: module and function of the innermost frame of the application. route: of
    the last one that a request met. errors: how many; users: how many people met them, of those who
    may be known, 10,000 or more as 10,000. first_at, last_at: aware, UTC. first_release,
    last_release: as the setting `release` was. errors_since_release: of the newest release, None
    where no release is known. trace_id: of the last one, 32 hexadecimal digits.
    """

    fingerprint: str
    error_type: str
    place: str
    route: str | None
    errors: int
    users: int
    first_at: datetime
    last_at: datetime
    first_release: str | None
    last_release: str | None
    errors_since_release: int | None
    trace_id: str | None


# Whatever a class of exceptions has in the place of these.
_get: Any = BaseException.__getattribute__
_name: Any = vars(type)["__name__"]
_traceback: Any = vars(BaseException)["__traceback__"]


# --- which exceptions are errors ---


def is_failure(error: BaseException) -> bool:
    """Whether somebody should look at it: no cancellation, no wish to end, no client that left.
    Of a group, whether any of its leaves is one."""
    leaf = next(_failures(error, _MAX_DEPTH, set()), None)
    return leaf is not None


def _failures(error: BaseException, depth: int, seen: set[int]) -> Iterator[BaseException]:
    """The leaves that are failures, the first one first; an exception that is no group is one.
    seen: ids of what was looked at, since the same object may be in many groups."""
    if id(error) in seen:
        return
    seen.add(id(error))
    members = members_of(error) if depth else ()
    if members:
        for member in members:
            yield from _failures(member, depth - 1, seen)
    elif not _is_asked_for(error):
        yield error


def _is_asked_for(error: BaseException) -> bool:
    kind = type(error)  # isinstance() may ask the exception what it is
    if issubclass(kind, SystemExit):
        return _get(error, "code") in (None, 0)
    if issubclass(kind, GeneratorExit | KeyboardInterrupt):
        return True
    name = _name.__get__(kind)
    return name in CLIENT_LEFT or (name in _CANCELLED and not issubclass(kind, Exception))


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """Of an exception group, or of its backport for Python 3.10."""
    group: Any = getattr(builtins, "BaseExceptionGroup", None) or getattr(
        sys.modules.get("exceptiongroup"), "BaseExceptionGroup", None
    )
    if group is None or not issubclass(type(error), group):
        return ()
    return tuple(_get(error, "exceptions"))


# --- fingerprints ---


def fingerprint(error: BaseException) -> Fingerprint | None:
    """What an exception is told apart by; None for one that is pbmon's own fault.

    Its type and the innermost frame of the application, by module and function: a line that moves
    makes no new error. Without such a frame it is the innermost one, without a traceback the type
    alone. Of a group the first failure in it decides, as `ExceptionGroup[KeyError]`.
    """
    leaf = next(_failures(error, _MAX_DEPTH, set()), error)
    error_type = type_of(error) if leaf is error else f"{type_of(error)}[{type_of(leaf)}]"
    trace = traceback_of(leaf) or traceback_of(error)
    frame, is_ours = _innermost(trace)
    if is_ours:
        return None
    place = _place(frame) if frame is not None else ""
    return identified(error_type[:MAX_TYPE], place)


def identified(error_type: str, place: str) -> Fingerprint:
    text = f"{error_type}\n{place}".encode("utf-8", "replace")
    return Fingerprint(hashlib.blake2b(text, digest_size=16).hexdigest(), error_type, place)


def type_of(error: BaseException) -> str:
    """privacy.error_type() of any exception, whatever its class says of itself."""
    try:
        found = privacy.error_type(error)
    except Exception:
        found = type.__repr__(type(error))
    return privacy.escape(found)[:MAX_TYPE]


def traceback_of(error: BaseException) -> TracebackType | None:
    """Of any exception, whatever its class says of itself."""
    found: TracebackType | None = _traceback.__get__(error)
    return found


def _innermost(trace: TracebackType | None) -> tuple[FrameType | None, bool]:
    """The frame that says where it happened; and whether that is pbmon itself, where no frame is
    the application's."""
    frames: list[FrameType] = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        if _owner(frame.f_code.co_filename) == _APPLICATION:
            return frame, False
    if not frames:
        return None, False
    return frames[-1], _owner(frames[-1].f_code.co_filename) == _PBMON


def _place(frame: FrameType) -> str:
    code = frame.f_code
    module = dict.get(frame.f_globals, "__name__")
    if not isinstance(module, str) or module == "__mp_main__":  # as multiprocessing calls it
        module = "__main__"
    name = getattr(code, "co_qualname", code.co_name)  # Python 3.10 knows no class
    return privacy.escape(f"{module}:{name}")[:MAX_PLACE]


_APPLICATION, _LIBRARY, _PBMON = range(3)
_OURS = os.path.dirname(__file__).replace("\\", "/") + "/"  # noqa: PTH120 - as frames have it
_STANDARD = os.path.dirname(os.__file__).replace("\\", "/") + "/"  # noqa: PTH120


@functools.lru_cache(maxsize=4096)
def _owner(filename: str) -> int:
    """Whose code a file is. What is made from a text, as of dataclasses, is a library's."""
    path = filename.replace("\\", "/")
    if path.startswith(_OURS):
        return _PBMON
    if path.startswith(("<", _STANDARD)) or "/site-packages/" in path or "/dist-packages/" in path:
        return _LIBRARY
    return _APPLICATION
