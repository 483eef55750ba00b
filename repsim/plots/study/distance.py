"""How far parents moved apart against what their merge kept, where they share initial weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from repsim.core.atlas import Atlas
from repsim.core.errors import UsageError
from repsim.plots.appearance import Size
from repsim.plots.names import number
from repsim.plots.study.features import WEIGHTS, measured_pairs
from repsim.stats.bootstrap import Estimate, spearman_estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: With fewer pairs than this no correlation is stated.
LEAST_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class DistancePanel:
    """One feature of weights.

    Attributes:
        feature: Its name.
        label: For people.
        settings: Setting of each pair.
        values: The feature.
        retention: Retention of the worst language of the plain mean.
        correlation: Rank correlation of both; None for too few pairs.
    """

    feature: str
    label: str
    settings: tuple[str, ...]
    values: np.ndarray
    retention: np.ndarray
    correlation: Estimate | None


@dataclasses.dataclass(frozen=True)
class DistanceData:
    """Everything that the figure shows.

    Attributes:
        panels: One per feature.
        title, note: Heading, and pieces of the grey line.
    """

    panels: tuple[DistancePanel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown, and rank correlations."""
        words = [
            f"{panel.label}: {correlation_words(panel.correlation)} over {len(panel.values)} pairs"
            for panel in self.panels
            if panel.correlation is not None
        ]
        return (
            "Retention of the worst language of the plain mean of two models that share initial "
            "weights, against how far their weights lie apart. Rank correlation with its 95 % "
            f"interval over models: {'; '.join(words) or 'too few pairs'}."
        )


def correlation_words(found: Estimate | None) -> str:
    """A rank correlation in words.

    Example:
        >>> correlation_words(Estimate(-0.8, -0.9, -0.6, 9, 30))
        'ρ = −0.80 [−0.90, −0.60]'
    """
    if found is None:
        return "too few pairs"
    ends = f" [{number(found.low)}, {number(found.high)}]" if found.low == found.low else ""
    return f"ρ = {number(found.value)}{ends}"


def prepare_distance(
    atlas: Atlas, features: tuple[str, ...] = ("weight_distance", "update_size")
) -> DistanceData:
    """Distance of weights against retention, inside shared initial weights.

    Args:
        atlas: What a study found.
        features: Features of weights, keys of `WEIGHTS`; those that were not measured are left out.

    Raises:
        UsageError: None was measured.

    Example:
        >>> from repsim.testing.atlases import planted_atlas
        >>> prepare_distance(planted_atlas()).panels[0].feature
        'weight_distance'
    """
    everything, panels = measured_pairs(atlas), []
    for feature in features:
        pairs = [pair for pair in everything
                 if pair.outcome.shared_init and feature in pair.values]  # fmt: skip
        if not pairs:
            continue
        values = np.array([pair.values[feature] for pair in pairs])
        retention = np.array([pair.outcome.worst for pair in pairs])
        parents = [pair.outcome.parents for pair in pairs]
        enough = len(pairs) >= LEAST_PAIRS
        panels.append(
            DistancePanel(
                feature=feature,
                label=WEIGHTS[feature],
                settings=tuple(pair.outcome.setting for pair in pairs),
                values=values,
                retention=retention,
                correlation=spearman_estimate(values, retention, parents) if enough else None,
            )
        )
    if not panels:
        raise UsageError("no pair of shared initial weights has features of its weights")
    return DistanceData(
        panels=tuple(panels),
        title="How far models moved apart, and what their mean keeps",
        note=("pairs that share initial weights",),
    )


def plot_distance(atlas: Atlas, *, size: Size = "wide") -> Figure:
    """Draw retention against distance of weights; see `prepare_distance`."""
    from repsim.plots.drawing.study.distance import draw_distance

    return draw_distance(prepare_distance(atlas), size=size)
