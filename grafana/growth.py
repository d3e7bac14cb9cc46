"""Growth, features, experiments: who comes and stays, what they use, and what they say."""

from __future__ import annotations

from grafana import queries
from grafana.panels import EXACT_NUMBER, SHARE, Frame, Query, bars, board, stat, timeseries
from pbmon.catalog import (
    EXPOSURES,
    FEATURE_ACTION,
    FEATURE_NAME,
    FEATURE_USAGE,
    FEEDBACK_RESPONSES,
    FLAG_KEY,
    FLAG_VARIANT,
    SCORE,
    SURVEY,
    USERS_ACTIVE,
    USERS_CHURNED,
    USERS_NEW,
    USERS_REACTIVATED,
    USERS_REGISTERED,
    USERS_RETENTION,
    USERS_STICKINESS,
    WINDOW,
)

UID = "pbmon-growth"  # addresses and bookmarks hang on it: never change it

OF_A_DAY = "Each point is of the newest day that was over then, in the store's time zone."
NO_DAY = "No day is over yet"

ACTIVE = timeseries(
    Frame(
        "Active Users over Time",
        f"Users active on the day, and in the 7 and 30 days that end with it. {OF_A_DAY}",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value=NO_DAY,
    ),
    *(
        Query(queries.current(USERS_ACTIVE, [WINDOW], queries.matcher(WINDOW, window)), window)
        for window in WINDOW.values
    ),
)

CAME_AND_WENT = timeseries(
    Frame(
        "Users Who Came and Went",
        "New: active for the first time. Reactivated: back after 30 days or more. Churned: active "
        f"in the 30 days before the last 30, and not since. {OF_A_DAY}",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value=NO_DAY,
    ),
    Query(queries.current(USERS_NEW, []), "new"),
    Query(queries.current(USERS_REACTIVATED, []), "reactivated"),
    Query(queries.current(USERS_CHURNED, []), "churned"),
    colours={"new": "green", "reactivated": "blue", "churned": "red"},
)

REGISTERED = timeseries(
    Frame(
        "Registered Users",
        f"Users there had been by the end of the day. {OF_A_DAY}",
        unit=EXACT_NUMBER,
        width=12,
        height=8,
        no_value=NO_DAY,
    ),
    Query(queries.current(USERS_REGISTERED, []), "registered"),
)

LOYALTY = timeseries(
    Frame(
        "Retention and Stickiness",
        "Retention: of the users active in the 30 days before the last 30, the share active since. "
        "Stickiness: users active on the day as a share of those active in 30 days. "
        f"{OF_A_DAY} Of several stores it is the mean.",
        unit=SHARE,
        width=12,
        height=8,
        no_value="Not known yet: retention takes 31 days",
    ),
    Query(queries.current(USERS_RETENTION, []), "retention"),
    Query(queries.current(USERS_STICKINESS, []), "stickiness"),
)

FEATURE_USE = timeseries(
    Frame(
        "Feature Use per Hour",
        "Uses of all features in the hour before each point, by action: uses, not people.",
        unit=EXACT_NUMBER,
        width=12,
        height=10,
        no_value="No use counted",
    ),
    Query(queries.exact(FEATURE_USAGE, [FEATURE_ACTION], "1h"), FEATURE_ACTION),
)

TOP_FEATURES = bars(
    Frame(
        "From Viewed to Completed",
        "The ten most used features in the time range: how often each was viewed, clicked and "
        "completed. Exact to one export interval. These are uses; pbmon.feature_adoption() counts "
        "people.",
        unit=EXACT_NUMBER,
        width=12,
        height=10,
        no_value="No use counted",
    ),
    queries.top_features(),
    row=FEATURE_NAME,
    column=FEATURE_ACTION,
    stacked=False,
)

