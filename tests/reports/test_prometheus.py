"""What is asked of Prometheus, and what is said where it can't be; with a real one in
tests/cli/test_reconcile.py."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from grafana import queries
from pbmon import catalog
from pbmon.reports import prometheus
from pbmon.reports.metrics import Metrics
from pbmon.reports.prometheus import Gained, Prometheus, PrometheusError
from pbmon.settings import Settings
from tests.stack.process import HOST, unused_port


@contextmanager
def answering(answer):
    """A server; answer(path, parameters) → status and what its JSON is. Gives its URL and what it
    was asked: path, parameters, headers."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            parameters = {key: value for key, (value,) in parse_qs(parts.query).items()}
            asked.append((parts.path, parameters, dict(self.headers)))
            status, value = answer(parts.path, parameters)
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def vector(*values):
    result = [{"metric": {}, "value": [1, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@contextmanager
def asking(url, **options):
    made = Prometheus(url, **options)
    yield made
    made.close()


def gained(made):
    return made.gained("uuid-1", "EUR", 2, 1_795_608_000_000_000, 1_795_694_400_000_000)


def test_the_form_is_the_one_of_the_dashboards():
    form = queries._OF_STORE.replace("{end}", "").replace("{start}", "{window}")
    assert form == prometheus.GAINED


def test_the_form_of_processes_is_the_one_of_the_dashboards():
    form = queries._OF_PROCESS.replace("{end}", "").replace("{start}", "{window}")
    assert form == prometheus.GAINED_BY_PROCESSES


def told_of(**labels):
    def answer(_path, parameters):
        assert parameters["query"]
        return 200, {"data": {"result": [{"metric": labels, "value": [1, "7"]}]}}

    return answer


HOUR = (1_795_608_000_000_000, 1_795_611_600_000_000)


def test_what_processes_counted_is_asked_by_attributes_within_a_service():
    told = told_of(db_system_name="sqlite", db_query_summary='SELECT "x"')
    with answering(told) as (url, asked):
        metrics = Metrics(Settings(prometheus_url=url), 'my "shop"', "production")
        assert metrics.gains(catalog.SLOW_QUERIES, *HOUR) == {("sqlite", 'SELECT "x"'): 7}
        metrics.close()
    ((_, parameters, _),) = asked
    series = (
        'pbmon_db_slow_queries_total{service_name="my \\"shop\\"", '
        'deployment_environment_name="production"}'
    )
    assert parameters["query"] == (
        "sum by (db_system_name, db_query_summary) (clamp_min("
        f"max_over_time({series}[3600s]) - (last_over_time({series}[1d] offset 3600s)"
        f" or max_over_time({series}[3600s]) * 0), 0))"
    )
    assert parameters["time"] == "1795611599.999"


def test_the_newest_value_of_a_gauge_and_attributes_that_are_absent():
    with answering(told_of(http_route="/pay", pbmon_budget_limit="p95")) as (url, asked):
        metrics = Metrics(Settings(prometheus_url=url), "shop", None)
        start, end = HOUR[0] + 1, HOUR[1] + 999_999  # whole seconds are asked for
        found = metrics.newest(catalog.BUDGET_ALLOWED, start, end)
        metrics.close()
    assert found == {("", "/pay", "", "p95"): 7}
    assert asked[0][1]["query"] == (
        "max by (http_request_method, http_route, pbmon_operation, pbmon_budget_limit)"
        ' (last_over_time(pbmon_budget_allowed_ratio{service_name="shop"}[3600s]))'
    )


@pytest.mark.parametrize(
    "body", [{"data": {"result": [{"metric": {}}]}}, {"data": {"result": [7]}}, {"data": []},
             {"data": {"result": [{"metric": {}, "value": [1, "x"]}]}}],
)  # fmt: skip
def test_an_answer_of_many_that_is_none(body):
    with answering(lambda *_: (200, body)) as (url, _):
        metrics = Metrics(Settings(prometheus_url=url), "shop", None)
        with pytest.raises(PrometheusError, match="does not answer as Prometheus does"):
            metrics.gains(catalog.SLOW_QUERIES, *HOUR)
        metrics.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (None, "set prometheus_url to have it from Prometheus"),
        ("env:NOT_SET", "prometheus_url is env:NOT_SET, which is not set"),
        ("http://prometheus:9090", "prometheus_url: http://prometheus:9090 would be used un"),
    ],
)
def test_without_a_prometheus_it_says_how_to_have_one(url, said):
    metrics = Metrics(Settings(prometheus_url=url), "shop", None)
    with pytest.raises(PrometheusError, match=said):
        metrics.gains(catalog.SLOW_QUERIES, *HOUR)
    metrics.close()


def test_it_asks_for_this_store_in_its_currency_a_millisecond_before_the_day_ends():
    with (
        answering(lambda *_: (200, vector("12.5"))) as (url, asked),
        asking(f"{url}/prom/", token="t0k") as made,
    ):
        assert gained(made) == Gained(1250, 1250, 12, 12)
    assert {path for path, _, _ in asked} == {"/prom/api/v1/query"}
    assert {parameters["time"] for _, parameters, _ in asked} == {"1795694399.999"}
    assert {headers["Authorization"] for _, _, headers in asked} == {"Bearer t0k"}
    series = 'pbmon_revenue_total{instance="uuid-1", pbmon_currency="EUR"}'
    store = "by (instance, pbmon_currency)"
    found = [parameters["query"] for _, parameters, _ in asked]
    assert f"sum(count_over_time({series}[86400s]))" in found
    assert (
        f"sum(max {store} (max_over_time({series}[86400s]))"
        f" - (max {store} (last_over_time({series}[7d] offset 86400s))"
        f" or min {store} (min_over_time({series}[86400s]))))"
    ) in found
    assert sum('pbmon_transaction_status="completed"' in query for query in found) == 1
    assert sum("pbmon_refunds_total" in query for query in found) == 1


def test_large_amounts_are_exact_and_small_errors_are_none():
    with (
        answering(lambda *_: (200, vector("9999999999999.990000001"))) as (url, _),
        asking(url) as made,
    ):
        assert gained(made).revenue_minor == 999_999_999_999_999


def test_without_samples_there_is_nothing():
    with answering(lambda *_: (200, vector())) as (url, _), asking(url) as made:
        assert gained(made) == Gained(None, None, None, 0)


@pytest.mark.parametrize(
    ("told", "keeps_s"),
    [
        ("90d", 90 * 86_400), ("15d or 8GiB", 15 * 86_400), ("1y2w", 379 * 86_400), ("8GiB", None),
        ("", None), (7, None),
    ],
)  # fmt: skip
def test_for_how_long_it_keeps_samples(told, keeps_s):
    answer = {"status": "success", "data": {"storageRetention": told}}
    with answering(lambda *_: (200, answer)) as (url, _), asking(url) as made:
        assert made.keeps_s() == keeps_s


def test_what_only_speaks_its_language_need_not_say():
    with answering(lambda *_: (404, {})) as (url, _), asking(url) as made:
        assert made.keeps_s() is None


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {}, "answers 401 unauthorized; check the setting prometheus_token"),
        (403, {}, "answers 403 forbidden; check the setting prometheus_token"),
        (404, {}, "answers 404 not found; check the path of the setting prometheus_url"),
        (302, {}, "answers 302 found; see its log"),
        (503, {}, "answers 503 service unavailable; see its log"),
        (200, b"<html>", "does not answer as Prometheus does; check the setting prometheus_url"),
        (200, [], "does not answer as Prometheus does"),
        (200, {"data": {"result": [{"value": 7}]}}, "does not answer as Prometheus does"),
        (200, {"data": {"result": 7}}, "does not answer as Prometheus does"),
        (200, vector("1", "2"), "does not answer as Prometheus does"),
        (200, vector("x"), "does not answer as Prometheus does"),
        (200, vector("NaN"), "has no number for sum("),
    ],
)
def test_an_answer_that_is_none_is_one_line(status, body, said):
    with (
        answering(lambda *_: (status, body)) as (url, _),
        asking(url.replace("//", "//app:hunter2@")) as made,
        pytest.raises(PrometheusError) as raised,
    ):
        gained(made)
    assert said in str(raised.value)
    assert str(raised.value).startswith("http://REDACTED@127.0.0.1:")
    assert "hunter2" not in str(raised.value)


def test_nobody_there():
    with (
        asking(f"http://{HOST}:{unused_port()}") as made,
        pytest.raises(PrometheusError, match="can't be asked: connection refused; see that it"),
    ):
        gained(made)


def test_it_goes_to_no_other_machine_unencrypted():
    with pytest.raises(ValueError, match="prometheus_url: http://prometheus:9090 would be used un"):
        Prometheus("http://prometheus:9090")


def test_a_token_is_read_from_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("of the file\n", encoding="utf-8")
    monkeypatch.setenv("TOKEN", "of the variable")
    monkeypatch.delenv("NOT_SET", raising=False)
    with answering(lambda *_: (200, vector())) as (url, asked):
        for place in (f"file:{tmp_path}/token", "env:TOKEN", None):
            settings = Settings(prometheus_url=url, prometheus_token=place)
            made = prometheus.connect(settings)
            made.keeps_s()
            made.close()
        with pytest.raises(PrometheusError, match="prometheus_token is env:NOT_SET"):
            prometheus.connect(Settings(prometheus_url=url, prometheus_token="env:NOT_SET"))
    sent = [headers.get("Authorization") for _, _, headers in asked]
    assert sent == ["Bearer of the file", "Bearer of the variable", None]
