"""Any URL: a message as JSON, with an Idempotency-Key, signed by Standard Webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pbmon.alerting.notices import Notice, as_json
from pbmon.delivery.alerts.receipts import HttpSink
from pbmon.delivery.signing import signed, signing_key
from pbmon.outbound import TIMEOUT_S


class AlertWebhook(HttpSink):
    """secret: signs each request; `whsec_` and base64, or any text. Raises ValueError for what
    can't be used."""

    def __init__(
        self, name: str, url: str, *, secret: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__(name, url, timeout_s)
        self._key = signing_key(secret or "")

    def message(self, notice: Notice) -> Mapping[str, Any]:
        return as_json(notice)

    def headers(self, notice: Notice, body: bytes) -> Mapping[str, str]:
        own = {"Idempotency-Key": notice.key}
        return {**own, **signed(self._key, notice.key, body)} if self._key else own
