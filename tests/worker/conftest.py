from __future__ import annotations

import pytest

from pbmon import signals


@pytest.fixture(autouse=True)
def nothing_was_told(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})
