"""Deliveries, from the store to vendors that behave and misbehave as they do."""

from __future__ import annotations

import time

import pytest

from pbmon import catalog, settings
from pbmon.store.access import open_deliveries, open_engine, open_writer
from pbmon.worker import leader as module
from pbmon.worker.leader import Leader
from pbmon.worker.targets import makers
from tests.delivery.vendors import Answer, SegmentVendor, WebhookVendor
from tests.stack.process import wait_until
from tests.store.money import TableOfRates, transaction
from tests.store.test_writer import NOON, event, portion


def put(url, count, source="1-a", destinations=("webhook",), **properties):
    writer = open_writer(url, "opt-out", sharing="opt-out", destinations=destinations)
    payloads = [
        event(at=NOON + n, user="7", properties={"n": n, **properties}) for n in range(count)
    ]
    writer.write([portion(*payloads, source=source)])


def leading(url, **tables):
    """A leader by the settings; tables: destination → options."""
    made = by(url, tables)
    assert made.lead()
    return made


def by(url, tables):
    resolved, problems = settings.resolve({"destinations": tables, "consent": "opt-out"})
    assert problems == []
    return Leader(url, resolved, list(makers(resolved, "shop").values()))


def state_of(url, name="webhook"):
    (state,) = [s for s in open_deliveries(url, "opt-out").states() if s.destination == name]
    return state


def test_everything_is_delivered_once(url, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 100)
    put(url, 250)
    with WebhookVendor() as vendor:
        made = leading(url, webhook={"url": vendor.url})
        rounds = 1
        while made.deliver():
            rounds += 1
    assert rounds == 3
    assert len(vendor.accepted) == 250
    assert set(vendor.arrivals.values()) == {1}
    first = next(iter(vendor.accepted.values()))
    assert (first["source"], first["type"]) == ("pbmon/shop", "bought")
    assert state_of(url)[1:5] == (0, 0, 250, 0)
    assert made.succeeded_at["delivery:webhook"] == pytest.approx(time.time(), abs=60)


def test_what_fails_waits_for_as_long_as_the_vendor_asks(url, caplog):
    put(url, 3)
    with WebhookVendor(Answer(429, headers={"Retry-After": "120"})) as vendor:
        made = leading(url, webhook={"url": vendor.url})
        assert not made.deliver()
        state = state_of(url)
        assert state[1:5] == (3, 0, 0, 1)
        assert state.again_at == pytest.approx(time.time() * 1e6 + 120e6, abs=60e6)
        assert not made.deliver()  # in peace until then
        assert len(vendor.requests) == 1
        assert open_deliveries(url, "opt-out").retry("webhook") == 0  # and at once, on request
        made.deliver()
    assert state_of(url)[1:7] == (0, 0, 3, 0, 0, None)
    assert "takes nothing now" in caplog.text


def test_the_wait_grows_with_every_failure(url):
    put(url, 1)
    waits = []
    with WebhookVendor(*[Answer(503)] * 12) as vendor:
        made = leading(url, webhook={"url": vendor.url})
        for _ in range(12):
            began = time.time()
            made.deliver()
            waits.append(state_of(url).again_at / 1e6 - began)
            with open_engine(url).begin() as connection:
                connection.exec_driver_sql("UPDATE destinations SET again_at = 0")
        assert state_of(url).failures == 12
    for number, wait_s in enumerate(waits, 1):
        most_s = min(600.0, 2.0**number)
        assert most_s * 0.5 <= wait_s <= most_s + 60


def test_what_the_vendor_refuses_is_a_dead_letter_and_the_rest_arrives(url, caplog):
    put(url, 20)
    put(url, 1, source="2-b", poison=True)
    with WebhookVendor() as vendor:
        made = leading(url, webhook={"url": vendor.url})
        made.deliver()
    assert len(vendor.accepted) == 20
    assert state_of(url)[1:5] == (0, 1, 20, 0)
    assert "refused 1 events (rejected:422)" in caplog.text


def test_one_destination_that_is_away_keeps_no_other_waiting(url):
    put(url, 5, destinations=("segment", "webhook"))
    with WebhookVendor(*[Answer(500)] * 9) as broken, SegmentVendor() as vendor:
        from tests.delivery.vendors import KEY

        made = leading(
            url, webhook={"url": broken.url}, segment={"write_key": KEY, "url": vendor.url}
        )
        made.deliver()
    assert len(vendor.accepted) == 5
    assert state_of(url, "segment")[1:5] == (0, 0, 5, 0)
    assert state_of(url, "webhook")[1:5] == (5, 0, 0, 1)


