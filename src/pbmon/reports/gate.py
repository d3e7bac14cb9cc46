"""The gate's verdicts, for a terminal, a pull request and a CI server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from pbmon import privacy
from pbmon.gate.regressions import Change
from pbmon.gate.verdicts import Judgement, Outcome, percent, shown_s
from pbmon.reports import markdown, text
from pbmon.reports.page import NONE, Amount, Table

_ORDER = (Outcome.FAILED, Outcome.UNDECIDED, Outcome.PASSED)
_XML_ILLEGAL = {n: "?" for n in (*range(0x20), 0x7F, 0xFFFE, 0xFFFF) if n not in (9, 10, 13)}


@dataclass(frozen=True, slots=True)
class Findings:
    """judgements: of budgets. changes: since a baseline. notes: what a reader must know to trust
    them. strict: what is undecided fails."""

    judgements: Sequence[Judgement]
    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()
    strict: bool = False

    @property
    def all(self) -> list[Judgement | Change]:
        return [*self.judgements, *self.changes]

    def number(self, outcome: Outcome) -> int:
        return sum(each.outcome is outcome for each in self.all)

    @property
    def is_seen(self) -> bool:
        """There is anything to judge."""
        return any(j.count.requests for j in self.judgements) or bool(self.changes)

    @property
    def has_failed(self) -> bool:
        return bool(self.number(Outcome.FAILED)) or (
            self.strict and bool(self.number(Outcome.UNDECIDED))
        )

    @property
    def summary(self) -> str:
        return ", ".join(f"{self.number(each):,} {each.value}" for each in _ORDER)


def _tables(findings: Findings) -> Iterator[Table]:
    if findings.judgements:
        yield Table(
            ("endpoint", "limit", "is", "requests", "over", "share", "at least", "may be", ""),
            [_judged(each) for each in _sorted(findings.judgements)],
            "Budgets",
        )
    if findings.changes:
        yield Table(
            ("endpoint", "requests", "before", "now", "change", "by chance", ""),
            [_changed(each) for each in _sorted(findings.changes)],
            "Against the baseline",
        )


def _sorted(found: Sequence[Any]) -> list[Any]:
    return sorted(found, key=lambda each: _ORDER.index(each.outcome))


def _judged(each: Judgement) -> list[str | Amount]:
    count = each.count
    if count.limit == "availability":
        promised = f"{1 - count.allowed:.6g}"
    else:
        promised = shown_s(count.threshold_s) if count.threshold_s is not None else NONE
    return [
        count.name, count.limit, promised, Amount(count.requests), Amount(count.over),
        NONE if count.share is None else f"{count.share:.2%}",
        NONE if each.bound is None else f"{each.bound:.2%}",
        percent(count.allowed) if count.allowed else "none", each.outcome.value,
    ]  # fmt: skip


def _changed(each: Change) -> list[str | Amount]:
    if each.before_s is None or each.after_s is None or each.ratio is None:
        return [each.name, Amount(each.requests), NONE, NONE, NONE, NONE, each.outcome.value]
    return [
        each.name, Amount(each.requests), shown_s(each.before_s), shown_s(each.after_s),
        f"{each.ratio - 1:+.1%}", f"{each.chance:.2g}", each.outcome.value,
    ]  # fmt: skip


# --- for people ---


def as_text(findings: Findings) -> str:
    lines: list[str] = []
    for table in _tables(findings):
        lines += [table.caption, *text.write_table(table), ""]
    lines += [f"{privacy.escape(str(e))}" for e in findings.all if e.outcome is Outcome.FAILED]
    lines += [privacy.escape(note) for note in findings.notes]
    return "\n".join([*lines, findings.summary])


def as_markdown(findings: Findings) -> str:
    lines = ["## Performance budgets", "", findings.summary, ""]
    failed = [e for e in findings.all if e.outcome is Outcome.FAILED]
    lines += [f"- {markdown.escape(str(each))}" for each in failed]
    lines += [""] * bool(failed)
    for table in _tables(findings):
        lines += [f"**{table.caption}**", "", *markdown.write_table(table)]
    for note in findings.notes:
        lines += [markdown.escape(note), ""]
    return "\n".join(lines).rstrip() + "\n"


# --- for programs ---


def as_junit(findings: Findings) -> bytes:
    """A test case for each limit and each route, as the JUnit format of CI servers has them."""
    suites = ET.Element("testsuites", name="pbmon budget check")
    for name, found in (("budgets", findings.judgements), ("baseline", findings.changes)):
        if found:
            suites.append(_suite(name, found, findings.strict))
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True))


def _suite(name: str, found: Sequence[Judgement | Change], strict: bool) -> ET.Element:
    suite = ET.Element("testsuite", name=f"pbmon.{name}", tests=str(len(found)))
    counts = {"failures": 0, "skipped": 0}
    for each in found:
        case = f"{each.name} {each.count.limit}" if isinstance(each, Judgement) else each.name
        made = ET.SubElement(
            suite, "testcase", name=_xml(case), classname=f"pbmon.{name}", time="0"
        )
        if each.outcome is Outcome.FAILED or (strict and each.outcome is Outcome.UNDECIDED):
            counts["failures"] += 1
            ET.SubElement(made, "failure", message=_xml(str(each)), type=name).text = _xml(
                str(each)
            )
        elif each.outcome is Outcome.UNDECIDED:
            counts["skipped"] += 1
            ET.SubElement(made, "skipped", message=_xml(str(each)))
    for key, number in counts.items():
        suite.set(key, str(number))
    suite.set("errors", "0")
    suite.set("time", "0")
    return suite


def _xml(text: str) -> str:
    """Without what XML 1.0 has no place for, however it is escaped."""
    return privacy.escape(text).translate(_XML_ILLEGAL)


def as_json(findings: Findings) -> str:
    value = {
        "outcome": "failed" if findings.has_failed else "passed",
        "budgets": [
            {
                "method": j.count.method, "route": j.count.endpoint, "limit": j.count.limit,
                "threshold_s": j.count.threshold_s, "allowed": j.count.allowed,
                "requests": j.count.requests, "over": j.count.over, "bound": j.bound,
                "outcome": j.outcome.value,
            }
            for j in findings.judgements
        ],
        "baseline": [
            {
                "method": c.method, "route": c.route, "requests": c.requests,
                "before_s": c.before_s, "after_s": c.after_s, "ratio": c.ratio,
                "chance": c.chance, "outcome": c.outcome.value,
            }
            for c in findings.changes
        ],
        "notes": list(findings.notes),
    }  # fmt: skip
    return json.dumps(value, indent=2, ensure_ascii=False)
