"""Surveys: which scores one has, and what figure they make. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

KINDS = ("nps", "csat", "text")
MAX_NAME = 50
_MAX_SCALE = 100
_TOP = 2
"""Scores of a CSAT scale, from its end, that mean satisfied."""


@dataclass(frozen=True, slots=True)
class Survey:
    """kind: nps (0 to 10), csat (a scale of its own) or text (a comment alone).
    scale: the lowest and highest score; none for text."""

    kind: str
    scale: tuple[int, int] | None = None

    @property
    def scores(self) -> range:
        """Every score there is."""
        return range(self.scale[0], self.scale[1] + 1) if self.scale else range(0)

    def weight(self, score: int) -> int:
        """What one answer adds to the figure, before it is divided by the answers: NPS, 1 for a
        promoter (9, 10), -1 for a detractor (0 to 6); CSAT, 1 for one of the two best scores."""
        if self.scale is None:
            return 0
        if self.kind == "nps":
            return 1 if score >= 9 else -1 if score <= 6 else 0
        return 1 if score > self.scale[1] - _TOP else 0

    def figure(self, answers: Mapping[int, int]) -> float | None:
        """Score → answers: NPS from -100 to 100, or the percentage of satisfied ones; None where
        nobody gave a score."""
        count = sum(answers.values())
        if not count:
            return None
        return 100 * sum(self.weight(score) * n for score, n in answers.items()) / count

    def told(self) -> list[list[int]]:
        """The sums over all scores that the number of answers, the mean and the figure tell."""
        sums: Iterable[list[int]] = (
            [1 for _ in self.scores],
            [*self.scores],
            [self.weight(score) for score in self.scores],
        )
        return list(sums)


BUILT_IN: Mapping[str, Survey] = MappingProxyType(
    {"nps": Survey("nps", (0, 10)), "csat": Survey("csat", (1, 5)), "text": Survey("text")}
)


def mean(answers: Mapping[int, int]) -> float | None:
    """Of the scores; None where nobody gave one."""
    count = sum(answers.values())
    return sum(score * n for score, n in answers.items()) / count if count else None


def parse(value: Any) -> Mapping[str, Survey]:
    """Name → survey, the built-in ones among them. Raises ValueError saying what would be right."""
    if not isinstance(value, Mapping):
        raise ValueError("must be a table of surveys ([surveys.NAME] in pbmon.toml)")
    made = dict(BUILT_IN)
    for name, options in value.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise ValueError(f"survey name {name!r} is not 1 to {MAX_NAME} printable characters")
        made[name] = options if isinstance(options, Survey) else _survey(name, options)
    return MappingProxyType(made)


def _survey(name: str, options: Any) -> Survey:
    if not isinstance(options, Mapping) or options.get("type") not in KINDS:
        raise ValueError(f"survey {name} must be a table with a type: {', '.join(KINDS)}")
    if unknown := options.keys() - {"type", "scale"}:
        raise ValueError(f"survey {name} has no option {min(unknown)!r}; it has type, scale")
    kind = options["type"]
    if "scale" not in options:
        return Survey(kind, BUILT_IN[kind].scale)
    if kind != "csat":
        raise ValueError(f"survey {name} is of type {kind}, whose scale is given; leave it out")
    scale = options["scale"]
    if (
        not isinstance(scale, list | tuple)
        or [type(end) for end in scale] != [int, int]
        or not 0 <= scale[0] < scale[1] <= _MAX_SCALE
    ):
        raise ValueError(
            f"scale of survey {name} must be the lowest and highest score, such as [1, 7], "
            f"within 0 to {_MAX_SCALE}"
        )
    return Survey(kind, (scale[0], scale[1]))


# --- what an answer becomes ---


class Figures(NamedTuple):
    """responses: answers. figure: NPS or CSAT, as surveys.Survey.figure(). None where they are of
    too few people."""

    responses: int | None
    figure: float | None
    mean: float | None


class Comment(NamedTuple):
    """occurred_at: µs since the epoch, UTC."""

    occurred_at: int
    score: int | None
    text: str


class FeedbackSummary(NamedTuple):
    """As business.feedback.feedback_summary() describes it."""

    survey: str
    responses: int | None
    figure: float | None
    mean: float | None
    distribution: Mapping[int, int | None]
    comments: Sequence[Comment]
    segments: Mapping[str | None, Figures]
