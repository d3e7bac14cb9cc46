"""The public names, frozen: an accidental export, or a lost one, is a failure here."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pbmon

PUBLIC = [
    "Accepted",
    "Budget",
    "Refused",
    "StoreError",
    "__version__",
    "configure",
    "consent",
    "context",
    "feedback",
    "feedback_app",
    "feedback_summary",
    "flush",
    "identify",
    "outbox",
    "shutdown",
    "track",
    "track_feature",
    "track_revenue",
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


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="'pbmon' has no attribute 'track_everything'"):
        pbmon.track_everything  # noqa: B018
