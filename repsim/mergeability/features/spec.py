"""A feature of a group of parents as data, a measured value, and what a tier hands back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

TierName = Literal["T0", "T1", "T2", "T3", "oracle"]
#: Which of several pairs or parents is the worst; "" where none is told beside the mean.
Worst = Literal["", "least", "most"]
#: Note of weights that were measured without a base.
WITHOUT_BASE = "no base: update size and interference are relative to the mean of the models"


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Declaration of a feature; every feature that is ever emitted has one."""

    name: str  # in tables
    tier: TierName  # that computes it; see `TIERS`
    label: str  # for people
    definition: str  # the formula in words
    per_language: bool  # whether there is one value per language
    direction: int  # +1 if larger merges better by theory, -1 if worse, 0 for no claim
    source: str  # where it comes from
    worst: Worst = ""  # which pair or parent `NAME_worst` beside the mean is of, if it is there
    #: "measured" if the predictor uses it; "languages" or "history" if it does where all parents
    #: state these.
    use: Literal["", "measured", "languages", "history"] = ""
    shown: bool = False  # whether its value is laid out where no forecast can be given
    flag: bool = False  # whether 1 and 0 mean yes and no
    #: Alignment -> the measured feature that this one is after it: a merge averages the parents as
    #: they are once aligned. Empty for a feature that is measured itself.
    by_alignment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partly: bool = False  # whether it may be known for some alignments only
    of_recipe: bool = False  # whether the parameters of the merge tell it, and no measurement


@dataclasses.dataclass(frozen=True)
class FeatureValue:
    """One measured feature."""

    feature: str
    value: float  # NaN where it is not defined or not known
    language: str = ""  # empty if it concerns all


@dataclasses.dataclass(frozen=True)
class TierResult:
    """What one tier says of a group of parents."""

    tier: str
    values: tuple[FeatureValue, ...]
    seconds: float  # of the processor; a model loaded for two tiers counts for the first
    notes: tuple[str, ...] = ()  # what was skipped or sampled, and why

    def as_dict(self) -> dict[str, float]:
        """Values by feature; "feature@language" where there is a language."""
        return {
            f"{value.feature}@{value.language}" if value.language else value.feature: value.value
            for value in self.values
        }
