"""OpenTelemetry for Python web applications and the business behind them.

The names below are loaded at their first use, so that `import pbmon` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbmon.budgets import Budget as Budget
    from pbmon.business.consent import consent as consent
    from pbmon.business.events import identify as identify
    from pbmon.business.events import track as track
    from pbmon.business.features import track_feature as track_feature
    from pbmon.business.feedback import feedback as feedback
    from pbmon.business.feedback import feedback_summary as feedback_summary
    from pbmon.business.feedback_app import feedback_app as feedback_app
    from pbmon.business.revenue import track_revenue as track_revenue
    from pbmon.catalog import VERSION as __version__  # noqa: F401, N811
    from pbmon.identity import context as context
    from pbmon.runtime import Accepted as Accepted
    from pbmon.runtime import Refused as Refused
    from pbmon.runtime import StoreError as StoreError
    from pbmon.store.outbox import outbox as outbox
    from pbmon.wiring import configure as configure
    from pbmon.wiring import flush as flush
    from pbmon.wiring import shutdown as shutdown
    from pbmon.wiring import websocket_connections as websocket_connections

_NAMES = {
    "__version__": "pbmon.catalog:VERSION",
    "Accepted": "pbmon.runtime:Accepted",
    "Budget": "pbmon.budgets:Budget",
    "Refused": "pbmon.runtime:Refused",
    "StoreError": "pbmon.runtime:StoreError",
    "configure": "pbmon.wiring:configure",
    "consent": "pbmon.business.consent:consent",
    "context": "pbmon.identity:context",
    "feedback": "pbmon.business.feedback:feedback",
    "feedback_app": "pbmon.business.feedback_app:feedback_app",
    "feedback_summary": "pbmon.business.feedback:feedback_summary",
    "flush": "pbmon.wiring:flush",
    "identify": "pbmon.business.events:identify",
    "outbox": "pbmon.store.outbox:outbox",
    "shutdown": "pbmon.wiring:shutdown",
    "track": "pbmon.business.events:track",
    "track_feature": "pbmon.business.features:track_feature",
    "track_revenue": "pbmon.business.revenue:track_revenue",
    "websocket_connections": "pbmon.wiring:websocket_connections",
}
__all__ = sorted(_NAMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'pbmon' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = _NAMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
