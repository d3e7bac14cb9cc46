"""The growth dashboard's queries, from the committed JSON, against data whose truth is known.

Exposures are counted by the processes, and looked at over 24 hours: how the form for processes does
over restarts, gaps and the first sample is seen by them.
"""

from __future__ import annotations

from random import Random

import pytest

from pbmon.surveys import BUILT_IN, Survey
from tests.grafana.panel_queries import load, panel_queries
from tests.grafana.promtool import (
    DAY,
    HOUR,
    Labels,
    Process,
    Store,
    check,
    check_all,
    data,
    labels,
    truth,
)  # fmt: skip
from tests.stack.servers import ServerError

EXPOSURES = "pbmon_experiment_exposures_total"
FEATURES = "pbmon_feature_usage_total"
RESPONSES = "pbmon_feedback_responses_total"

END = 3 * DAY
NOTHING = labels()


def panel(title: str, **values: str) -> str:
    (expr,) = panel_queries("growth", title, **values)
    return expr


def test_no_series_give_no_figure():
    titles = [each["title"] for each in load("growth")["panels"]]
    assert len(titles) == 11
    check_all([], [(expr, DAY, {}) for t in titles for expr in panel_queries("growth", t)])


# --- users ---


def gauges(values: dict[str, float], minutes: range = range(60), store: str = "a", **own: str):
    found = Store(store, 0)
    return [found.gauge(name, value, minutes, **own) for name, value in values.items()]


def test_active_users_by_window():
    lines = [
        line
        for store, factor in (("a", 1), ("b", 10))
        for window, users in (("24h", 12), ("7d", 30), ("30d", 50))
        for line in gauges({"pbmon_users_active": users * factor}, store=store, pbmon_window=window)
    ]
    found = panel_queries("growth", "Active Users over Time")
    values = (("24h", 132), ("7d", 330), ("30d", 550))
    check_all(
        lines,
        [
            (expr, 59, {labels(pbmon_window=w): n})
            for expr, (w, n) in zip(found, values, strict=True)
        ],
    )


def test_who_came_and_went_of_two_stores_adds_up():
    names = ("pbmon_users_new", "pbmon_users_reactivated", "pbmon_users_churned")
    lines = gauges(dict(zip(names, (3, 5, 7)))) + gauges(dict(zip(names, (10, 20, 30))), store="b")
    found = panel_queries("growth", "Users Who Came and Went")
    check_all(lines, [(e, 59, {NOTHING: n}) for e, n in zip(found, (13, 25, 37), strict=True)])


def test_registered_users_follow_each_day_and_stand_until_the_next():
    name = "pbmon_users_registered"
    (line,) = gauges({name: 100}, range(DAY))
    later = gauges({name: 130}, range(20))[0]["values"]
    line["values"] += " " + "_ " * (HOUR - 1) + later
    expr = panel("Registered Users")
    wanted = [(DAY - 1, 100), (DAY + HOUR - 2, 100), (DAY + HOUR - 1, 130), (2 * DAY, 130)]
    check_all([line], [(expr, at, {NOTHING: n}) for at, n in wanted] + [(expr, END + HOUR, {})])


def test_shares_of_two_stores_are_their_mean():
    names = ("pbmon_users_retention_ratio", "pbmon_users_stickiness_ratio")
    lines = gauges(dict(zip(names, (0.5, 0.2)))) + gauges(dict(zip(names, (1, 0.4))), store="b")
    found = panel_queries("growth", "Retention and Stickiness")
    check_all(lines, [(e, 59, {NOTHING: n}) for e, n in zip(found, (0.75, 0.3), strict=True)])


# --- features ---


