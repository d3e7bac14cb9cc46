"""The errors dashboard's queries, from the committed JSON, against data whose truth is known."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from tests.grafana.panel_queries import load, panel_queries
from tests.grafana.promtool import DAY, HOUR, Labels, Process, check_all, data, labels

ERRORS = "pbmon_errors_total"
REQUESTS = "http_server_request_duration_seconds_count"
ABORTED = "pbmon_http_server_aborted_requests_total"
FAILED_QUERIES = "pbmon_db_errors_total"

END = 26 * HOUR
NOTHING = labels()
TYPES = [f"Error{n:02}" for n in range(13)]
ROUTES = ("/pay/{id}", "/users", "")


def named(**values: str) -> dict[str, str]:
    """As Prometheus has them: no label that is empty."""
    return {name: value for name, value in values.items() if value}


class Site:
    """Workers of two releases over a day, each replaced every two hours; what they counted."""

    def __init__(self) -> None:
        random = Random(2)
        self.lives = []
        for worker in range(3):
            for start in range(worker * 40, END, 2 * HOUR):
                life = Process(f"{worker}-{start}", start, min(start + 2 * HOUR, END))
                release = "1.4" if start < 12 * HOUR else "1.5"
                life.resource = {**life.resource, "service_version": release}
                self.lives.append(life)
        self.events: dict[str, list[tuple[int, str, dict[str, str]]]] = {}
        self.series: list[tuple[str, Process]] = []
        for metric, how_often in ((ERRORS, 900), (REQUESTS, 4000), (ABORTED, 60),
                                  (FAILED_QUERIES, 80)):  # fmt: skip
            self.events[metric] = []
            counting = [
                Process(x.instance, x.start, x.end, resource=x.resource) for x in self.lives
            ]
            for _ in range(how_often):
                life = random.choice(counting)
                minute = random.randrange(life.start, life.end + 1)
                names = self._labels(metric, random)
                life.count(minute, **names)
                self.events[metric].append((minute, life.resource["service_version"], names))
            self.series += [(metric, life) for life in counting]

    def _labels(self, metric: str, random: Random) -> dict[str, str]:
        route = random.choice(ROUTES)
        if metric == ERRORS:
            kind = random.choices(TYPES, range(3, 3 + len(TYPES)))[0]
            return named(error_type=kind, http_route=route)
        if metric == FAILED_QUERIES:
            code = random.choice(("23505", "40001", ""))
            return named(error_type="psycopg2.Error", db_response_status_code=code)
        failed = random.choice(("500", "ValueError")) if random.random() < 0.1 else ""
        method = random.choice(("GET", "POST"))
        if metric == ABORTED:
            failed = ""
        return named(http_request_method=method, http_route=route, error_type=failed)

    def lines(self) -> list[dict[str, str]]:
        return [line for metric, life in self.series for line in data([life], metric, END)]

    def counts(self, metric: str, window: int, at: int, *by: str) -> Counter[Labels]:
        """by: labels; service_version is the release."""
        found: Counter[Labels] = Counter()
        for minute, release, names in self.events[metric]:
            of_all = {**names, "service_version": release}
            key = labels(**{name: of_all[name] for name in by if name in of_all})
            found[key] += at - window < minute <= at
        return found


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


def panel(title: str, **values: str) -> str:
    (expr,) = panel_queries("errors", title, **values)
    return expr


def test_the_numbers_at_the_top_are_exact_while_workers_restart(site):
    wanted = []
    for at, window, range_ in ((END - 5, DAY, "24h"), (5 * HOUR + 7, 2 * HOUR, "2h")):
        requests = site.counts(REQUESTS, window, at)[NOTHING]
        failed = sum(
            count for key, count in site.counts(REQUESTS, window, at, "error_type").items() if key
        )
        for title, value in (
            ("Errors", site.counts(ERRORS, window, at)[NOTHING]),
            ("Failed Requests", failed / requests),
            ("Aborted Requests", site.counts(ABORTED, window, at)[NOTHING]),
            ("Failed Statements", site.counts(FAILED_QUERIES, window, at)[NOTHING]),
        ):
            wanted.append((panel(title, range_=range_), at, {NOTHING: value}))
    check_all(site.lines(), wanted)


def test_where_requests_ran_and_nothing_failed_it_says_zero():
    process = Process("p", 0)
    for minute in range(HOUR):
        process.count(minute, 2, http_route="/", http_request_method="GET")
    titles = ("Errors", "Failed Requests", "Aborted Requests", "Failed Statements")
    lines = data([process], REQUESTS, HOUR)
    check_all(lines, [(panel(title), HOUR, {NOTHING: 0}) for title in titles])


def test_an_hour_s_errors_by_type_and_its_aborted_requests(site):
    lines, wanted = site.lines(), []
    for at in (3 * HOUR, 20 * HOUR + 13):
        for title, metric, by in (
            ("Errors per Hour", ERRORS, ("error_type",)),
            ("Aborted Requests per Hour", ABORTED, ("http_request_method", "http_route")),
        ):
            found = {key: n for key, n in site.counts(metric, HOUR, at, *by).items() if n}
            # A series of which nothing was counted in the hour, but which is there, says 0.
            wanted.append((f"({panel(title)}) > 0", at, found))
    check_all(lines, wanted)


def test_the_ten_types_with_the_most_errors_by_route(site):
    at = END - 5
    by_type = site.counts(ERRORS, DAY, at, "error_type")
    ranked = sorted(by_type.values(), reverse=True)
    assert ranked[9] > ranked[10], "a tie would leave the tenth place open"
    top = {key for key, count in by_type.items() if count >= ranked[9]}
    both = site.counts(ERRORS, DAY, at, "error_type", "http_route")
    expected = {
        key: count
        for key, count in both.items()
        if count and labels(error_type=dict(key)["error_type"]) in top
    }
    assert len({dict(key)["error_type"] for key in expected}) == 10
    check_all(site.lines(), [(panel("Top Types"), at, expected)])


def test_each_release_has_its_errors_for_each_request(site):
    at = END - 5
    requests = site.counts(REQUESTS, DAY, at, "service_version")
    errors = site.counts(ERRORS, DAY, at, "service_version")
    shares = {key: errors[key] / count for key, count in requests.items()}
    assert len(shares) == 2
    check_all(site.lines(), [(panel("Errors by Release"), at, shares)])


def test_a_release_without_an_error_has_none():
    lives = [Process("old", 0), Process("new", 10), Process("unnamed", 0)]
    for life, release in zip(lives, ("1.4", "1.5", "")):
        life.resource = {**life.resource, **named(service_version=release)}
        life.count(20, 50, http_route="/")
    failing = [Process("old", 0, resource=lives[0].resource)]
    failing[0].count(20, 5, error_type="ValueError")
    lines = data(lives, REQUESTS, 30) + data(failing, ERRORS, 30)
    shares = {labels(service_version="1.4"): 0.1, labels(service_version="1.5"): 0}
    check_all(lines, [(panel("Errors by Release"), 30, shares)])


def test_what_databases_refused_by_class_and_code(site):
    at = END - 5
    found = site.counts(FAILED_QUERIES, DAY, at, "error_type", "db_response_status_code")
    assert len(found) == 3
    check_all(site.lines(), [(panel("Database Errors"), at, dict(found))])


def test_rates_by_type_and_the_share_of_each_route_that_failed():
    process = Process("p", 0)
    errors = Process("p", 0)
    for minute in range(HOUR):
        errors.count(minute, 6, error_type="ValueError", http_route="/pay")
        process.count(minute, 45, http_request_method="GET", http_route="/pay")
        process.count(minute, 15, http_request_method="GET", http_route="/pay", error_type="500")
        process.count(minute, 15, http_request_method="GET", http_route="/other")
    lines = data([process], REQUESTS, HOUR) + data([errors], ERRORS, HOUR)
    route = labels(http_request_method="GET", http_route="/pay")
    check_all(
        lines,
        [
            (panel("Error Rate"), HOUR - 1, {labels(error_type="ValueError"): 0.1}),
            (panel("Failed Requests by Route"), HOUR - 1, {route: 0.25}),
        ],
    )


def test_no_series_give_no_figure():
    titles = [each["title"] for each in load("errors")["panels"]]
    assert len(titles) == 11
    check_all([], [(expr, DAY, {}) for t in titles for expr in panel_queries("errors", t)])
