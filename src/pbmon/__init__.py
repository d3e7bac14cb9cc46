"""OpenTelemetry for Python web applications and the business behind them.

The names below are loaded at their first use, so that `import pbmon` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pbmon.budgets import Budget as Budget
    from pbmon.business.budgets import check_budget as check_budget
    from pbmon.business.consent import consent as consent
    from pbmon.business.error_middleware import error_middleware as error_middleware
    from pbmon.business.errors import error_summary as error_summary
    from pbmon.business.errors import track_error as track_error
    from pbmon.business.events import identify as identify
    from pbmon.business.events import track as track
    from pbmon.business.experiments import experiment as experiment
    from pbmon.business.experiments import experiment_report as experiment_report
    from pbmon.business.experiments import expose as expose
    from pbmon.business.features import track_feature as track_feature
    from pbmon.business.feedback import feedback as feedback
    from pbmon.business.feedback import feedback_summary as feedback_summary
    from pbmon.business.feedback_app import feedback_app as feedback_app
    from pbmon.business.growth import cohorts as cohorts
    from pbmon.business.growth import feature_adoption as feature_adoption
    from pbmon.business.growth import funnel as funnel
    from pbmon.business.growth import user_growth as user_growth
    from pbmon.business.openfeature import OpenFeatureHook as OpenFeatureHook
    from pbmon.business.persons import delete_user as delete_user
    from pbmon.business.persons import export_user as export_user
    from pbmon.business.revenue import track_adjustment as track_adjustment
    from pbmon.business.revenue import track_chargeback as track_chargeback
    from pbmon.business.revenue import track_refund as track_refund
    from pbmon.business.revenue import track_revenue as track_revenue
    from pbmon.business.revenue_metrics import RevenueMetrics as RevenueMetrics
    from pbmon.business.revenue_metrics import revenue_metrics as revenue_metrics
    from pbmon.catalog import VERSION as __version__  # noqa: F401, N811
    from pbmon.erasure import Receipt as Receipt
    from pbmon.errors import ErrorSummary as ErrorSummary
    from pbmon.growth import Cohort as Cohort
    from pbmon.growth import FeatureAdoption as FeatureAdoption
    from pbmon.growth import FunnelStep as FunnelStep
    from pbmon.growth import UserGrowth as UserGrowth
    from pbmon.identity import context as context
    from pbmon.runtime import Accepted as Accepted
    from pbmon.runtime import Refused as Refused
    from pbmon.runtime import StoreError as StoreError
    from pbmon.store.outbox import outbox as outbox
    from pbmon.wiring import aflush as aflush
    from pbmon.wiring import configure as configure
    from pbmon.wiring import flush as flush
    from pbmon.wiring import shutdown as shutdown
    from pbmon.wiring import websocket_connections as websocket_connections

_NAMES = {
    "Accepted": "pbmon.runtime:Accepted",
    "Budget": "pbmon.budgets:Budget",
    "Cohort": "pbmon.growth:Cohort",
    "ErrorSummary": "pbmon.errors:ErrorSummary",
    "FeatureAdoption": "pbmon.growth:FeatureAdoption",
    "FunnelStep": "pbmon.growth:FunnelStep",
    "Receipt": "pbmon.erasure:Receipt",
    "Refused": "pbmon.runtime:Refused",
    "RevenueMetrics": "pbmon.business.revenue_metrics:RevenueMetrics",
    "StoreError": "pbmon.runtime:StoreError",
    "UserGrowth": "pbmon.growth:UserGrowth",
    "__version__": "pbmon.catalog:VERSION",
    "aflush": "pbmon.wiring:aflush",
    "check_budget": "pbmon.business.budgets:check_budget",
    "cohorts": "pbmon.business.growth:cohorts",
    "configure": "pbmon.wiring:configure",
    "consent": "pbmon.business.consent:consent",
    "context": "pbmon.identity:context",
    "delete_user": "pbmon.business.persons:delete_user",
    "error_middleware": "pbmon.business.error_middleware:error_middleware",
    "error_summary": "pbmon.business.errors:error_summary",
    "experiment": "pbmon.business.experiments:experiment",
    "experiment_report": "pbmon.business.experiments:experiment_report",
    "export_user": "pbmon.business.persons:export_user",
    "expose": "pbmon.business.experiments:expose",
    "feature_adoption": "pbmon.business.growth:feature_adoption",
    "feedback": "pbmon.business.feedback:feedback",
    "feedback_app": "pbmon.business.feedback_app:feedback_app",
    "feedback_summary": "pbmon.business.feedback:feedback_summary",
    "flush": "pbmon.wiring:flush",
    "funnel": "pbmon.business.growth:funnel",
    "identify": "pbmon.business.events:identify",
    "outbox": "pbmon.store.outbox:outbox",
    "revenue_metrics": "pbmon.business.revenue_metrics:revenue_metrics",
    "shutdown": "pbmon.wiring:shutdown",
    "track": "pbmon.business.events:track",
    "track_adjustment": "pbmon.business.revenue:track_adjustment",
    "track_chargeback": "pbmon.business.revenue:track_chargeback",
    "track_error": "pbmon.business.errors:track_error",
    "track_feature": "pbmon.business.features:track_feature",
    "track_refund": "pbmon.business.revenue:track_refund",
    "track_revenue": "pbmon.business.revenue:track_revenue",
    "user_growth": "pbmon.business.growth:user_growth",
    "websocket_connections": "pbmon.wiring:websocket_connections",
}
EXTRAS = {"OpenFeatureHook": "pbmon.business.openfeature:OpenFeatureHook"}
"""Names that need an extra: no part of `__all__`, so that `import *` needs none."""

__all__ = sorted(_NAMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    place = _NAMES.get(name) or EXTRAS.get(name)
    if place is None:
        raise AttributeError(f"module 'pbmon' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = place.partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