def test_feature_use_is_of_the_hour_before():
    process = Process("p", 0, 3 * HOUR)
    for minute in range(2 * HOUR):
        process.count(minute, 2, pbmon_feature_name="export", pbmon_feature_action="viewed")
    process.count(HOUR, pbmon_feature_name="import", pbmon_feature_action="viewed")
    process.count(HOUR + 1, pbmon_feature_name="import", pbmon_feature_action="clicked")
    viewed, clicked = (labels(pbmon_feature_action=each) for each in ("viewed", "clicked"))
    expr = panel("Feature Use per Hour")
    wanted = [
        (0, {viewed: 2}), (HOUR - 1, {viewed: 120}), (HOUR, {viewed: 121}),
        (2 * HOUR - 1, {viewed: 121, clicked: 1}), (2 * HOUR + 30, {viewed: 58, clicked: 0}),
        (3 * HOUR, {viewed: 0, clicked: 0}), (4 * HOUR, {}),
    ]  # fmt: skip
    check_all(data([process], FEATURES, 3 * HOUR), [(expr, at, found) for at, found in wanted])


def test_viewed_clicked_completed_are_those_of_the_business_dashboard():
    """Where their truth is tested."""
    (business,) = panel_queries("business", "Feature Usage")
    assert panel("From Viewed to Completed") == business
    (shown,) = (p for p in load("growth")["panels"] if p["title"] == "From Viewed to Completed")
    assert shown["options"]["stacking"] == "none"
    (order,) = (t["options"] for t in shown["transformations"] if t["id"] == "organize")
    names = ("viewed", "clicked", "completed")
    assert sorted(names, key=order["indexByName"].__getitem__) == list(names)


# --- experiments: the form for what processes count ---


def variant(name: str, key: str = "checkout") -> dict[str, str]:
    return {"feature_flag_key": key, "feature_flag_result_variant": name}


CONTROL, OTHER = variant("control"), variant("other")
C, T = labels(**CONTROL), labels(**OTHER)


def check_exposures(processes: list[Process], *wanted: tuple[int, dict[Labels, float]]) -> None:
    expr, until = panel("Exposures (24h)"), max(at for at, _ in wanted)
    lines = data(processes, EXPOSURES, until)
    check_all(lines, [(expr, at, expected) for at, expected in wanted])


def workers(seed: int, life: int = 2 * HOUR) -> list[Process]:
    """Four workers over three days, each replaced every two hours, 20 exposures an hour."""
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
            key, name = random.choice(("checkout", "search")), random.choice(("control", "other"))
            if alive:
                random.choice(alive).count(minute, **variant(name, key))
    return lives


def test_exposures_are_exact_while_workers_restart():
    processes = workers(seed=1)
    moments = [HOUR, 3 * HOUR, DAY, DAY + 91, 2 * DAY + 1, 2 * DAY + 667, END]
    check_exposures(processes, *((at, truth(processes, DAY, at)) for at in moments))


@pytest.mark.parametrize("wrong", ["sum by ({}) ({})", "sum by ({}) (increase({}[24h]))"])
def test_other_queries_are_not_exact_on_the_same_data(wrong):
    """So the data can tell right from wrong."""
    processes, at = workers(seed=1), 2 * DAY
    expr = wrong.format("feature_flag_key, feature_flag_result_variant", EXPOSURES)
    with pytest.raises(ServerError, match="feature_flag_key"):
        check(data(processes, EXPOSURES, at), expr, at, truth(processes, DAY, at))


def test_a_reused_instance_id_is_not_exact():
    """Why every process has an id of its own: the figure falls when they share one."""
    first, second = Process("same", 0, 10), Process("same", 12)
    first.count(5, 100, **CONTROL)
    second.count(15, 100, **CONTROL)
    (before,), (after,) = first.series(EXPOSURES, 20), second.series(EXPOSURES, 20)
    joined = {**after, "values": " ".join(before["values"].split() + after["values"].split()[11:])}
    with pytest.raises(ServerError):
        check([joined], panel("Exposures (24h)"), 20, {C: 200})
    check_exposures([Process("a", 0, 10, events=first.events), second], (20, {C: 200}))


def test_it_counts_with_the_first_sample():
    """A process that counted ten times before its first export has no earlier sample."""
    process = Process("new", 600)
    process.count(600, 10, **CONTROL)
    check_exposures([process], (599, {}), (600, {C: 10}))


