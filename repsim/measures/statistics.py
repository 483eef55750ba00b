"""What is computed beside each value of a sweep, and how a report says it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from repsim.core import Measure, UsageError
from repsim.measures.intervals import LEAST_GROUPS
from repsim.measures.null import LEAST_FITTED, LEAST_FOR_COUNT, LEAST_FOR_QUANTILE, MOST_PAIRED

Unit = Literal["sentence", "document"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What is computed beside each value.

    Attributes:
        permutations: Shuffles of the null of measures whose pairs are cheap; 0 for no null.
        permutations_expensive: At most so many for expensive measures, at matched depth only. Of
            fewer than 40 the 95 % quantile is that of a normal distribution, of fewer than 19 p is
            Student's prediction of a further shuffle, from their mean and standard deviation.
        groups: Groups of sentences or documents that the jackknife leaves out in turn, where there
            is no closed form; 0 for no intervals.
        groups_expensive: At most so many for expensive measures.
        level: Nominal coverage of the intervals.
        unit: What shuffles move and intervals leave out: "document" where the text has documents
            (else its sentences), or "sentence" as if all were independent.
        covariates: Covariates that the `partial` value is taken without; empty for none.
        seed: Seed of shuffles and groups.
        thorough_partial: Null and interval of the partial value for all measures, not only for
            those whose jackknife has a closed form.
        ceiling: Split halves of documents: how high the value could be.

    Raises:
        UsageError: A number that is not possible.

    Example:
        >>> Statistics(permutations=200).describe()["shuffles"]
        200
        >>> Statistics.off().permutations
        0
    """

    permutations: int = 100
    permutations_expensive: int = 10
    groups: int = 20
    groups_expensive: int = 10
    level: float = 0.95
    unit: Unit = "document"
    covariates: tuple[str, ...] = ("log_length",)
    seed: int = 0
    thorough_partial: bool = False
    ceiling: bool = True

    def __post_init__(self) -> None:
        if min(self.permutations, self.permutations_expensive) < 0:
            raise UsageError("the number of permutations is negative", hint="0 for no null")
        if self.groups and min(self.groups, self.groups_expensive) < LEAST_GROUPS:
            raise UsageError(
                f"{min(self.groups, self.groups_expensive)} groups are too few",
                hint=f"groups=0 for no intervals, else at least {LEAST_GROUPS}",
            )
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level} is not between 0 and 1", hint="level=0.95")
        if self.unit not in get_args(Unit):
            raise UsageError(f"unit '{self.unit}' is not possible", hint="sentence or document")

    @classmethod
    def off(cls) -> Statistics:
        """Values only."""
        return cls(permutations=0, permutations_expensive=0, groups=0, covariates=(), ceiling=False)

    def shuffles(self, measure: Measure) -> int:
        """How many permutations a measure gets."""
        fewer = min(self.permutations, self.permutations_expensive)
        return fewer if measure.is_expensive else self.permutations

    def left_out(self, measure: Measure) -> int:
        """How many groups a measure's jackknife leaves out."""
        return min(self.groups, self.groups_expensive) if measure.is_expensive else self.groups

    def describe(self, unit: Unit = "sentence") -> dict[str, Any]:
        """What reports and figures state (JSON-able); `unit` is the one that there was."""
        interval = "jackknife" if self.groups else None
        return {
            **dataclasses.asdict(self),
            "covariates": list(self.covariates),
            "shuffles": self.permutations,
            "interval": interval,
            "interval_unit": f"{unit}s",
            "description": self._in_words(unit),
        }

    def _in_words(self, unit: Unit) -> str:
        parts = []
        if self.permutations:
            fewer = min(self.permutations, self.permutations_expensive)
            parts.append(
                f"Null: the {unit}s of one side shuffled {self.permutations} times, the same "
                "shuffles for all layers of a pair; p_adjusted compares with the best of all layer "
                f"pairs. Measures that need a decomposition for each pair: {fewer} shuffles at "
                f"matched depth. Under {LEAST_FOR_QUANTILE} shuffles the 95 % quantile is that of "
                f"a normal distribution; under {LEAST_FOR_COUNT} p, never under {LEAST_FITTED}, is "
                "Student's prediction of a further shuffle from their mean and standard deviation."
            )
            if unit == "sentence":
                parts.append(
                    "Debiased CKA is not shuffled: its p and quantile are those of the gamma "
                    "distribution with the mean, variance and skewness of all shuffles, "
                    "p_adjusted is Holm's."
                )
        if self.groups:
            parts.append(
                f"Intervals: {100 * self.level:g} %, jackknife over {unit}s (closed form, with "
                "the rotation, matching or canonical directions of all; where there is none, "
                f"{self.groups} groups left out in turn, "
                f"{min(self.groups, self.groups_expensive)} where each pair needs a "
                "decomposition), for the value at this number of sentences."
            )
        if unit == "document":
            parts.append(
                "Debiased CKA and RSA leave out pairs of sentences of one document. Documents of "
                "different length change places with others of like length, and stay where there "
                "are none; blocks that run on into one another are shifted as one sequence. For "
                "debiased CKA and unit-wise correlation what each document contributes changes its "
                f"sign at random instead; over {MOST_PAIRED:,} sentences, debiased CKA draws signs "
                "of random documents with so many, and takes the spread to the size of the whole."
            )
        if self.covariates:
            names = ", ".join(self.covariates)
            parts.append(f"Partial values: {names} of both sides regressed out of every unit.")
        return " ".join(parts) or "Values only: no null, no intervals, no covariates removed."
