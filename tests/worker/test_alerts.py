"""From the errors in the store to a real receiver: one message of a beginning, one of its end."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from pbmon import catalog, runtime, settings
from pbmon.store.access import open_notifications
from pbmon.worker import alerts as module
from pbmon.worker import sinks
from pbmon.worker.alerts import Alerting
from pbmon.worker.leader import Leader
from pbmon.worker.roles import Roles
from tests.delivery.alerts.receivers import Receiver
from tests.delivery.vendors import CLOSE, HANG, LOSE, Answer
from tests.stack.process import unused_port, wait_until
from tests.store.burst import Clock, chosen, fail

ELEVEN = [20 * n for n in range(11)]


class Watch:
    """An Alerting without its threads: it does what it is told to, by one clock."""

    def __init__(self, store, /, **table):
        self.clock = Clock()
        self.alerting = Alerting(
            store, chosen(**table), service="shop", environment="test", clock=self.clock
        )

    def go_on(self, until_s, every_s=5):
        """Judge and send every so often, as the threads do; how long each sink is to be left in
        peace is kept."""
        waits = dict.fromkeys(self.alerting._senders, 0.0)
        while self.clock.at < until_s:
            self.clock.at += every_s
            self.alerting._late_at_s = 0.0
            self.alerting.judge()
            for sender in waits:
                if self.clock.at >= waits[sender]:
                    waits[sender] = self.clock.at + min(sender.send_due(), 600)

    def close(self):
        self.alerting.stop()
        self.alerting._leave()
        for each in self.alerting._senders:
            each._leave()


@pytest.fixture
def watch(url):
    made = []

    def begin(*receivers, **table):
        names = ("team", "other")
        tables = {name: {"url": each.url} for name, each in zip(names, receivers, strict=False)}
        made.append(Watch(url, **{"sinks": tables, **table}))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def test_eleven_errors_are_one_alert_and_one_end(watch, url):
    fail(url, *ELEVEN)
    with Receiver() as receiver:
        made = watch(receiver, url="https://grafana.example.com/trace/{trace_id}")
        made.go_on(1200)
    assert receiver.states == ["firing", "resolved"]
    assert set(receiver.keys.values()) == {1}
    first = receiver.bodies[0]
    assert (first["service"], first["environment"]) == ("shop", "test")
    assert first["link"] == f"https://grafana.example.com/trace/{'cd' * 16}"


def test_eleven_in_fifty_minutes_are_nothing(watch, url):
    fail(url, *(300 * n for n in range(11)))
    with Receiver() as receiver:
        watch(receiver).go_on(3600)
    assert receiver.requests == []


@pytest.mark.parametrize("fault", [Answer(503), CLOSE, Answer(429)], ids=["503", "close", "429"])
def test_a_sink_that_is_down_for_ten_minutes_gets_each_once(watch, url, fault, caplog):
    """Longer than the burst: what is over by then is told, after its beginning."""
    fail(url, *ELEVEN)
    with Receiver(*[fault] * 1000) as receiver:
        made = watch(receiver)
        made.go_on(900)
        attempts = len(receiver.requests)
        receiver.faults.clear()
        made.go_on(1200)
    assert receiver.states == ["firing", "resolved"]
    assert set(receiver.keys.values()) == {1}
    assert 10 <= attempts <= 40  # left in peace for up to a minute
    assert caplog.text.count("the sink of alerts team takes nothing now") == 1


def test_a_message_that_is_refused_for_itself_keeps_no_other_waiting(watch, url):
    fail(url, *ELEVEN)
    fail(url, *ELEVEN, key="01" * 16, source="2-b")
    with Receiver(Answer(400)) as receiver:
        made = watch(receiver)
        made.go_on(200)
        assert (len(receiver.requests), receiver.states) == (2, ["firing"])
        made.go_on(215)
    assert receiver.states == ["firing", "firing"]
    assert len(receiver.requests) == 3


def test_as_long_as_the_receiver_asks(watch, url):
    fail(url, *ELEVEN)
    with Receiver(Answer(503, headers={"Retry-After": "100"})) as receiver:
        made = watch(receiver)
        made.go_on(295)
        assert len(receiver.requests) == 1
        made.go_on(320)
    assert receiver.states == ["firing"]


def test_an_answer_that_got_lost_is_a_second_message_with_the_same_key(watch, url):
    fail(url, *ELEVEN)
    with Receiver(LOSE) as receiver:
        watch(receiver).go_on(300)
    assert list(receiver.keys.values()) == [2]


def test_one_sink_that_is_away_keeps_no_other_waiting(watch, url):
    fail(url, *ELEVEN)
    with Receiver(*[Answer(500)] * 99) as away, Receiver() as other:
        watch(away, other).go_on(220)
    assert (away.states, other.states) == ([], ["firing"])


def test_killed_after_sending_it_sends_again_under_the_same_key(watch, url, monkeypatch):
    fail(url, *ELEVEN)
    with Receiver() as receiver:
        made = watch(receiver)

        class KilledError(BaseException):
            pass

        def die(*_):
            raise KilledError

        with monkeypatch.context() as patched:
            patched.setattr("pbmon.store.notifications.Notifications.note_sent", die)
            with pytest.raises(KilledError):
                made.go_on(300)
        second = watch(receiver)
        second.clock.at = made.clock.at
        second.go_on(made.clock.at + 30)
        assert list(receiver.keys.values()) == [1]  # it may be on its way
        second.go_on(made.clock.at + 120)
    assert list(receiver.keys.values()) == [2]


def test_a_store_that_is_away_when_it_was_sent_is_no_second_message(watch, url, monkeypatch):
    from pbmon.store.notifications import Notifications

    fail(url, *ELEVEN)
    note_sent, asked = Notifications.note_sent, []

    def note(self, *arguments):
        asked.append(arguments)
        if len(asked) < 4:
            raise runtime.StoreError("is away")
        note_sent(self, *arguments)

    monkeypatch.setattr(Notifications, "note_sent", note)
    with Receiver() as receiver:
        watch(receiver).go_on(500)
    assert list(receiver.keys.values()) == [1]
    assert len(asked) == 4


def test_a_sink_without_its_secret_is_told_and_others_get_theirs(watch, url, caplog):
    fail(url, *ELEVEN)
    with Receiver() as receiver:
        made = watch(
            sinks={"team": {"url": "env:NO_SUCH"}, "other": {"url": receiver.url}},
        )
        made.go_on(230)
    assert receiver.states == ["firing"]
    assert "alerts.sinks.team.url is env:NO_SUCH, which is not set" in caplog.text


# --- with its threads ------------------------------------------------------------------------


def test_the_threads_of_the_leader_tell_though_another_sink_hangs(url, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    monkeypatch.setattr(module, "_LOOK_S", 0.05)
    fail(url, *ELEVEN)
    clock = Clock(205)
    with Receiver(*[HANG] * 9) as hanging, Receiver() as receiver:
        tables = {"a": {"url": hanging.url}, "b": {"url": receiver.url}}
        alerting = Alerting(url, chosen(sinks=tables), service="shop", clock=clock)
        leader = Leader(url, settings.Settings(), [], alerting=alerting)
        # They go by today's clock, by which this burst is so old that it is to be forgotten.
        monkeypatch.setattr(leader, "do_jobs", lambda: None)
        leader.start()
        wait_until(lambda: receiver.states == ["firing"], "the beginning", 60)
        clock.at = 1000
        wait_until(lambda: receiver.states == ["firing", "resolved"], "the end", 60)
        assert len(hanging.requests) == 1
        leader.stop()
        leader._thread.join(10)
    for thread in alerting._threads:
        thread.join(30)
        assert not thread.is_alive()


def test_who_does_not_lead_tells_nothing(url, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    fail(url, *ELEVEN)
    asked = []
    with Receiver() as receiver:
        made = Alerting(
            url, chosen(sinks={"team": {"url": receiver.url}}), service="shop", clock=Clock(205)
        )
        made.start(lambda: asked.append(1))
        wait_until(lambda: len(asked) > 20, "that it is asked")
        made.stop()
        for thread in made._threads:
            thread.join(10)
    assert receiver.requests == []


def test_by_prometheus_no_thread_is_begun(url):
    made = Alerting(url, chosen(source="prometheus"), service="shop")
    made.start(lambda: True)
    assert made._threads == []
    assert sinks.makers(chosen(source="prometheus")) == {}


def test_who_says_worker_and_names_nobody_is_told(caplog):
    assert sinks.makers(chosen(source="worker", sinks={})) == {}
    assert "there are no sinks, so nobody is told" in caplog.text


@pytest.mark.parametrize(
    ("table", "teller"),
    [({}, "prometheus"), ({"sinks": {"a": {"url": "slack://x"}}}, "worker"),
     ({"source": "worker"}, "worker"),
     ({"source": "prometheus", "sinks": {"a": {"url": "slack://x"}}}, "prometheus")],
    ids=["nothing", "sinks", "worker", "prometheus"],
)  # fmt: skip
def test_a_process_says_who_tells(table, teller, monkeypatch):
    resolved, problems = settings.resolve({"alerts": table}, {})
    assert problems == []
    monkeypatch.setattr(runtime.active, "settings", resolved)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    Roles().install(provider.get_meter("test"))
    found = {
        point.attributes[catalog.ALERT_SOURCE.name]: point.value
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == catalog.ALERTS_PAGING.name
        for point in metric.data.data_points
    }
    provider.shutdown()
    assert found == {"worker": int(teller == "worker"), "prometheus": int(teller == "prometheus")}


def test_a_store_that_is_away_is_told_and_asked_again(caplog):
    url = f"postgresql://app:hunter2@127.0.0.1:{unused_port()}/x"
    made = Alerting(url, chosen(), service="shop")
    made.judge()
    (sender,) = made._senders
    assert sender.send_due() == module._AGAIN_S
    assert caplog.text.count("Alerts wait meanwhile") == 1
    assert "hunter2" not in caplog.text


def test_what_waits_is_seen_from_outside(watch, url):
    fail(url, *ELEVEN)
    with Receiver(*[Answer(500)] * 9) as receiver:
        watch(receiver).go_on(200)
    book = open_notifications(url, 0.0)
    (waiting,) = book.status().waiting
    assert (waiting.fault, waiting.attempts) == ("500 internal server error", 1)
    assert book.last_fault() == "team: 500 internal server error"
    book.close()