def test_it_survives_a_restart_and_the_process_that_left():
    old, new = Process("old", 0, 100), Process("new", 101)
    old.count(50, 10, **CONTROL)
    new.count(101, 5, **OTHER)
    check_exposures(
        [old, new],
        (100, {C: 10}), (101, {C: 10, T: 5}), (DAY + 49, {C: 10, T: 5}), (DAY + 50, {T: 5}),
        (DAY + 101, {}),
    )  # fmt: skip


def test_a_gap_over_the_start_of_the_window():
    """Five hours without a sample must not show what was counted in a life before them."""
    start = 2 * DAY
    process = Process("long", 0, silent=range(start - 4 * HOUR, start + HOUR))
    process.count(10, 1_000_000, **CONTROL)
    process.count(start + 30, 7, **CONTROL)  # in the gap: counted when it arrives
    process.count(start + 2 * HOUR, 3, **CONTROL)
    check_exposures([process], (start + DAY, {C: 10}))


def test_exposures_of_the_hour_before_each_point():
    processes = workers(seed=2)
    expr = panel("Exposures per Hour")
    # A life that counted nothing in the hour keeps its series, at 0: these hours have all four.
    wanted = [(expr, at, truth(processes, HOUR, at)) for at in (DAY, DAY + 30, 2 * DAY + 17)]
    check_all(data(processes, EXPOSURES, END), wanted)


# --- feedback ---

SURVEYS = {
    **BUILT_IN, "shop": Survey("nps", (0, 10)), "seven": Survey("csat", (1, 7)),
    "wide": Survey("csat", (0, 20)),
}  # fmt: skip


def answering(instance: str, start: int, end: int, answers: dict[str, dict[int | None, int]]):
    """Every score of every survey is there from the start, at 0, as pbmon exports it."""
    process = Process(instance, start, end)
    for name, survey in SURVEYS.items():
        for score in survey.scores or (None,):
            given = {} if score is None else {"pbmon_feedback_score": str(score)}
            names = {"pbmon_feedback_survey": name, **given}
            process.count(start, 0, **names)
            process.count(start + 1, answers.get(name, {}).get(score, 0), **names)
    return process


ANSWERS = {
    "nps": {0: 2, 6: 3, 7: 4, 8: 1, 9: 5, 10: 6}, "csat": {1: 1, 5: 7}, "text": {None: 9},
    "seven": {1: 2, 7: 3}, "wide": {0: 1, 10: 1, 20: 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def answered():
    """ANSWERS by two lives of a worker, twice; others were given before the last three hours."""
    early = answering("early", 0, HOUR, {"nps": {0: 500}, "shop": {10: 3}})
    lives = [answering(f"l{n}", n * HOUR, n * HOUR + 59, ANSWERS) for n in (3, 4)]
    return data([early, *lives], RESPONSES, 5 * HOUR)


AT = 5 * HOUR - 1


def test_responses_by_survey(answered):
    totals = {name: 2 * sum(ANSWERS.get(name, {}).values()) for name in SURVEYS}
    expected = {labels(pbmon_feedback_survey=name): n for name, n in totals.items()}
    check(answered, panel("Survey Responses", range_="3h"), AT, expected)


def test_scores_by_survey_in_an_order_that_texts_keep(answered):
    expected = {
        labels(pbmon_feedback_survey=name, pbmon_feedback_score=f"{score:02}"): 2
        * ANSWERS.get(name, {}).get(score, 0)
        for name, survey in SURVEYS.items()
        for score in survey.scores
    }
    check(answered, panel("Scores", range_="3h"), AT, expected)


def test_nps_of_the_surveys_that_are_one_and_were_answered(answered):
    nps = BUILT_IN["nps"].figure(ANSWERS["nps"])
    assert nps == pytest.approx(28.57, abs=0.01)
    expr = panel("Net Promoter Score", range_="3h")
    name = labels(pbmon_feedback_survey="nps")
    check(answered, expr, AT, {name: nps})
    everything = panel("Net Promoter Score", range_="1d")
    all_of_it = {**{s: 2 * n for s, n in ANSWERS["nps"].items()}, 0: 504}
    check(
        answered,
        everything,
        AT,
        {
            name: BUILT_IN["nps"].figure(all_of_it),
            labels(pbmon_feedback_survey="shop"): 100,
        },
    )
