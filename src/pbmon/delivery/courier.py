"""What the destinations share: the way from events to requests of an allowed size, the POST, and
what its answer means for each event.

An answer is believed only when it says that the events were taken: a redirect or the page of a
proxy is a failure that is tried again.
"""

from __future__ import annotations

import gzip
import ipaddress
import json
import math
import re
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import catalog, privacy, signals
from pbmon.delivery.events import Destination, Event, Outcome

TIMEOUT_S = 10.0
"""Of connecting, and of each request's answer."""

TOO_LARGE = "too_large"
UNENCODABLE = "unencodable"

# Of 4xx those that say nothing of the events: credentials, a time-out, the rate.
_MENDED_ELSEWHERE = (401, 403, 408, 429)
# The largest answer that is read for what it says is one naming each of 2,000 events.
_MAX_ANSWER = 1024 * 1024
_LONGEST_WAIT_S = 3600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# requests reads a URL with one of these in it in another way than urlsplit does.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
# Given to requests by their names, they keep out the proxies of the environment.
_NO_PROXIES = {"http": "", "https": ""}


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request: its events, and its bytes before compression."""

    events: int
    bytes: int
    event_bytes: int | None = None
    """Of a single event, where that is less than a request may have."""


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


# --- what an answer means for the events of its request ---


@dataclass(frozen=True, slots=True)
class Taken:
    """All are delivered."""


@dataclass(frozen=True, slots=True)
class Again:
    """None is: another time they may be."""

    fault: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Something is wrong with one or more of them, and the answer does not say which."""

    reason: str


@dataclass(frozen=True, slots=True)
class Blamed:
    """What is wrong with which: reasons by their position in the request, at least one."""

    reasons: Mapping[int, str]


Verdict = Taken | Again | Refused | Blamed


@dataclass(frozen=True, slots=True)
class _Item:
    id: str
    body: bytes


class Courier(Destination):
    """A destination that takes batches of JSON by POST.

    Subclasses say what an event looks like there (`encode`), what a true success looks like
    (`is_receipt`) and which events a refusal names (`culprits`).
    """

    limits: Limits
    around: tuple[bytes, bytes] = (b"[", b"]")
    """What stands before and after the events, which are parted by commas."""
    content_type = "application/json"
    compressed = False

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        query: Mapping[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        """credentials: user and password of basic authentication. Raises ValueError for a URL
        that would send events unencrypted to another machine."""
        self.remote = _is_remote(self.name, url)
        self.where = privacy.mask_url(url)
        self._url = url
        self._query = query
        # As bytes: requests would refuse what is not latin-1.
        self._auth = tuple(part.encode() for part in credentials) if credentials else None
        self._timeout_s = timeout_s
        self._session: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r})"

    # --- what a destination has of its own ---

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """The event in its JSON."""

    @abstractmethod
    def is_receipt(self, answer: Answer) -> bool:
        """Whether an answer of 2xx is the destination's own word that it took all."""

    def culprits(self, answer: Answer, ids: Sequence[str]) -> Mapping[int, str]:
        """Reasons by position, of the events that a 4xx names."""
        return {}

    def headers(self, ids: Sequence[str], body: bytes) -> Mapping[str, str]:
        """Further headers of a request."""
        return {}

    def judge(self, answer: Answer, ids: Sequence[str]) -> Verdict:
        """The meaning of the answer to a request with these events."""
        status = answer.status
        if 200 <= status < 300:
            known = self.is_receipt(answer)
            return Taken() if known else again(answer, f" without an answer of {self.name}")
        if status in _MENDED_ELSEWHERE or not 400 <= status < 500:
            return again(answer, self._remedy(status))
        if status == 413:
            return Refused(TOO_LARGE)
        reasons = self.culprits(answer, ids)
        return Blamed(reasons) if reasons else Refused(f"rejected:{status}")

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f"; check the credentials for {self.name}"
        return ", a redirect, which is not followed; check the URL" if 300 <= status < 400 else ""

    # --- the way out ---

    def send(self, events: Sequence[Event]) -> Outcome:
        delivered: list[str] = []
        dead: dict[str, str] = {}
        waiting = deque(self._batches(self._items(events, dead)))
        while waiting:
            batch = waiting.popleft()
            verdict = self._deliver(batch)
            if isinstance(verdict, Taken):
                delivered += [item.id for item in batch]
            elif isinstance(verdict, Blamed):
                dead.update((batch[i].id, reason) for i, reason in verdict.reasons.items())
                if rest := [item for i, item in enumerate(batch) if i not in verdict.reasons]:
                    waiting.appendleft(rest)
            elif isinstance(verdict, Refused):
                if len(batch) == 1:
                    dead[batch[0].id] = verdict.reason
                else:
                    middle = len(batch) // 2
                    waiting.extendleft((batch[middle:], batch[:middle]))
            else:
                left = tuple(item.id for part in (batch, *waiting) for item in part)
                return Outcome(tuple(delivered), dead, left, verdict.retry_after_s, verdict.fault)
        return Outcome(tuple(delivered), dead)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _items(self, events: Sequence[Event], dead: dict[str, str]) -> Iterator[_Item]:
        """The events that a request can carry; the others are dead. An id given twice is one."""
        most = self.limits.bytes - sum(map(len, self.around))
        if self.limits.event_bytes is not None:
            most = min(most, self.limits.event_bytes)
        for event in {event.id: event for event in events}.values():
            try:
                body = self.encode(event)
            except Exception:  # whatever it is, it comes with this event every time
                dead[event.id] = UNENCODABLE
                continue
            if len(body) > most:
                dead[event.id] = TOO_LARGE
            else:
                yield _Item(event.id, body)

    def _batches(self, items: Iterator[_Item]) -> Iterator[list[_Item]]:
        frame = sum(map(len, self.around))
        batch: list[_Item] = []
        size = frame
        for item in items:
            added = len(item.body) + len(b",")
            if batch and (
                len(batch) == self.limits.events or size + added - len(b",") > self.limits.bytes
            ):
                yield batch
                batch, size = [], frame
            batch.append(item)
            size += added
        if batch:
            yield batch

    def _deliver(self, batch: Sequence[_Item]) -> Verdict:
        before, after = self.around
        body = before + b",".join(item.body for item in batch) + after
        ids = [item.id for item in batch]
        try:
            return self.judge(self._post(body, self.headers(ids, body)), ids)
        except Exception as error:
            return Again(_cause(error))

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._session is None:
            self._session = _connect()
        own = {
            "User-Agent": f"pbmon/{catalog.VERSION}",
            "Content-Type": self.content_type,
            "Accept": "application/json",
        }
        if self.compressed:
            body = gzip.compress(body, 1, mtime=0)
            own["Content-Encoding"] = "gzip"
        with suppress_instrumentation():
            response = self._session.post(
                self._url,
                params=self._query,
                data=body,
                headers={**own, **headers},
                auth=self._auth,
                timeout=self._timeout_s,
                # A copy, to which requests adds others. What stays here needs none.
                proxies=None if self.remote else dict(_NO_PROXIES),
                allow_redirects=False,
                stream=True,
            )
            read = _read(response, time.monotonic() + self._timeout_s)
        return Answer(response.status_code, response.headers, read)


