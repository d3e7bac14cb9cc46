"""Asking a destination to delete people: requests of an allowed size, and what an answer means.

An answer is believed only when it says that the request was taken, as with events. But there
are no dead ones: what is refused is asked for again, until the destination takes it or somebody has
mended what stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pbmon import privacy
from pbmon.delivery.events import Forgotten
from pbmon.outbound import TIMEOUT_S, Answer, Client, cause

Form = Callable[[Sequence[str]], Mapping[str, Any]]
"""From pseudonyms to what a request has beside method, URL and headers, as of requests."""


@dataclass(slots=True)
class Forgetter:
    """name: of the destination. most: people of one request. form: `data`, `params`, `auth`.
    is_receipt: whether an answer of 2xx says that all were taken. missing: what must be set first,
    or an empty text. client: of the URL's server. headers: of each request, by its pseudonyms and
    body."""

    name: str
    url: str
    most: int
    form: Form = field(repr=False)
    is_receipt: Callable[[Answer], bool] = field(repr=False)
    missing: str = ""
    client: Client | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sign: Callable[[Sequence[str], bytes], Mapping[str, str]] = field(
        default=lambda ids, body: {}, repr=False
    )

    def forget(self, subjects: Sequence[str]) -> Forgotten:
        waiting = list(dict.fromkeys(subjects))
        if self.missing:
            return Forgotten((), tuple(waiting), None, self.missing)
        asked: list[str] = []
        while waiting:
            some = waiting[: self.most]
            try:
                answer = self._post(some)
            except Exception as error:
                return Forgotten(tuple(asked), tuple(waiting), None, cause(error))
            if not (200 <= answer.status < 300 and self.is_receipt(answer)):
                return Forgotten(
                    tuple(asked), tuple(waiting), answer.retry_after_s, self._fault(answer)
                )
            asked += some
            waiting = waiting[len(some) :]
        return Forgotten(tuple(asked))

    def _post(self, some: Sequence[str]) -> Answer:
        if self.client is None:
            self.client = Client(self.name, self.url, TIMEOUT_S)
        form = dict(self.form(some))
        own = {"Content-Type": "application/json", **self.headers}
        return self.client.ask(
            "POST", self.url, headers={**own, **self.sign(some, form.get("data", b""))}, **form
        )

    def _fault(self, answer: Answer) -> str:
        if answer.status in (401, 403):
            return f"{answer.phrase}; check the credentials for deletions at {self.name}"
        if 200 <= answer.status < 300:
            return f"{answer.phrase} without an answer of {self.name}"
        if 300 <= answer.status < 400:
            return f"{answer.phrase}, a redirect, which is not followed; check the URL"
        return answer.phrase

    @property
    def where(self) -> str:
        """The URL as messages may show it."""
        return privacy.mask_url(self.url)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
