"""Budgets: the counts over any time are the truth, and only a real burn pages."""

from __future__ import annotations

from random import Random

from tests.grafana.promtool import DAY, HOUR, Labels, Process, data, truth
from tests.grafana.rules.cases import SHOP, Case, check, of_shop

REQUESTS, BREACHES = "pbmon_budget_requests_total", "pbmon_budget_breaches_total"
ALLOWED = "pbmon_budget_allowed_ratio"
PAY = {"http_request_method": "POST", "http_route": "/pay"}
P95 = {**PAY, "pbmon_budget_limit": "p95"}
PAGE = {"severity": "page", "pbmon_window": "1h", **SHOP, **P95}
SLOW_PAGE = {**PAGE, "pbmon_window": "6h"}
BROKE = "broke the p95 promise, and those of the last"
FAST = "more than 14.4 times what the budget allows, or than half."
HOURLY = "0 " + " ".join(f"{count}x11" for count in range(1, 13))  # one an hour
SHARE = "pbmon:budget_share:30d"


def endpoint(
    requests: str, breaches: str, instance: str = "a", allowed: float = 0.05, **names: str
) -> list[dict[str, str]]:
    """What one process exports, five minutes a sample."""
    own = names or P95
    return [
        of_shop(REQUESTS, requests, instance, **own),
        of_shop(BREACHES, breaches, instance, **own),
        of_shop(ALLOWED, f"{allowed}x900", instance, **own),
    ]


def check_budgets(*cases: Case) -> None:
    check("budgets", *cases, step="5m", every="5m")


def test_a_60_percent_slow_endpoint_pages_within_the_hour() -> None:
    """A thousand requests in five minutes, for three hours well; then 600 of them are slow."""
    check_budgets(
        Case("60 % are slow", endpoint("0+1000x200", "0x36 600+600x160"))
        .silent("BudgetBurn", 180, 185, 230, severity="page")
        .firing("BudgetBurn", 235, 240, 300, **PAGE),
        Case("it ends soon after", endpoint("0+1000x200", "0x36 600+600x20 12600x160"))
        .firing("BudgetBurn", 285, **PAGE)
        .silent("BudgetBurn", 305, **PAGE),
    )


def test_what_a_page_says() -> None:
    check_budgets(
        Case("all slow", endpoint("0 10+10x20", "0 10+10x20")).fires(
            "BudgetBurn",
            5,
            summary="POST /pay of pocketbook breaks its p95 budget",
            description=f"100% of the requests of the last 1h {BROKE} 5m do as well: {FAST}",
            **PAGE,
        )
    )


def test_a_page_needs_ten_bad_requests() -> None:
    check_budgets(
        Case("9 of 9", endpoint("0 0 0 3 6 9 9x200", "0 0 0 3 6 9 9x200")).silent(
            "BudgetBurn", *range(0, 600, 15)
        ),
        Case("10 of 10", endpoint("0 0 0 3 6 10 10x200", "0 0 0 3 6 10 10x200"))
        .silent("BudgetBurn", 20)
        .firing("BudgetBurn", 25, **PAGE),
        Case("one an hour, and every one bad", endpoint(HOURLY, HOURLY)).silent(
            "BudgetBurn", *range(0, 720, 15), severity="page"
        ),
    )


def test_slower_burns() -> None:
    """5 % are allowed: 40 % is above six times that, 20 % above three, 8 % above one."""
    check_budgets(
        Case("40 %", endpoint("0+1000x900", "0x72 400+400x800"))
        .silent("BudgetBurn", 360, 600, severity="page")
        .firing("BudgetBurn", 640, **SLOW_PAGE),
        Case("20 %", endpoint("0+1000x900", "0+200x900"))
        .silent("BudgetBurn", 60)
        .firing("BudgetBurn", 120, **ticket("1d"))
        .firing("BudgetBurn", 120, **ticket("3d"))
        .silent("BudgetBurn", 60, 120, 360, severity="page"),
        Case("8 %", endpoint("0+1000x900", "0+80x900"))
        .firing("BudgetBurn", 120, **ticket("3d"))
        .silent("BudgetBurn", 120, pbmon_window="1d"),
        Case("4 %", endpoint("0+1000x900", "0+40x900")).silent("BudgetBurn", 60, 360, 720),
        Case("19 bad are no ticket", endpoint("0 19x900", "0 19x900"))
        .firing("BudgetBurn", 5, **PAGE)
        .silent("BudgetBurn", 120, 480, severity="ticket"),
    )