def _connect() -> Any:
    with signals.importing:
        import netrc  # noqa: F401 - that requests would import at the first request

        import requests

    session = requests.Session()
    session.headers.clear()
    return session


def _read(response: Any, deadline_s: float) -> bytes:
    """The answer's body, or as much of it as matters. TimeoutError after the deadline: a timeout
    of requests is one of each byte."""
    raw = response.raw
    read = getattr(raw, "read1", raw.read)  # urllib3 1 has only the latter
    body = b""
    try:
        while piece := read(_MAX_ANSWER - len(body), decode_content=True):
            body += piece
            if time.monotonic() > deadline_s:
                raise TimeoutError("timed out")
        return body
    finally:
        response.close()


def again(answer: Answer, remark: str = "") -> Again:
    """The verdict on a failure that may be over another time. remark: follows its status."""
    try:
        status = f"{answer.status} {HTTPStatus(answer.status).phrase.lower()}"
    except ValueError:
        status = f"status {answer.status}"
    return Again(status + remark, retry_after_s(answer.headers.get("Retry-After")))


def positions(named: Any, size: int) -> list[int]:
    """What of a list in an answer are positions in a request of that size."""
    if not isinstance(named, list):
        return []
    return [i for i in named if type(i) is int and 0 <= i < size]


def retry_after_s(value: str | None) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, 10.2.3), at most an hour."""
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
    return min(max(0.0, wait_s), _LONGEST_WAIT_S)


def _is_remote(name: str, url: str) -> bool:
    """Whether the URL leads off this machine."""
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
            f"{name}: {shown} would send events unencrypted; use https, or http to this machine"
        )
    return remote


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cause(error: BaseException) -> str:
    """In a few words, without the addresses and headers that an exception repeats."""
    words = str(error).lower()
    for sign, cause in _CAUSES:
        if sign in words:
            return cause
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


# --- what an event is made of ---


def to_json(value: Any) -> bytes:
    """Compact, in UTF-8. ValueError for NaN and infinity, which JSON has none of."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # half a surrogate pair has no UTF-8


def moment(occurred_at: int, precision: str = "microseconds") -> str:
    """RFC 3339 in UTC: `2026-11-25T21:58:00.000001Z`. precision: as of datetime.isoformat."""
    when = _EPOCH + timedelta(microseconds=occurred_at)
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


def properties(event: Event) -> dict[str, Any]:
    """For vendors who know properties alone: those of the event, its segments as
    `segment.<name>`, its session as `session`."""
    found = {**event.properties, **{f"segment.{k}": v for k, v in event.segments.items()}}
    if event.session is not None:
        found["session"] = event.session
    return found
