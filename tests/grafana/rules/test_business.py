"""Revenue and features against the weeks before, the ledger, and the daily job."""

from __future__ import annotations

from tests.grafana.rules.cases import SHOP, Case, check, line, of_shop

HOUR, DAY = 60, 1440
WEEK = 7 * DAY

# An hour a sample, as long histories must be coarse. Each is a store, or a service, of its own.
A_WEEK = 7 * 24


def sales(
    store: str, *rates: int, gone: bool = False, charges: int = 20, service: str = "pocketbook"
) -> list[dict[str, str]]:
    """Euros an hour in each week, from charges. gone: nothing is heard in the last week."""
    amounts, total = [], 0
    for rate in rates:
        amounts.append(f"{total}+{rate}x{A_WEEK - 1}")
        total += rate * A_WEEK
    known = amounts[:-1] if gone else amounts
    resource = {**SHOP, "service_name": service, "instance": store}
    counted = {"pbmon_transaction_kind": "charge", "pbmon_transaction_status": "completed"}
    number = f"0+{charges}x{len(known) * A_WEEK - 1}"
    return [
        line("pbmon_revenue_total", " ".join(known), **resource, pbmon_currency="EUR"),
        line("pbmon_transactions_total", number, **resource, **counted),
    ]


def check_weeks(*cases: Case) -> None:
    check("business", *cases, step="1h", every="1h")


def test_revenue_drop() -> None:
    at = 3 * WEEK + 5 * HOUR
    stores = Case(
        "stores",
        [
            *sales("40 %", 100, 100, 100, 40),
            *sales("60 %", 100, 100, 100, 60),
            *sales("60 of a mean of 140", 60, 60, 300, 60),
            *sales("60 of a mean of 100", 50, 50, 200, 60),
            *sales("gone", 100, 100, 100, 100, gone=True),
            *sales("9 charges in such an hour", 100, 100, 100, 0, charges=9),
            *sales("10 charges in such an hour", 100, 100, 100, 0, charges=10),
            *sales("idle", 0, 0, 0, 0),
        ],
    )
    for name in ("40 %", "60 of a mean of 140", "gone", "10 charges in such an hour"):
        stores.firing("RevenueDrop", at, **drop(name))
    for name in ("60 %", "60 of a mean of 100", "9 charges in such an hour", "idle"):
        stores.silent("RevenueDrop", at, instance=name)
    stores.silent("RevenueDrop", HOUR, 3 * DAY, 3 * WEEK - HOUR)
    check_weeks(
        Case("no data", []).silent("RevenueDrop", 10 * HOUR),
        Case("one week is known", sales("s", 100, 40)).fires(
            "RevenueDrop",
            WEEK + 5 * HOUR,
            summary="Revenue in EUR is less than half of the usual",
            description="40 EUR within the last hour: less than half of the mean of the same hour "
            "of the week in the three weeks before.",
            **drop("s"),
        ),
        stores,
    )


def drop(store: str) -> dict[str, str]:
    return {"severity": "page", "instance": store, "pbmon_currency": "EUR"}


def test_another_service_that_leads_is_no_drop() -> None:
    """The store is the same, and its counters go on under the other's name."""
    first = sales("s", 100, 100, gone=True)
    second = sales("s", 100, 100, service="worker")
    for each, rate in zip(second, (100, 20), strict=True):
        each["values"] = f"_x{A_WEEK} {A_WEEK * rate}+{rate}x{A_WEEK}"
    at = [WEEK + hours * HOUR for hours in (-1, 0, 1, 2, 5, 24)]
    check_weeks(Case("a deploy", [*first, *second]).silent("RevenueDrop", *at))


def uses(service: str, values: str, instance: str = "a", action: str = "viewed") -> dict[str, str]:
    names = {"pbmon_feature_name": "export", "pbmon_feature_action": action}
    resource = {**SHOP, "service_name": service, "instance": instance}
    return line("pbmon_feature_usage_total", values, **resource, **names)


def test_feature_drop() -> None:
    """Ten uses an hour are 240 a day."""
    weeks = 3 * A_WEEK
    at = 3 * WEEK + DAY + 2 * HOUR
    before, total = f"0+10x{weeks}", 10 * weeks
    services = Case(
        "services",
        [
            uses("a fifth", f"{before} {total}+2x50"),
            uses("two fifths", f"{before} {total}+4x50"),
            uses("gone", before),
            uses("little used", f"0+4x{weeks} {4 * weeks}x50"),
            uses("restarted", before),
            uses("restarted", f"_x{weeks + 1} 10+10x50", "b"),
            uses("by action", before),
            uses("by action", f"_x{weeks} 0+10x50", action="clicked"),
        ],
    )
    for name in ("a fifth", "gone"):
        services.firing("FeatureDrop", at, **unused(name))
    for name in ("two fifths", "little used", "restarted", "by action"):
        services.silent("FeatureDrop", 3 * WEEK + 9 * HOUR, at, service_name=name)
    services.silent("FeatureDrop", DAY, WEEK, 3 * WEEK)
    check_weeks(
        Case("no data", []).silent("FeatureDrop", DAY),
        Case("a fifth", [uses("shop", f"0+10x{A_WEEK} {10 * A_WEEK}+2x50")]).fires(
            "FeatureDrop",
            WEEK + DAY + 2 * HOUR,
            summary="export of shop is hardly used any more",
            description="48 uses within the last day: less than 30 % of the mean of the same day "
            "of the week in the three weeks before.",
            **unused("shop"),
        ),
        Case("its first day", [uses("shop", "0+10x20 200x20")]).silent("FeatureDrop", DAY),
        services,
    )


