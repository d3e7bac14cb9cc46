"""`pbmon alerts` and what `pbmon doctor` says of alerts, as a user runs them."""

from __future__ import annotations

import json
import sys

import pytest

from tests.delivery.alerts.receivers import Receiver
from tests.delivery.vendors import Answer
from tests.fresh import run
from tests.stack.process import unused_port
from tests.store.burst import fail
from tests.worker.test_alerts import ELEVEN, Watch


@pytest.fixture
def pbmon(tmp_path):
    def call(*arguments, toml="", **variables):
        (tmp_path / "pbmon.toml").write_text(toml)
        return run(
            sys.executable, "-m", "pbmon.cli", *arguments, cwd=tmp_path,
            **{"PBMON_STATE_DIR": str(tmp_path / "state"), "PBMON_SERVICE_NAME": "shop",
               "PBMON_CONFIG": str(tmp_path / "pbmon.toml"), **variables},
        )  # fmt: skip

    return call


def sink(name, url):
    return f'[alerts.sinks.{name}]\nurl = "{url}"\n'


def test_a_test_goes_to_each_sink_and_says_what_it_answered(pbmon):
    with Receiver() as good, Receiver(Answer(503), Answer(503)) as bad:
        toml = sink("good", good.url) + sink("bad", bad.url)
        done = pbmon("alerts", "test", toml=toml)
        assert done.returncode == 1
        assert done.stdout.splitlines() == [
            f"  good at {good.url}: firing, 202 accepted",
            f"  good at {good.url}: resolved, 202 accepted",
            f"✗ bad at {bad.url}: firing, 503 service unavailable",
            f"✗ bad at {bad.url}: resolved, 503 service unavailable",
        ]
        assert pbmon("alerts", "test", "--sink", "good", toml=toml).returncode == 0
    assert good.states == ["firing", "resolved"] * 2
    assert all(body["test"] and body["title"].startswith("[test] ") for body in good.bodies)
    assert len({body["id"] for body in good.bodies}) == 2


@pytest.mark.parametrize(
    ("arguments", "toml", "said"),
    [
        ((), "", "there are no sinks; add [alerts.sinks.NAME] with url"),
        (("--sink", "x"), sink("team", "http://127.0.0.1:1/"), "no sink x; there are: team"),
        ((), sink("team", "env:NO_SUCH"), "alerts.sinks.team.url is env:NO_SUCH, which is not set"),
        ((), sink("team", "hunter2"), "url of sink team is no URL such as"),
        ((), "[alerts]\nerrors = -1\n", "errors of alerts is -1; write a whole number"),
    ],
    ids=["none", "another", "unset", "malformed", "wrong"],
)
def test_wrong_settings_are_said(pbmon, arguments, toml, said):
    done = pbmon("alerts", "test", *arguments, toml=toml)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_status_and_doctor_say_what_became_of_alerts(pbmon, tmp_path):
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    away = f"http://127.0.0.1:{unused_port()}/hunter2"
    fail(url, *ELEVEN)
    made = Watch(url, sinks={"team": {"url": away}})
    made.go_on(205)
    done = pbmon("alerts", "status", PBMON_STORE_URL=url)
    assert "1 open" in done.stdout
    assert "PaymentError in shop/pay.py:<lambda>: 11 errors, 0 people" in done.stdout
    assert "team: firing of " in done.stdout
    assert "(connection refused)" in done.stdout
    made.go_on(900)
    made.close()
    found = json.loads(pbmon("alerts", "status", "--json", PBMON_STORE_URL=url).stdout)
    assert found["open"] == found["dead"] == []
    assert [each["errors"] for each in found["recent"]] == [11]
    assert {each["kind"] for each in found["waiting"]} == {"firing", "resolved"}
    told = pbmon("doctor", toml=sink("team", away), PBMON_STORE_URL=url).stdout
    assert "told by worker: more than 10 errors in 5 min" in told
    assert f"team: {away.rpartition('/')[0]}\n" in told
    assert "last fault: team: connection refused" in told
    assert "hunter2" not in told


def test_doctor_says_who_can_t_be_told(pbmon):
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    toml = sink("team", slack) + sink("duty", "env:NO_SUCH") + sink("c", "json://example.org/x")
    told = pbmon("doctor", toml=toml).stdout
    assert "team: its secret stands in the settings" in told
    assert "✗ alerts.sinks.duty.url is env:NO_SUCH, which is not set" in told
    assert "✗ sink c: json:// goes unencrypted to another machine; write jsons://" in told
    assert "T1JJ3T3L2" not in told
    nobody = pbmon("doctor", toml='[alerts]\nsource = "worker"\n').stdout
    assert "✗ there are no sinks, so nobody is told" in nobody
