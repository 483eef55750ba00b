"""Features of a group of parents: what they are called, what they mean, what a tier hands back."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Literal

from repsim.core.registry import Registry

Tier = Literal["T0", "T1", "T2", "T3", "oracle"]

#: Modules of this package that declare features when they are imported.
DECLARING = ("metadata", "weight_specs", "ladder", "outputs", "gradients", "oracle")


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Declaration of a feature; every feature that is ever emitted has one.

    Attributes:
        name: Name in tables.
        tier: What it needs: T0 configs and provenance, T1 weights, T2 activations on text, T3
            gradients; "oracle" evaluates a merge.
        label: Name for people.
        definition: The formula in words.
        per_language: Whether there is one value per language.
        scale_free: Whether it means the same at any number of parameters.
        direction: +1 if larger merges better by theory, -1 if worse, 0 for no claim.
        source: Where it comes from.
    """

    name: str
    tier: Tier
    label: str
    definition: str
    per_language: bool
    scale_free: bool
    direction: int
    source: str


@dataclasses.dataclass(frozen=True)
class FeatureValue:
    """One measured feature.

    Attributes:
        feature: Name of the feature.
        value: Its value; NaN where it is not defined or not known.
        language: Language that it was measured in; empty if it concerns all.
    """

    feature: str
    value: float
    language: str = ""


@dataclasses.dataclass(frozen=True)
class TierResult:
    """What one tier says of a group of parents.

    Attributes:
        tier: Name of the tier.
        values: Features.
        seconds: Processor time that they took.
        notes: What a reader should know: what was skipped or sampled, and why.
    """

    tier: str
    values: tuple[FeatureValue, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, float]:
        """Values by feature; "feature@language" where there is a language.

        Example:
            >>> TierResult("T0", (FeatureValue("k", 2.0),), 0.1).as_dict()
            {'k': 2.0}
        """
        return {
            f"{value.feature}@{value.language}" if value.language else value.feature: value.value
            for value in self.values
        }


class _Features(Registry[FeatureSpec]):
    """Specs by name; the modules that declare them are imported when one is asked for."""

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for module in DECLARING:
            importlib.import_module(f"repsim.mergeability.features.{module}")


#: Every feature there is. `FEATURES[name]`, `FEATURES.names()`.
FEATURES: Registry[FeatureSpec] = _Features("feature", entry_point_group="repsim.features")


def declare(*specs: FeatureSpec) -> tuple[str, ...]:
    """Register features and return their names.

    Args:
        specs: Declarations.

    Raises:
        DuplicateNameError: Another feature has that name.

    Example:
        >>> FEATURES["k"].tier
        'T0'
    """
    for spec in specs:
        FEATURES.add(spec.name, spec)
    return tuple(spec.name for spec in specs)
