"""From the settings to the destinations there are: a file of `delivery` for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from pbmon import signals
from pbmon.delivery.events import Destination
from pbmon.outbound import url_of
from pbmon.parsing import Target
from pbmon.settings import Settings

_CLASSES = {
    "webhook": "Webhook", "segment": "Segment", "mixpanel": "Mixpanel", "amplitude": "Amplitude",
}  # fmt: skip


def targets(settings: Settings) -> Mapping[str, Target]:
    """Those of the table, and the endpoint of ANALYTICS_ENDPOINT where it is enabled."""
    found = dict(settings.destinations)
    if settings.analytics_enabled and settings.analytics_endpoint is not None:
        found.setdefault("webhook", Target("webhook", {"url": settings.analytics_endpoint}))
    return found


def makers(settings: Settings, service: str) -> dict[str, Callable[[], Destination]]:
    """Destination → what makes it. One that can't be used is one warning, and is none."""
    made: dict[str, Callable[[], Destination]] = {}
    for name, target in targets(settings).items():
        options: dict[str, Any] = {
            key: url_of(f"destinations.{name}.{key}", value) if isinstance(value, str) else value
            for key, value in target.options.items()
        }
        if name == "webhook":
            options.setdefault("source", f"pbmon/{service}")
        try:
            _make(name, options).close()
        except (ValueError, TypeError) as error:
            # A TypeError names an option that is missing, never its value.
            signals.tell(f"destinations.{name}", "pbmon: destinations.%s: %s", name, error)
            continue
        made[name] = lambda name=name, options=options: _make(name, options)  # type: ignore[misc]
    return made


def _make(name: str, options: Mapping[str, Any]) -> Destination:
    module = import_module(f"pbmon.delivery.{name}")
    made: Destination = getattr(module, _CLASSES[name])(**options)
    return made
