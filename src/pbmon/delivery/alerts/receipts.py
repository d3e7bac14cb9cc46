"""A sink of alerts, what it says to a message, and what those over HTTP share."""

from __future__ import annotations

import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from pbmon.alerting.notices import Notice
from pbmon.delivery.courier import to_json
from pbmon.outbound import TIMEOUT_S, Answer, Client, cause

# Of 4xx those that say nothing of the message.
_OF_THE_MOMENT = (401, 403, 408, 429)
# They write URLs and payloads into the application's log; some URLs of sinks are secrets.
_TALKATIVE = ("apprise", "urllib3.connectionpool", "urllib3.util.retry", "requests_oauthlib")
_STATUS = re.compile(r"\berror=(\d{3})\b")


@dataclass(frozen=True, slots=True)
class Receipt:
    """said: the answer or the fault, in a few words without secrets. of_message: it is not taken
    for itself, and another one may be."""

    taken: bool
    said: str
    retry_after_s: float | None = None
    of_message: bool = False


class Sink(Protocol):
    """Used by one thread at a time, and by the process that made it."""

    name: str
    """In the settings."""
    where: str
    """What messages may show of its URL."""

    def send(self, notice: Notice) -> Receipt:
        """One message, in one attempt. Never raises."""
        ...

    def close(self) -> None:
        """Let the connection go; a later send() connects again."""
        ...


class HttpSink(Sink):
    """A sink that takes a message as JSON by POST."""

    def __init__(self, name: str, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for a URL that leads to another machine unencrypted, or is none."""
        self.name = name
        self.where = place(url)
        self._url = url
        try:
            self._client = Client(f"sink {name}", url, timeout_s)
        except ValueError:
            # Its text has the path, which may be a secret.
            raise ValueError(
                f"sink {name}: {self.where} is no URL that may be used; write one such as "
                "https://host/path (http only to this machine)"
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.where!r})"

    @abstractmethod
    def message(self, notice: Notice) -> Mapping[str, Any]:
        """As JSON."""

    def headers(self, notice: Notice, body: bytes) -> Mapping[str, str]:
        """Further headers of a request."""
        return {}

    def send(self, notice: Notice) -> Receipt:
        try:
            body = to_json(self.message(notice))
            headers = {"Content-Type": "application/json", **self.headers(notice, body)}
            with quiet():
                answer = self._client.ask("POST", self._url, data=body, headers=headers)
        except Exception as error:
            return Receipt(False, cause(error))
        return _receipt(answer)

    def close(self) -> None:
        self._client.close()


def _receipt(answer: Answer) -> Receipt:
    status = answer.status
    if 200 <= status < 300:
        return Receipt(True, answer.phrase)
    remark = ", a redirect, which is not followed; check the URL" if 300 <= status < 400 else ""
    of_message = 400 <= status < 500 and status not in _OF_THE_MOMENT
    return Receipt(False, answer.phrase + remark, answer.retry_after_s, of_message)


def place(url: str) -> str:
    """Scheme and host: what follows may be a secret."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "?"
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


@contextmanager
def quiet() -> Iterator[list[int]]:
    """What this thread does within is not logged by the libraries that would show secrets. Gives
    the statuses of HTTP of which apprise complains."""
    thread = threading.get_ident()
    statuses: list[int] = []

    def is_wanted(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.name == "apprise" and (found := _STATUS.search(record.getMessage())):
            statuses.append(int(found[1]))
        return False

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield statuses
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)
