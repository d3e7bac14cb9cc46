"""The public names, frozen: an accidental export, or a lost one, is a failure here."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pbmon

PUBLIC = [
    "Accepted",
    "Budget",
    "Cohort",
    "ErrorSummary",
    "FeatureAdoption",
    "FunnelStep",
    "Receipt",
    "Refused",
    "RevenueMetrics",
    "StoreError",
    "UserGrowth",
    "__version__",
    "aflush",
    "check_budget",
    "cohorts",
    "configure",
    "consent",
    "context",
    "delete_user",
    "error_middleware",
    "error_summary",
    "experiment",
    "experiment_report",
    "export_user",
    "expose",
    "feature_adoption",
    "feedback",
    "feedback_app",
    "feedback_summary",
    "flush",
    "funnel",
    "identify",
    "outbox",
    "revenue_metrics",
    "shutdown",
    "track",
    "track_adjustment",
    "track_chargeback",
    "track_error",
    "track_feature",
    "track_refund",
    "track_revenue",
    "user_growth",
    "websocket_connections",
]


def test_names_are_frozen():
    assert pbmon.__all__ == PUBLIC
    assert dir(pbmon) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_name_resolves_in_a_fresh_process(name):
    """Each by itself: one name's module must not be needed for another's."""
    code = f"import pbmon; assert pbmon.{name} is not None"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", [name for name in PUBLIC if not name.startswith("_")])
def test_name_is_documented(name):
    assert (getattr(pbmon, name).__doc__ or "").strip()


def test_a_name_that_needs_an_extra_is_none_of_those_that_everybody_gets():
    assert pbmon.OpenFeatureHook.__doc__
    code = (
        "import sys; sys.modules['openfeature'] = None; from pbmon import *; import pbmon\n"
        "try: pbmon.OpenFeatureHook\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, timeout=60, stdout=-1, text=True
    )
    assert done.stdout == (
        "pbmon.OpenFeatureHook needs openfeature-sdk; pip install 'pbmon[openfeature]'\n"
    )


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="'pbmon' has no attribute 'track_everything'"):
        pbmon.track_everything  # noqa: B018
