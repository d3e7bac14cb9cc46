"""Rates of a server on this machine: what is believed, how often it is asked, what is kept."""

from __future__ import annotations

import json
import logging
import stat
import time
from datetime import date, timedelta
from decimal import Decimal

import pytest

from pbmon import signals
from pbmon.rates import service
from pbmon.rates.service import Service
from tests.telemetry.answers import CLOSE, RESET, Answers, http

FRIDAY = date(2026, 10, 30)
SUNDAY = date(2026, 11, 1)
SECRET = "hunter2-key"
NOON_S = 1_794_830_400  # 16 November 2026, 12:00 UTC


def table(day=FRIDAY, rates='{"USD": 1.1172, "JPY": 175.68}', base="EUR"):
    body = f'{{"amount": 1.0, "base": "{base}", "date": "{day}", "rates": {rates}}}'
    return http(200, body.encode(), Content_Type="application/json")


def answered(day=FRIDAY, rates=None):
    return table(day, rates or '{"USD": 1.1172, "JPY": 175.68}')


@pytest.fixture(autouse=True)
def told(caplog):
    signals._last_told.clear()
    caplog.set_level(logging.WARNING, "pbmon.internal")
    return caplog


@pytest.fixture
def clock(monkeypatch):
    """time.time() and time.monotonic() of the service; sleeping moves them."""

    class Clock:
        now_s = float(NOON_S)
        naps: list[float] = []

        time = monotonic = lambda self: self.now_s

        def sleep(self, nap_s):
            self.naps = [*self.naps, nap_s]
            self.now_s += nap_s

    made = Clock()
    monkeypatch.setattr(service, "time", made)
    return made


@pytest.fixture
def ask(tmp_path):
    """A service of this URL, with the cache of this test."""

    def make(url, path=f"/v1/{{date}}?key={SECRET}", **more):
        return Service(url + path, tmp_path / "rates", 7, **more)

    return make


def paths(server):
    return [head.split(b" ")[1].decode() for head in server.heads]


def value(rates, day=FRIDAY, currency="EUR", base="USD"):
    found = rates.rate(currency, base, day)
    return None if found is None else (str(found.value), found.day, found.source)


# --- what is believed ---------------------------------------------------------------------------


def test_a_day_is_one_request_for_all_currencies(ask, clock):
    with Answers(answered()) as server:
        rates = ask(server.url)
        assert value(rates) is None
        rates.refresh([("USD", FRIDAY), ("JPY", FRIDAY), ("USD", FRIDAY)])
        assert paths(server) == [f"/v1/2026-10-30?key={SECRET}"]
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")
        assert value(rates, currency="USD", base="JPY") == (
            "157.25026852846401719", FRIDAY, "127.0.0.1",
        )  # fmt: skip
        assert value(rates, base="GBP") is None
        assert server.header("User-Agent").startswith("pbmon/")
        assert server.header("Accept") == "application/json"


def test_a_weekend_has_the_rates_of_friday(ask, clock):
    with Answers(answered()) as server:
        rates = ask(server.url)
        rates.refresh([("USD", SUNDAY)])
        assert paths(server) == [f"/v1/2026-11-01?key={SECRET}"]
        assert value(rates, SUNDAY) == ("1.1172", FRIDAY, "127.0.0.1")


def test_a_rate_is_used_for_seven_days_and_never_backwards(ask, clock):
    with Answers(answered()) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        assert value(rates, FRIDAY + timedelta(days=7)) == ("1.1172", FRIDAY, "127.0.0.1")
        assert value(rates, FRIDAY + timedelta(days=8)) is None
        assert value(rates, FRIDAY - timedelta(days=1)) is None
        assert value(rates, date.min) is value(rates, date.max) is None


def test_a_currency_that_the_newest_table_lacks_has_ended(ask, clock):
    without = answered(FRIDAY, '{"JPY": 175.68}')
    with Answers(without, answered(FRIDAY - timedelta(days=1))) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY), ("USD", FRIDAY - timedelta(days=1))])
        assert value(rates) is None
        assert value(rates, FRIDAY - timedelta(days=1))[0] == "1.1172"


