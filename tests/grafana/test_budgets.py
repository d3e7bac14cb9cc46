"""The budgets dashboard's queries, from the committed JSON, against data whose truth is known:
exact over restarts, for routes with and without a method, for operations, at any threshold."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from tests.grafana.panel_queries import load, panel_queries
from tests.grafana.promtool import DAY, HOUR, Labels, Process, check_all, data, labels

REQUESTS = "pbmon_budget_requests_total"
BREACHES = "pbmon_budget_breaches_total"
THRESHOLD = "pbmon_budget_threshold_seconds"
ALLOWED = "pbmon_budget_allowed_ratio"
BUCKET = "http_server_request_duration_seconds_bucket"

COLUMNS = ("Threshold", "Requests", "Breaches", "Share", "Allowed", "Left")
EDGES = (0.1, 0.2, 0.25, 0.3, 0.5, 1.0)
END = 26 * HOUR

Promise = dict[str, str]


def promise(limit: str, route: str = "", method: str = "", operation: str = "") -> Promise:
    named = {
        "http_route": route, "http_request_method": method, "pbmon_operation": operation,
        "pbmon_budget_limit": limit,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value}


PROMISES = [
    # what, threshold (s), allowed, how often it is broken
    (promise("p95", "/api/pay/{id}"), 0.3, 0.05, 0.08),
    (promise("p99", "/api/pay/{id}"), 0.5, 0.01, 0.005),
    (promise("max", "/api/pay/{id}"), 1.0, 0.0, 0.002),
    (promise("availability", "/api/pay/{id}"), None, 0.001, 0.01),
    (promise("p95", "/api/pay/{id}", "POST"), 0.25, 0.05, 0.01),
    (promise("max", operation="close the day"), 60.0, 0.0, 0.3),
    (promise("p95", "/never/asked"), 0.3, 0.05, 0.0),
]


class Site:
    """Three workers over a day, each replaced every two hours, and what they counted."""

    def __init__(self, seed: int = 5) -> None:
        random = Random(seed)
        self.counts: dict[str, list[Process]] = {}
        self.truth: dict[str, Counter[tuple[int, Labels]]] = {}
        lives = [
            (f"{worker}-{start}", start, min(start + 2 * HOUR, END))
            for worker in range(3)
            for start in range(worker * 40, END, 2 * HOUR)
        ]
        for metric in (REQUESTS, BREACHES):
            self.counts[metric] = [Process(*life) for life in lives]
            self.truth[metric] = Counter()
        for place, (_, start, _) in enumerate(lives):
            for names, *_ in PROMISES:  # at 0 from the start
                for metric in (REQUESTS, BREACHES):
                    self.counts[metric][place].count(start, 0, **names)
        for _ in range(3000):
            place = random.randrange(len(lives))
            _, start, end = lives[place]
            minute = random.randrange(start, end)
            for names, _, _, broken in PROMISES[:-1]:
                self._count(REQUESTS, place, minute, names)
                if random.random() < broken:
                    self._count(BREACHES, place, minute, names)

    def _count(self, metric: str, place: int, minute: int, names: Promise) -> None:
        self.counts[metric][place].count(minute, **names)
        self.truth[metric][minute, labels(**names)] += 1

    def of(self, metric: str, names: Promise, window: int, at: int) -> int:
        which = labels(**names)
        return sum(
            count
            for (minute, found), count in self.truth[metric].items()
            if found == which and at - window < minute <= at
        )

    def lines(self) -> list[dict[str, str]]:
        found = [
            line
            for metric, processes in self.counts.items()
            for line in data(processes, metric, END)
        ]
        for process in self.counts[REQUESTS]:
            minutes = range(process.start, min(process.end, END) + 1)
            for names, threshold, allowed, _ in PROMISES:
                if threshold is not None:
                    found.append(process.gauge(THRESHOLD, threshold, minutes, **names))
                found.append(process.gauge(ALLOWED, allowed, minutes, **names))
        return found


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


def panel(title: str, **values: str) -> str:
    (expr,) = panel_queries("budgets", title, **values)
    return expr


def expected(site: Site, window: int, at: int) -> dict[str, dict[Labels, float]]:
    """Column of the table → what it has."""
    found: dict[str, dict[Labels, float]] = {name: {} for name in COLUMNS}
    for names, threshold, allowed, _ in PROMISES:
        which = labels(**names)
        requests, breaches = (site.of(m, names, window, at) for m in (REQUESTS, BREACHES))
        if threshold is not None:
            found["Threshold"][which] = threshold
        found["Requests"][which] = requests
        found["Breaches"][which] = breaches
        found["Allowed"][which] = allowed
        if requests:
            found["Share"][which] = breaches / requests
            if allowed:
                found["Left"][which] = 1 - breaches / requests / allowed
    return found


def test_each_column_of_the_table_is_exact_while_workers_restart(site):
    wanted = []
    for at, window, range_ in ((END - 5, DAY, "24h"), (5 * HOUR + 7, 2 * HOUR, "2h")):
        queries = panel_queries("budgets", "Budgets", range_=range_)
        truth = expected(site, window, at)
        wanted += [(e, at, truth[name]) for e, name in zip(queries, COLUMNS, strict=True)]
        shares = truth["Share"]
        broken: Counter[Labels] = Counter()
        for names, _, allowed, _ in PROMISES:
            if labels(**names) in shares:
                limit = labels(pbmon_budget_limit=names["pbmon_budget_limit"])
                broken[limit] += int(shares[labels(**names)] > allowed)
        assert len(broken) == 4 and sum(broken.values()) >= 3
        wanted.append((panel("Promises Broken", range_=range_), at, dict(broken)))
    check_all(site.lines(), wanted)


def test_just_what_is_allowed_breaks_no_promise():
    """Also where the share is no exact number: 1 - 0.9995 is less than 0.0005."""
    process, lines = Process("p", 0), []
    breaking = Process("p", 0)
    for names, breaches, allowed in (
        (promise("availability", "/kept"), 5, 1 - 0.9995),
        (promise("p95", "/kept"), 500, 0.05),
        (promise("max", "/kept"), 0, 0.0),
        (promise("p99", "/kept"), 101, 0.01),
    ):
        process.count(5, 10_000, **names)
        breaking.count(5, breaches, **names)
        lines.append(process.gauge(ALLOWED, 1, range(60), **names))
        lines[-1]["values"] = " ".join([repr(allowed)] * 60)
    lines += data([process], REQUESTS, 59) + data([breaking], BREACHES, 59)
    broken = {"availability": 0, "p95": 0, "max": 0, "p99": 1}
    wanted = {labels(pbmon_budget_limit=name): count for name, count in broken.items()}
    check_all(lines, [(panel("Promises Broken"), 59, wanted)])


def test_graphs_of_an_hour_are_exact(site):
    lines, wanted = site.lines(), []
    for at in (3 * HOUR, 20 * HOUR + 13):
        truth = expected(site, HOUR, at)
        burns = {which: 1 - left for which, left in truth["Left"].items()}
        wanted.append((panel("Burn Rate (1h)"), at, burns))
        wanted.append((panel("Breaches per Hour"), at, truth["Breaches"]))
        available, promised = panel_queries("budgets", "Availability (1h)")
        (which,) = (labels(**names) for names, *_ in PROMISES if "availability" in names.values())
        short = tuple(pair for pair in which if pair[0] != "pbmon_budget_limit")
        wanted.append((available, at, {short: 1 - truth["Share"][which]}))
        wanted.append((promised, at, {short: 0.999}))
    check_all(lines, wanted)


def test_one_endpoint_is_chosen(site):
    at, route = 20 * HOUR, r"(/never/asked|/api/pay/\\{id\\})"
    chosen = [
        which for names, *_ in PROMISES if "http_route" in names for which in [labels(**names)]
    ]
    truth = expected(site, HOUR, at)["Breaches"]
    check_all(
        site.lines(),
        [
            (panel("Breaches per Hour", endpoint=route), at, {w: truth[w] for w in chosen}),
            (panel("Breaches per Hour", endpoint="/none"), at, {}),
        ],
    )


def answers(route: str, method: str, durations: list[float], **more: str) -> list[dict[str, str]]:
    """Buckets of a process that gives each of these answers once a minute for an hour."""
    process = Process("p", 0)
    for minute in range(HOUR):
        for edge in (*EDGES, float("inf")):
            count = sum(duration <= edge for duration in durations)
            process.count(
                minute, count, le="+Inf" if edge == float("inf") else f"{edge:g}",
                http_route=route, http_request_method=method, **more,
            )  # fmt: skip
    return data([process], BUCKET, HOUR - 1)


def limit(route: str, limit: str, threshold: float, method: str = "") -> dict[str, str]:
    names = promise(limit, route, method)
    return Process("p", 0).gauge(THRESHOLD, threshold, range(HOUR), **names)


def test_p95_stands_beside_its_threshold():
    """At an edge of a bucket it is exact; what failed is not in it, nor what has no budget."""
    slow = [0.05] * 94 + [0.28] * 6  # 95 of 100 are within the bucket that ends at 0.3
    lines = [
        *answers("/pay", "GET", slow),
        *answers("/pay", "POST", [0.05] * 95 + [0.8] * 5),
        *answers("/pay", "GET", [2.0] * 50, error_type="500"),
        *answers("/other", "GET", [0.9] * 10),
        limit("/pay", "p95", 0.3),
        limit("/pay", "p95", 0.1, "POST"),
        limit("/pay", "max", 0.5),
    ]
    any_method, one_method, thresholds = panel_queries("budgets", "p95 beside Its Limit")
    at = HOUR - 1
    # Of both methods 189 of 200 are within 0.1 s, so the 190th is the first of 6 in (0.25, 0.3].
    both = 0.25 + 0.05 * (190 - 189) / 6
    route, posted = labels(http_route="/pay"), labels(http_request_method="POST", http_route="/pay")
    check_all(
        lines,
        [
            (any_method, at, {route: both}),
            (one_method, at, {posted: 0.1}),
            (thresholds, at, {route: 0.3, posted: 0.1}),
            *((expr, at, {}) for expr in panel_queries("budgets", "p99 beside Its Limit")),
        ],
    )


def test_no_series_give_no_figure():
    titles = [each["title"] for each in load("budgets")["panels"]]
    assert len(titles) == 7
    check_all([], [(expr, DAY, {}) for t in titles for expr in panel_queries("budgets", t)])


def test_no_number_of_a_budget_is_in_the_dashboard():
    """What it compares with are the metrics: another budget needs no other dashboard."""
    text = " ".join(
        target["expr"] for each in load("budgets")["panels"] for target in each["targets"]
    )
    assert re.findall(r"\b0\.\d+", text) == ["0.95"] * 2 + ["0.99"] * 2


def test_the_table_s_columns_have_their_names_and_units():
    (panel,) = (each for each in load("budgets")["panels"] if each["title"] == "Budgets")
    merge, organize = panel["transformations"]
    assert merge["id"] == "merge"
    renamed = organize["options"]["renameByName"]
    assert [renamed[f"Value #{letter}"] for letter in "ABCDEF"] == list(COLUMNS)
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEF")
    assert {target["format"] for target in panel["targets"]} == {"table"}
    units = {
        rule["matcher"]["options"]: rule["properties"][0]["value"]
        for rule in panel["fieldConfig"]["overrides"]
    }
    assert units == {
        "Threshold": "s", "Requests": "locale", "Breaches": "locale", "Share": "percentunit",
        "Allowed": "percentunit", "Left": "percentunit",
    }  # fmt: skip
