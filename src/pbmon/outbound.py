"""Calls of our own to other machines: where they may go, how an answer is read, and the words for
what went wrong.

They go encrypted or to this machine, follow no redirect, make no span, and read no more of an
answer than matters.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import catalog, privacy, signals

TIMEOUT_S = 10.0
"""Of connecting, and of each request's answer."""

# The largest answer that is read for what it says is one naming each of 2,000 events.
_MAX_ANSWER = 1024 * 1024
_LONGEST_WAIT_S = 3600.0
# requests reads a URL with one of these in it in another way than urlsplit does.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
# Given to requests by their names, they keep out the proxies of the environment.
_NO_PROXIES = {"http": "", "https": ""}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """With keys in any case."""
    body: bytes

    def json(self) -> dict[str, Any]:
        """The JSON object that the body is; empty where it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def phrase(self) -> str:
        """The status in words: `503 service unavailable`."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase.lower()}"
        except ValueError:
            return f"status {self.status}"

    @property
    def retry_after_s(self) -> float | None:
        return retry_after_s(self.headers.get("Retry-After"))


class Client:
    """Asks one server, on a connection that it keeps. For one thread at a time, and for the
    process that made it."""

    def __init__(self, name: str, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """name: who asks, in messages. Raises ValueError for a URL that would go unencrypted to
        another machine."""
        self.remote = is_remote(name, url)
        self._timeout_s = timeout_s
        self._session: Any = None

    def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """The answer, whatever its status; raises what requests raises, and TimeoutError.

        url: of the server that the client was made for. more: as of requests.
        """
        if self._session is None:
            self._session = _connect()
        own = {"User-Agent": f"pbmon/{catalog.VERSION}", "Accept": "application/json"}
        with suppress_instrumentation():
            response = self._session.request(
                method,
                url,
                headers={**own, **(headers or {})},
                timeout=self._timeout_s,
                # A copy, to which requests adds others. What stays here needs none.
                proxies=None if self.remote else dict(_NO_PROXIES),
                allow_redirects=False,
                stream=True,
                **more,
            )
            body = read(response, time.monotonic() + self._timeout_s, _MAX_ANSWER)
        return Answer(response.status_code, response.headers, body)

    def close(self) -> None:
        """Let the connection go; a later ask() connects again."""
        if self._session is not None:
            self._session.close()


def _connect() -> Any:
    with signals.importing:
        import netrc  # noqa: F401 - that requests would import at the first request

        import requests

    session = requests.Session()
    session.headers.clear()
    return session


def read(response: Any, deadline_s: float, most: int) -> bytes:
    """The answer's body, or as much of it as matters; the connection is used again where it was
    read to its end. TimeoutError after the deadline: a timeout of requests is one of each byte."""
    raw = response.raw
    take = getattr(raw, "read1", raw.read)  # urllib3 1 has only the latter
    body = b""
    try:
        while piece := take(most - len(body), decode_content=True):
            body += piece
            if time.monotonic() > deadline_s:
                raise TimeoutError("timed out")
        return body
    finally:
        response.close()


def is_remote(name: str, url: str) -> bool:
    """Whether the URL leads off this machine. Raises ValueError for one that would do so
    unencrypted, or is none."""
    shown = privacy.mask_url(url)
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        good = False
    if not good or _AMBIGUOUS.search(url):
        raise ValueError(f"{name}: {shown!r} is no URL; write one such as https://host/path")
    remote = not _is_loopback(parts.hostname or "")
    if remote and parts.scheme == "http":
        raise ValueError(
            f"{name}: {shown} would be used unencrypted; use https, or http to this machine"
        )
    return remote


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(setting: str, url: str | None) -> str | None:
    """A URL that may be said as `env:NAME`."""
    if url is None or not url.startswith("env:"):
        return url
    name = url.removeprefix("env:")
    found = os.environ.get(name) or None
    if found is None:
        signals.tell(
            setting,
            "pbmon: %s names the variable %s, which is not set; set it. Until then it is as if "
            "%s were not set.",
            setting, name, setting,
        )  # fmt: skip
    return found


def secret_of(setting: str, where: str) -> str:
    """A secret that is said as `env:NAME` or `file:PATH`. Raises ValueError: why there is none."""
    kind, _, name = where.partition(":")
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{setting}: {name} can't be read ({privacy.error_type(error)})"
            ) from None
    if not os.environ.get(name):
        raise ValueError(f"{setting} is {where}, which is not set")
    return os.environ[name]


def retry_after_s(value: str | None, longest_s: float = _LONGEST_WAIT_S) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, 10.2.3), at most longest_s."""
    if not value:
        return None
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    if math.isnan(wait_s):
        return None
    return min(max(0.0, wait_s), longest_s)


def cause(error: BaseException) -> str:
    """In a few words, without the addresses and headers that an exception repeats."""
    words = str(error).lower()
    for sign, known in _CAUSES:
        if sign in words:
            return known
    return privacy.error_type(error)


_CAUSES = (
    ("refused", "connection refused"),
    ("name or service not known", "unknown host"),
    ("name resolution", "unknown host"),
    ("nodename nor servname", "unknown host"),
    ("timed out", "timed out"),
    ("certificate", "TLS certificate not accepted"),
    ("ssl", "TLS failed"),
    ("connection reset", "connection reset"),
    ("remote end closed", "connection closed without an answer"),
    ("connection aborted", "connection closed without an answer"),
    ("connection broken", "connection closed in the middle of the answer"),
)
