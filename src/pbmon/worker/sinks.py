"""From the settings to the sinks of alerts there are: a file of `delivery.alerts` for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pbmon import signals
from pbmon.alerting.choices import AlertChoices, SinkChoice, is_place, scheme
from pbmon.outbound import secret_of

if TYPE_CHECKING:
    from pbmon.delivery.alerts.receipts import Sink

INSTALL = "pip install 'pbmon[alerts]'"

# Whose addresses for messages are https, but who take no JSON of ours; apprise knows them.
_CHATS = ("hooks.slack.com", "discord.com", "discordapp.com", ".webhook.office.com")


class UnusableError(ValueError):
    """A sink that can't be used; the text names it and has the remedy, never a secret."""


def make(choice: SinkChoice) -> Sink:
    """Raises UnusableError."""
    name = choice.name
    try:
        url = secret_of(f"alerts.sinks.{name}.url", choice.url)
        secret = choice.secret and secret_of(f"alerts.sinks.{name}.secret", choice.secret)
        return _make(name, url, secret)
    except ImportError:
        raise UnusableError(f"sink {name}: {scheme(url)}:// needs apprise; {INSTALL}") from None
    except ValueError as error:
        raise UnusableError(str(error)) from None


def _make(name: str, url: str, secret: str | None) -> Sink:
    kind = kind_of(url)
    if secret is not None and kind != "webhook":
        raise ValueError(f"sink {name}: secret signs a webhook's requests; {kind} has none")
    if kind == "webhook":
        from pbmon.delivery.alerts.webhook import AlertWebhook

        return AlertWebhook(name, url, secret=secret)
    if kind == "pagerduty":
        from pbmon.delivery.alerts.pagerduty import PagerDuty

        return PagerDuty(name, url)
    from pbmon.delivery.alerts.apprise import AppriseSink

    return AppriseSink(name, url)


def kind_of(url: str) -> str:
    """`webhook`, `pagerduty` or `apprise`."""
    if (found := scheme(url)) == "pagerduty":
        return found
    if found not in ("http", "https"):
        return "apprise"
    host = urlsplit(url).hostname or ""
    return "apprise" if host.endswith(_CHATS) else "webhook"


def is_secret(choice: SinkChoice) -> bool:
    """Whether what stands in the settings lets others send as well: all but a plain webhook."""
    return choice.secret is not None or is_place(choice.url) or kind_of(choice.url) != "webhook"


def makers(choices: AlertChoices) -> Mapping[str, Callable[[], Sink]]:
    """Sink → what makes it, of those that the worker tells."""
    if choices.teller != "worker":
        return {}
    if not choices.sinks:
        signals.tell(
            "alerts.sinks",
            "pbmon: alerts.source is worker, but there are no sinks, so nobody is told; add "
            "[alerts.sinks.NAME] with url, or set source to prometheus",
        )
    return {
        name: lambda choice=choice: make(choice)  # type: ignore[misc]
        for name, choice in choices.sinks.items()
    }