def ticket(window: str) -> dict[str, str]:
    return {**PAGE, "severity": "ticket", "pbmon_window": window}


def test_weak_and_strong_promises() -> None:
    own = {**PAY, "pbmon_budget_limit": "availability"}
    fast, slow = {**PAGE, **own}, {**SLOW_PAGE, **own}

    def share(bad: int, allowed: float) -> list[dict[str, str]]:
        return endpoint("0+1000x50", f"0+{bad}x50", allowed=allowed, **own)

    check_budgets(
        # 14.4 times 0.1 % are 1.44 %, six times it 0.6 %.
        Case("1.5 % where 0.1 % is allowed", share(15, 0.001))
        .firing("BudgetBurn", 60, **fast)
        .firing("BudgetBurn", 60, **slow),
        Case("1.4 % where 0.1 % is allowed", share(14, 0.001))
        .silent("BudgetBurn", 60, **fast)
        .firing("BudgetBurn", 60, **slow),
        Case("0.5 % where 0.1 % is allowed", share(5, 0.001)).silent(
            "BudgetBurn", 60, severity="page"
        ),
        Case("60 % where a third is allowed", share(600, 0.33)).firing("BudgetBurn", 60, **fast),
        Case("40 % where a third is allowed", share(400, 0.33)).silent(
            "BudgetBurn", 60, severity="page"
        ),
        Case("70 % where 60 % is allowed", share(700, 0.6)).silent("BudgetBurn", 60, 180),
    )


def test_an_operation_has_no_route() -> None:
    job = {"pbmon_operation": "nightly import", "pbmon_budget_limit": "p95"}
    check_budgets(
        Case("a job", endpoint("0 20+20x20", "0 20+20x20", **job)).fires(
            "BudgetBurn",
            5,
            summary="nightly import of pocketbook breaks its p95 budget",
            description=f"100% of the requests of the last 1h {BROKE} 5m do as well: {FAST}",
            severity="page",
            pbmon_window="1h",
            **SHOP,
            **job,
        )
    )


def test_a_limit_that_nothing_may_pass_is_counted() -> None:
    limit = {**PAY, "pbmon_budget_limit": "max"}
    found = {"severity": "ticket", **SHOP, **limit}
    check_budgets(
        Case("no data", []).silent("BudgetBreached", HOUR),
        Case("20 within the hour", endpoint("0+9000x60", "0 5 10 15 20 20x60", allowed=0, **limit))
        .silent("BudgetBreached", 15)
        .fires(
            "BudgetBreached",
            20,
            summary="POST /pay of pocketbook passes its max again and again",
            description="20 requests of the last hour passed max, which none may.",
            **found,
        )
        .silent("BudgetBreached", 85)
        .silent("BudgetBurn", 20, 60),
        Case("19", endpoint("0+9000x60", "0 5 10 15 19 19x60", allowed=0, **limit)).silent(
            "BudgetBreached", *range(0, 300, 15)
        ),
        Case("of a share", endpoint("0+9000x60", "0 40x60")).silent("BudgetBreached", 10),
    )


def test_an_exhausted_budget() -> None:
    found = {"severity": "ticket", **SHOP, **P95}
    check_budgets(
        Case("no data", []).silent("BudgetExhausted", HOUR),
        Case("6 % of all", endpoint("0+1000x300", "0+60x300"))
        .fires(
            "BudgetExhausted",
            10,
            summary="POST /pay of pocketbook has used up its p95 budget",
            description="6% of the requests of the last 30 days broke the p95 promise, which is "
            "more than the budget allows.",
            **found,
        ),
        Case("5 % of all", endpoint("0+1000x300", "0+50x300")).silent("BudgetExhausted", 4 * HOUR),
        Case("19 bad", endpoint("0 19x300", "0 19x300")).silent("BudgetExhausted", 4 * HOUR),
        Case("none at all", endpoint("0x300", "0x300")).silent("BudgetExhausted", 4 * HOUR),
    )  # fmt: skip


