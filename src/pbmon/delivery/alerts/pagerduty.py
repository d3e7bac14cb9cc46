"""PagerDuty, Events API v2: the alert's id is the key by which an incident is opened once and
resolved. apprise has one key for a URL, or one of the message's text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pbmon.alerting.notices import Notice, fields, moment, title
from pbmon.delivery.alerts.receipts import HttpSink
from pbmon.outbound import TIMEOUT_S

SCHEME = "pagerduty"
_HOSTS = {"us": "events.pagerduty.com", "eu": "events.eu.pagerduty.com"}
_LONGEST_SUMMARY = 1024


class PagerDuty(HttpSink):
    """url: pagerduty://INTEGRATION_KEY, with ?region=eu for an account in the EU; or as apprise
    writes it, pagerduty://INTEGRATION_KEY@API_KEY. where: another address than PagerDuty's own.
    Raises ValueError for what can't be used."""

    def __init__(
        self, name: str, url: str, *, where: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        try:
            parts = urlsplit(url)
            region = parse_qs(parts.query).get("region", ["us"])[0]
            user, at, host = parts.netloc.rpartition("@")
        except ValueError:
            user, at, host, region = "", "", "", "us"
        self._key = user if at else host
        if not self._key.isalnum():
            raise ValueError(f"sink {name}: write pagerduty:// and the integration key")
        if region not in _HOSTS:
            raise ValueError(f"sink {name}: region is not one of {', '.join(_HOSTS)}")
        super().__init__(name, where or f"https://{_HOSTS[region]}/v2/enqueue", timeout_s)

    def message(self, notice: Notice) -> Mapping[str, Any]:
        made: dict[str, Any] = {
            "routing_key": self._key,
            "event_action": "resolve" if notice.is_over else "trigger",
            "dedup_key": notice.alert_id,
        }
        if notice.is_over:
            return made
        made["payload"] = {
            "summary": title(notice)[:_LONGEST_SUMMARY],
            "source": notice.service,
            "severity": "info" if notice.is_test else "error",
            "timestamp": moment(notice.opened_at),
            "component": notice.place,
            "class": notice.error_type,
            "custom_details": dict(fields(notice)),
        }
        if notice.link is not None:
            made["links"] = [{"href": notice.link, "text": "link"}]
        return made
