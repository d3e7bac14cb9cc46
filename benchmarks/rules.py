"""What the rules of budgets cost Prometheus: `python -m benchmarks.rules [--endpoints 50]`.

A real Prometheus over blocks with a month of history: every endpoint has three limits, four workers
export them. What it prints are Prometheus' own times of each group's last evaluation.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack import web
from tests.stack.process import wait_until
from tests.stack.servers import Prometheus, promtool

RULES = Path(__file__).resolve().parents[1] / "collector-config" / "rules" / "budgets.yml"
LIMITS = {"p95": 0.05, "p99": 0.01, "availability": 0.001}
MINUTE, HOUR, DAY = 60, 3600, 86400
EVALUATIONS = 10


@dataclass(frozen=True)
class Scale:
    """hours: of history of what is looked back for longest, gains by the hour."""

    endpoints: int = 50
    workers: int = 4
    hours: int = 30 * 24

    @property
    def promises(self) -> list[str]:
        return [
            'service_name="shop",deployment_environment_name="production",'
            f'http_route="/r{number}",pbmon_budget_limit="{limit}"'
            for number in range(self.endpoints)
            for limit in LIMITS
        ]

    def processes(self, promise: str) -> list[str]:
        return [f'instance="w{worker}",{promise}' for worker in range(self.workers)]


def history(scale: Scale, now: int) -> Iterator[str]:
    """OpenMetrics text, family after family, as those rules would have left it."""
    day = min(scale.hours * HOUR, DAY)
    each = [labels for promise in scale.promises for labels in scale.processes(promise)]
    for kind, speed in (("requests", 100), ("breaches", 1)):
        families = (
            (f"pbmon_budget_{kind}_total", each, MINUTE, min(day, 2 * HOUR), speed),
            (f"pbmon:budget_{kind}:seen5m", each, 5 * MINUTE, day, 5 * speed),
            (f"pbmon:budget_{kind}:seen1h", each, HOUR, day, 60 * speed),
        )
        for name, series, step, length, growth in families:
            total = length // step * growth
            yield from _family(
                name, series, now, step, length, lambda n, g=growth, t=total: t - n * g
            )
        for name, step, length in (
            ("gain5m", 5 * MINUTE, day),
            ("gain1h", HOUR, scale.hours * HOUR),
        ):
            gain = speed * step // MINUTE * scale.workers
            family = f"pbmon:budget_{kind}:{name}"
            yield from _family(family, scale.promises, now, step, length, lambda n, g=gain: g)
    for limit, share in LIMITS.items():
        series = [labels for labels in each if f'"{limit}"' in labels]
        yield from _family(
            "pbmon_budget_allowed_ratio", series, now, MINUTE, HOUR, lambda n, s=share: s
        )
    yield "# EOF\n"


def _family(
    name: str, series: list[str], now: int, step: int, length: int, value: Any
) -> Iterator[str]:
    """value: of the sample that is so many steps old."""
    for labels in series:
        for age in range(length // step, -1, -1):
            yield f"{name}{{{labels}}} {value(age)} {now - age * step}\n"


@dataclass(frozen=True)
class Found:
    """groups: as Prometheus tells of them. cpu_s: of a group's queries. series: by recording."""

    groups: list[dict[str, Any]]
    cpu_s: dict[str, float]
    series: dict[str, float]


def evaluated(scale: Scale, directory: Path, evaluations: int = EVALUATIONS) -> Found:
    """After that many evaluations, one a second."""
    text = directory / "history.txt"
    with text.open("w", encoding="utf-8") as file:
        file.writelines(history(scale, int(time.time())))
    content = RULES.read_text(encoding="utf-8")
    for interval in ("5m", "1h"):
        content = content.replace(f"interval: {interval}", "interval: 1s")
    (directory / RULES.name).write_text(content, encoding="utf-8")
    config = directory / "prometheus.yml"
    config.write_text(f"rule_files: [{RULES.name}]\n", encoding="utf-8")
    prometheus = Prometheus(config)
    blocks = prometheus.home / "data"
    # One block of all: each is a reading of the whole text.
    promtool(
        "tsdb", "create-blocks-from", "openmetrics", "-q", "--max-block-duration=90d", text, blocks
    )
    with prometheus:

        def told() -> list[dict[str, Any]]:
            return list(web.get_json(f"{prometheus.url}/api/v1/rules")["data"]["groups"])

        def are_done() -> bool:
            query = "min(count_over_time(pbmon:budget_share:30d[10m]))"
            done = max((value for _, value in prometheus.query(query)), default=0)
            health = {rule["health"] for group in told() for rule in group["rules"]}
            return done >= evaluations and "unknown" not in health

        wait_until(are_done, f"{evaluations} evaluations", 120)
        groups = told()
        names = [
            rule["name"]
            for group in groups
            for rule in group["rules"]
            if rule["type"] == "recording"
        ]
        series = {name: prometheus.query(f"count({name})")[0][1] for name in names}
        # Once more as queries, when nothing else is done.
        prometheus.stop()
        config.write_text("{}\n", encoding="utf-8")
        prometheus.start()
        cpu_s = {group["name"]: _queried(prometheus, group, evaluations) for group in groups}
    return Found(groups, cpu_s, series)


def _queried(prometheus: Prometheus, group: dict[str, Any], times: int) -> float:
    now = time.time()
    used_s = 0.0
    for turn in range(times + 1):
        if turn == 1:  # the first one fills caches
            used_s = _cpu_s(prometheus.pid)
        for rule in group["rules"]:
            prometheus.query(f"count({rule['query']})", at=now)
    return (_cpu_s(prometheus.pid) - used_s) / times


def _cpu_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=Scale.endpoints)
    parser.add_argument("--workers", type=int, default=Scale.workers)
    arguments = parser.parse_args()
    scale = Scale(arguments.endpoints, arguments.workers)
    with tempfile.TemporaryDirectory(prefix="pbmon-rules-") as directory:
        found = evaluated(scale, Path(directory))
    print(f"{scale.endpoints} endpoints, {len(LIMITS)} limits each, {scale.workers} workers")
    for group in found.groups:
        name, rules, clock_s = group["name"], group["rules"], group["evaluationTime"]
        cpu_s = found.cpu_s[name]
        print(f"{name}: {len(rules)} rules, {cpu_s:.3f} s of CPU, {clock_s:.3f} s by the clock")
        for rule in group["rules"]:
            print(f"  {rule['evaluationTime'] * 1e3:6.1f} ms  {rule['name']}")


if __name__ == "__main__":
    main()