def test_no_data_and_idle_hours_say_nothing() -> None:
    check_budgets(
        Case("no data", []).silent("BudgetBurn", HOUR, 4 * HOUR).figure(SHARE, HOUR, {}),
        Case("never a request", endpoint("0x400", "0x400"))
        .silent("BudgetBurn", HOUR, 4 * HOUR)
        .figure(SHARE, 4 * HOUR, {}),
        Case("an idle night", endpoint("0+1000x36 36000x150 36000+1000x60", "0x400"))
        .silent("BudgetBurn", *range(0, 1200, 60))
        .figure(SHARE, 1200, {tuple({**SHOP, **P95, "__name__": SHARE}.items()): 0}),
    )


def test_restarts_page_nobody() -> None:
    """A process leaves with 1,000 bad ones of a day ago; its successor has none."""
    old = endpoint("0+1000x20 20000x300", "0+1000x20 20000x300", allowed=0.5)
    new = endpoint("_x300 0+1000x60", "_x300 0x60", "b", allowed=0.5)
    check_budgets(
        Case("restart", [*old, *new]).silent("BudgetBurn", *range(25 * HOUR, 28 * HOUR, 30)),
        Case("the rules are new, the process isn't", endpoint("9000x60", "9000x60")).silent(
            "BudgetBurn", 0, 5, 10, 60
        ),
        Case("bad from its first sample", [*endpoint("0x60", "0x60"),
             *endpoint("_x30 20x30", "_x30 20x30", "b")])
        .firing("BudgetBurn", 150, **PAGE),
    )  # fmt: skip


# --- period figures ---

WINDOWS = {"1h": HOUR, "6h": 6 * HOUR, "1d": DAY, "3d": 3 * DAY}
LAST = 2 * DAY


def lives(random: Random) -> list[tuple[Process, Process]]:
    """Requests and breaches of two workers over two days: busy days, quiet and bad nights, an hour
    without a request, hours without a process, a restart every few hours, lost exports."""
    found = []
    for worker in range(2):
        start = 0
        while start < LAST:
            end = start + random.randrange(3 * HOUR, 9 * HOUR)
            silent = {random.randrange(start + 1, end) for _ in range(6)}
            requests, breaches = (Process(f"{worker}-{start}", start, end, silent) for _ in "ab")
            work(random, requests, breaches)
            found.append((requests, breaches))
            start = end + random.choice((1, 3, 75))
    return found


def work(random: Random, requests: Process, breaches: Process) -> None:
    for process in (requests, breaches):
        process.count(process.start, 0, **P95)  # exported from the start
    # Where the rules are new they count from the first value there is.
    for minute in range(max(requests.start, 15), requests.end):
        hour = minute // HOUR % 24
        is_busy = 8 <= hour < 20
        if hour == 3:
            continue
        count = random.randrange(200, 400) if is_busy else random.randrange(3)
        broken = sum(random.random() < (0.01 if is_busy else 0.4) for _ in range(count))
        requests.count(minute, count, **P95)
        breaches.count(minute, broken, **P95)


def test_period_figures_are_the_truth() -> None:
    both = lives(Random(7))
    requests, breaches = ([each[kind] for each in both] for kind in (0, 1))
    case = Case("two days", [*data(requests, REQUESTS, LAST), *data(breaches, BREACHES, LAST)])
    for window, minutes in WINDOWS.items():
        for kind, processes in (("requests", requests), ("breaches", breaches)):
            name = f"pbmon:budget_{kind}:sum{window}"
            for at in (*range(6 * HOUR, LAST, 7 * HOUR), LAST):
                case.figure(name, at, {named(name): counted(processes, minutes, at)})
    bad, total = counted(breaches, LAST, LAST), counted(requests, LAST, LAST)
    case.figure(SHARE, LAST, {named(SHARE): bad / total})
    # The mean of the hours' ratios, as others have it, would be far from that.
    nightly = counted(breaches, HOUR, 7 * HOUR) / counted(requests, HOUR, 7 * HOUR)
    assert nightly > 20 * bad / total
    check("budgets", case, every="5m")


def counted(processes: list[Process], window: int, at: int) -> float:
    return sum(truth(processes, min(window, at + 1), at).values())


def named(name: str) -> Labels:
    return tuple({**SHOP, **P95, "__name__": name}.items())