def test_the_newest_days_come_first(ask, clock):
    days = [FRIDAY - timedelta(days=n) for n in (0, 3, 1)]
    with Answers(*[answered(day) for day in sorted(days, reverse=True)]) as server:
        rates = ask(server.url)
        rates.refresh([("USD", day) for day in days])
        assert [path[4:14] for path in paths(server)] == ["2026-10-30", "2026-10-29", "2026-10-27"]
        assert [value(rates, day)[1] for day in days] == days


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (http(200, b"<html>login</html>"), "an answer that is no table of rates"),
        (http(200, b""), "an answer that is no table of rates"),
        (http(200, b"[" * 100_000), "an answer that is no table of rates"),
        (table(rates='{"USD": 1e99999999999999999999}'), "an answer that is no table of rates"),
        (http(200, b'{"success": false}'), "an answer that is no table of rates"),
        (table(base="€"), "an answer that does not say what its rates are for one unit of"),
        (table(day=SUNDAY), "an answer of 2026-11-01, which is later"),
        # More than is read.
        (table(rates='{"USD": 1.1' + " " * 1024 * 1024 + "}"), "an answer that is no table"),
        (http(401), "401 unauthorized; check the key in the URL"),
        (http(302, Location="http://127.0.0.1:1/"), "302 found, a redirect, which is not followed"),
        (http(201), "201 created"),
        (http(429), "429 too many requests"),
    ],
    ids=range(12),
)
def test_what_is_not_believed_is_a_pause(ask, clock, told, answer, fault):
    with Answers(answer) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) is None
        (line,) = told.messages
        assert f"pbmon: rates_url: 127.0.0.1: {fault}" in line
        assert line.endswith("The rates of 1 days are missing; it is asked again in 60 s at the "
                             "earliest.")  # fmt: skip
        assert len(server.heads) == 1
        assert SECRET not in told.text


@pytest.mark.parametrize(
    "first", [http(500), http(503), RESET, CLOSE], ids=["500", "503", "reset", "close"]
)
def test_what_may_be_over_soon_is_asked_again(ask, clock, told, first):
    with Answers(first, first, answered()) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")
        assert len(server.heads) == 3
        assert clock.naps == [0.5, 2.0]
        assert told.messages == []


def test_three_times_then_later_and_later(ask, clock, told):
    with Answers(http(500)) as server:
        rates = ask(server.url)
        waits = []
        for _ in range(8):
            told.clear()
            signals._last_told.clear()
            rates.refresh([("USD", FRIDAY)])
            asked = len(server.heads)
            rates.refresh([("USD", FRIDAY)])  # in the pause
            assert len(server.heads) == asked
            (line,) = told.messages
            assert "500 internal server error." in line
            waits.append(int(line.partition("again in ")[2].partition(" s")[0]))
            clock.now_s += waits[-1]
        assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        assert len(server.heads) == 3 * 8
        server.answers = [answered()]
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")


def test_retry_after_is_obeyed(ask, clock, told):
    with Answers(http(503, Retry_After="600"), answered()) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        clock.now_s += 599
        rates.refresh([("USD", FRIDAY)])
        assert len(server.heads) == 1
        clock.now_s += 1
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")
        assert "again in 600 s" in told.text