def unused(service: str) -> dict[str, str]:
    names = {"severity": "ticket", "pbmon_feature_name": "export"}
    return {**names, **SHOP, "service_name": service}


def ledger(counted: str, booked: int, part: str = "gross") -> list[dict[str, str]]:
    metric = {"gross": "pbmon_revenue_total", "refunds": "pbmon_refunds_total"}[part]
    names = {"instance": "s", "pbmon_currency": "EUR", **SHOP}
    gauge = {"pbmon_revenue_part": part, "pbmon_window": "24h"}
    return [
        line(metric, counted, **names),
        line("pbmon_revenue_booked", f"{booked}x150", **names, **gauge),
    ]


def test_ledger_difference() -> None:
    """Half an hour a sample: 48 are a day."""
    at = 2 * DAY
    found = {"severity": "ticket", "instance": "s", "pbmon_currency": "EUR"}
    gross = {**found, "pbmon_revenue_part": "gross"}

    def words(by: int, part: str) -> dict[str, str]:
        return {
            "summary": f"Telemetry and ledger differ in {part} EUR",
            "description": f"The counters of the last 24 hours are {by} EUR apart from what the "
            "ledger has booked, more than 1 %.",
        }

    check(
        "business",
        Case("no data", []).silent("LedgerDifference", at),
        Case("2 % less", ledger("0+300x150", 14700)).fires(
            "LedgerDifference", at, **words(300, "gross"), **gross
        ),
        Case("2 % more", ledger("0+300x150", 14100)).fires(
            "LedgerDifference", at, **words(300, "gross"), **gross
        ),
        Case("of refunds", ledger("0+300x150", 14700, "refunds")).fires(
            "LedgerDifference",
            at,
            **words(300, "refunds"),
            **{**found, "pbmon_revenue_part": "refunds"},
        ),
        Case("half a percent", ledger("0+300x150", 14460)).silent("LedgerDifference", at),
        Case("equal", ledger("0+300x150", 14400)).silent("LedgerDifference", at),
        Case("a Prometheus younger than a day", ledger("9000+300x150", 14400)).silent(
            "LedgerDifference", HOUR, 23 * HOUR
        ),
        Case("no counter", ledger("0+300x150", 14700)[1:]).silent("LedgerDifference", at),
        Case("nothing sold", ledger("0x150", 0)).silent("LedgerDifference", at),
        step="30m",
        every="30m",
    )


def test_growth_job_missed() -> None:
    def succeeded(values: str, instance: str = "a", **names: str) -> dict[str, str]:
        own = {**SHOP, "instance": instance, "pbmon_job": "growth", **names}
        return line("pbmon_job_last_success_seconds", values, **own)

    def leads(value: int) -> dict[str, str]:
        return of_shop("pbmon_worker_active", f"{value}x150", pbmon_role="leader")

    found = {"severity": "ticket", "pbmon_job": "growth", **SHOP}
    late = 27 * HOUR
    check(
        "business",
        Case("no data", []).silent("GrowthJobMissed", late),
        Case("never again", [succeeded("0x150"), leads(1)])
        .silent("GrowthJobMissed", 26 * HOUR)
        .fires(
            "GrowthJobMissed",
            late,
            summary="No growth figures of pocketbook for the last day",
            description="The job growth last succeeded 1d 3h 0m 0s ago. It runs once a day.",
            **found,
        ),
        Case("every day", [succeeded("0x47 86400x47 172800x47"), leads(1)]).silent(
            "GrowthJobMissed", *range(DAY, 3 * DAY, 3 * HOUR)
        ),
        Case("the users' job", [succeeded("0x150", pbmon_job="users")]).firing(
            "GrowthJobMissed", late, **{**found, "pbmon_job": "users"}
        ),
        Case("another job", [succeeded("0x150", pbmon_job="retention")]).silent(
            "GrowthJobMissed", late
        ),
        Case("a restart", [succeeded("0x46"), succeeded("_x47 86400x46", "b")]).silent(
            "GrowthJobMissed", late, 2 * DAY
        ),
        Case("nobody leads any more", [succeeded("0x20")]).firing("GrowthJobMissed", late, **found),
        Case("another service leads", [succeeded("0x20"), leads(0)]).silent(
            "GrowthJobMissed", late, 2 * DAY
        ),
        step="30m",
        every="30m",
    )