EXPOSED_24H = bars(
    Frame(
        "Exposures (24h)",
        "Exposures to each experiment in the 24 hours before the end of the time range, by "
        "variant. Exact to one export interval. Whoever comes again counts again; which variant is "
        "better says `pbmon experiment report`.",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value="No exposure",
    ),
    f"{queries.exact(EXPOSURES, [FLAG_KEY, FLAG_VARIANT], WINDOW.values[0])} > 0",
    row=FLAG_KEY,
    column=FLAG_VARIANT,
)

EXPOSURES_BY_HOUR = timeseries(
    Frame(
        "Exposures per Hour",
        "Exposures in the hour before each point, by experiment and variant. Lines that drift "
        "apart from the shares that were declared are a fault.",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value="No exposure",
    ),
    Query(
        queries.exact(EXPOSURES, [FLAG_KEY, FLAG_VARIANT], "1h"),
        queries.legend(FLAG_KEY, FLAG_VARIANT),
    ),
)

RESPONSES = stat(
    Frame(
        "Survey Responses",
        "Answers in the time range by survey, whether or not they may be kept; one that is sent "
        "twice counts twice. Exact to one export interval.",
        unit=EXACT_NUMBER,
        width=6,
        height=9,
        no_value="No survey",
    ),
    Query(queries.exact(FEEDBACK_RESPONSES, [SURVEY], "$__range"), SURVEY),
)


def _scores() -> str:
    """One digit is given a zero before it: names are sorted as texts, 10 before 2."""
    score = queries.label(SCORE)
    answers = queries.exact(
        FEEDBACK_RESPONSES, [SURVEY, SCORE], "$__range", queries.matcher(SCORE, "", "!=")
    )
    return f'label_replace({answers}, "{score}", "0$1", "{score}", "(.)")'


SCORES = bars(
    Frame(
        "Scores",
        "How often each score was given in the time range, by survey. Exact to one export "
        "interval.",
        unit=EXACT_NUMBER,
        width=12,
        height=9,
        no_value="No survey with scores",
    ),
    _scores(),
    row=SCORE,
    column=SURVEY,
    by_name=True,
)


def _nps() -> str:
    """Of surveys whose scores are 0 to 10. Every score of a survey is exported from the start."""

    def answers(scores: str, operator: str = "=~") -> str:
        chosen = queries.matcher(SCORE, scores, operator)
        return queries.exact(FEEDBACK_RESPONSES, [SURVEY], "$__range", chosen)

    on = f"on ({queries.label(SURVEY)})"
    return (
        f"100 * ({answers('9|10')} - {answers('[0-6]')}) / ({answers('', '!=')} > 0)"
        f" and {on} {answers('0', '=')} and {on} {answers('10', '=')}"
        f" unless {on} {answers('11', '=')}"
    )


NPS = stat(
    Frame(
        "Net Promoter Score",
        "The percentage of 9 and 10 less that of 0 to 6, from -100 to 100, of the answers in the "
        "time range; of each survey with the scores 0 to 10. A few answers say little: "
        "`pbmon store feedback` has the figure to report.",
        unit=EXACT_NUMBER,
        width=6,
        height=9,
        no_value="No answer",
        decimals=1,
    ),
    Query(_nps(), SURVEY),
)

DASHBOARD = board(
    UID,
    "Growth, Features, Experiments",
    "Who comes, stays and leaves; what they use; what experiments show them and what they say.",
    panels=[
        ACTIVE, CAME_AND_WENT,
        REGISTERED, LOYALTY,
        FEATURE_USE, TOP_FEATURES,
        EXPOSED_24H, EXPOSURES_BY_HOUR,
        RESPONSES, SCORES, NPS,
    ],
    metrics=[
        USERS_ACTIVE, USERS_NEW, USERS_REACTIVATED, USERS_CHURNED, USERS_REGISTERED,
        USERS_RETENTION, USERS_STICKINESS, FEATURE_USAGE, EXPOSURES, FEEDBACK_RESPONSES,
    ],
    since="now-7d",
)  # fmt: skip