@pytest.mark.parametrize("hang", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_a_hanging_server_is_asked_once(ask, told, hang):
    with Answers(hang) as server:
        rates = ask(server.url, timeout_s=0.2)
        started_s = time.monotonic()
        rates.refresh([("USD", FRIDAY), ("USD", SUNDAY)])
        assert time.monotonic() - started_s < 30
        assert len(server.heads) == 1
        assert "timed out. The rates of 2 days are missing" in told.text


def test_nobody_there(ask, clock, told):
    with Answers(answered()) as server:
        rates = ask(server.url)
    rates.refresh([("USD", FRIDAY)])
    assert "127.0.0.1: connection refused." in told.text
    assert SECRET not in told.text


# --- how often ----------------------------------------------------------------------------------


def test_a_day_that_is_over_is_asked_for_once(ask, clock):
    with Answers(answered()) as server:
        rates = ask(server.url)
        for _ in range(3):
            rates.refresh([("USD", FRIDAY)])
            clock.now_s += 10**6
        assert len(server.heads) == 1


def test_a_day_that_goes_on_is_asked_for_again(ask, clock):
    today = date(2026, 11, 16)
    yesterday = today - timedelta(days=1)
    new = answered(today, '{"USD": 1.2}')
    with Answers(answered(yesterday), new, answered(today, '{"USD": 1.3}')) as server:
        rates = ask(server.url)
        rates.refresh([("USD", today)])
        assert value(rates, today) == ("1.1172", yesterday, "127.0.0.1")
        rates.refresh([("USD", today)])
        assert len(server.heads) == 1
        clock.now_s += 3600
        rates.refresh([("USD", today)])
        assert value(rates, today) == ("1.2", today, "127.0.0.1")
        clock.now_s += 12 * 3600  # it is over: once more
        for _ in range(2):
            rates.refresh([("USD", today)])
        assert value(rates, today) == ("1.3", today, "127.0.0.1")
        assert len(server.heads) == 3


def test_a_day_that_is_still_to_come_has_the_rates_of_today(ask, clock):
    with Answers(answered(date(2026, 11, 16))) as server:
        rates = ask(server.url)
        rates.refresh([("USD", date(2026, 11, 17))])
        assert paths(server) == [f"/v1/2026-11-16?key={SECRET}"]
        assert value(rates, date(2026, 11, 17)) == ("1.1172", date(2026, 11, 16), "127.0.0.1")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_day_that_there_is_nothing_of_is_asked_for_tomorrow(ask, clock, told, status):
    with Answers(http(status), answered()) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        rates.refresh([("USD", FRIDAY)])
        assert len(server.heads) == 1
        (line,) = told.messages
        assert f"127.0.0.1 has no rates of 2026-10-30 ({status} " in line
        clock.now_s += 24 * 3600
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")


def test_what_does_not_fit_into_twenty_seconds_comes_another_time(ask, clock, monkeypatch):
    days = [FRIDAY - timedelta(days=n) for n in range(5)]
    with Answers(answered(FRIDAY - timedelta(days=9))) as server:
        rates = ask(server.url)
        ask_once = rates._ask_once

        def slowly(day):
            clock.now_s += 8
            return ask_once(day)

        monkeypatch.setattr(rates, "_ask_once", slowly)
        wanted = [("USD", day) for day in days]
        rates.refresh(wanted)
        assert len(server.heads) == 3
        rates.refresh(wanted)
        rates.refresh(wanted)
        assert sorted(path[4:14] for path in paths(server)) == sorted(map(str, days))


# --- the cache ----------------------------------------------------------------------------------


def test_it_survives_a_restart(ask, clock, tmp_path):
    with Answers(answered(), http(404)) as server:
        rates = ask(server.url)
        rates.refresh([("USD", FRIDAY)])
        rates.refresh([("USD", date(2026, 10, 1))])
        url = server.url
    again = ask(url)  # where nobody answers any more
    again.refresh([("USD", FRIDAY), ("USD", date(2026, 10, 1))])
    assert value(again) == ("1.1172", FRIDAY, "127.0.0.1")
    assert value(again, currency="USD", base="JPY")[0] == "157.25026852846401719"
    (file,) = (tmp_path / "rates").iterdir()
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert SECRET not in file.read_text() + file.name


def test_another_url_has_another_cache(ask, clock):
    with Answers(answered()) as server:
        ask(server.url).refresh([("USD", FRIDAY)])
        ask(server.url, "/v2/{date}").refresh([("USD", FRIDAY)])
        assert len(server.heads) == 2


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"x": {}}', '{"2026-10-30": 3}', '{"2026-10-30": {"asked_at": "x"}}']
)
def test_a_damaged_cache_is_made_anew(ask, clock, told, tmp_path, text):
    with Answers(answered()) as server:
        rates = ask(server.url)
        (tmp_path / "rates").mkdir()
        rates._file.write_text(text)
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")
        assert json.loads(rates._file.read_text())["2026-10-30"]["rates"]["USD"] == "1.1172"
        assert text == "[]" or "its rates are asked for again" in told.text


def test_a_directory_that_can_not_be_written_costs_the_cache_alone(clock, told, tmp_path):
    (tmp_path / "rates").write_text("in the way")
    with Answers(answered()) as server:
        rates = Service(server.url + "/{date}", tmp_path / "rates", 7)
        rates.refresh([("USD", FRIDAY)])
        assert value(rates) == ("1.1172", FRIDAY, "127.0.0.1")
        assert "its rates are asked for again after a restart" in told.text


def test_it_keeps_no_more_than_what_was_asked_for_last(ask, clock, monkeypatch):
    monkeypatch.setattr(service, "_MOST_DAYS", 3)
    days = [FRIDAY - timedelta(days=n) for n in range(5)]
    with Answers(answered(FRIDAY - timedelta(days=9))) as server:
        rates = ask(server.url)
        for day in days:
            rates.refresh([("USD", day)])
            clock.now_s += 1
        kept = json.loads(rates._file.read_text())
        assert sorted(kept) == sorted(map(str, days[2:]))
        rates.refresh([("USD", day) for day in days[:2]] * 2)
        assert len(server.heads) == 7


# --- where it may ask ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"http://rates.example.com/{{date}}?key={SECRET}",
        f"http://rates.example.com/{SECRET}/{{date}}",
        f"https://rates.example.com/{SECRET}",
        f"https://{{date}}.example.com/{SECRET}",
        "ftp://127.0.0.1/{date}",
        "rates",
    ],
)
def test_what_can_not_be_used_is_refused_without_its_secret(tmp_path, url):
    with pytest.raises(ValueError, match="must be https, or http to this machine") as refused:
        Service(url, tmp_path, 7)
    assert SECRET not in str(refused.value)


def test_its_requests_make_no_spans(ask, clock, monkeypatch):
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen = []
    with Answers(answered()) as server:
        rates = ask(server.url)
        rates.refresh([])
        import requests

        send = requests.Session.send

        def watched(*args, **more):
            seen.append(is_instrumentation_enabled())
            return send(*args, **more)

        monkeypatch.setattr(requests.Session, "send", watched)
        rates.refresh([("USD", FRIDAY)])
    assert seen == [False]
    assert rates.rate("EUR", "USD", FRIDAY).value == Decimal("1.1172")
