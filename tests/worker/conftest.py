from __future__ import annotations

import pytest

from pbmon import signals
from pbmon.spool import journal
from pbmon.worker.shipper import Shipper

OPT_OUT = {"analytics": "opt-out", "sharing": "opt-in"}


@pytest.fixture(autouse=True)
def nothing_was_told(monkeypatch):
    monkeypatch.setattr(signals, "_last_told", {})


@pytest.fixture
def home(tmp_path):
    return journal.open_home(str(tmp_path / "state"), "shop")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture
def shipper(home, url):
    made = Shipper(home, url, OPT_OUT, portion=10)
    yield made
    made.stop()
