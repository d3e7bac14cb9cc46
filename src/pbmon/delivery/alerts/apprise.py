"""Whatever apprise reaches: Slack, Microsoft Teams, e-mail and more than a hundred others.

It says of a message only that it was taken, or not. A receiver gets no key by which to know one
that comes a second time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_instrumentation

from pbmon import signals
from pbmon.alerting.notices import Notice, text, title
from pbmon.delivery.alerts.receipts import Receipt, Sink, quiet
from pbmon.outbound import cause, is_loopback


class AppriseSink(Sink):
    """url: of apprise. Raises ValueError for one that it does not know, or that would be used
    unencrypted or without looking at certificates; ImportError where apprise is not installed."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        scheme = url.partition("://")[0].lower()
        self.where = f"{scheme}://"
        with signals.importing, quiet():
            import apprise

            self._types = apprise.NotifyType
            found = apprise.Apprise.instantiate(url, suppress_exceptions=True)
        if found is None:
            raise ValueError(
                f"sink {name}: apprise knows no such URL ({scheme}://…), or something is missing "
                "in it; see its page on https://github.com/caronc/apprise/wiki"
            )
        self._plugin: Any = found
        _require_encryption(name, scheme, url, found)
        found.redirects = False  # it would take the message to somebody else
        # Where it would be HTML, `<lambda>` in a place would be a tag.
        found.notify_format = apprise.NotifyFormat.TEXT

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.where!r})"

    def send(self, notice: Notice) -> Receipt:
        kind = self._types.SUCCESS if notice.is_over else self._types.FAILURE
        try:
            with suppress_instrumentation(), quiet() as statuses:
                taken = self._plugin.notify(
                    body=text(notice), title=title(notice), notify_type=kind, body_format="text"
                )
        except Exception as error:
            return Receipt(False, cause(error))
        if taken:
            return Receipt(True, "taken")
        answered = f", answered {statuses[-1]}" if statuses else ""
        return Receipt(False, f"apprise could not send it{answered}")

    def close(self) -> None:
        return None


def _require_encryption(name: str, scheme: str, url: str, plugin: Any) -> None:
    if not plugin.verify_certificate:
        raise ValueError(f"sink {name}: verify=no leaves certificates unseen; take it out")
    secure = plugin.secure_protocol or ()
    secure = (secure,) if isinstance(secure, str) else tuple(secure)
    if plugin.secure or scheme in secure or (scheme == "https" and url[:8].lower() == "https://"):
        return
    # Where e-mail goes is another host than the address names.
    host = getattr(plugin, "smtp_host", None) or plugin.host or urlsplit(url).hostname or ""
    if not is_loopback(host):
        remedy = f"write {secure[0]}://" if secure else "take a service that encrypts"
        raise ValueError(f"sink {name}: {scheme}:// goes unencrypted to another machine; {remedy}")
