"""`pbmon delivery`, and the whole way to a webhook, as a user runs it."""

from __future__ import annotations

import sys

import pytest

from tests.delivery.vendors import Answer, WebhookVendor
from tests.fresh import environment, python, run
from tests.stack.process import unused_port


@pytest.fixture
def pbmon(tmp_path):
    def call(*arguments, **variables):
        return run(sys.executable, "-m", "pbmon.cli", *arguments, **settings(tmp_path, **variables))

    return call


def settings(tmp_path, **variables):
    return {
        "PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
        "PBMON_CONSENT": "opt-out", "OTEL_LOGS_EXPORTER": "none",
    } | variables  # fmt: skip


TRACKING = """
    import time
    import pbmon
    from pbmon import wiring
    pbmon.configure()
    for n in range(5):
        assert pbmon.track("made", {"n": n}, user_id=n)
    while "delivery:webhook" not in wiring._worker.leader.succeeded_at:
        time.sleep(0.05)
"""


def test_what_is_tracked_arrives_at_the_endpoint_of_the_environment(pbmon, tmp_path):
    with WebhookVendor() as vendor:
        python(
            TRACKING,
            **settings(tmp_path, ANALYTICS_ENDPOINT=vendor.url, ANALYTICS_ENABLED="true"),
        )
    assert sorted(event["data"]["properties"]["n"] for event in vendor.accepted.values()) == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip
    assert set(vendor.arrivals.values()) == {1}
    assert len({event["subject"] for event in vendor.accepted.values()}) == 5
    status = pbmon("delivery", "status")
    assert status.stdout == "webhook    5 delivered, 0 waiting, 0 dead letters\n"


def test_dead_letters_are_listed_and_sent_again(pbmon, tmp_path):
    with WebhookVendor(*[Answer(404)] * 9) as vendor:
        enabled = settings(tmp_path, ANALYTICS_ENDPOINT=vendor.url, ANALYTICS_ENABLED="true")
        python(TRACKING, **enabled)
        status = pbmon("delivery", "status")
        assert status.stdout == "webhook    0 delivered, 0 waiting, 5 dead letters\n"
        said = pbmon("delivery", "retry", "webhook").stdout
        assert said == "webhook: 5 dead letters wait to be sent again\n"
        python(TRACKING.replace("range(5)", "range(1)"), **enabled)
    assert len(vendor.accepted) == 6


def test_nothing_is_remote_by_default(pbmon, tmp_path):
    python(
        """
        import threading, sys
        import pbmon
        pbmon.configure()
        pbmon.track("made")
        assert pbmon.flush(60)
        assert "requests" not in sys.modules
        """,
        **settings(tmp_path),
    )
    pbmon("store", "upgrade")
    assert pbmon("delivery", "status").stdout == "no destination has got, or is to get, anything\n"


def test_a_destination_that_is_away_is_said_with_the_reason(pbmon, tmp_path):
    endpoint = f"http://127.0.0.1:{unused_port()}/"
    done = python(
        TRACKING, **settings(tmp_path, ANALYTICS_ENDPOINT=endpoint, ANALYTICS_ENABLED="true")
    )
    assert "webhook at http://127.0.0.1:" in done.stderr
    line = pbmon("delivery", "status").stdout
    assert line.startswith("webhook    0 delivered, 5 waiting, 0 dead letters; failed 1 times (")


def test_without_its_tables_it_says_what_to_do(pbmon):
    done = pbmon("delivery", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "has no tables of pbmon yet; run `pbmon store upgrade`" in done.stderr


def test_the_environment_of_this_test_names_no_destination():
    assert not {name for name in environment() if name.startswith("ANALYTICS")}