def test_only_one_leads_and_the_next_goes_on(url):
    put(url, 5)
    with WebhookVendor() as vendor:
        first = leading(url, webhook={"url": vendor.url})
        second = by(url, {"webhook": {"url": vendor.url}})
        assert not second.lead()
        first._leadership.forget()  # as when it dies
        second.start()
        wait_until(lambda: len(vendor.accepted) == 5, "the next leader")
        second.stop()
        second._thread.join(10)
    wait_until(lambda: state_of(url).waiting == 0, "its books")


def test_killed_after_sending_it_sends_again_under_the_same_ids(url, monkeypatch):
    put(url, 5)
    with WebhookVendor() as vendor:
        made = leading(url, webhook={"url": vendor.url})

        class KilledError(BaseException):
            pass

        def die(*_, **__):
            raise KilledError

        monkeypatch.setattr("pbmon.store.deliveries.Deliveries.settle", die)
        with pytest.raises(KilledError):
            made.deliver()
        monkeypatch.undo()
        made.deliver()
    assert len(vendor.accepted) == 5
    assert set(vendor.arrivals.values()) == {2}
    assert state_of(url)[1:5] == (0, 0, 5, 0)


def test_the_last_figures_have_in_them_what_waited_for_a_rate(url):
    writer = open_writer(url, "opt-out")
    writer.write([portion(transaction(amount=1000, currency="EUR"), source="1-a")])
    writer.close()
    resolved, _ = settings.resolve({})
    made = Leader(url, resolved, [], rates=TableOfRates(EUR="1.25"))
    read = []
    made.publish = read.append
    assert made.finish(time.monotonic() + 60)
    made._close()
    (reading,) = read

    def total(metric):
        return sum(figure.value for figure in reading.figures if figure.metric is metric)

    assert (total(catalog.REVENUE), total(catalog.REVENUE_UNCONVERTED)) == (12.5, 0)


def test_who_is_not_the_shipper_does_not_lead(url):
    """Asked three times, then it is, and leads."""
    asked = []

    def may_lead():
        asked.append(len(led))
        return len(asked) > 3

    led = []
    made = Leader(url, settings.Settings(), [], may_lead=may_lead)
    made._pause = lambda _: not led
    made.lead = lambda: led.append(1)
    made.run()
    assert asked == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("webhook", {"url": "http://example.org/x"}, "https"),
        ("webhook", {}, "url"),
        ("segment", {"write_key": "env:NOT_SET"}, "write key"),
        ("mixpanel", {"token": "t", "account": "a"}, "token"),
    ],
)
def test_a_destination_that_can_t_be_used_is_one_warning_and_none(name, options, said, caplog,
                                                                  monkeypatch):  # fmt: skip
    monkeypatch.setattr("pbmon.signals._last_told", {})
    resolved, _ = settings.resolve({"destinations": {name: options}})
    assert makers(resolved, "shop") == {}
    assert said in caplog.text


def test_the_endpoint_of_the_environment_is_a_webhook_where_it_is_enabled():
    environ = {"ANALYTICS_ENDPOINT": "http://127.0.0.1:1/events", "ANALYTICS_ENABLED": "true"}
    resolved, problems = settings.resolve({}, environ)
    assert problems == []
    ((name, make),) = makers(resolved, "shop").items()
    assert (name, make().where) == ("webhook", "http://127.0.0.1:1/events")
    del environ["ANALYTICS_ENABLED"]
    assert makers(settings.resolve({}, environ)[0], "shop") == {}


def test_a_secret_may_be_in_a_variable_and_is_never_shown(monkeypatch):
    monkeypatch.setenv("SEGMENT_KEY", "hunter2")
    resolved, _ = settings.resolve({"destinations": {"segment": {"write_key": "env:SEGMENT_KEY"}}})
    made = makers(resolved, "shop")["segment"]()
    assert "hunter2" not in repr(made)
    resolved, _ = settings.resolve({"destinations": {"segment": {"write_key": "hunter2"}}})
    assert "hunter2" not in str(resolved)
    assert "hunter2" not in str(resolved.destinations["segment"])
