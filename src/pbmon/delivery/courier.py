"""What the destinations share: the way from events to requests of an allowed size, the POST, and
what its answer means for each event.

An answer is believed only when it says that the events were taken: a redirect or the page of a
proxy is a failure that is tried again.
"""

from __future__ import annotations

import gzip
import json
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pbmon import privacy
from pbmon.delivery.events import Destination, Event, Forgotten, Outcome
from pbmon.delivery.forgetting import Forgetter
from pbmon.outbound import Answer, Client, cause

TOO_LARGE = "too_large"
UNENCODABLE = "unencodable"

# Of 4xx those that say nothing of the events: credentials, a time-out, the rate.
_MENDED_ELSEWHERE = (401, 403, 408, 429)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one request: its events, and its bytes before compression."""

    events: int
    bytes: int
    event_bytes: int | None = None
    """Of a single event, where that is less than a request may have."""


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
    forgetter: Forgetter
    """How people are deleted there; set by the subclass."""

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
        self._client = Client(self.name, url, timeout_s)
        self.remote = self._client.remote
        self.where = privacy.mask_url(url)
        self._url = url
        self._query = query
        # As bytes: requests would refuse what is not latin-1.
        self._auth = tuple(part.encode() for part in credentials) if credentials else None

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

    def forget(self, subjects: Sequence[str]) -> Forgotten:
        return self.forgetter.forget(subjects)

    def close(self) -> None:
        self._client.close()
        self.forgetter.close()

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
            return Again(cause(error))

    def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        own = {"Content-Type": self.content_type}
        if self.compressed:
            body = gzip.compress(body, 1, mtime=0)
            own["Content-Encoding"] = "gzip"
        return self._client.ask(
            "POST",
            self._url,
            params=self._query,
            data=body,
            headers={**own, **headers},
            auth=self._auth,
        )


def again(answer: Answer, remark: str = "") -> Again:
    """The verdict on a failure that may be over another time. remark: follows its status."""
    return Again(answer.phrase + remark, answer.retry_after_s)


def positions(named: Any, size: int) -> list[int]:
    """What of a list in an answer are positions in a request of that size."""
    if not isinstance(named, list):
        return []
    return [i for i in named if type(i) is int and 0 <= i < size]


# --- what an event is made of ---


def to_json(value: Any) -> bytes:
    """Compact, in UTF-8. ValueError for NaN and infinity, which JSON has none of."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # half a surrogate pair has no UTF-8


def properties(event: Event) -> dict[str, Any]:
    """For vendors who know properties alone: those of the event, its segments as
    `segment.<name>`, its session as `session`."""
    found = {**event.properties, **{f"segment.{k}": v for k, v in event.segments.items()}}
    if event.session is not None:
        found["session"] = event.session
    return found
