"""Answers out of a table of scores: the best measures for a question, and what ties with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from repsim.core.errors import UsageError, unknown_name
from repsim.stats.ranking import Ranked, Ranking, rank_rows
from repsim.studies.measure_benchmark.table import QUESTIONS, TESTS, MeasureScores


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """Measures ranked, best first, on the tests of a question, which count the same."""

    question: str
    tests: tuple[str, ...]
    ranking: Ranking
    cost: dict[str, str]

    @property
    def choice(self) -> Ranked:
        """The best measure, or of those that tie with it the best cheap one."""
        cheap = [r for r in self.ranking.ranked if r.tied and self.cost[r.name] == "cheap"]
        return cheap[0] if cheap else self.ranking.ranked[0]

    def sentence(self) -> str:
        """The answer in words, with its uncertainty."""
        ranked, choice = self.ranking.ranked, self.choice
        best, tied = ranked[0], sum(one.tied for one in ranked) - 1
        words = (
            f"{best.name} is right in {best.score:.1%} of {self.ranking.comparisons:,} comparisons"
        )
        if len(self.tests) > 1:
            words += f", mean of {len(self.tests)} tests"
        if tied:
            words += f"; {tied} of {len(ranked) - 1} other measures cannot be told from it"
        if choice.name != best.name:
            words += f", of the cheap ones {choice.name} is first"
        return words + "."

    def uncertainty(self) -> str:
        """What was drawn for the intervals, and what they do not cover."""
        if np.isnan(self.ranking.ranked[0].low):
            return "Too few models for intervals: nothing can be told from the best."
        what = "languages" if self.tests == ("atlas_forks",) else "models"
        return (
            f"Intervals: {self.ranking.models} {what} and their layers drawn with replacement; the "
            "best one is picked from the same comparisons."
        )

    def describe(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "question": self.question,
            "tests": {test: TESTS[test] for test in self.tests},
            "choice": self.choice.name,
            "answer": self.sentence(),
            "uncertainty": self.uncertainty(),
            "models": self.ranking.models,
            "comparisons": self.ranking.comparisons,
            "ranking": [
                {**dataclasses.asdict(r), "cost": self.cost[r.name]} | _finite(r)
                for r in self.ranking.ranked
            ],
        }


def _finite(ranked: Ranked) -> dict[str, Any]:
    return {key: None for key in ("low", "high") if np.isnan(getattr(ranked, key))}


def recommend(
    table: MeasureScores, question: str = "overall", *, measures: Sequence[str] = ()
) -> list[Recommendation]:
    """Rank measures for a question: one ranking on models, one per test on an atlas.

    Args:
        table: Scores, such as `load_scores()`.
        question: One of `QUESTIONS`.
        measures: Rank only these.

    Example:
        >>> from repsim.studies.measure_benchmark import load_scores
        >>> answer = recommend(load_scores(), "damage")[0]
        >>> answer.tests, 0.5 < answer.choice.score <= 1
        (('noise',), True)
    """
    if question not in QUESTIONS:
        raise unknown_name("question", question, QUESTIONS)
    rows = [row for row in table.rows() if not measures or row["measure"] in measures]
    there = {row["test"] for row in rows}
    tests = [test for test in QUESTIONS[question].tests if test in there]
    on_models = tuple(test for test in tests if not test.startswith("atlas_"))
    chosen = [*([on_models] if on_models else []), *((t,) for t in tests if t not in on_models)]
    if not chosen:
        raise UsageError(
            f"the table holds nothing for '{question}'"
            + (f" on {', '.join(measures)}" if measures else ""),
            hint=f"needed: {', '.join(QUESTIONS[question].tests)}",
        )
    cost = {row["measure"]: row["cost"] for row in rows}
    return [Recommendation(question, group, rank_rows(rows, group), cost) for group in chosen]
