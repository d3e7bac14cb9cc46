"""The business dashboard's queries, from the committed JSON, against data whose truth is known."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest

from grafana import queries
from pbmon import catalog
from tests.grafana.panel_queries import interpolate, panel_queries
from tests.grafana.promtool import DAY, HOUR, Labels, Process, check, labels, series
from tests.stack.servers import ServerError

REVENUE = "pbmon_revenue_total"
FEATURES = "pbmon_feature_usage_total"
TRANSACTIONS = "pbmon_transactions_total"
USERS = "pbmon_users_active"

END = 3 * DAY


def workers(seed: int, life: int = 2 * HOUR) -> list[Process]:
    """Four workers over three days, each replaced every two hours, 20 sales an hour."""
    lives = [
        Process(f"{worker}-{start}", start, min(start + life, END))
        for worker in range(4)
        # Staggered by half an hour, as a rolling restart is.
        for start in range(worker * 30, END, life)
    ]
    random = Random(seed)
    for hour in range(0, END, HOUR):
        for _ in range(20):
            minute = hour + random.randrange(HOUR)
            alive = [life for life in lives if life.start <= minute < life.end]
            # Multiples of a quarter are exact in binary, so the comparison can be exact too.
            amount = random.randrange(1, 4000) / 4
            currency = random.choices(("EUR", "USD", "JPY"), (10, 5, 1))[0]
            if alive:
                random.choice(alive).count(minute, amount, pbmon_currency=currency)
    return lives


def data(processes: list[Process], metric: str, until: int) -> list[dict[str, str]]:
    return [line for process in processes for line in process.series(metric, until)]


def truth(processes: list[Process], window: int, at: int) -> dict[Labels, float]:
    sums: dict[Labels, float] = defaultdict(float)
    for process in processes:
        for which, amount in process.arrived(at - window, at).items():
            sums[which] += amount
    return sums


def revenue_query() -> str:
    (expr,) = panel_queries("business", "Revenue (24h)")
    return expr


def check_revenue(processes: list[Process], at: int, expected: dict[Labels, float]) -> None:
    check(data(processes, REVENUE, at), revenue_query(), at, expected)


EUR, USD = labels(pbmon_currency="EUR"), labels(pbmon_currency="USD")


@pytest.mark.parametrize("at", [7, 3 * HOUR, DAY, DAY + 91, 2 * DAY + 1, 2 * DAY + 667, END])
def test_revenue_is_exact_while_workers_restart(at):
    processes = workers(seed=at)
    expected = truth(processes, DAY, at)
    assert expected
    check_revenue(processes, at, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        "sum by (pbmon_currency) (pbmon_revenue_total)",  # the seed's
        "sum by (pbmon_currency) (increase(pbmon_revenue_total[24h]))",
    ],
)
def test_other_queries_are_not_exact_on_the_same_data(wrong):
    """So the data can tell right from wrong."""
    processes = workers(seed=1)
    with pytest.raises(ServerError, match="pbmon_currency"):
        check(data(processes, REVENUE, 2 * DAY), wrong, 2 * DAY, truth(processes, DAY, 2 * DAY))


def test_a_reused_instance_id_is_not_exact():
    """Why every process has an id of its own: the figure falls when they share one."""
    first, second = Process("same", 0, 10), Process("same", 12)
    first.count(5, 100, pbmon_currency="EUR")
    second.count(15, 100, pbmon_currency="EUR")
    (before,), (after,) = first.series(REVENUE, 20), second.series(REVENUE, 20)
    joined = {**after, "values": " ".join(before["values"].split() + after["values"].split()[11:])}
    with pytest.raises(ServerError):
        check([joined], revenue_query(), 20, {EUR: 200})
    check_revenue([Process("a", 0, 10, events=first.events), second], 20, {EUR: 200})


def test_revenue_counts_with_the_first_sample():
    """A process that sold ten times before its first export has no earlier sample."""
    process = Process("new", 600)
    process.count(600, 250.25, pbmon_currency="EUR")
    check_revenue([process], 599, {})
    check_revenue([process], 600, {EUR: 250.25})


def test_revenue_survives_a_restart_and_the_process_that_left():
    old, new = Process("old", 0, 100), Process("new", 101)
    old.count(50, 10, pbmon_currency="EUR")
    new.count(101, 5, pbmon_currency="EUR")
    for at, value in ((100, 10), (101, 15), (DAY, 15), (DAY + 49, 15), (DAY + 50, 5)):
        check_revenue([old, new], at, {EUR: value})


def test_revenue_goes_when_its_day_is_over():
    process = Process("gone", 0, 100)
    process.count(50, 10, pbmon_currency="EUR")
    check_revenue([process], DAY + 49, {EUR: 10})
    # The process still exported until minute 100, but sold nothing more.
    check_revenue([process], DAY + 50, {EUR: 0})
    check_revenue([process], DAY + 101, {})


def test_revenue_after_a_gap_over_the_start_of_the_window():
    """Five hours without a sample must not show what was earned in a life before them."""
    start = 2 * DAY
    process = Process("long", 0, silent=range(start - 4 * HOUR, start + HOUR))
    process.count(10, 1_000_000, pbmon_currency="EUR")
    process.count(start + 30, 7, pbmon_currency="EUR")  # in the gap: counted when it arrives
    process.count(start + 2 * HOUR, 3, pbmon_currency="EUR")
    at = start + DAY
    assert truth([process], DAY, at) == {EUR: 10}
    check_revenue([process], at, {EUR: 10})


def test_revenue_of_a_quiet_day_is_zero_and_not_missing():
    process = Process("quiet", 0)
    process.count(10, 99, pbmon_currency="EUR")
    check_revenue([process], 3 * DAY, {EUR: 0})


def test_no_series_give_no_figure():
    check([], revenue_query(), DAY, {})


def test_currencies_stay_apart():
    process = Process("both", 0)
    process.count(1, 10, pbmon_currency="EUR")
    process.count(1, 20, pbmon_currency="USD")
    check_revenue([process], 5, {EUR: 10, USD: 20})


def test_environment_and_service_choose():
    production, staging = Process("p", 0), Process("s", 0)
    staging.resource["deployment_environment_name"] = "staging"
    unnamed = Process("u", 0, resource={"service_name": "pocketbook"})
    other = Process("o", 0, resource={"service_name": "other"})
    processes = [production, staging, unnamed, other]
    for amount, process in zip((1, 2, 4, 8), processes):
        process.count(1, amount, pbmon_currency="EUR")
    lines = data(processes, REVENUE, 5)
    for values, figure in (
        ({}, 15),  # All takes in what sets no environment
        ({"service": "pocketbook"}, 7),
        ({"environment": "production"}, 1),
        ({"environment": "(production|staging)"}, 3),
        ({"service": "pocketbook", "environment": "staging"}, 2),
    ):
        (expr,) = panel_queries("business", "Revenue (24h)", **values)
        check(lines, expr, 5, {EUR: figure})


# --- the form for store-fed counters, which revenue will have later -----------------------------


@pytest.fixture
def store_query(monkeypatch):
    monkeypatch.setattr(queries, "SOURCES", {catalog.REVENUE.name: "store"})
    return interpolate(queries.exact(catalog.REVENUE, [catalog.CURRENCY], "24h"))


def store(uuid: str, samples: dict[int, float]) -> dict[str, str]:
    names = {"service_name": "pbmon", "instance": uuid, "pbmon_currency": "EUR"}
    return series(REVENUE, names, samples)


def test_a_new_prometheus_over_an_old_store_shows_only_what_is_new(store_query):
    line = store(
        "a", {minute: 1_000_000 + (10 if minute >= 200 else 0) for minute in range(100, 300)}
    )
    check([line], store_query, 299, {EUR: 10})
    with pytest.raises(ServerError, match="1.00001E"):
        check([line], revenue_query(), 299, {EUR: 10})  # the form for processes


def test_a_store_from_its_installation_on(store_query):
    line = store("a", {minute: 0.0 if minute < 5 else 40.0 for minute in range(1, 30)})
    check([line], store_query, 29, {EUR: 40})


def test_a_stores_figure_over_days_of_silence_and_failover(store_query):
    silent = range(DAY, 4 * DAY)  # the exporter was down; another took over the same store
    line = store("a", {m: float(m) for m in range(0, 5 * DAY, 5) if m not in silent})
    last_before = DAY - 5
    check([line], store_query, 4 * DAY + HOUR, {EUR: 4 * DAY + HOUR - last_before})


def test_two_stores_add_up(store_query):
    lines = [store(uuid, {m: m * 1.0 for m in range(2 * DAY + 1)}) for uuid in ("a", "b")]
    check(lines, store_query, 2 * DAY, {EUR: 2 * DAY})


# --- the other panels ---------------------------------------------------------------------------


def test_feature_usage_is_the_ten_most_used_by_action():
    lives = [Process(f"{worker}-{start}", start, start + 2 * HOUR)
             for worker in range(3) for start in range(0, DAY, 2 * HOUR)]  # fmt: skip
    random = Random(3)
    for place in range(13):  # thirteen features; the later, the more used
        for _ in range(5 + 7 * place):
            life = random.choice(lives)
            life.count(
                random.randrange(life.start, life.end),
                pbmon_feature_name=f"feature-{place}",
                pbmon_feature_action=random.choice(("viewed", "clicked", "completed")),
            )
    at, window = DAY, 6 * HOUR
    use = truth(lives, window, at)
    totals: dict[str, float] = defaultdict(float)
    for which, amount in use.items():
        totals[dict(which)["pbmon_feature_name"]] += amount
    ranked = sorted(totals.values(), reverse=True)
    assert ranked[9] > ranked[10], "a tie would leave the tenth place open"
    top = {name for name, total in totals.items() if total >= ranked[9]}
    expected = {which: n for which, n in use.items() if dict(which)["pbmon_feature_name"] in top}
    (expr,) = panel_queries("business", "Feature Usage", range_="6h")
    check(data(lives, FEATURES, at), expr, at, expected)


def test_a_feature_nobody_used_in_the_range_has_no_bar():
    process = Process("p", 0)
    process.count(5, pbmon_feature_name="export", pbmon_feature_action="viewed")
    process.count(500, pbmon_feature_name="budget", pbmon_feature_action="viewed")
    process.count(5, pbmon_feature_name="budget", pbmon_feature_action="clicked")
    (expr,) = panel_queries("business", "Feature Usage", range_="1h")
    viewed = labels(pbmon_feature_name="budget", pbmon_feature_action="viewed")
    check(data([process], FEATURES, 510), expr, 510, {viewed: 1})
    check(data([process], FEATURES, 600), expr, 600, {})


def test_transaction_rate_is_per_second_by_status():
    processes = [Process("a", 0), Process("b", 0)]
    for process in processes:
        for minute in range(60):
            process.count(minute, 60, pbmon_transaction_status="completed")
            process.count(minute, 6, pbmon_transaction_status="failed")
    (expr,) = panel_queries("business", "Transaction Rate")
    expected = {
        labels(pbmon_transaction_status="completed"): 2.0,
        labels(pbmon_transaction_status="failed"): 0.2,
    }
    check(data(processes, TRANSACTIONS, 59), expr, 59, expected)


def users(instance: str, value: float, minutes: range, window: str = "24h") -> dict[str, str]:
    names = {"service_name": "pocketbook", "instance": instance, "pbmon_window": window}
    return series(USERS, names, dict.fromkeys(minutes, value))


def check_users(lines: list[dict[str, str]], at: int, expected: dict[str, float]) -> None:
    found = panel_queries("business", "Active Users")
    windows = ("24h", "7d", "30d")
    assert len(found) == len(windows)
    for window, expr in zip(windows, found):
        names = labels(pbmon_window=window)
        check(lines, expr, at, {names: expected[window]} if window in expected else {})


def test_active_users_are_not_multiplied_by_workers():
    lines = [users(str(worker), 120, range(60)) for worker in range(4)]
    lines += [users("0", 300, range(60), "7d"), users("0", 500, range(60), "30d")]
    check_users(lines, 59, {"24h": 120, "7d": 300, "30d": 500})


def test_active_users_bridge_a_lost_export_and_end_after_three_minutes():
    line = users("0", 120, range(60))
    for late, expected in ((0, 120), (1, 120), (2, 120), (3, None)):
        # Prometheus leaves a range's start out: a sample three minutes old is too old.
        check_users([line], 59 + late, {} if expected is None else {"24h": expected})


def test_active_users_of_a_replaced_worker_go_after_three_minutes():
    lines = [users("old", 120, range(60)), users("new", 90, range(58, 80))]
    check_users(lines, 61, {"24h": 120})
    check_users(lines, 62, {"24h": 90})
